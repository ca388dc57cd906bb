"""What the lake holds, from the footers of its parts alone: files, rows, gaps, late arrivals.

`Comparison` compares it with the files that the API lists.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Final

from etl.api.listing import Listing
from etl.lake.layout import Damage, Layout, Selection, read_layout, to_minute
from etl.lake.receipts import Receipt, UnreadablePartError, read_receipts
from etl.model.paths import HOUR, BreakdownPath, InvalidPathError, Partition
from etl.model.times import Window
from etl.storage.store import Store, StoredFile, StoreError

#: The first and the last hour, both included, in which an account should have files.
Span = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True, order=True)
class Gap:
    """Hours [start, end) in which an account should have files and has no part."""

    account: str
    start: datetime
    end: datetime

    @property
    def hours(self) -> int:
        """Its length."""
        return (self.end - self.start) // HOUR


def expected_spans(
    held: Mapping[str, Collection[datetime]], selection: Selection, now: datetime
) -> dict[str, Span]:
    """Return in which hours each account should have files; `held` are the hours that it has.

    The start and the end of the selection decide, up to `now`. Without them, an account's own first
    and last hour decide. Accounts without such hours are left out.
    """
    accounts = {*held} if selection.account is None else {selection.account}
    spans = {}
    for account in sorted(accounts):
        hours = held.get(account, ())
        first = min(hours, default=None)
        last = max(hours, default=None)
        if selection.start is not None:
            first = _whole_hour(selection.start)
        if selection.end is not None:
            last = _whole_hour(min(selection.end, now) - timedelta(microseconds=1))
        if first is not None and last is not None and first <= last:
            spans[account] = first, last
    return spans


def find_gaps(
    held: Mapping[str, Collection[datetime]],
    spans: Mapping[str, Span],
    hidden: Sequence[tuple[int, ...]],
) -> Iterator[Gap]:
    """Yield the hours of the spans that are not held, account by account, oldest first.

    `hidden` has the year, month, day and hour, as far as known, of each folder that cannot be read.
    Its content is unknown, so it is not a gap.
    """
    for account, (first, last) in sorted(spans.items()):
        start = first
        for hour in sorted(each for each in held.get(account, ()) if first <= each <= last):
            yield from _not_hidden(account, start, hour, hidden)
            if hour == last:  # a datetime cannot hold the hour after the last hour of year 9999
                break
            start = hour + HOUR
        else:
            yield from _not_hidden(account, start, last + HOUR, hidden)


def _not_hidden(
    account: str, start: datetime, end: datetime, hidden: Sequence[tuple[int, ...]]
) -> Iterator[Gap]:
    """Yield the gaps in [start, end): all of it without the hidden hours."""
    if hidden:
        at = start
        while at < end:
            if is_hidden(at, hidden):
                if start < at:
                    yield Gap(account, start, at)
                start = at + HOUR
            at += HOUR
    if start < end:
        yield Gap(account, start, end)


def is_hidden(at: datetime, hidden: Sequence[tuple[int, ...]]) -> bool:
    """Return whether an hour lies in one of the hidden folders of `find_gaps`."""
    numbers = (at.year, at.month, at.day, at.hour)
    return any(numbers[: len(prefix)] == prefix for prefix in hidden)


def _whole_hour(at: datetime) -> datetime:
    """Return the start of an instant's hour."""
    return at.replace(minute=0, second=0, microsecond=0)


#: The vendor promises complete data 24 hours after a segment closes. Later files are late.
LATE_AFTER: Final = timedelta(hours=24)

# File names look like `sequences.1654113886437.20220601160446.00066.json.gz`. The second number is
# the same moment in an unknown local time, so only the first is used.
_FILE_NAME: Final = re.compile(
    r"[a-zA-Z_-]+\.(?P<millis>[0-9]{12,13})\.[0-9]{14}\.[0-9]+\.json\.gz"
)

# Partitions that one task of a thread reads.
_READ_AT_ONCE: Final = 64
# More than cores: on a network disk a thread waits most of the time.
_READERS: Final = 8


@dataclass(frozen=True, slots=True)
class PartSurvey:
    """One part. `bytes` is its size in the lake. A damaged part has no sources and no run.

    `committed_at` is the part's modification time: on a local disk the moment before its commit.
    """

    name: str
    bytes: int
    committed_at: datetime
    run: str
    sources: tuple[Receipt, ...]
    damage: Damage | None = None


