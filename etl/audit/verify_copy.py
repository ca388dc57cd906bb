"""Proving a coarse copy equal to its lake, source by source and row by row.

| kind | what is wrong → what to do |
|---|---|
| `copy_missing` | a day's sources are in the lake, not in the copy → `aht-etl compact` |
| `copy_extra` | a part of the copy has sources that the lake has not → load them, or delete it |
| `copy_differs` | a source has another receipt, or other rows, than in the lake → delete the part |

A deleted part of the copy is copied anew by the next `aht-etl compact`, as far as the lake holds
it. Delete one only while none is active. What the copy's own parts are like, `verify` tells as of a
lake.
"""

from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import pyarrow as pa

from etl.audit.parallel import in_order
from etl.audit.verify import Verification, verify
from etl.audit.verify_part import Finding, FindingKind, home_of
from etl.lake.commit import read_state
from etl.lake.compact import Day, days_of
from etl.lake.layout import Selection, read_layout
from etl.lake.receipts import Receipt, UnreadablePartError, read_receipts
from etl.lake.rows import SourceRows, source_rows
from etl.model.dataset import DECODED_SCHEMA
from etl.model.machine import cores
from etl.model.paths import Partition
from etl.storage.store import LakeError, Store, StoredFile

_AHEAD: Final = 4


def verify_copy(
    lake: Store,
    copy: Store,
    selection: Selection,
    settled_before: datetime,
    on_part: Callable[[int, int], None],
) -> Verification:
    """Prove a copy: its own parts, then each of its sources against the lake's. Blocking.

    Days that were not over by `settled_before` may be missing. Loads may go on meanwhile, and so
    may copiers. Raises LakeError where one of the two places cannot be read.
    """
    # The lake first: what is copied meanwhile is then in both.
    layout = read_layout(lake)
    if layout.is_copy:
        raise LakeError(f"{lake.place} is a coarse copy and no lake; check lake.uri")
    days = [day for day in days_of(layout) if selection.includes(day.partition)]
    result = verify(copy, selection, None, on_part)
    there = read_layout(copy)
    if there.parts and not there.is_copy:
        raise LakeError(f"{copy.place} is a lake and no coarse copy; check compact.uri")
    parts = {day: tuple(files) for day, files in there.parts.items() if selection.includes(day)}
    of_lake = {day.partition: day for day in days}
    both = sorted({*of_lake, *parts})

    def compare(partition: Partition) -> list[Finding]:
        day = of_lake.get(partition, Day(partition, (), None))
        settled = partition.end <= settled_before
        return _Comparison(lake, copy, day, parts.get(partition, ())).findings(settled=settled)

    for _, findings in in_order(compare, both, threads=max(cores(), copy.readers), ahead=_AHEAD):
        result.findings += findings
    return result


@dataclass(frozen=True, slots=True)
class _Held:
    """A source that a part holds."""

    file: StoredFile
    receipt: Receipt


