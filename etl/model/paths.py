"""The vendor's path of a file, parsed once, at the edge."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final, Self

# As the Breakdown API documents it. [0-9] and \Z, not \d and $: other scripts' digits and a
# newline at the end are not part of it.
_DIRECTORY: Final = re.compile(
    r"year=(?P<year>[0-9]{4})/month=(?P<month>[0-9]{1,2})/day=(?P<day>[0-9]{1,2})"
    r"/hour=(?P<hour>[0-9]{1,2})/accountId=[a-zA-Z0-9]+"
)
# A partition of a coarse copy: the same keys without the hour, never padded.
_DAY: Final = re.compile(
    r"year=([0-9]{4})/month=([1-9][0-9]?)/day=([1-9][0-9]?)/accountId=[a-zA-Z0-9]+"
)
_PATTERN: Final = re.compile(rf"/(?P<directory>{_DIRECTORY.pattern})/[a-zA-Z0-9_.-]+\.json\.gz\Z")
# What file names look like: `sequences.1654113886437.20220601160446.00066.json.gz`. The second
# number is the same moment in some zone's local time: the first alone is sure.
_WRITTEN: Final = re.compile(r"[a-zA-Z_-]+\.(?P<millis>[0-9]{12,13})\.[0-9]{14}\.[0-9]+\.json\.gz")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)


class InvalidPathError(ValueError):
    """A listed path that does not fit the documented pattern or names no real hour."""


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """One directory of the vendor's tree: an hour of an account, the unit of work.

    Ordered by time. `directory` is the source's own spelling, letter for letter: `month=6` and
    `month=06` are two partitions. In a coarse copy of the lake a partition is a day of an account:
    its `length` is a day, and `hour` is its midnight.
    """

    hour: datetime
    directory: str
    length: timedelta = HOUR

    @classmethod
    def parse(cls, directory: str) -> Self:
        """Parse a partition's directory; InvalidPathError says why it is none."""
        match = _DIRECTORY.fullmatch(directory)
        if match is None:
            raise InvalidPathError("does not fit the documented pattern of a file's folder")
        year, month, day, hour = (int(match[name]) for name in ("year", "month", "day", "hour"))
        try:
            at = datetime(year, month, day, hour, tzinfo=UTC)
        except ValueError:
            raise InvalidPathError("names no hour that exists") from None
        return cls(at, directory)

    @classmethod
    def parse_day(cls, directory: str) -> Self:
        """Parse a directory of a coarse copy; InvalidPathError says why it is none."""
        match = _DAY.fullmatch(directory)
        if match is None:
            raise InvalidPathError("does not fit the pattern of a copy's folder")
        try:
            at = datetime(int(match[1]), int(match[2]), int(match[3]), tzinfo=UTC)
        except ValueError:
            raise InvalidPathError("names no day that exists") from None
        return cls(at, directory, DAY)

    @property
    def account(self) -> str:
        """Whose hour it is."""
        return self.directory.rpartition("=")[2]

    @property
    def end(self) -> datetime:
        """The first moment after it."""
        return self.hour + self.length

    @property
    def day(self) -> "Partition":
        """The partition of a coarse copy that this hour's files belong to."""
        at = self.hour
        directory = f"year={at.year:04d}/month={at.month}/day={at.day}/accountId={self.account}"
        return Partition(at.replace(hour=0), directory, DAY)


@dataclass(frozen=True, slots=True)
class BreakdownPath:
    """A path as the Breakdown API lists it, known to be safe as a URL's and a file's name."""

    text: str
    partition: Partition

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a listed path.

        Raises InvalidPathError, with the reason, for anything but the documented pattern and a
        real hour.
        """
        match = _PATTERN.match(text)
        if match is None:
            raise InvalidPathError("does not fit the documented pattern of a file's path")
        return cls(text, _partition(match["directory"]))


# A listing names each partition many times: one object, half the time, a quarter of the memory.
_partition: Final = lru_cache(maxsize=4096)(Partition.parse)


def written_at(path: str) -> datetime | None:
    """Return when the vendor wrote a file, as far as its name tells; a hint, not a promise."""
    match = _WRITTEN.fullmatch(path.rpartition("/")[2])
    return _EPOCH + timedelta(milliseconds=int(match["millis"])) if match else None


def stable_share(text: str, shards: int) -> int:
    """Return a number in [0, shards) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()) % shards


def skips(patterns: Sequence[str], path: str) -> bool:
    """Tell whether `fetch.skip` names this path, or has a pattern that it fits."""
    return any(path == pattern or fnmatchcase(path, pattern) for pattern in patterns)
