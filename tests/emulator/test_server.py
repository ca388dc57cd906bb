"""The emulator responds as the vendor documents, with faults on request."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from oauthlib import oauth1
from yarl import URL

from etl.emulator import Dataset, Emulator, EmulatorOptions, Fault
from etl.emulator.behaviour import KEYS
from etl.model.times import Window, to_millis

START, END = datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 6, 2, tzinfo=UTC)
NOW = datetime(2022, 6, 20, tzinfo=UTC)
DATA = Dataset.generate(3, START, END, rows_per_file=5)
PATH = next(iter(DATA.files))
DAY = f"fromMillis={to_millis(START)}&toMillis={to_millis(END)}"


class Caller:
    """Sends requests to one emulator without the project's client."""

    def __init__(self, emulator: Emulator, session: aiohttp.ClientSession) -> None:
        self.emulator = emulator
        self._session = session

    def url(self, call: str, query: str) -> str:
        return f"{self.emulator.base_url}/api/account/le79344075/{call}?{query}"

    async def get(self, url: str, authorization: str | None = None) -> tuple[int, Any]:
        headers = {"Authorization": authorization} if authorization else {}
        async with self._session.get(URL(url, encoded=True), headers=headers) as response:
            body = await response.read()
            is_json = response.content_type == "application/json"
            return response.status, await response.json() if is_json else body

    async def listing(self, query: str) -> tuple[int, Any]:
        return await self.get(self.url("agent-segments/breakdown", query))

    async def file(self, query: str, authorization: str | None = None) -> tuple[int, Any]:
        return await self.get(self.url("agent-segments/files", query), authorization)

    async def token(self, **form: str) -> tuple[int, Any]:
        url = f"{self.emulator.base_url}/sentinel/api/v2/account/le79344075/app/token"
        async with self._session.post(url, data=form) as response:
            return response.status, await response.json()


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Caller]:
    with_now = EmulatorOptions(**{"now": NOW, **options})
    async with (
        Emulator(DATA, with_now) as emulator,
        aiohttp.ClientSession(auto_decompress=False) as session,
    ):
        yield Caller(emulator, session)


async def test_a_listing_and_a_file() -> None:
    """Each listed path serves its file's bytes."""
    async with serving() as call:
        status, answer = await call.listing(f"{DAY}&source=x")
        arrived = [f.path for f in DATA.files.values() if f.available_from_ms <= to_millis(NOW)]
        assert (200, arrived) == (status, answer["files"])
        assert {
            "startTime": "2022-06-01T00:00:00Z",
            "endTime": "2022-06-02T00:00:00Z",
            "startTimeL": str(to_millis(START)),
            "endTimeL": str(to_millis(END)),
        } == answer["timeframe"]
        assert (200, DATA.files[PATH].content) == await call.file(f"path={PATH}&source=x")


@pytest.mark.parametrize(
    "query",
    [
        "from=2022-06-01T00:00:00Z&to=2022-06-02T00:00:00Z",
        f"from=2022-06-01T00:00:00Z&toMillis={to_millis(END)}",
        f"fromMillis={to_millis(START)}",
        f"toMillis={to_millis(END)}",
    ],
)
async def test_forms_of_a_window(query: str) -> None:
    """Epoch milliseconds or RFC 3339; with one end only, the window is a day."""
    async with serving() as call:
        status, answer = await call.listing(f"{query}&source=x")
        assert (200, "2022-06-01T00:00:00Z", "2022-06-02T00:00:00Z") == (
            status,
            answer["timeframe"]["startTime"],
            answer["timeframe"]["endTime"],
        )


@pytest.mark.parametrize(
    ("query", "cause"),
    [
        (DAY, "source"),
        (f"{DAY}&source=", "source"),
        (f"{DAY}&source=a-b", "source"),
        (f"{DAY}&source={'a' * 21}", "source"),
        (f"{DAY}&from=2022-06-01T00:00:00Z&source=x", "both"),
        (f"fromMillis=1.5&toMillis={to_millis(END)}&source=x", "epoch"),
        ("from=yesterday&source=x", "RFC 3339"),
        (f"fromMillis={to_millis(END)}&toMillis={to_millis(START)}&source=x", "before"),
        (f"fromMillis={to_millis(START)}&toMillis={to_millis(END) + 1}&source=x", "longer"),
        ("from=2022-05-01T00:00:00Z&to=2022-05-02T00:00:00Z&source=x", "older"),
    ],
)
async def test_listings_that_are_the_callers_mistake(query: str, cause: str) -> None:
    """They get a 400 with its causes."""
    async with serving() as call:
        status, answer = await call.listing(query)
        assert status == 400
        assert cause in answer["causes"][0]


