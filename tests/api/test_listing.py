"""Windows and saved responses to listed paths."""

import asyncio
import gzip
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from etl.api.auth import Anonymous
from etl.api.listing import Listing, list_windows, read_listing, require_an_answer
from etl.config.sections import ApiSettings, RetrySettings
from etl.model.errors import RunError
from etl.model.times import Window, to_millis
from tests.api.servers import Answer, serving, transport

START = datetime(2022, 6, 1, tzinfo=UTC)
DAYS = list(Window(START, START + timedelta(days=3)).cut(timedelta(days=1)))
RETRY = RetrySettings(server_delays=(0, 0))


def answering(answer: Callable[[int], web.Response]) -> AbstractAsyncContextManager[Answer]:
    """Serve the listing of each window by its number, from 0."""

    async def handle(request: web.Request) -> web.Response:
        start_ms = int(request.query["fromMillis"])
        return answer((start_ms - int(START.timestamp() * 1000)) // 86_400_000)

    return serving(handle)


def files(*paths: Any, status: int = 200) -> web.Response:
    return web.json_response({"files": list(paths)}, status=status)


async def listed(answer: Callable[[int], web.Response], **how: Any) -> Listing:
    listing = Listing()
    async with answering(answer) as server, transport(retry=RETRY) as opened:
        url = f"{server.url}/api/account/a1/agent-segments/breakdown"
        await list_windows(opened, Anonymous(), url, ApiSettings(**how), DAYS, listing)
    return listing


async def test_windows_in_their_order_each_path_once() -> None:
    """Entries come in the order of the windows, and a path that is listed twice counts once."""
    result = await listed(lambda day: files(f"/{day}", "/0"))
    assert (["/0", "/1", "/2"], 3) == (list(result.entries), result.requests)


async def test_a_failed_listing_shows_what_was_answered() -> None:
    """The report of a failed run counts its requests too."""
    listing = Listing()
    last = asyncio.Event()

    async def handle(request: web.Request) -> web.Response:
        if int(request.query["fromMillis"]) == to_millis(DAYS[2].start):
            await last.wait()
            return web.Response(status=400)
        return web.Response(status=404)

    async def others() -> None:
        while len(listing.empty_windows) < 2:  # noqa: ASYNC110 - no event says so
            await asyncio.sleep(0)
        last.set()

    async with serving(handle) as server, transport(retry=RETRY) as opened:
        with pytest.raises(RunError, match="400"):
            await asyncio.gather(
                list_windows(opened, Anonymous(), server.url, ApiSettings(), DAYS, listing),
                others(),
            )
    assert ([*DAYS[:2]], 3) == (listing.empty_windows, listing.requests)


async def test_empty_and_partial_windows_are_named() -> None:
    """404 is an empty window, 206 a partial one, whose paths are listed."""
    answers = {0: files("/0"), 1: files("/1", status=206), 2: web.Response(status=404)}
    result = await listed(answers.__getitem__)
    assert (["/0", "/1"], [DAYS[1]], [DAYS[2]]) == (
        list(result.entries),
        result.partial_windows,
        result.empty_windows,
    )


async def test_what_is_no_text_is_kept_as_its_json() -> None:
    """It becomes an invalid path: no entry is lost."""
    result = await listed(lambda _: files("/a", 7, None, {"b": [1]}))
    assert ["/a", "7", "null", '{"b": [1]}'] == list(result.entries)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>", "a web page"),
        (gzip.compress(b"<html>"), "a web page"),
        (b"[]", "no list of files"),
        (b"{}", "no list of files"),
        (b'{"files": null}', "no list of files"),
        (b'{"files": "/a"}', "no list of files"),
        (b'{"files": ["/a"', "not JSON"),
    ],
)
@pytest.mark.parametrize("status", [200, 206])
async def test_an_answer_that_is_not_the_apis_is_never_an_empty_window(
    body: bytes, said: str, status: int
) -> None:
    """The window is retried and then unanswered; the others are listed."""

    def answer(day: int) -> web.Response:
        return web.Response(body=body, status=status) if day == 1 else files(f"/{day}")

    result = await listed(answer)
    assert (["/0", "/2"], 5) == (list(result.entries), result.requests)
    assert ([], []) == (result.empty_windows, result.partial_windows)
    ((window, error),) = result.unanswered.items()
    assert (DAYS[1], True) == (window, said in error.message)


@pytest.mark.parametrize(
    ("body", "said"), [(b"", "without a body"), (b"\x1f\x8b\x08", "ends too early")]
)
async def test_a_damaged_answer_fails_the_listing(body: bytes, said: str) -> None:
    """It may be the API's: the listing fails with the window's time and the reason."""
    with pytest.raises(RunError, match=rf"listing 2022-06-02T00:00:00Z to .*{said}"):
        await listed(lambda day: web.Response(body=body) if day == 1 else files("/a"))


