"""Compare a coarse copy with its lake, source by source and row by row: `verify --copy`."""

from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from etl.audit.verify import Finding, FindingKind, Verification, home_of, in_order
from etl.audit.verify_lake import verify
from etl.lake.commit import read_state
from etl.lake.compact import Day, days_of
from etl.lake.layout import Damage, Selection, read_layout
from etl.lake.receipts import Receipt, SourceRows, read_receipts, source_rows
from etl.model.dataset import DECODED_SCHEMA
from etl.model.machine import cores
from etl.model.paths import Partition
from etl.storage.store import Store, StoredFile, StoreError


def verify_copy(
    lake: Store,
    copy: Store,
    selection: Selection,
    settled_before: datetime,
    on_part: Callable[[int, int], None],
) -> Verification:
    """Verify a copy's own parts, then compare each of its sources with the lake's. Blocking.

    Days that were not over by `settled_before` may be missing. Loads and copiers may be active.
    Raises StoreError if one of the two places cannot be read.
    """
    # The lake first: files that are copied meanwhile are then in both.
    layout = read_layout(lake)
    if layout.is_copy:
        raise StoreError(f"{lake.place} is a coarse copy and no lake; check lake.uri")
    days = {day.partition: day for day in days_of(layout) if selection.includes(day.partition)}
    result = verify(copy, selection, None, on_part)
    there = read_layout(copy)
    if there.parts and not there.is_copy:
        raise StoreError(f"{copy.place} is a lake and no coarse copy; check compact.uri")
    copied = {day: files for day, files in there.parts.items() if selection.includes(day)}

    def compare(partition: Partition) -> list[Finding]:
        day = days.get(partition, Day(partition, (), None))
        settled = partition.end <= settled_before
        return _compare_day(lake, copy, day, copied.get(partition, ()), settled=settled)

    partitions = sorted({*days, *copied})
    threads = max(cores(), copy.readers)
    for _, findings in in_order(compare, partitions, threads=threads):
        result.findings += findings
    return result


@dataclass(frozen=True, slots=True)
class _Held:
    """A source's receipt, and the part that has it."""

    part: StoredFile
    receipt: Receipt


def _compare_day(
    lake: Store, copy: Store, day: Day, copied: Sequence[StoredFile], *, settled: bool
) -> list[Finding]:
    """Return the differences of a day. Sources may be missing in a day that is not settled."""
    damages = [] if day.damage is None else [day.damage]
    in_copy = _receipts(copy, copied, [])  # `verify` finds parts of the copy that are damaged
    in_lake = _receipts(lake, day.parts, damages)
    if damages:
        return [_not_comparable(damage) for damage in damages]
    here, there = _by_path(in_lake), _by_path(in_copy)
    findings = []
    missing = sorted(here.keys() - there.keys())
    if missing and settled:
        message = (
            f"{len(missing):,} sources of the lake are not in the copy, the first {missing[0]}; "
            "call aht-etl compact"
        )
        findings.append(Finding(FindingKind.COPY_MISSING, day.partition.directory, message))
    extra: dict[str, list[str]] = defaultdict(list)
    for path in _not_in_the_lake(lake, sorted(there.keys() - here.keys())):
        extra[there[path].part.name].append(path)
    for name, paths in sorted(extra.items()):
        message = (
            f"{len(paths):,} sources of this part of the copy are not in the lake, the first "
            f"{paths[0]}; load them again, or delete this part while no aht-etl compact is "
            "active, and call that again"
        )
        findings.append(Finding(FindingKind.COPY_EXTRA, name, message))
    for part, receipts in in_copy.items():
        with closing(_LakeRows(lake, in_lake)) as lake_rows:
            finding = _compare_rows(copy, part, receipts, here, lake_rows)
        if finding is not None:
            findings.append(finding)
    return findings


def _not_comparable(damage: Damage) -> Finding:
    message = f"the lake's day cannot be compared: {damage.message}; aht-etl verify says more"
    return Finding(FindingKind.UNREADABLE, damage.name, message)