async def test_windows_without_paths_and_partial_ones() -> None:
    """A window without files gets 404, one with missing paths 206."""
    partial = Window(START, START + timedelta(hours=1))
    async with serving(partial=(partial,), numeric_timeframe=True) as call:
        empty = "from=2022-06-05T00:00:00Z&to=2022-06-06T00:00:00Z&source=x"
        assert (await call.listing(empty))[0] == 404
        status, answer = await call.listing(f"{DAY}&source=x")
        assert (206, to_millis(START)) == (status, answer["timeframe"]["startTimeL"])


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("source=x", 400),
        (f"path={PATH}", 400),
        (f"path={PATH}%0A&source=x", 400),
        (f"path={PATH.replace('2022', '%D9%A2%D9%A0%D9%A2%D9%A2')}&source=x", 400),
        ("path=/../../etc/passwd&source=x", 400),
        (f"path={PATH.replace('sequences', 'other')}&source=x", 404),
        (f"path={PATH.replace('/', '%2F').replace('=', '%3D')}&source=x", 200),
    ],
)
async def test_paths_that_are_asked_for(query: str, status: int) -> None:
    """The whole path must match the documented pattern; an unknown file gets 404."""
    async with serving() as call:
        assert (await call.file(query))[0] == status


async def test_a_file_that_has_not_arrived() -> None:
    """It is neither listed nor served before the time it is written."""
    late = max(DATA.files.values(), key=lambda file: file.available_from_ms)
    before = datetime.fromtimestamp(late.available_from_ms / 1000 - 1, UTC)
    async with serving(now=before, oldest=None) as call:
        assert late.path not in (await call.listing(f"{DAY}&source=x"))[1]["files"]
        assert (await call.file(f"path={late.path}&source=x"))[0] == 404


async def test_the_domain_api() -> None:
    """It returns one service by name, or all; an unknown one gets 404."""
    async with serving() as call:
        host = call.emulator.base_url.removeprefix("http://")
        expected = {"service": "sentinel", "account": "le79344075", "baseURI": host}
        url = call.url("service/sentinel/baseURI.json", "version=1.0")
        assert (200, expected) == await call.get(url)
        status, answer = await call.get(call.url("service/baseURI.json", "version=1.0"))
        assert (200, ["agentActivityDomain", "sentinel"]) == (
            status,
            [entry["service"] for entry in answer["baseURIs"]],
        )
        unknown = call.url("service/unknown/baseURI.json", "version=1.0")
        assert (await call.get(unknown))[0] == 404
        assert (await call.get(call.url("service/sentinel/baseURI.json", "")))[0] == 400


def signed(emulator: Emulator, url: str, **changes: str) -> str:
    keys = {**emulator.keys, **changes}
    client = oauth1.Client(
        keys["consumer_key"],
        client_secret=keys["consumer_secret"],
        resource_owner_key=keys["access_token"],
        resource_owner_secret=keys["access_token_secret"],
        timestamp=keys.get("timestamp"),
    )
    return str(client.sign(url)[1]["Authorization"])


async def test_signatures_are_verified() -> None:
    """A signature is valid once; wrong keys, another query or no signature are refused."""
    async with serving(auth="oauth1") as call:
        query = f"path={PATH}&source=x"
        url = call.url("agent-segments/files", query)
        good = signed(call.emulator, url)
        assert (await call.file(query, good))[0] == 200
        assert (401, "oauth_problem=nonce_used") == await refused(call, query, good)
        for name in call.emulator.keys:
            header = signed(call.emulator, url, **{name: "wrong"})
            assert (401, "oauth_problem=signature_invalid") == await refused(call, query, header)
        other = signed(call.emulator, url + "&more=1")
        assert (401, "oauth_problem=signature_invalid") == await refused(call, query, other)
        for foreign in (None, "Bearer x", "OAuth x"):
            assert (401, "oauth_problem=parameter_absent") == await refused(call, query, foreign)
        late = signed(call.emulator, url, timestamp="1654041600")
        assert (401, "oauth_problem=timestamp_refused") == await refused(call, query, late)


async def refused(call: Caller, query: str, header: str | None) -> tuple[int, str]:
    status, answer = await call.file(query, header)
    return status, answer["reason"]


