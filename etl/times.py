"""Times and durations as users write them, and as the vendor does.

Inside the program a time is an aware datetime in UTC and a duration is a timedelta.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

_RFC3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MILLIS: Final = re.compile(r"-?[0-9]+")
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def parse_instant(text: str) -> datetime:
    """Parse RFC 3339, a date (midnight UTC) or epoch milliseconds; ValueError for all else."""
    text = text.strip()
    try:
        if _RFC3339.fullmatch(text):
            return datetime.fromisoformat(text.upper()).astimezone(UTC)
        if _DATE.fullmatch(text):
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
        if _MILLIS.fullmatch(text):
            return _EPOCH + timedelta(milliseconds=int(text))
    except (ValueError, OverflowError):
        raise ValueError("no such time") from None
    raise ValueError(
        "not a time: write 2022-06-01T00:00:00Z, 2022-06-01 (midnight UTC) or epoch milliseconds"
    )


def parse_duration(text: str) -> timedelta:
    """Parse a number with its unit s, m, h or d; ValueError for all else."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a duration: write a number with s, m, h or d, for example 90s or 7d")
    try:
        return timedelta(**{_UNITS[match[2]]: float(match[1])})
    except OverflowError:
        raise ValueError("too long a duration") from None


def to_millis(at: datetime) -> int:
    """Return epoch milliseconds, rounded down."""
    return (at - _EPOCH) // _MILLISECOND


def whole_millis(at: datetime) -> datetime:
    """Return the time without what is finer than the vendor's milliseconds."""
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def rfc3339(at: datetime) -> str:
    """Return RFC 3339 in UTC, with milliseconds only where there are any."""
    at = at.astimezone(UTC)
    spec = "milliseconds" if at.microsecond else "seconds"
    return at.isoformat(timespec=spec).replace("+00:00", "Z")


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A span of time to list; both ends count."""

    start: datetime
    end: datetime

    def cut(self, longest: timedelta) -> Iterator["Window"]:
        """Yield windows of at most `longest` that cover this one without a gap, oldest first.

        Neighbours share their boundary: whichever end the server takes as open, no instant is
        lost, and a path listed twice counts once.
        """
        start = self.start
        while start < self.end:
            # Compared as a difference: start + longest may lie beyond the last year there is.
            end = start + longest if self.end - start > longest else self.end
            yield Window(start, end)
            start = end

    def as_json(self) -> dict[str, str]:
        """Return the report's form of a window."""
        return {"from": rfc3339(self.start), "to": rfc3339(self.end)}
