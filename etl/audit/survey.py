"""What the lake holds, from the footers of its parts alone: files, rows, gaps, late arrivals."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from etl.audit.gaps import HOUR, Gap, expected_spans, find_gaps, held_hours
from etl.lake.layout import Damage, Selection, read_layout
from etl.lake.receipts import Receipt, UnreadablePartError, read_receipts
from etl.model.paths import BreakdownPath, InvalidPathError, Partition, written_at
from etl.storage.store import LakeError, Store, StoredFile

#: The vendor's data is complete 24 hours after a segment closed; what is written later is late.
LATE_AFTER: Final = timedelta(hours=24)

# Footers that one thread reads before it hands back.
_READ_AT_ONCE: Final = 64
# More than cores: on a network disk a thread waits, most of the time.
_READERS: Final = 8


@dataclass(frozen=True, slots=True)
class PartSurvey:
    """One part. `bytes` is its size in the lake; one that is damaged has no sources.

    `committed_at` is the part's modification time: on a local disk the moment before its commit.
    `run` is the id of the run that wrote it.
    """

    name: str
    bytes: int
    committed_at: datetime
    run: str
    sources: tuple[Receipt, ...]
    damage: Damage | None = None


@dataclass(frozen=True, slots=True)
class PartitionSurvey:
    """One hour of one account: its parts in the order of their names, at least one or a damage.

    In a coarse copy it is one day.
    """

    partition: Partition
    parts: tuple[PartSurvey, ...]
    refused: Damage | None = None

    @property
    def sources(self) -> tuple[Receipt, ...]:
        """All receipts of the hour."""
        return tuple(source for part in self.parts for source in part.sources)

    @property
    def files(self) -> int:
        """How many source files have a receipt."""
        return sum(len(part.sources) for part in self.parts)

    @property
    def rows(self) -> int:
        """How many rows its receipts vouch for."""
        return sum(source.rows for source in self.sources)

    @property
    def quarantined(self) -> int:
        """How many bad rows its receipts count."""
        return sum(source.quarantined for source in self.sources)

    @property
    def bytes(self) -> int:
        """How large its parts are in the lake."""
        return sum(part.bytes for part in self.parts)

    @property
    def damages(self) -> tuple[Damage, ...]:
        """What of it cannot be read."""
        refused = () if self.refused is None else (self.refused,)
        return (*refused, *(part.damage for part in self.parts if part.damage is not None))

    @property
    def loaded(self) -> tuple[datetime, datetime] | None:
        """When its first and its last part were committed, as far as it is known."""
        times = [part.committed_at for part in self.parts]
        return (min(times), max(times)) if times else None

    @property
    def delays(self) -> tuple[timedelta, ...]:
        """How long after its hour's end each file was written, where its name tells."""
        times = ((written_at(source.path), self._hour_of(source)) for source in self.sources)
        return tuple(sorted(at - hour - HOUR for at, hour in times if at is not None))

    @property
    def rows_by_hour(self) -> dict[datetime, int]:
        """The rows of each hour that has a file, by the receipts.

        Of a day that cannot be read wholly every hour may have some.
        """
        rows: dict[datetime, int] = {}
        if self.partition.length == HOUR or self.damages:
            hours = self.partition.length // HOUR
            rows = {self.partition.hour + number * HOUR: 0 for number in range(hours)}
        for source in self.sources:
            hour = self._hour_of(source)
            rows[hour] = rows.get(hour, 0) + source.rows
        return rows

    def _hour_of(self, source: Receipt) -> datetime:
        """Return a source's hour: in a copy its path tells it, in a lake its part's folder."""
        if self.partition.length != HOUR:
            with suppress(InvalidPathError):
                return BreakdownPath.parse(source.path).partition.hour
        return self.partition.hour

    @property
    def late(self) -> int:
        """How many files were written later than `LATE_AFTER` behind their hour's end."""
        return sum(delay > LATE_AFTER for delay in self.delays)


