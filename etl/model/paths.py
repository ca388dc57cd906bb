"""The vendor's path of a file, parsed once."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final, Self

# As the Breakdown API documents it, with [0-9] and \Z instead of \d and $, which match other
# scripts' digits and a newline at the end.
_DIRECTORY: Final = re.compile(
    r"year=(?P<year>[0-9]{4})/month=(?P<month>[0-9]{1,2})/day=(?P<day>[0-9]{1,2})"
    r"/hour=(?P<hour>[0-9]{1,2})/accountId=[a-zA-Z0-9]+"
)
_PATTERN: Final = re.compile(rf"/(?P<directory>{_DIRECTORY.pattern})/[a-zA-Z0-9_.-]+\.json\.gz\Z")
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)


class InvalidPathError(ValueError):
    """A path that does not match the documented pattern, or whose hour does not exist."""


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """One directory of the vendor's tree: an hour of an account, the unit of work.

    Partitions are ordered by time. `directory` is the source's own spelling, letter for letter:
    `month=6` and `month=06` are two partitions. In a coarse copy of the lake a partition is a day
    of an account: its `length` is a day, and `hour` is its midnight.
    """

    hour: datetime
    directory: str
    length: timedelta = HOUR

    @classmethod
    def parse(cls, directory: str) -> Self:
        """Parse a partition's directory. Raises InvalidPathError."""
        match = _DIRECTORY.fullmatch(directory)
        if match is None:
            raise InvalidPathError("does not fit the documented pattern of a file's folder")
        year, month, day, hour = (int(match[name]) for name in ("year", "month", "day", "hour"))
        try:
            at = datetime(year, month, day, hour, tzinfo=UTC)
        except ValueError:
            raise InvalidPathError("names no hour that exists") from None
        return cls(at, directory)

    @property
    def account(self) -> str:
        """The account id in the directory."""
        return self.directory.rpartition("=")[2]

    @property
    def end(self) -> datetime:
        """The first moment after it."""
        return self.hour + self.length


@dataclass(frozen=True, slots=True)
class BreakdownPath:
    """A path as the Breakdown API lists it, checked to be safe in a URL and as a file's name."""

    text: str
    partition: Partition

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a listed path. Raises InvalidPathError with the reason."""
        match = _PATTERN.match(text)
        if match is None:
            raise InvalidPathError("does not fit the documented pattern of a file's path")
        return cls(text, _partition(match["directory"]))


# A listing repeats each partition many times. One object for each halves the time and needs a
# quarter of the memory.
_partition: Final = lru_cache(maxsize=4096)(Partition.parse)


def is_skipped(patterns: Sequence[str], path: str) -> bool:
    """Return whether `fetch.skip` holds this path or a glob pattern that matches it."""
    return any(path == pattern or fnmatchcase(path, pattern) for pattern in patterns)
