"""What error responses mean: OAuth's problems, the clock and Retry-After."""

import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web

from etl.api.auth import Anonymous
from etl.api.errors import UnauthorizedError, retry_after_s
from etl.config.settings import Redactor
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
