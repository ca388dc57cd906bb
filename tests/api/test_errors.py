"""What error responses mean: OAuth's problems, the clock, Retry-After, the retry policy."""

import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web

from etl.api.auth import Anonymous
from etl.api.errors import Attempts, UnauthorizedError, retry_after_s
from etl.config.settings import Redactor
from etl.model.errors import FailureKind, FileError
from tests.api.servers import serving, transport

NOW = datetime(2022, 6, 1, 12, tzinfo=UTC)
PERMISSION = "Data > Workforce Management > Agent Activity API"


class Keys(Anonymous):
    """Authentication with some keys."""

    async def header(self, url: str) -> str:  # type: ignore[override]
        return "OAuth oauth_consumer_key=x"


async def refusal(auth: Anonymous | None = None, **answer: Any) -> str:
    """Return the error's message for a 401 with this body and these headers."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=401, **answer)

    redactor = Redactor(["secret-of-the-keys"])
    async with serving(handle) as server, transport(redactor=redactor) as opened:
        with pytest.raises(UnauthorizedError) as caught:
            async with opened.get(server.url, auth or Keys()):
                pass
    assert caught.value.resends == 0
    return caught.value.message


ADVICE = "oauth_problem=token_rejected&oauth_problem_advice=The%20token%20is%20gone%21"


@pytest.mark.parametrize(
    "answer",
    [
        {"body": b'{"reason": "' + ADVICE.encode() + b'", "message": "Unauthorized"}'},
        {"text": ADVICE},
        {"body": ADVICE.encode()},
        {"text": "<p>no</p>", "headers": {"WWW-Authenticate": f"OAuth {ADVICE}"}},
        {
            "headers": {
                "WWW-Authenticate": 'OAuth realm="x", oauth_problem="token_rejected", '
                'oauth_problem_advice="The token is gone!"'
            }
        },
    ],
)
async def test_the_problem_and_its_advice_are_shown(answer: dict[str, Any]) -> None:
    """As a field of a JSON object, as plain text, or in the header."""
    message = await refusal(**answer)
    assert message.startswith("status 401: token_rejected: The token is gone!")
    assert "check auth.access_token and auth.access_token_secret" in message


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        ("token_expired", "the access token has expired: make a new one"),
        ("permission_denied", f"the keys are known but lack the permission {PERMISSION}"),
        ("signature_invalid", "check auth.consumer_secret"),
        ("consumer_key_unknown", "check auth.consumer_key"),
        ("timestamp_refused", "set its clock (NTP)"),
        ("something_else", f"the keys are wrong, or lack the permission {PERMISSION}"),
    ],
)
async def test_each_problem_says_what_to_do(problem: str, said: str) -> None:
    """Also if the server gives no advice."""
    message = await refusal(text=f"oauth_problem={problem}")
    assert message.startswith(f"status 401: {problem}; ")
    assert said in message


async def test_a_401_without_details_says_missing_or_wrong_keys() -> None:
    """Without keys, the message does not say that they are wrong."""
    assert f"status 401; the keys are wrong, or lack the permission {PERMISSION}" == await refusal()
    assert (await refusal(Anonymous())).startswith("status 401; no keys are set (auth.*)")


@pytest.mark.parametrize(
    "answer",
    [
        {"body": b'{"error": "invalid_token", "error_description": "It ended at noon"}'},
        {
            "headers": {
                "WWW-Authenticate": 'Bearer error="invalid_token", '
                'error_description="It ended at noon"'
            }
        },
    ],
)
async def test_the_errors_of_oauth_2_are_shown(answer: dict[str, Any]) -> None:
    """They are in the body (RFC 6749) or in the header (RFC 6750)."""
    message = await refusal(**answer)
    assert message.startswith("status 401: invalid_token; It ended at noon; ")
    assert "the API does not take the token" in message


async def test_foreign_text_is_made_safe() -> None:
    """The message has no control characters and no secrets in any encoding."""
    advice = "no%1b%5b31m%0a%0dsecret-of-the-keys"
    message = await refusal(text=f"oauth_problem=token_rejected&oauth_problem_advice={advice}")
    assert message.startswith("status 401: token_rejected: no [31m ***")
    assert message.isprintable()


@pytest.mark.parametrize(
    ("ahead_s", "text", "said"),
    [
        (7200, "oauth_problem=timestamp_refused", r"clock is 7,\d{3} s behind the server's"),
        (-120, "", r"besides, this machine's clock is 1[12]\d s ahead of the server's: set it"),
        (10, "", None),
        (None, "", None),
    ],
)
async def test_a_clock_that_is_wrong_is_named(
    ahead_s: int | None, text: str, said: str | None
) -> None:
    """The message has the difference to the server's clock if it is more than a minute."""
    date = "soon"
    if ahead_s is not None:
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead_s), usegmt=True)
    message = await refusal(text=text, headers={"Date": date})
    if said is None:
        assert "clock" not in message
    else:
        assert re.search(said, message)


