"""What a verification finds, and the verification of one part.

A part is read to its last row, and compared with its own receipts.
"""

import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, BinaryIO, Final, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from etl.lake.layout import bad_rows_name, day_of
from etl.lake.receipts import Receipt, UnreadablePartError, first_line, read_receipts
from etl.model.dataset import COPY_SCHEMA, SCHEMA
from etl.model.paths import BreakdownPath, InvalidPathError
from etl.storage.store import Store, StoreError


class FindingKind(StrEnum):
    """What is wrong, or what a note says. operations.md says what to do about each."""

    UNREADABLE = "unreadable"
    RECEIPTS = "receipts"
    SCHEMA = "schema"
    ROWS = "rows"
    DUPLICATE = "duplicate"
    MISPLACED = "misplaced"
    QUARANTINE = "quarantine"
    FOREIGN = "foreign"
    ARCHIVE_MISSING = "archive_missing"
    ARCHIVE_DIFFERS = "archive_differs"
    ARCHIVE_ROWS = "archive_rows"
    NOT_LOADED = "not_loaded"
    NUMBER_GAP = "number_gap"
    UNLOADABLE = "unloadable"
    EMPTY = "empty"
    COPY_MISSING = "copy_missing"
    COPY_EXTRA = "copy_extra"
    COPY_DIFFERS = "copy_differs"


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem: its kind, the file or folder, and a message that says what to do."""

    kind: FindingKind
    path: str
    message: str


@dataclass(slots=True)
class Verification:
    """What was read, and what is wrong. Notes are not findings: nothing is wrong with the lake."""

    parts: int = 0
    files: int = 0
    rows: int = 0
    bytes: int = 0
    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether there was nothing to verify; a note says why."""
        return not self.parts and not self.findings

    @property
    def ok(self) -> bool:
        """Whether something was read and nothing is wrong."""
        return self.parts > 0 and not self.findings

    def find(self, kind: FindingKind, path: str, message: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(kind, path, message))

    def note(self, kind: FindingKind, path: str, message: str) -> None:
        """Add a note."""
        self.notes.append(Finding(kind, path, message))


T = TypeVar("T")
R = TypeVar("R")

_RELOAD: Final = "restore it from a backup, or delete it while no run is active and run again"
_COPY_AGAIN: Final = (
    "delete it while no aht-etl compact is active, and call that again: it copies again what the "
    "part held"
)

_BATCH_ROWS: Final = 2**14
# The job writes no longer line: 64 KiB of text, each character escaped at worst.
_LINE_BYTES: Final = 2**19
_UNREADABLE: Final = (pa.ArrowException, OSError, ValueError, MemoryError)


@dataclass(slots=True)
class VerifiedPart:
    """The rows that were read of a part, the sources in its receipts, and what is wrong."""

    name: str
    is_copy: bool
    rows: int = 0
    sources: tuple[Receipt, ...] = ()
    findings: list[Finding] = field(default_factory=list)

    def find(self, kind: FindingKind, message: str, advice: str | None = None) -> None:
        """Add a finding; without other advice the part should be restored or made again."""
        advice = advice or (_COPY_AGAIN if self.is_copy else _RELOAD)
        self.findings.append(Finding(kind, self.name, f"{message}; {advice}"))


def verify_part(
    store: Store, name: str, check: Callable[[Receipt], Finding | None] | None, *, is_copy: bool
) -> VerifiedPart | None:
    """Read a part and compare it with its receipts; None if it is gone. Blocking.

    Every page is decompressed, decoded and, if it has a checksum, checked. At most one row group is
    in memory. `check` is called with each receipt as well. A coarse copy has no bad rows of its
    own: they are in the lake.
    """
    part = VerifiedPart(name, is_copy)
    try:
        with store.open(name) as stream:
            counted = _read(stream, part)
            if counted is None:
                return part
            stream.seek(0)
            part.sources = read_receipts(stream).sources
    except FileNotFoundError:
        return None  # an operator deleted it
    except UnreadablePartError as error:
        part.find(FindingKind.RECEIPTS, f"{error}: nothing is written to its partition")
        return part
    except StoreError as error:
        part.find(FindingKind.UNREADABLE, str(error))
        return part
    if all(finding.kind is not FindingKind.SCHEMA for finding in part.findings):
        _compare_rows(part, counted)
    _compare_places(part)
    for source in part.sources:
        bad_rows = None if is_copy else _check_bad_rows(store, source)
        checked = None if check is None else check(source)
        part.findings += [finding for finding in (bad_rows, checked) if finding is not None]
    return part


def _read(stream: BinaryIO, part: VerifiedPart) -> Counter[str | None] | None:
    """Count the rows of each source; None if not all can be read. Finds a wrong schema, too."""
    # In a copy by hour as well, which must be that of the source's path.
    keys = ["sourcePath", "hour"] if part.is_copy else ["sourcePath"]
    grouped: Counter[tuple[Any, ...]] = Counter()
    wanted = COPY_SCHEMA if part.is_copy else SCHEMA
    try:
        with pq.ParquetFile(stream, page_checksum_verification=True) as file:
            if not (fits := file.schema_arrow.equals(wanted)):
                part.find(FindingKind.SCHEMA, _difference(file.schema_arrow, wanted))
            for batch in _batches(file):
                batch.validate(full=True)
                part.rows += batch.num_rows
                if fits:
                    groups = pa.Table.from_batches([batch]).group_by(keys, use_threads=False)
                    for each in groups.aggregate([([], "count_all")]).to_pylist():
                        grouped[tuple(each[key] for key in keys)] += each["count_all"]
            if part.rows != file.metadata.num_rows:
                raise pa.ArrowInvalid(f"the footer says {file.metadata.num_rows} rows")
    except _UNREADABLE as error:
        reason = first_line(error).rstrip(".")
        part.find(FindingKind.UNREADABLE, f"cannot be read beyond row {part.rows:,}: {reason}")
        return None
    counted: Counter[str | None] = Counter()
    wrong_hours = 0
    for (path, *hours), rows in grouped.items():
        counted[path] += rows
        if hours and hours[0] != _hour_of(path):
            wrong_hours += rows
    if wrong_hours:
        part.find(FindingKind.ROWS, f"{wrong_hours:,} rows have another hour than their source")
    return counted


