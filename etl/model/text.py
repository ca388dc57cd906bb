"""Text for people: one line that is safe to show, without secrets; sizes; durations.

A server may repeat a request in its answer, so it is not enough that no code prints a key: every
text passes `Redactor.text` before it is shown.
"""

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final
from urllib.parse import quote, quote_plus

_HIDDEN: Final = "***"

# The credentials part of an Authorization header, wherever an answer quotes it (RFC 5849 section
# 3.5.1, RFC 6750 section 2.1), and single OAuth 1.0a parameters.
_HEADER: Final = re.compile(
    r"(?i)\b(oauth)\s+\w+=[^\r\n]*|\b(bearer)\s+[\w.~+/=-]{6,}|\b(authorization)['\"]?\s*[:=][^\r\n]*"
)
_PARAMETER: Final = re.compile(r"(?i)\boauth_(?!problem)\w+\W{1,8}[^\"\\&,\s]*")

_PERCENT: Final = re.compile(r"%[0-9A-F]{2}")

#: Shorter values (`true`, `eu`) are no secrets, and hiding them would make texts unreadable.
_SHORTEST: Final = 6

# Largest first: the unit is the first that is exact.
_SIZE_UNITS: Final = {
    2**40: "TiB",
    10**12: "TB",
    2**30: "GiB",
    10**9: "GB",
    2**20: "MiB",
    10**6: "MB",
    2**10: "KiB",
    10**3: "kB",
}
_DURATION_UNITS: Final = {86400: "d", 3600: "h", 60: "m", 1: "s"}


def one_line(text: str) -> str:
    """Return the text as one line of printable characters.

    One space replaces each run of white space and unprintable characters (str.isprintable: control
    characters, bidirectional controls, half surrogate pairs).
    """
    shown = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(shown.split())


def size(count: int) -> str:
    """Return a number of bytes for people, in powers of 1000."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def duration(seconds: float) -> str:
    """Return a duration for people: 45 s, 12 min, 3 h 05 min, 2 d 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02} min"
    return f"{hours // 24} d {hours % 24} h"


def exact_size(count: int) -> str | int:
    """Return a number of bytes as a configuration has it, with nothing rounded: `128MiB`."""
    fitting = (f"{count // size}{unit}" for size, unit in _SIZE_UNITS.items() if not count % size)
    return next(fitting, int(count))


def exact_duration(value: timedelta) -> str:
    """Return a duration as a configuration has it, with nothing rounded: `7d`, `0.5s`."""
    for seconds, unit in _DURATION_UNITS.items():
        count, rest = divmod(value, timedelta(seconds=seconds))
        if count and not rest and (count, unit) != (1, "m"):  # people write 60s
            return f"{count}{unit}"
    text = f"{value.total_seconds():.6f}".rstrip("0").rstrip(".")
    return f"{text}s"


def plural(count: int, one: str, several: str | None = None) -> str:
    """Return a number with its noun: `1 file`, `2 files`."""
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


class Redactor:
    """Hides known secret values, and text that looks like an Authorization header."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._values: list[str] = []
        for secret in secrets:
            self.add(secret)

    def add(self, secret: str) -> None:
        """Hide this value from now on, also in its percent-encoded forms."""
        if len(secret) >= _SHORTEST:
            quoted = {quote(secret, safe=""), quote_plus(secret)}
            forms = {secret, *quoted, *(quote(form, safe="") for form in quoted)}
            lower = {
                _PERCENT.sub(lambda match: match[0].lower(), form) for form in forms - {secret}
            }
            self._values = sorted({*self._values, *forms, *lower}, key=len, reverse=True)

    def text(self, text: str) -> str:
        """Return the text without secrets."""
        for value in self._values:
            if value in text:
                text = text.replace(value, _HIDDEN)
        text = _HEADER.sub(lambda m: f"{m[1] or m[2] or m[3]} {_HIDDEN}", text)
        return _PARAMETER.sub(_HIDDEN, text)

    def tree(self, value: Any) -> Any:
        """Return a JSON-like value without secrets; keys and numbers do not change."""
        match value:
            case str():
                return self.text(value)
            case dict():
                return {key: self.tree(item) for key, item in value.items()}
            case list() | tuple():
                return [self.tree(item) for item in value]
        return value
