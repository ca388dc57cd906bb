"""Times and durations as users and the vendor write them.

Inside the program a time is an aware datetime in UTC, and a duration is a timedelta.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

#: The vendor has nothing older, so an earlier time is a writing mistake.
EARLIEST: Final = datetime(2015, 1, 1, tzinfo=UTC)
TIME_FORMS: Final = (
    "2022-06-01T00:00:00Z, 2022-06-01 (midnight UTC) or 1654041600000 (milliseconds)"
)

_RFC3339: Final = re.compile(
    r"(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ](?P<minute>[0-9]{2}:[0-9]{2})"
    r"(?P<second>:[0-9]{2}(\.[0-9]+)?)?(?P<zone>[Zz]|[+-][0-9]{2}:[0-9]{2})?"
)
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MILLIS: Final = re.compile(r"-?[0-9]{1,20}")
# Dates without hyphens, by their number of digits.
_WITHOUT_HYPHENS: Final = {
    4: "%Y", 6: "%Y%m", 8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S",
}  # fmt: skip
# Other units of a time since 1970, and how many of them are a millisecond.
_OTHER_UNITS: Final = {"seconds": 1e-3, "microseconds": 1e3, "nanoseconds": 1e6}
_LATEST_GUESS: Final = datetime(2100, 1, 1, tzinfo=UTC)
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_LONGEST_SHOWN: Final = 60


def parse_instant(text: str) -> datetime:
    """Parse a time as users write it: RFC 3339, a date (midnight UTC) or epoch milliseconds.

    Raises ValueError for other text, for a time before 2015, and for a number that is a time after
    2100 but looks like a date or another unit. The message repeats the text and says what was
    probably meant.
    """
    text = text.strip()
    try:
        at = _read(text)
    except (ValueError, OverflowError):
        meant = _meant(text)
        raise ValueError(f"no such time ({_shown(text)}){meant and f': {meant}'}") from None
    if at is None:
        raise ValueError(
            f"not a time ({_shown(text)}): {_meant(text) or f'write for example {TIME_FORMS}'}"
        )
    return check_since_2015(at, text)


def check_since_2015(at: datetime, text: str) -> datetime:
    """Return the time. Raises ValueError, which repeats `text`, if the vendor has no such data."""
    if at >= EARLIEST and not (at >= _LATEST_GUESS and _meant(text)):
        return at
    raise ValueError(
        f"{_shown(text)} is {at:%Y-%m-%d}, and the vendor has data from 2015 on: "
        f"{_meant(text) or f'write for example {TIME_FORMS}'}"
    )


def parse_rfc3339(text: str) -> datetime:
    """Parse RFC 3339 with seconds and a zone, as `rfc3339` writes it. Raises ValueError."""
    match = _RFC3339.fullmatch(text)
    if match is None or not (match["second"] and match["zone"]):
        raise ValueError(f"not RFC 3339 ({_shown(text)})")
    return datetime.fromisoformat(text.upper()).astimezone(UTC)


def _read(text: str) -> datetime | None:
    """Return the time, or None if the text has none of the forms. ValueError, OverflowError."""
    match = _RFC3339.fullmatch(text)
    if match and match["second"] and match["zone"]:
        return parse_rfc3339(text)
    if _DATE.fullmatch(text):
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    if _MILLIS.fullmatch(text):
        return _EPOCH + timedelta(milliseconds=int(text))
    return None


def _meant(text: str) -> str:
    """Return what was probably meant by a text that is no time, or an empty string."""
    if match := _RFC3339.fullmatch(text):
        missing = [
            words
            for part, words in (("second", "the seconds"), ("zone", "the time zone"))
            if not match[part]
        ]
        if not missing:
            return ""
        whole = f"{match['day']}T{match['minute']}{match['second'] or ':00'}{match['zone'] or 'Z'}"
        verb = "are" if len(missing) > 1 or "second" in missing[0] else "is"
        return f"{' and '.join(missing)} {verb} missing: write {whole}"
    if not _MILLIS.fullmatch(text):
        return ""
    if spec := _WITHOUT_HYPHENS.get(len(text)):
        with suppress(ValueError):  # not a date, perhaps a count of seconds
            at = datetime.strptime(text, spec).replace(tzinfo=UTC)
            if EARLIEST <= at < _LATEST_GUESS:
                form = f"{at:%Y-%m-%d}" if len(text) <= 8 else rfc3339(at)
                return f"a date without its hyphens? write {form}"
    for unit, per_millisecond in _OTHER_UNITS.items():
        millis = int(int(text) / per_millisecond)
        if to_millis(EARLIEST) <= millis < to_millis(_LATEST_GUESS):
            return f"{unit} instead of milliseconds? write {millis}"
    return ""


def _shown(text: str) -> str:
    """Return the user's text as a message repeats it."""
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…")


def parse_duration(text: str) -> timedelta:
    """Parse a number with its unit s, m, h or d. Raises ValueError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"not a duration ({_shown(text)}): write a number with s, m, h or d, for example 90s "
            "or 7d"
        )
    try:
        return timedelta(**{_UNITS[match[2]]: float(match[1])})
    except OverflowError:
        raise ValueError(f"too long a duration ({_shown(text)})") from None


def to_millis(at: datetime) -> int:
    """Return epoch milliseconds, rounded down."""
    return (at - _EPOCH) // _MILLISECOND


def rfc3339(at: datetime) -> str:
    """Return RFC 3339 in UTC, with milliseconds only if there are any."""
    at = at.astimezone(UTC)
    spec = "milliseconds" if at.microsecond else "seconds"
    return at.isoformat(timespec=spec).replace("+00:00", "Z")


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A span of time to list; both ends belong to it."""

    start: datetime
    end: datetime

    def __str__(self) -> str:
        return f"{rfc3339(self.start)} to {rfc3339(self.end)}"

    def cut(self, longest: timedelta) -> Iterator["Window"]:
        """Yield windows of at most `longest` that cover this one without a gap, oldest first.

        Neighbours share their boundary, so that no instant is lost if the server excludes an end.
        A path that is listed twice counts once.
        """
        start = self.start
        while start < self.end:
            # A difference, because start + longest may be later than a datetime can be.
            end = start + longest if self.end - start > longest else self.end
            yield Window(start, end)
            start = end
