"""How late a file was: the time in its name against the hour in its path.

The vendor's names hold the time of writing (`sequences.<epoch ms>.<yyyymmddHHMMSS>.<n>.json.gz`),
which is nowhere promised: a name that holds none counts as unknown.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_WRITTEN: Final = re.compile(r"/sequences\.([0-9]{12,14})\.[^/]*\Z")
_HOUR: Final = timedelta(hours=1)
#: The vendor promises offline data within this time.
LATE_AFTER: Final = timedelta(hours=24)
#: A file's lateness falls in the first class whose end it does not exceed.
CLASSES: Final[tuple[tuple[timedelta, str], ...]] = (
    (timedelta(0), "before the hour ended"),
    (timedelta(hours=1), "up to 1 hour"),
    (timedelta(hours=6), "1 to 6 hours"),
    (LATE_AFTER, "6 to 24 hours"),
    (timedelta(days=3), "1 to 3 days"),
    (timedelta(days=7), "3 to 7 days"),
    (timedelta(days=14), "7 to 14 days"),
    (timedelta.max, "more than 14 days"),
)
UNKNOWN: Final = "unknown: no time in the name"


def lateness(path: str, hour: datetime) -> timedelta | None:
    """Return how long after the end of its hour a file was written; None if its name holds none."""
    match = _WRITTEN.search(path)
    if match is None:
        return None
    try:
        return datetime.fromtimestamp(int(match[1]) / 1000, UTC) - (hour + _HOUR)
    except (ValueError, OverflowError, OSError):
        return None


def class_of(late: timedelta | None) -> str:
    """Return the name of the class that a lateness falls in."""
    if late is None:
        return UNKNOWN
    return next(name for end, name in CLASSES if late <= end)