def _batches(file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    # One row group after another: a reader of all keeps what it has read until its end.
    for group in range(file.num_row_groups):
        yield from file.iter_batches(_BATCH_ROWS, row_groups=[group], use_threads=False)


def _difference(schema: pa.Schema, wanted: pa.Schema) -> str:
    if schema.names != wanted.names:
        return f"its columns are {', '.join(schema.names)[:200]}, not {', '.join(wanted.names)}"
    for field_, right in zip(schema, wanted, strict=True):
        if not field_.equals(right):
            return f"its column {field_.name} is {field_.type}, not {right.type}"
    return "its columns are not the lake's"


def _hour_of(path: str | None) -> int | None:
    try:
        return BreakdownPath.parse(path or "").partition.hour.hour
    except InvalidPathError:
        return None


def _compare_rows(part: VerifiedPart, counted: Counter[str | None]) -> None:
    """Compare the rows of each source with its receipt."""
    receipts: Counter[str | None] = Counter()
    for source in part.sources:
        receipts[source.path] += source.rows
    wrong = sorted((p for p in {*receipts, *counted} if receipts[p] != counted[p]), key=str)
    if wrong:
        path = wrong[0]
        part.find(
            FindingKind.ROWS,
            f"{part.rows:,} rows, its receipts say {receipts.total():,}; {len(wrong):,} sources "
            f"differ, the first {path or 'without a path'}: {counted[path]:,} rows, not "
            f"{receipts[path]:,}",
        )


def _compare_places(part: VerifiedPart) -> None:
    """Find receipts that are twice in a part, and sources of another partition."""
    twice = [path for path, n in Counter(s.path for s in part.sources).items() if n > 1]
    if twice:
        part.find(
            FindingKind.DUPLICATE,
            f"{len(twice):,} sources have two receipts in it, the first {twice[0]}",
        )
    astray = list(misplaced(part))
    if astray:
        part.find(
            FindingKind.MISPLACED,
            f"{len(astray):,} of its sources belong to another partition, the first {astray[0]}",
            "move it back under a free number, or delete it while no run is active and run again",
        )


def misplaced(part: VerifiedPart) -> Iterator[str]:
    """Yield the sources that belong to another partition than the part's."""
    folder = part.name.rpartition("/")[0]
    for source in part.sources:
        if home_of(source.path, is_copy=part.is_copy) != folder:
            yield source.path


def home_of(path: str, *, is_copy: bool) -> str:
    """Return the folder of a lake, or of a copy, to which a source belongs."""
    if is_copy:
        try:
            return day_of(BreakdownPath.parse(path).partition).directory
        except InvalidPathError:
            pass
    return path.removeprefix("/").rpartition("/")[0]


def _check_bad_rows(store: Store, source: Receipt) -> Finding | None:
    """Compare a receipt's bad rows with those in the quarantine.

    A run writes them before the part. Bad rows of a file that has no receipt yet are not looked at.
    """
    if not source.quarantined:
        return None
    name = bad_rows_name(source.path)
    lines = 0
    try:
        with store.open(name) as stream:
            while line := stream.readline(_LINE_BYTES):
                lines += 1
                if not _is_bad_row(line, source.path):
                    reason = f"line {lines:,} is no bad row of {source.path}"
                    break
            else:
                if lines == source.quarantined:
                    return None
                reason = f"has {lines:,} bad rows, its receipt says {source.quarantined:,}"
    except FileNotFoundError:
        reason = f"is not there, of {source.quarantined:,} bad rows"
    except (StoreError, OSError) as error:
        reason = f"cannot be read: {error}"
    advice = "restore it from a backup, or delete its part while no run is active and run again"
    return Finding(FindingKind.QUARANTINE, name, f"{reason}; {advice}")


def _is_bad_row(line: bytes, path: str) -> bool:
    try:
        row = json.loads(line)
        return (
            line.endswith(b"\n")
            and row["sourcePath"] == path
            and type(row["row"]) is int
            and isinstance(row["reason"], str)
            and isinstance(row["raw"], str)
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def in_order(
    work: Callable[[T], R], items: Iterable[T], *, threads: int, ahead: int = 4
) -> Iterator[tuple[T, R]]:
    """Yield each item with its result, in order; each thread is at most `ahead` items ahead.

    An error of `work` is raised in its turn. Items that have not started by then never start.
    """
    waiting: deque[tuple[T, Future[R]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) >= threads * ahead:
                    done, result = waiting.popleft()
                    yield done, result.result()
            for done, result in waiting:
                yield done, result.result()
        finally:
            for _, result in waiting:
                result.cancel()