def _receipts(
    store: Store, parts: Iterable[StoredFile], damages: list[Damage]
) -> dict[StoredFile, tuple[Receipt, ...]]:
    """Return the receipts of these parts; those that cannot be read are added to `damages`."""
    found = {}
    for part in parts:
        try:
            with store.open(part.name) as stream:
                found[part] = read_receipts(stream).sources
        except FileNotFoundError:
            continue  # an operator deleted it
        except StoreError as error:
            damages.append(Damage(part.name, str(error)))
    return found


def _by_path(parts: Mapping[StoredFile, Iterable[Receipt]]) -> dict[str, _Held]:
    held: dict[str, _Held] = {}
    for part, receipts in parts.items():
        for receipt in receipts:
            held.setdefault(receipt.path, _Held(part, receipt))
    return held


def _not_in_the_lake(lake: Store, paths: Iterable[str]) -> Iterator[str]:
    """Yield the paths that no run has loaded since the lake was listed."""
    loaded: dict[str, set[str]] = {}
    for path in paths:
        folder = home_of(path, is_copy=False)
        if folder not in loaded:
            loaded[folder] = read_state(lake, folder).loaded
        if path not in loaded[folder]:
            yield path


class _LakeRows:
    """The rows of the lake's sources. One part is open at a time: the copy has the lake's order.

    `damage` is set once a part cannot be read; its sources then have no rows.
    """

    def __init__(self, lake: Store, receipts: Mapping[StoredFile, Sequence[Receipt]]) -> None:
        self._lake = lake
        self._receipts = receipts
        self._part: StoredFile | None = None
        self._reading: Generator[SourceRows, None, None] | None = None
        self.damage: Damage | None = None

    def of(self, held: _Held) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a source in batches."""
        try:
            if held.part != self._part or not (rows := self._next(held.receipt.path)):
                self.close()
                self._part = held.part
                self._reading = self._open(held.part)
                rows = self._next(held.receipt.path)
            yield from rows or ()
        except (FileNotFoundError, StoreError) as error:
            self.damage = Damage(held.part.name, str(error))

    def _open(self, part: StoredFile) -> Generator[SourceRows, None, None]:
        with self._lake.open(part.name) as stream:
            yield from source_rows(stream, part.bytes, self._receipts[part])

    def _next(self, path: str) -> Iterator[pa.RecordBatch] | None:
        reading = self._reading or ()
        return next((rows for receipt, rows in reading if receipt.path == path), None)

    def close(self) -> None:
        """Close the open part."""
        if self._reading is not None:
            self._reading.close()


def _compare_rows(
    copy: Store,
    part: StoredFile,
    receipts: Sequence[Receipt],
    here: Mapping[str, _Held],
    lake_rows: _LakeRows,
) -> Finding | None:
    """Compare each source of a part of the copy with the lake's, batch by batch."""
    differ: list[str] = []
    try:
        with copy.open(part.name) as stream:
            for receipt, rows in source_rows(stream, part.bytes, receipts):
                if (held := here.get(receipt.path)) is None:
                    continue
                if receipt != held.receipt or not _equal(rows, lake_rows.of(held)):
                    differ.append(receipt.path)
                if lake_rows.damage is not None:
                    return _not_comparable(lake_rows.damage)
    except (FileNotFoundError, StoreError):
        return None  # `verify` finds parts of the copy that are damaged
    if not differ:
        return None
    message = (
        f"{len(differ):,} sources have another receipt or other rows than in the lake, the first "
        f"{differ[0]}; delete this part of the copy while no aht-etl compact is active, and call "
        "that again"
    )
    return Finding(FindingKind.COPY_DIFFERS, part.name, message)


def _equal(one: Iterator[pa.RecordBatch], other: Iterator[pa.RecordBatch]) -> bool:
    """Compare rows, however they are cut into batches. Their sources are compared already."""
    rests: list[pa.RecordBatch | None] = [None, None]
    while True:
        for number, batches in enumerate((one, other)):
            if rests[number] is None:
                rests[number] = next(batches, None)
        first, second = rests
        if first is None or second is None:
            return first is second
        length = min(len(first), len(second))
        if not _columns(first, length).equals(_columns(second, length)):
            return False
        rests = [batch.slice(length) if len(batch) > length else None for batch in (first, second)]


def _columns(batch: pa.RecordBatch, length: int) -> pa.RecordBatch:
    return batch.slice(0, length).select(DECODED_SCHEMA.names)
