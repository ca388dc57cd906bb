"""Where files are in a lake: partitions, their parts, bad rows, and other files."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import BinaryIO, Final

from etl.model.paths import DAY, HOUR, Partition
from etl.storage.store import Store, StoredFile, StoreError, replace_file

#: The folder of the bad rows; readers of the lake ignore such a name.
QUARANTINE: Final = "_quarantine"
_PART: Final = re.compile(r"part-([0-9]{5,})\.parquet")
# A partition of a coarse copy: a partition's keys without the hour, and without leading zeros.
_DAY_FOLDER: Final = re.compile(
    r"year=([0-9]{4})/month=([1-9][0-9]?)/day=([1-9][0-9]?)/accountId=[a-zA-Z0-9]+"
)
# A folder above partitions.
_TREE: Final = re.compile(
    r"year=([0-9]{4})(?:/month=([0-9]{1,2})(?:/day=([0-9]{1,2})(?:/hour=([0-9]{1,2}))?)?)?"
)


@dataclass(frozen=True, slots=True)
class Selection:
    """Partitions of one account or of all, those that overlap [start, end)."""

    account: str | None = None
    start: datetime | None = None
    end: datetime | None = None

    @property
    def everything(self) -> bool:
        """Whether the whole lake is selected."""
        return self == Selection()

    @property
    def bounded(self) -> bool:
        """Whether both ends are given, so that the hours in which files are expected are known."""
        return self.start is not None and self.end is not None

    def describe(self) -> str:
        """Return words, times in UTC: `of account 12345678 from 2022-06-01 06:00`."""
        words = []
        if self.account is not None:
            words.append(f"of account {self.account}")
        if self.start is not None:
            words.append(f"from {to_minute(self.start)}")
        if self.end is not None:
            words.append(f"to {to_minute(self.end)}")
        return " ".join(words)

    def includes(self, partition: Partition) -> bool:
        """Return whether this partition is selected."""
        return (
            self.account in (None, partition.account)
            and (self.start is None or self.start - partition.hour < partition.length)
            and (self.end is None or partition.hour < self.end)
        )


@dataclass(frozen=True, slots=True)
class Damage:
    """A part or a folder that cannot be read; it may hold sources."""

    name: str
    message: str


@dataclass(slots=True)
class Layout:
    """The files and folders of a lake; names that begin with `_` or `.` are ignored.

    `parts` are by partition; `strays` are other files that readers read as Parquet. `unlistable`
    are partitions that cannot be listed. `damaged_folders` are such folders above partitions, each
    with its year, month, day and hour as far as its name has them. Both may hold sources.
    `exists` says whether there is a lake.

    All partitions are hours, or all are days: then this is a coarse copy (`is_copy`).
    """

    exists: bool = True
    parts: dict[Partition, list[StoredFile]] = field(default_factory=dict)
    strays: list[StoredFile] = field(default_factory=list)
    unlistable: dict[Partition, Damage] = field(default_factory=dict)
    damaged_folders: dict[Damage, tuple[int, ...]] = field(default_factory=dict)

    @property
    def is_copy(self) -> bool:
        """Whether this is a coarse copy; an empty place is not."""
        return any(partition.length == DAY for partition in (*self.parts, *self.unlistable))


@dataclass(slots=True)
class PartitionState:
    """What a partition holds: the sources that have a receipt, and the next part's number.

    `damage` names a part that cannot be read: then nothing may be written here, because any
    source might be in it.
    """

    loaded: set[str] = field(default_factory=set)
    next_number: int = 0
    damage: str | None = None

    def add_part(self, sources: Iterable[str]) -> None:
        """Add the sources, by their paths, of the part that has the next number."""
        self.loaded.update(sources)
        self.next_number += 1


@dataclass(frozen=True, slots=True)
class PartWritten:
    """A part that was committed: its name in the lake, its size, the number of its files."""

    path: str
    rows: int
    bytes: int
    sources: int


def to_minute(at: datetime) -> str:
    """Return `2022-06-01 06:00`, the year with four digits."""
    return at.isoformat(" ", "minutes")[: len("2022-06-01 00:00")]


def part_name(number: int) -> str:
    """Return the file name of a part."""
    return f"part-{number:05d}.parquet"


def part_number(file_name: str) -> int | None:
    """Return the number in the file name of a part; None for another name."""
    match = _PART.fullmatch(file_name)
    return int(match[1]) if match else None


def is_part(file_name: str) -> bool:
    """Return whether a file in a partition's folder claims to be a part, whatever its number."""
    return file_name.startswith("part-") and file_name.endswith(".parquet")


def bad_rows_name(source_path: str) -> str:
    """Return the name in the lake of the file with a source's bad rows."""
    return QUARANTINE + source_path.removesuffix(".json.gz") + ".ndjson"


def write_bad_rows(store: Store, source_path: str, bad_rows: BinaryIO) -> None:
    """Write the file with a source's bad rows. Blocking. Raises StoreError."""
    replace_file(store, bad_rows_name(source_path), bad_rows)


def to_partition(folder: str) -> Partition | None:
    """Return the partition that a folder of a lake or of a copy is; None if it is none."""
    try:
        if match := _DAY_FOLDER.fullmatch(folder):
            year, month, day = map(int, match.groups())
            return Partition(datetime(year, month, day, tzinfo=UTC), folder, DAY)
        return Partition.parse(folder)
    except ValueError:  # InvalidPathError, or a day that does not exist
        return None


def day_of(partition: Partition) -> Partition:
    """Return the partition of a coarse copy that holds an hour's files."""
    at, account = partition.hour, partition.account
    directory = f"year={at.year:04d}/month={at.month}/day={at.day}/accountId={account}"
    return Partition(at.replace(hour=0), directory, DAY)


def read_layout(store: Store) -> Layout:
    """List all files of a lake; one that does not exist is empty. Blocking.

    Raises StoreError if the root cannot be read. Folders that cannot be read and do not belong to
    the lake (`lost+found`) are ignored.
    """
    layout = Layout(store.check_readable())

    def refused(name: str, error: StoreError) -> None:
        if not name:
            raise error
        damage = Damage(name, str(error))
        if partition := to_partition(name):
            layout.unlistable[partition] = damage
        elif match := _TREE.fullmatch(name):
            layout.damaged_folders[damage] = tuple(
                int(number) for number in match.groups() if number
            )

    for file in store.walk(refused):
        folder, _, name = file.name.rpartition("/")
        if name.startswith(("_", ".")):
            continue  # as readers do
        if is_part(name) and (partition := to_partition(folder)):
            layout.parts.setdefault(partition, []).append(file)
        elif name.endswith(".parquet"):
            layout.strays.append(file)
        else:
            refused(file.name, StoreError(f"listing {file.name}: it is no folder"))
    _of_one_kind(layout)
    return layout


def _of_one_kind(layout: Layout) -> None:
    """If any partition is an hour, no day is a partition: its parts are strays."""
    days = [each for each in (*layout.parts, *layout.unlistable) if each.length == DAY]
    if any(each.length == HOUR for each in (*layout.parts, *layout.unlistable)):
        for day in days:
            layout.strays += layout.parts.pop(day, ())
            layout.unlistable.pop(day, None)