@dataclass(frozen=True, slots=True)
class PartitionSurvey:
    """One hour of one account, or one day in a coarse copy: at least one part, or a damage.

    `refused` says why the partition's folder cannot be listed.
    """

    partition: Partition
    parts: tuple[PartSurvey, ...]
    refused: Damage | None = None

    @property
    def sources(self) -> tuple[Receipt, ...]:
        """The receipts of all parts."""
        return tuple(source for part in self.parts for source in part.sources)

    @property
    def files(self) -> int:
        """The number of source files that have a receipt."""
        return sum(len(part.sources) for part in self.parts)

    @property
    def rows(self) -> int:
        """The rows by the receipts."""
        return sum(source.rows for source in self.sources)

    @property
    def quarantined(self) -> int:
        """The bad rows by the receipts."""
        return sum(source.quarantined for source in self.sources)

    @property
    def bytes(self) -> int:
        """The size of the parts in the lake."""
        return sum(part.bytes for part in self.parts)

    @property
    def damages(self) -> tuple[Damage, ...]:
        """Everything that cannot be read."""
        refused = () if self.refused is None else (self.refused,)
        return (*refused, *(part.damage for part in self.parts if part.damage is not None))

    @property
    def loaded(self) -> tuple[datetime, datetime] | None:
        """When the first and the last part were committed; None without parts."""
        times = [part.committed_at for part in self.parts]
        return (min(times), max(times)) if times else None

    @property
    def delays(self) -> tuple[timedelta, ...]:
        """The delays of the files whose names hold the time of writing, shortest first."""
        delays = (delay_of(source.path, self._hour_of(source)) for source in self.sources)
        return tuple(sorted(delay for delay in delays if delay is not None))

    @property
    def late(self) -> int:
        """The number of files that came more than `LATE_AFTER` after the end of their hour."""
        return sum(delay > LATE_AFTER for delay in self.delays)

    @property
    def rows_by_hour(self) -> dict[datetime, int]:
        """The rows of each hour that has a file, by the receipts.

        A day of a copy that cannot be read completely has all its hours: any may have files.
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
        """Return a source's hour: in a copy that of its path, in a lake the partition's."""
        if self.partition.length != HOUR:
            with suppress(InvalidPathError):
                return BreakdownPath.parse(source.path).partition.hour
        return self.partition.hour


@dataclass(frozen=True, slots=True)
class Survey:
    """What the lake holds of a selection, partitions oldest first.

    `exists` is False if there is no lake. In a coarse copy (`is_copy`) a partition is a day.
    `expected` has the first and the last hour in which each account should have files; hours of it
    without a part are `gaps`. `damaged_folders` are folders above partitions that cannot be listed,
    each with its year, month, day and hour as far as known: what is in them is not a gap.
    """

    exists: bool
    is_copy: bool
    selection: Selection
    partitions: tuple[PartitionSurvey, ...]
    expected: Mapping[str, Span]
    gaps: tuple[Gap, ...]
    damaged_folders: Mapping[Damage, tuple[int, ...]]

    @property
    def accounts(self) -> tuple[str, ...]:
        """The accounts that have partitions or gaps."""
        named = {partition.partition.account for partition in self.partitions}
        return tuple(sorted(named | {gap.account for gap in self.gaps}))

    @property
    def damages(self) -> tuple[Damage, ...]:
        """Everything that cannot be read."""
        return (*self.damaged_folders, *(damage for p in self.partitions for damage in p.damages))

    @property
    def files(self) -> int:
        """The number of source files that have a receipt."""
        return sum(partition.files for partition in self.partitions)

    @property
    def rows(self) -> int:
        """The rows by the receipts."""
        return sum(partition.rows for partition in self.partitions)

    @property
    def quarantined(self) -> int:
        """The bad rows by the receipts."""
        return sum(partition.quarantined for partition in self.partitions)

    @property
    def bytes(self) -> int:
        """The size of all parts in the lake."""
        return sum(partition.bytes for partition in self.partitions)

    @property
    def parts(self) -> int:
        """The number of parts, damaged ones too."""
        return sum(len(partition.parts) for partition in self.partitions)

    def of(self, account: str) -> "Survey":
        """Return one account's share, without the folders above partitions."""
        return replace(
            self,
            selection=replace(self.selection, account=account),
            partitions=tuple(p for p in self.partitions if p.partition.account == account),
            gaps=tuple(gap for gap in self.gaps if gap.account == account),
            damaged_folders={},
        )