async def test_a_cached_answer_tells_nothing_about_the_clock() -> None:
    """Its date is the time when the cache got it."""
    headers = {"Date": "Wed, 01 Jun 2022 12:00:00 GMT", "Age": "100"}
    assert "clock" not in await refusal(headers=headers)


async def test_a_401_whose_body_breaks_is_still_a_401() -> None:
    """The status is known, so the request is not retried."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=401)
        response.content_length = 100
        await response.prepare(request)
        assert request.transport is not None
        request.transport.close()
        return response

    async with serving(handle) as server, transport() as opened:
        with pytest.raises(UnauthorizedError, match=r"^status 401; the keys are wrong"):
            async with opened.get(server.url, Keys()):
                pass


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, 0),
        ("", 0),
        ("3", 3),
        (" 120 ", 120),
        ("-5", 0),
        ("soon", 0),
        ("Wed, 01 Jun 2022 12:00:30 GMT", 30),
        ("Wed, 01 Jun 2022 11:00:00 GMT", 0),
        ("Wed, 99 Jun 2022 11:00:00 GMT", 0),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999999999", 0),
    ],
)
def test_retry_after(header: str | None, expected: float) -> None:
    """Seconds and HTTP dates count; invalid values and past times do not."""
    headers = {} if header is None else {"Retry-After": header}
    assert retry_after_s(headers, NOW) == expected


@pytest.mark.parametrize("date", ["Wed, 01 Jun 2022 10:00:00 GMT", "soon", None])
def test_a_retry_after_is_by_the_servers_own_clock(date: str | None) -> None:
    """If the response has a date, this machine's clock does not matter."""
    expected = 60 if date and date.startswith("Wed") else 0
    headers = {"Retry-After": "Wed, 01 Jun 2022 10:01:00 GMT"} | ({"Date": date} if date else {})
    assert retry_after_s(headers, NOW) == expected


async def send(errors: list[FileError], delays: list[float], throttles: int) -> list[float]:
    """Send one request that meets these errors in turn; return the sleeps before retries."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    left = list(errors)
    async for attempt in Attempts(delays, throttles, sleep, lambda _e, _n: None):
        with attempt:
            if left:
                raise left.pop(0)
    return slept


def fault(kind: FailureKind, status: int | None = None) -> FileError:
    return FileError(kind, "said", status=status)


@pytest.mark.parametrize(
    "kind",
    [
        FailureKind.TIMEOUT,
        FailureKind.CONNECTION,
        FailureKind.TRUNCATED,
        FailureKind.CORRUPT,
    ],
)
async def test_retryable_errors_wait_the_vendors_delays(kind: FailureKind) -> None:
    """There is one retry for each delay."""
    assert await send([fault(kind)] * 3, [5, 10, 15], 0) == [5, 10, 15]


async def test_server_errors_are_retryable() -> None:
    """A 5xx is retried; the last error has the number of requests."""
    with pytest.raises(FileError) as caught:
        await send([fault(FailureKind.HTTP, 503)] * 4, [5, 10, 15], 0)
    assert caught.value.attempts == 4


@pytest.mark.parametrize(
    "error",
    [
        fault(FailureKind.HTTP, 400),
        fault(FailureKind.HTTP, 302),
        fault(FailureKind.NOT_FOUND, 404),
        fault(FailureKind.MALFORMED),
        fault(FailureKind.TOO_LARGE),
        UnauthorizedError("", 0),
    ],
)
async def test_final_errors_are_not_retried(error: FileError) -> None:
    """An error that would come again is raised at the first attempt."""
    with pytest.raises(FileError) as caught:
        await send([error], [5, 10, 15], 20)
    assert caught.value.attempts == 1


async def test_throttling_has_its_own_count() -> None:
    """429s do not count as retries of server errors; one more than allowed is an error."""
    throttled = FailureKind.THROTTLED
    mixed = [fault(throttled, 429)] * 3 + [fault(FailureKind.TIMEOUT)]
    assert await send(mixed, [5], 3) == [0, 0, 0, 5]
    with pytest.raises(FileError) as caught:
        await send([fault(throttled, 429) for _ in range(4)], [5], 3)
    assert caught.value.attempts == 4


async def test_a_token_is_renewed_once() -> None:
    """After a 401, the request is sent once more with a new token, without delay."""
    assert await send([UnauthorizedError("", 1)], [], 0) == [0]
    with pytest.raises(UnauthorizedError):
        await send([UnauthorizedError("", 1) for _ in range(2)], [5], 20)


async def test_a_token_that_was_replaced_in_flight_is_tried_again_with_the_newer_one() -> None:
    """The newer token may be accepted. After three such 401s the request fails."""
    newer, renewed = (UnauthorizedError("", resends) for resends in (3, 1))
    assert await send([renewed, newer, newer], [], 0) == [0, 0, 0]
    finals: list[list[FileError]] = [[newer, renewed], [renewed, renewed], [newer] * 4]
    for final in finals:
        with pytest.raises(UnauthorizedError):
            await send(final, [5], 20)
