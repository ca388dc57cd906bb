"""Refused requests: what the response means and what to do about it."""

import email.utils
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote_plus

import aiohttp

from etl.api.responses import Response, read_start
from etl.model.errors import FailureKind, FileError
from etl.model.text import one_line

_BODY_MAX_BYTES: Final = 8192
# A larger difference of the clocks is reported: servers refuse signatures of another time.
_CLOCK_MAX_S: Final = 60.0
_PERMISSION: Final = "the permission Data > Workforce Management > Agent Activity API"
_KEYS_NEED: Final = f"the keys need {_PERMISSION}"

# "OAuth Problem Reporting", an extension of OAuth 1.0a: form-encoded in a body, quoted in a
# WWW-Authenticate header.
_PROBLEM: Final = re.compile(r'\boauth_problem="?([A-Za-z_]+)')
_PROBLEM_ADVICE: Final = re.compile(r'\boauth_problem_advice=(?:"([^"]*)"|([^&"]*))')
# RFC 6750, section 3.
_ERROR: Final = re.compile(r'\berror="([^"]*)"')
_DESCRIPTION: Final = re.compile(r'\berror_description="([^"]*)"')

_ADVICE_BY_PROBLEM: Final = {
    "timestamp_refused": "the vendor refuses this machine's time: set its clock (NTP)",
    "token_expired": "the access token has expired: make a new one in the vendor's console and set "
    "auth.access_token and auth.access_token_secret",
    "permission_denied": f"the keys are known but lack {_PERMISSION}",
    "insufficient_scope": f"the client is known but lacks {_PERMISSION}",
    "signature_invalid": f"check auth.consumer_secret and auth.access_token_secret; {_KEYS_NEED}",
    "signature_method_rejected": "set auth.signature_method to the other one",
    "invalid_client": "the client is unknown, or its secret is wrong",
    "unauthorized_client": "the client may not have tokens of this kind: ask its creator",
    "invalid_token": "the API does not take the token that the OAuth 2.0 server gave: check that "
    "both are of the same account",
    **dict.fromkeys(
        ("consumer_key_unknown", "consumer_key_rejected", "consumer_key_refused"),
        f"check auth.consumer_key and auth.consumer_secret; {_KEYS_NEED}",
    ),
    **dict.fromkeys(
        ("token_rejected", "token_revoked", "token_used"),
        f"check auth.access_token and auth.access_token_secret, which may be revoked; {_KEYS_NEED}",
    ),
}
_NO_KEYS: Final = f"no keys are set (auth.*), and the server asks for some; they need {_PERMISSION}"
_WRONG_KEYS: Final = f"the keys are wrong, or lack {_PERMISSION}"


@dataclass(frozen=True, slots=True)
class ErrorDetails:
    """What an error response says: `text` for people, or ""; `problem` is OAuth's name for it."""

    text: str
    problem: str | None

    def __str__(self) -> str:
        """Return the text to append to a status."""
        return f": {self.text}" if self.text else ""


async def read_error_details(response: Response, redact: Callable[[str], str]) -> ErrorDetails:
    """Read what the documented fields of an error response say: one line, without secrets.

    The fields are the vendor's (API, "When it says no"), those of OAuth 2.0 (RFC 6749 section 5.2)
    and of OAuth's problem reporting, also in a plain text or a WWW-Authenticate header.
    """
    try:
        body = await read_start(response, _BODY_MAX_BYTES)
    except (TimeoutError, aiohttp.ClientError, OSError, FileError):
        body = b""  # the status is known, and it decides
    shown = []
    problem = None
    for text in _texts(body, response.headers):
        if (match := _PROBLEM.search(text)) is not None:
            advice = _PROBLEM_ADVICE.search(text)
            given = advice and (advice[1] or unquote_plus(advice[2] or ""))
            problem = problem or match[1]
            shown.append(f"{match[1]}: {given}" if given else match[1])
        else:
            if text in _ADVICE_BY_PROBLEM:
                problem = problem or text
            shown.append(text)
    text = "; ".join(dict.fromkeys(shown))
    return ErrorDetails(quoted(text, redact), problem)


def quoted(text: str, redact: Callable[[str], str], max_chars: int = 300) -> str:
    """Return a server's text in one line, redacted as a whole and then cut."""
    return one_line(redact(text))[:max_chars]


def _texts(body: bytes, headers: Mapping[str, str]) -> list[str]:
    """Return the texts that give a reason."""
    parts: list[Any] = []
    try:
        content: Any = json.loads(body)
    except (ValueError, RecursionError):
        text = body.decode("utf-8", "replace").strip()
        is_plain = headers.get("Content-Type", "").startswith("text/plain")
        if _PROBLEM.search(text) or (is_plain and not text.startswith("<")):
            parts = [text]
    else:
        if isinstance(content, dict):
            names = ("reason", "internalCode", "error", "message", "error_description")
            parts = [content.get(name) for name in names]
            causes = content.get("causes")
            parts += causes if isinstance(causes, list) else [causes]
    challenge = headers.get("WWW-Authenticate", "")
    if _PROBLEM.search(challenge):
        parts.append(challenge)
    else:
        parts += [*_ERROR.findall(challenge), *_DESCRIPTION.findall(challenge)]
    return [str(part) for part in parts if part not in (None, "")]


def explain_401(details: ErrorDetails, clock: str, *, keys_sent: bool) -> str:
    """Return what a 401 means and what to do; `clock` as `describe_clock` returns it."""
    if details.problem == "timestamp_refused" and clock:
        return f"{clock}: set it (NTP)"
    advice = _ADVICE_BY_PROBLEM.get(details.problem or "") or (
        _WRONG_KEYS if keys_sent else _NO_KEYS
    )
    return f"{advice}; besides, {clock}: set it (NTP)" if clock else advice


def describe_clock(headers: Mapping[str, str], now: datetime) -> str:
    """Return how this machine's clock, `now`, differs from the Date of a response.

    "" if it agrees within a minute, or is unknown: a cached response has the date of its making.
    """
    sent_at = _http_date(headers.get("Date", ""))
    ahead_s = 0.0 if sent_at is None or "Age" in headers else (now - sent_at).total_seconds()
    if abs(ahead_s) <= _CLOCK_MAX_S:
        return ""
    side = "ahead of" if ahead_s > 0 else "behind"
    return f"this machine's clock is {abs(ahead_s):,.0f} s {side} the server's"


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float:
    """Return the seconds that a Retry-After header asks for (RFC 9110 section 10.2.3), else 0.

    A time in the header is by the server's clock, so the response's Date counts, not `now`.
    """
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    at = _http_date(value)
    sent_at = _http_date(headers.get("Date", "")) or now
    return max(0.0, (at - sent_at).total_seconds()) if at else 0.0


def _http_date(text: str) -> datetime | None:
    try:
        at = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


class KeptConnectionClosedError(FileError):
    """The server closed a kept connection, perhaps before the request reached it.

    Servers do that at any time. The first retry follows at once, on a new connection. Sending the
    POST for a token again does no harm: the server issues another token.
    """

    def __init__(self) -> None:
        super().__init__(FailureKind.CONNECTION, "the server closed the kept connection")


class UnauthorizedError(FileError):
    """The status was 401; the request is sent again after this many."""

    def __init__(self, message: str, resends: int) -> None:
        super().__init__(FailureKind.HTTP, message, status=401)
        self.resends = resends