def survey(store: Store, selection: Selection, now: datetime) -> Survey:
    """Read names, sizes and footers of the lake, no rows. Blocking; nothing is written.

    No files are expected after `now`. A lake that does not exist holds nothing. Raises StoreError
    if its root cannot be read.
    """
    layout = read_layout(store)
    known = sorted({*layout.parts, *layout.unlistable})
    chosen = [partition for partition in known if selection.includes(partition)]

    at_once = _READ_AT_ONCE // store.readers
    groups = [chosen[at : at + at_once] for at in range(0, len(chosen), at_once)]

    def read(group: Iterable[Partition]) -> list[PartitionSurvey]:
        return [_read_partition(store, layout, partition) for partition in group]

    with ThreadPoolExecutor(max(_READERS, 4 * store.readers)) as pool:
        surveys = list(chain.from_iterable(pool.map(read, groups)))
    held: dict[str, set[datetime]] = {}
    for surveyed in surveys if layout.is_copy else ():
        held.setdefault(surveyed.partition.account, set()).update(surveyed.rows_by_hour)
    for partition in () if layout.is_copy else known:
        held.setdefault(partition.account, set()).add(partition.hour)
    expected = expected_spans(held, selection, now)
    return Survey(
        layout.exists,
        layout.is_copy,
        selection,
        tuple(each for each in surveys if each.parts or each.refused),
        expected,
        tuple(find_gaps(held, expected, tuple(layout.damaged_folders.values()))),
        layout.damaged_folders,
    )


def delay_of(path: str, hour: datetime) -> timedelta | None:
    """Return how long after the end of its hour a file was written; None if its name has no time.

    The vendor's file names hold the time of writing, but its documentation does not promise that.
    """
    match = _FILE_NAME.fullmatch(path.rpartition("/")[2])
    if match is None:
        return None
    return datetime.fromtimestamp(int(match["millis"]) / 1000, UTC) - hour - HOUR


def _read_partition(store: Store, layout: Layout, partition: Partition) -> PartitionSurvey:
    parts = [_read_part(store, file) for file in layout.parts.get(partition, ())]
    return PartitionSurvey(partition, tuple(filter(None, parts)), layout.unlistable.get(partition))


def _read_part(store: Store, file: StoredFile) -> PartSurvey | None:
    try:
        with store.open(file.name) as stream:
            found = read_receipts(stream)
    except FileNotFoundError:
        return None  # an operator deleted it
    except StoreError as error:
        damaged = isinstance(error, UnreadablePartError)
        damage = Damage(file.name, f"{file.name} is {error}" if damaged else str(error))
        return PartSurvey(file.name, file.bytes, file.modified, "", (), damage)
    return PartSurvey(file.name, file.bytes, file.modified, found.run, found.sources)


@dataclass(frozen=True, slots=True)
class ListedPartition:
    """The listed files of one partition. The lake has no receipt of the `missing` ones.

    `damage` says why the lake's parts of it cannot be read: then a run could not load the files.
    """

    partition: Partition
    listed: int
    missing: int
    damage: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A listing of a window against the lake.

    The `invalid` paths do not fit the API's pattern, and `fetch.skip` names the `skipped` ones.
    Neither are in `partitions`.
    """

    account: str
    window: Window
    listing: Listing
    partitions: tuple[ListedPartition, ...]
    invalid: int
    skipped: int

    @property
    def listed(self) -> int:
        """The number of distinct listed paths."""
        return self.invalid + self.skipped + sum(each.listed for each in self.partitions)

    @property
    def missing(self) -> int:
        """The number of listed files that the lake lacks."""
        return sum(each.missing for each in self.partitions)

    @property
    def loaded(self) -> int:
        """The number of listed files that the lake holds."""
        return sum(each.listed - each.missing for each in self.partitions)

    @property
    def lacking(self) -> tuple[ListedPartition, ...]:
        """The partitions that lack files, oldest first."""
        return tuple(each for each in self.partitions if each.missing)

    def answered(self, hour: datetime) -> bool:
        """Return whether the API listed all files of this hour, as far as it says."""
        end = hour + HOUR
        unsure = (*self.listing.partial_windows, *self.listing.unanswered)
        return (
            self.window.start <= hour
            and end <= self.window.end
            and not any(window.start < end and hour < window.end for window in unsure)
        )

    def remarks(self) -> Iterator[str]:
        """Yield remarks on the listing and advice, in sentences. Times are in UTC."""
        if self.invalid:
            yield f"{self.invalid:,} listed paths do not fit the API's pattern."
        if self.skipped:
            yield f"{self.skipped:,} listed files are left out by fetch.skip."
        for partial in self.listing.partial_windows:
            yield f"The vendor says that paths are missing in its own listing of {_span(partial)}."
        for unanswered in self.listing.unanswered:
            span = _span(unanswered)
            yield f"The API did not answer for {span}: what it lists there is unknown."
        damaged = [each for each in self.lacking if each.damage]
        blocked = sum(each.missing for each in damaged)
        if blocked:
            yield (
                f"{blocked:,} cannot be loaded until {len(damaged):,} damaged "
                f"{'part is' if len(damaged) == 1 else 'parts are'} restored from a backup, or "
                "deleted while no run is active."
            )
        if self.missing > blocked:
            rest = "the others" if blocked else "what is missing"
            yield f"aht-etl run over the same window loads {rest}."


def _span(window: Window) -> str:
    return f"{to_minute(window.start)} to {to_minute(window.end)} UTC"