VENDORS_404 = [
    b"",
    b" \r\n",
    b"{}",
    b'{"message": "no such thing"}',
    b"No paths were found in hdfs for the given timeframe",
    b"<html>no paths were found in hdfs</html>",
    gzip.compress(b'{"message": "Nothing"}'),
]
FOREIGN_404 = [
    b"default backend - 404",
    b"<html><h1>Error response</h1>",
    b"[]",
    b'"no"',
    b"null",
    b'{"message": ',
    b"[" * 9000,
    gzip.compress(b"<html>"),
]


@pytest.mark.parametrize("body", VENDORS_404)
async def test_a_404_that_can_be_the_vendors_is_an_empty_window(body: bytes) -> None:
    """No body, a JSON object, or the documented words; it is not retried."""
    answer = web.Response
    result = await listed(lambda day: answer(status=404, body=body) if day == 1 else files("/a"))
    assert ([DAYS[1]], {}, 3) == (result.empty_windows, result.unanswered, result.requests)


@pytest.mark.parametrize("body", FOREIGN_404)
async def test_any_other_404_is_no_answer(body: bytes) -> None:
    """It is retried like a 5xx; with `any_404_is_empty` it is an empty window at once."""

    def answer(day: int) -> web.Response:
        return web.Response(status=404, body=body) if day == 1 else files("/a")

    result = await listed(answer)
    assert ([], [DAYS[1]], 5) == (result.empty_windows, list(result.unanswered), result.requests)
    assert "404, but not the vendor's" in result.unanswered[DAYS[1]].message
    result = await listed(answer, any_404_is_empty=True)
    assert ([DAYS[1]], {}, 3) == (result.empty_windows, result.unanswered, result.requests)


async def test_a_single_foreign_404_is_retried() -> None:
    """The next response counts."""
    stray = [web.Response(status=404, text="default backend - 404")]
    result = await listed(lambda day: stray.pop() if day == 1 and stray else files(f"/{day}"))
    assert (["/0", "/1", "/2"], {}, []) == (
        list(result.entries),
        result.unanswered,
        result.empty_windows,
    )


async def test_a_listing_that_nobody_answered_is_an_error() -> None:
    """The error names the first window and its response; one answered window is enough."""
    result = await listed(lambda _: web.Response(status=404, text="default backend - 404"))
    with pytest.raises(RunError, match=r"^listing 2022-06-01T00.*'default backend - 404'.*check"):
        require_an_answer(result, DAYS)
    require_an_answer(await listed(lambda day: files() if day else web.Response(text="x")), DAYS)
    require_an_answer(Listing(), [])


@pytest.mark.parametrize("status", [201, 204, 301, 400, 401, 403, 410, 500, 503])
async def test_other_statuses_fail(status: int) -> None:
    """Only 200, 206 and 404 are about files."""
    with pytest.raises(RunError, match=str(status)):
        await listed(lambda _: web.Response(status=status))


async def test_the_causes_of_a_400_are_shown() -> None:
    """The error also says what to check."""
    refusal = web.json_response({"causes": ["too old"], "message": "Bad"}, status=400)
    with pytest.raises(RunError, match=r"400: Bad; too old; check the window"):
        await listed(lambda _: refusal)


PATHS = st.lists(st.text(st.characters(exclude_characters="\n\r{ \t\ufeff"), min_size=1))


@given(PATHS)
def test_lines(paths: list[str]) -> None:
    """One path a line, with either line end, with or without one after the last."""
    for end in ("\n", "\r\n"):
        for text in (end.join(paths), "".join(path + end for path in paths)):
            assert list(dict.fromkeys(paths)) == list(read_listing(text).entries)


@given(st.lists(PATHS, min_size=1), st.sampled_from(["", "\n", " \r\n\t", "\n\n"]))
def test_saved_answers(answers: list[list[str]], between: str) -> None:
    """Any number of answers, one after another."""
    text = between.join(json.dumps({"timeframe": {}, "files": paths}) for paths in answers)
    flat = [path for paths in answers for path in paths]
    assert list(dict.fromkeys(flat)) == list(read_listing("\ufeff" + text + between).entries)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"files": ["/a"', "not JSON at character 0"),
        ('{"files": []}\n{"files": [', "not JSON at character 14"),
        ('{"files": []} /a', "not JSON at character 14"),
        ('{"paths": []}', "character 0: the answer has no list of files"),
        ('{"files": []}[]', "character 13: the answer has no list of files"),
        ("{" * 100_000, "not JSON"),
    ],
)
def test_half_a_saved_answer_is_an_error(text: str, said: str) -> None:
    """It is not read as a shorter list."""
    with pytest.raises(RunError, match=said):
        read_listing(text)


def test_nothing_is_an_empty_listing() -> None:
    """An empty file lists nothing."""
    assert [{}, {}] == [read_listing("").entries, read_listing(" \n\r\n").entries]