class _Comparison:
    """A day of the copy against the same day of the lake."""

    def __init__(
        self, lake: Store, copy: Store, day: Day, copy_parts: tuple[StoredFile, ...]
    ) -> None:
        self._lake = lake
        self._copy = copy
        self._day = day
        self._copy_parts = copy_parts
        self._findings: list[Finding] = []
        self._receipts: dict[str, tuple[Receipt, ...]] = {}

    def findings(self, *, settled: bool) -> list[Finding]:
        """Return what differs; what is missing is none in a day that need not be copied yet."""
        there = self._held(self._copy, self._copy_parts, lambda *_: None)
        if self._day.damage is not None:
            self._not_readable(self._day.damage.name, self._day.damage.message)
        here = self._held(self._lake, self._day.parts, self._not_readable)
        if self._findings:
            return self._findings
        folder = self._day.partition.directory
        missing = sorted(here.keys() - there.keys())
        if missing and settled:
            self._find(
                FindingKind.COPY_MISSING,
                folder,
                f"{len(missing):,} sources of the lake are not in the copy, the first "
                f"{missing[0]}; call aht-etl compact",
            )
        by_part: dict[str, list[str]] = defaultdict(list)
        for path in there.keys() - here.keys():
            by_part[there[path].file.name].append(path)
        for name, paths in sorted(by_part.items()):
            if extra := sorted(self._not_in_the_lake(paths)):
                self._find(
                    FindingKind.COPY_EXTRA,
                    name,
                    f"{len(extra):,} sources of this part of the copy are not in the lake, the "
                    f"first {extra[0]}; load them again, or delete this part while no aht-etl "
                    "compact is active, and call that again",
                )
        for file in self._copy_parts:
            self._compare_rows(file, here)
        return self._findings

    def _find(self, kind: FindingKind, name: str, message: str) -> None:
        self._findings.append(Finding(kind, name, message))

    def _not_readable(self, name: str, reason: object) -> None:
        message = f"the lake's day cannot be compared: {reason}; aht-etl verify says more"
        self._find(FindingKind.UNREADABLE, name, message)

    def _held(
        self, store: Store, files: Iterable[StoredFile], refused: Callable[[str, object], None]
    ) -> dict[str, _Held]:
        """Return the sources of these parts; `refused` hears of those that cannot be read."""
        held: dict[str, _Held] = {}
        for file in files:
            try:
                with store.open(file.name) as stream:
                    self._receipts[file.name] = read_receipts(stream).sources
            except FileNotFoundError:
                continue  # an operator deleted it
            except (UnreadablePartError, LakeError) as error:
                refused(file.name, error)
                continue
            for receipt in self._receipts[file.name]:
                held.setdefault(receipt.path, _Held(file, receipt))
        return held

    def _not_in_the_lake(self, paths: Iterable[str]) -> Iterator[str]:
        """Yield those that no load has brought since the lake was listed."""
        loaded: dict[str, set[str]] = {}
        for path in paths:
            folder = home_of(path, is_copy=False)
            if folder not in loaded:
                loaded[folder] = read_state(self._lake, folder).loaded
            if path not in loaded[folder]:
                yield path

    def _compare_rows(self, file: StoredFile, here: dict[str, _Held]) -> None:
        """Compare each source of a part of the copy with the lake's, batch by batch."""
        differ: list[str] = []
        lake_rows = _LakeRows(self._lake, self._receipts)
        try:
            with self._copy.open(file.name) as stream:
                sources = self._receipts.get(file.name, ())
                for receipt, rows in source_rows(stream, file.bytes, sources):
                    if (held := here.get(receipt.path)) is None:
                        continue
                    if receipt != held.receipt or not _equal(rows, lake_rows.of(held)):
                        differ.append(receipt.path)
        except (FileNotFoundError, UnreadablePartError, LakeError):
            return  # `verify` tells of the copy's own parts
        except _LakePartError as error:
            self._not_readable(error.name, error)
        finally:
            lake_rows.close()
        if differ:
            self._find(
                FindingKind.COPY_DIFFERS,
                file.name,
                f"{len(differ):,} sources have another receipt or other rows than in the lake, the "
                f"first {differ[0]}; delete this part of the copy while no aht-etl compact is "
                "active, and call that again",
            )


class _LakePartError(Exception):
    """A part of the lake that cannot be read."""

    def __init__(self, name: str, reason: object) -> None:
        super().__init__(str(reason))
        self.name = name


class _LakeRows:
    """Rows of the lake by source. One part is open at a time: the copy has the lake's order."""

    def __init__(self, lake: Store, receipts: dict[str, tuple[Receipt, ...]]) -> None:
        self._lake = lake
        self._receipts = receipts
        self._name: str | None = None
        self._reading: Generator[SourceRows, None, None] | None = None

    def of(self, held: _Held) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a source. Raises _LakePartError."""
        try:
            if held.file.name != self._name or not (rows := self._next(held.receipt.path)):
                self.close()
                self._name = held.file.name
                self._reading = self._open(held.file)
                rows = self._next(held.receipt.path)
            yield from rows or ()
        except (FileNotFoundError, UnreadablePartError, LakeError) as error:
            raise _LakePartError(held.file.name, error) from None

    def _open(self, file: StoredFile) -> Generator[SourceRows, None, None]:
        with self._lake.open(file.name) as stream:
            yield from source_rows(stream, file.bytes, self._receipts[file.name])

    def _next(self, path: str) -> Iterator[pa.RecordBatch] | None:
        reading = self._reading or ()
        return next((rows for receipt, rows in reading if receipt.path == path), None)

    def close(self) -> None:
        """Close the part that is open."""
        if self._reading is not None:
            self._reading.close()


def _equal(one: Iterator[pa.RecordBatch], other: Iterator[pa.RecordBatch]) -> bool:
    """Compare rows, however they are cut into batches; their source is compared already."""
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