@dataclass(frozen=True, slots=True)
class Survey:
    """What the lake holds of a selection, partitions oldest first.

    The selection's start and end say in which hours files are expected; where they are not given,
    an account's first and last hour do. `refused` are folders that belong to no single partition.
    `exists` tells whether there is a lake at all.
    """

    exists: bool
    selection: Selection
    partitions: tuple[PartitionSurvey, ...]
    gaps: tuple[Gap, ...]
    refused: tuple[Damage, ...]

    @property
    def is_copy(self) -> bool:
        """Whether this is a coarse copy of a lake: then a partition is a day."""
        return any(partition.partition.length != HOUR for partition in self.partitions)

    @property
    def accounts(self) -> tuple[str, ...]:
        """Whose hours these are, gaps too."""
        named = {partition.partition.account for partition in self.partitions}
        return tuple(sorted(named | {gap.account for gap in self.gaps}))

    @property
    def damages(self) -> tuple[Damage, ...]:
        """Everything that cannot be read."""
        return (*self.refused, *(damage for p in self.partitions for damage in p.damages))

    @property
    def files(self) -> int:
        """How many source files have a receipt."""
        return sum(partition.files for partition in self.partitions)

    @property
    def rows(self) -> int:
        """How many rows the receipts vouch for."""
        return sum(partition.rows for partition in self.partitions)

    @property
    def quarantined(self) -> int:
        """How many bad rows the receipts count."""
        return sum(partition.quarantined for partition in self.partitions)

    @property
    def bytes(self) -> int:
        """How large all parts are in the lake."""
        return sum(partition.bytes for partition in self.partitions)

    @property
    def parts(self) -> int:
        """How many parts there are, damaged ones too."""
        return sum(len(partition.parts) for partition in self.partitions)

    def of(self, account: str) -> "Survey":
        """Return what is this account's; the folders that belong to nobody are left out."""
        return Survey(
            self.exists,
            Selection(account, self.selection.start, self.selection.end),
            tuple(p for p in self.partitions if p.partition.account == account),
            tuple(gap for gap in self.gaps if gap.account == account),
            (),
        )


def survey(store: Store, selection: Selection, now: datetime) -> Survey:
    """Look at the lake: names, sizes and footers; no row is read and nothing written. Blocking.

    No files are expected after `now`. A lake that does not exist holds nothing. Raises LakeError
    where its root cannot be read.
    """
    layout = read_layout(store)
    hours = sorted({*layout.parts, *layout.unlistable})
    chosen = [partition for partition in hours if selection.includes(partition)]
    parts = _read_parts(store, [file for p in chosen for file in layout.parts.get(p, ())])
    surveys = [
        PartitionSurvey(
            p,
            tuple(part for file in layout.parts.get(p, ()) if (part := parts[file.name])),
            layout.unlistable.get(p),
        )
        for p in chosen
    ]
    held = held_hours(hours)
    if layout.is_copy:
        held = {}
        for surveyed in surveys:
            held.setdefault(surveyed.partition.account, set()).update(surveyed.rows_by_hour)
    spans = expected_spans(held, selection, now)
    return Survey(
        layout.exists,
        selection,
        tuple(each for each in surveys if each.parts or each.refused),
        tuple(find_gaps(held, spans, tuple(layout.damaged_folders.values()))),
        tuple(layout.damaged_folders),
    )


def _read_parts(store: Store, files: Sequence[StoredFile]) -> dict[str, PartSurvey | None]:
    """Return what each part says of itself, None for one that is gone; read in threads."""
    at_once = _READ_AT_ONCE // store.readers
    groups = [files[at : at + at_once] for at in range(0, len(files), at_once)]

    def read(group: Iterable[StoredFile]) -> dict[str, PartSurvey | None]:
        return {file.name: _read_part(store, file) for file in group}

    parts: dict[str, PartSurvey | None] = {}
    with ThreadPoolExecutor(max(_READERS, 4 * store.readers)) as pool:
        for some in pool.map(read, groups):
            parts.update(some)
    return parts


def _read_part(store: Store, file: StoredFile) -> PartSurvey | None:
    try:
        with store.open(file.name) as stream:
            said = read_receipts(stream)
    except FileNotFoundError:
        return None  # an operator deleted it
    except (UnreadablePartError, LakeError) as error:
        message = str(error) if isinstance(error, LakeError) else f"{file.name} is {error}"
        damage = Damage(file.name, message)
        return PartSurvey(file.name, file.bytes, file.modified, "", (), damage)
    return PartSurvey(file.name, file.bytes, file.modified, said.run, said.sources)