async def test_tokens_are_verified() -> None:
    """Only the right keys get a token, which is valid until it expires or is revoked."""
    async with serving(auth="oauth2", token_life_s=3600) as call:
        keys = call.emulator.keys
        grant = {"grant_type": "client_credentials"}
        assert (await call.token(**{**keys, **grant, "client_secret": "x"}))[0] == 401
        assert (await call.token(**keys))[0] == 400
        status, answer = await call.token(**keys, **grant)
        assert (200, "Bearer", 3600) == (status, answer["token_type"], answer["expires_in"])
        bearer = f"Bearer {answer['access_token']}"
        query = f"path={PATH}&source=x"
        assert (await call.file(query, bearer))[0] == 200
        assert (401, "token missing") == await refused(call, query, None)
        call.emulator.revoke_tokens()
        assert (401, "token invalid") == await refused(call, query, bearer)
        call.emulator.options = EmulatorOptions(auth="oauth2", now=NOW, token_life_s=-1)
        _, answer = await call.token(**keys, **grant)
        ended = f"Bearer {answer['access_token']}"
        assert (401, "token invalid") == await refused(call, query, ended)


async def test_too_many_at_once() -> None:
    """More requests in flight than allowed get 429 with Retry-After."""
    async with serving(max_concurrent=2, latency_s=0.2, retry_after="7") as call:
        query = f"path={PATH}&source=x"
        answers = await asyncio.gather(*(call.file(query) for _ in range(6)))
        assert [200] * 2 + [429] * 4 == sorted(status for status, _ in answers)
        # A refused request ends at once, so there is never more than one.
        assert 3 == call.emulator.most_at_once


async def test_too_many_a_second() -> None:
    """A burst above the rate gets 429."""
    async with serving(rate=0.001) as call:
        statuses = [(await call.file(f"path={PATH}&source=x"))[0] for _ in range(3)]
        assert [200, 429, 429] == statuses
        assert (1, 2) == (call.emulator.count("file", 200), call.emulator.count(status=429))


@pytest.mark.parametrize("encoding", ["declared", "on_top", "plain"])
async def test_encodings(encoding: str) -> None:
    """Each encoding sends the same file."""
    async with serving(encoding=encoding) as call:
        _, body = await call.file(f"path={PATH}&source=x")
        content = DATA.files[PATH].content
        expected = {"declared": content, "plain": gzip.decompress(content)}
        assert (gzip.decompress(body) if encoding == "on_top" else body) == expected.get(
            encoding, content
        )


async def test_faults_come_as_often_as_asked() -> None:
    """A fault applies to one endpoint, or one file of it, for a number of requests."""
    faults = (
        Fault("file", "status", path=PATH, times=2, status=503),
        Fault("file", "html", path=list(DATA.files)[1], times=None),
        Fault("listing", "reset_before"),
    )
    async with serving(faults=faults) as call:
        query = f"path={PATH}&source=x"
        assert [503, 503, 200] == [(await call.file(query))[0] for _ in range(3)]
        for _ in range(3):
            _, page = await call.file(f"path={list(DATA.files)[1]}&source=x")
            assert b"<html>" in page
        # aiohttp sends a GET again that got no response; the second one gets it.
        assert (await call.listing(f"{DAY}&source=x"))[0] == 200
        assert 2 == call.emulator.count("listing")


@pytest.mark.parametrize("kind", ["reset_middle", "short", "chunked_cut"])
async def test_answers_that_break_off(kind: str) -> None:
    """The client's library reports the broken connection."""
    async with serving(faults=(Fault("file", kind),)) as call:  # type: ignore[arg-type]
        with pytest.raises(aiohttp.ClientError):
            await call.file(f"path={PATH}&source=x")


async def test_another_account_is_refused() -> None:
    """The API responds with 401, the Domain API and the token server with 404."""
    async with serving(account="a1") as call:
        assert (401, "oauth_problem=permission_denied") == await refused(
            call, f"path={PATH}&source=x", None
        )
        assert (await call.listing(f"{DAY}&source=x"))[0] == 401
        service = "service/agentActivityDomain/baseURI.json"
        assert (await call.get(call.url(service, "version=1.0")))[0] == 404
        assert (await call.token(grant_type="client_credentials", **KEYS["oauth2"]))[0] == 404
    async with serving(account="le79344075") as call:
        assert (await call.listing(f"{DAY}&source=x"))[0] == 200
