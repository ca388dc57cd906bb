"""What a server says when it refuses: the documented fields, OAuth's problems, its clock."""

import email.utils
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote_plus

import aiohttp

from etl.api.responses import Answer, read_begin
from etl.model.errors import FileError
from etl.model.printable import one_line

_BODY_MAX_BYTES: Final = 8192
_MESSAGE_MAX_CHARS: Final = 300
#: Clocks that differ by more are worth a word: a signature holds the time at which it was made.
CLOCK_MAX_S: Final = 60.0
_PERMISSION: Final = "the permission Data > Workforce Management > Agent Activity API"
_NEEDED: Final = f"the keys need {_PERMISSION}"

# "OAuth Problem Reporting", an extension of OAuth 1.0a: form-encoded in a body, quoted in a
# WWW-Authenticate header.
_PROBLEM: Final = re.compile(r'\boauth_problem="?([A-Za-z_]+)')
_ADVICE: Final = re.compile(r'\boauth_problem_advice=(?:"([^"]*)"|([^&"]*))')
# RFC 6750, section 3.
_ERROR: Final = re.compile(r'\berror="([^"]*)"')
_DESCRIPTION: Final = re.compile(r'\berror_description="([^"]*)"')

_MEANINGS: Final = {
    "timestamp_refused": "the vendor refuses this machine's time: set its clock (NTP)",
    "token_expired": "the access token has expired: make a new one in the vendor's console and set "
    "auth.access_token and auth.access_token_secret",
    "permission_denied": f"the keys are known but lack {_PERMISSION}",
    "insufficient_scope": f"the client is known but lacks {_PERMISSION}",
    "signature_invalid": f"check auth.consumer_secret and auth.access_token_secret; {_NEEDED}",
    "signature_method_rejected": "set auth.signature_method to the other one",
    "invalid_client": "the client is unknown, or its secret is wrong",
    "unauthorized_client": "the client may not have tokens of this kind: ask whoever made it",
    "invalid_token": "the API does not take the token that the OAuth 2.0 server gave: check that "
    "both are of the same account",
    **dict.fromkeys(
        ("consumer_key_unknown", "consumer_key_rejected", "consumer_key_refused"),
        f"check auth.consumer_key and auth.consumer_secret; {_NEEDED}",
    ),
    **dict.fromkeys(
        ("token_rejected", "token_revoked", "token_used"),
        f"check auth.access_token and auth.access_token_secret, which may be revoked; {_NEEDED}",
    ),
}
_NO_KEYS: Final = f"no keys are set (auth.*), and the server asks for some; they need {_PERMISSION}"
_WRONG_KEYS: Final = f"the keys are wrong, or lack {_PERMISSION}"


@dataclass(frozen=True, slots=True)
class Said:
    """What an answer that refuses says: `text` for people, or ""; `problem` is OAuth's name."""

    text: str
    problem: str | None

    def __str__(self) -> str:
        """Return the text as it is appended to a status."""
        return f": {self.text}" if self.text else ""


async def read_refusal(answer: Answer, redact: Callable[[str], str]) -> Said:
    """Read what an answer says in the documented fields, without secrets, in one line.

    The fields are the vendor's (API, "When it says no"), those of OAuth 2.0 (RFC 6749 section 5.2)
    and of OAuth's problem reporting, also in a plain text or a WWW-Authenticate header.
    """
    try:
        body = await read_begin(answer, _BODY_MAX_BYTES)
    except (TimeoutError, aiohttp.ClientError, OSError, FileError):
        body = b""  # the status is known: it counts
    parts = _fields(body, answer.headers)
    shown = []
    problem = None
    for part in parts:
        if (named := _PROBLEM.search(part)) is not None:
            advice = _ADVICE.search(part)
            given = advice and (advice[1] or unquote_plus(advice[2] or ""))
            problem = problem or named[1]
            part = f"{named[1]}: {given}" if given else named[1]  # noqa: PLW2901
        elif part in _MEANINGS:
            problem = problem or part
        shown.append(part)
    text = "; ".join(dict.fromkeys(shown))
    # Redacted whole, before it is cut.
    return Said(one_line(redact(text))[:_MESSAGE_MAX_CHARS], problem)


def _fields(body: bytes, headers: Mapping[str, str]) -> list[str]:
    """Return the texts that say why."""
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


def why_unauthorized(said: Said, *, keys_sent: bool, clock_off_s: float | None) -> str:
    """Return what a 401 means and what to do; `clock_off_s` as of `clock_off`."""
    clock = clock_words(clock_off_s)
    if said.problem == "timestamp_refused" and clock:
        return f"{clock}: set it (NTP)"
    meaning = _MEANINGS.get(said.problem or "") or (_WRONG_KEYS if keys_sent else _NO_KEYS)
    return f"{meaning}; besides, {clock}: set it (NTP)" if clock else meaning


def clock_words(off_s: float | None) -> str:
    """Return how this machine's clock differs from a server's, "" where it does not or is unknown.

    `off_s` is what this clock is ahead, in seconds.
    """
    if off_s is None or abs(off_s) <= CLOCK_MAX_S:
        return ""
    return (
        f"this machine's clock is {abs(off_s):,.0f} s {'ahead of' if off_s > 0 else 'behind'} the "
        "server's"
    )


def clock_off(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return how many seconds `now` is ahead of an answer's Date; None where that tells nothing."""
    if "Age" in headers:  # a cache's answer, made before
        return None
    at = _http_date(headers.get("Date", ""))
    return None if at is None else (now - at).total_seconds()


def retry_after_s(header: str | None, date: str | None, now: datetime) -> float:
    """Return the seconds that a Retry-After header asks for (RFC 9110 section 10.2.3), else 0.

    If it names a time, it is that of the server's clock: the answer's `date` header, if it has one,
    counts and not `now`.
    """
    header = (header or "").strip()
    if header.isascii() and header.isdigit():
        return float(header[:9])
    at = _http_date(header)
    return max(0.0, (at - (_http_date(date or "") or now)).total_seconds()) if at else 0.0


def _http_date(text: str) -> datetime | None:
    try:
        at = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
