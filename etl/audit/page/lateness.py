"""How late a file was: the time in its name against the hour in its path.

The vendor's names hold the time of writing (`sequences.<epoch ms>.<yyyymmddHHMMSS>.<n>.json.gz`),
which is nowhere promised: a name that holds none counts as unknown.
"""

from datetime import datetime, timedelta
from typing import Final

from etl.audit.gaps import HOUR
from etl.audit.survey import LATE_AFTER
from etl.model.paths import written_at

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
    at = written_at(path)
    return at - hour - HOUR if at is not None else None


def class_of(late: timedelta | None) -> str:
    """Return the name of the class that a lateness falls in."""
    if late is None:
        return UNKNOWN
    return next(name for end, name in CLASSES if late <= end)
