"""Proving one part: read to its last row and held against its own receipts."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from etl.lake.layout import bad_rows_name, day_of
from etl.lake.receipts import Receipt, UnreadablePartError, first_line, read_receipts
from etl.model.dataset import COPY_SCHEMA, SCHEMA
from etl.model.paths import BreakdownPath, InvalidPathError
from etl.storage.store import LakeError, Store

_RELOAD: Final = "restore it from a backup, or delete it while no run is active and run again"
_COPY_AGAIN: Final = (
    "delete it while no aht-etl compact is active, and call that again: it copies anew what the "
    "part held"
)

_BATCH_ROWS: Final = 2**14
# No line that the job writes is longer: 64 KiB of text, each character escaped at worst.
_LINE_BYTES: Final = 2**19
_UNREADABLE: Final = (pa.ArrowException, OSError, ValueError, MemoryError)


class FindingKind(StrEnum):
    """What is wrong; `etl.audit.verify` has the table of what to do."""

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
    """Something that is not as it should be: where, what, and what to do about it."""

    kind: FindingKind
    path: str
    message: str


@dataclass(slots=True)
class PartProof:
    """What a part's proof found: rows that were read, sources it vouches for, findings."""

    name: str
    is_copy: bool
    rows: int = 0
    sources: tuple[Receipt, ...] = ()
    findings: list[Finding] = field(default_factory=list)

    @property
    def schema(self) -> pa.Schema:
        """The columns that it should have."""
        return COPY_SCHEMA if self.is_copy else SCHEMA

    @property
    def reload(self) -> str:
        """What to do about it."""
        return _COPY_AGAIN if self.is_copy else _RELOAD

    def find(self, kind: FindingKind, message: str, path: str | None = None) -> None:
        """Add a finding, of the part itself unless another path is given."""
        self.findings.append(Finding(kind, path or self.name, message))


def prove_part(
    store: Store, name: str, more: Callable[[Receipt], Finding | None], *, is_copy: bool = False
) -> PartProof | None:
    """Read a part wholly and compare it with its receipts; None if it is gone. Blocking.

    Every page is unpacked, decoded and, where it has a checksum, checked; a row group at most is in
    memory. `more` is asked of each receipt besides. A coarse copy holds no bad rows, only their
    number: they are the lake's.
    """
    proof = PartProof(name, is_copy)
    try:
        with store.open(name) as stream:
            counted = _read(stream, proof)
            if counted is None:
                return proof
            stream.seek(0)
            try:
                proof.sources = read_receipts(stream).sources
            except UnreadablePartError as error:
                proof.find(
                    FindingKind.RECEIPTS,
                    f"{error}: nothing is written to its partition; {proof.reload}",
                )
                return proof
    except FileNotFoundError:
        return None  # an operator deleted it
    except LakeError as error:
        proof.find(FindingKind.UNREADABLE, f"{error}; {proof.reload}")
        return proof
    _compare_rows(proof, counted)
    _compare_places(proof)
    for source in proof.sources:
        bad_rows = None if is_copy else _bad_rows(store, source)
        for finding in (bad_rows, more(source)):
            if finding is not None:
                proof.findings.append(finding)
    return proof


def _read(stream: BinaryIO, proof: PartProof) -> Counter[str | None] | None:
    """Count the rows of each source; None if not all can be read. Tells a wrong schema."""
    counted: Counter[str | None] = Counter()
    wrong_hours = 0
    try:
        with pq.ParquetFile(stream, page_checksum_verification=True) as file:
            if not (fits := file.schema_arrow.equals(proof.schema)):
                difference = _difference(file.schema_arrow, proof.schema)
                proof.find(FindingKind.SCHEMA, f"{difference}; {proof.reload}")
            for batch in _batches(file):
                batch.validate(full=True)
                proof.rows += batch.num_rows
                if fits:
                    counted.update(_by_source(batch))
                if fits and proof.is_copy:
                    wrong_hours += _in_another_hour(batch)
            if proof.rows != file.metadata.num_rows:
                raise pa.ArrowInvalid(f"the footer says {file.metadata.num_rows} rows")
    except _UNREADABLE as error:
        proof.find(
            FindingKind.UNREADABLE,
            f"cannot be read beyond row {proof.rows:,}: {first_line(error).rstrip('.')}; "
            f"{proof.reload}",
        )
        return None
    if wrong_hours:
        message = f"{wrong_hours:,} rows have another hour than their source; {proof.reload}"
        proof.find(FindingKind.ROWS, message)
    return counted


def _in_another_hour(batch: pa.RecordBatch) -> int:
    """Count rows of a copy whose hour is not that of their source's path."""
    pairs = pa.Table.from_batches([batch.select(["sourcePath", "hour"])])
    grouped = pairs.group_by(["sourcePath", "hour"]).aggregate([([], "count_all")]).to_pylist()
    return sum(
        each["count_all"] for each in grouped if _hour_of(each["sourcePath"]) != each["hour"]
    )


def _hour_of(path: str | None) -> int | None:
    try:
        return BreakdownPath.parse(path or "").partition.hour.hour
    except InvalidPathError:
        return None


def _batches(file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    # One row group after another: a reader of all holds on to what it has read until its end.
    for group in range(file.num_row_groups):
        yield from file.iter_batches(_BATCH_ROWS, row_groups=[group], use_threads=False)


def _by_source(batch: pa.RecordBatch) -> dict[str | None, int]:
    counted: Any = pc.value_counts(batch["sourcePath"])
    return {entry["values"]: entry["counts"] for entry in counted.to_pylist()}


def _difference(schema: pa.Schema, wanted: pa.Schema) -> str:
    if schema.names != wanted.names:
        return f"its columns are {', '.join(schema.names)[:200]}, not {', '.join(wanted.names)}"
    for field_, right in zip(schema, wanted, strict=True):
        if not field_.equals(right):
            return f"its column {field_.name} is {field_.type}, not {right.type}"
    return "its columns are not the lake's"


def _compare_rows(proof: PartProof, counted: Counter[str | None]) -> None:
    if any(finding.kind is FindingKind.SCHEMA for finding in proof.findings):
        return  # its columns mean something else
    said: Counter[str | None] = Counter()
    for source in proof.sources:
        said[source.path] += source.rows
    wrong = sorted((p for p in {*said, *counted} if said[p] != counted[p]), key=str)
    if wrong:
        path = wrong[0]
        proof.find(
            FindingKind.ROWS,
            f"{proof.rows:,} rows, its receipts say {said.total():,}; {len(wrong):,} sources "
            f"differ, the first {path or 'without a path'}: {counted[path]:,} rows, not "
            f"{said[path]:,}; {proof.reload}",
        )


def _compare_places(proof: PartProof) -> None:
    twice = [path for path, n in Counter(s.path for s in proof.sources).items() if n > 1]
    if twice:
        proof.find(
            FindingKind.DUPLICATE,
            f"{len(twice):,} sources have two receipts in it, the first {twice[0]}; {proof.reload}",
        )
    astray = list(misplaced(proof))
    if astray:
        proof.find(
            FindingKind.MISPLACED,
            f"{len(astray):,} of its sources belong to another partition, the first {astray[0]}; "
            "move it back under a free number, or delete it while no run is active and run again",
        )


def misplaced(proof: PartProof) -> Iterator[str]:
    """Yield the sources whose own path is not in the partition that the part lies in."""
    folder = proof.name.rpartition("/")[0]
    for source in proof.sources:
        if home_of(source.path, is_copy=proof.is_copy) != folder:
            yield source.path


def home_of(path: str, *, is_copy: bool) -> str:
    """Return the folder of a lake, or of a copy, that the rows of a source belong to."""
    if is_copy:
        try:
            return day_of(BreakdownPath.parse(path).partition).directory
        except InvalidPathError:
            pass
    return path.removeprefix("/").rpartition("/")[0]


def _bad_rows(store: Store, source: Receipt) -> Finding | None:
    """Compare a receipt's bad rows with those that are kept of its file.

    They are written before the part that counts them, so a file without receipt is none of this.
    """
    if not source.quarantined:
        return None
    name = bad_rows_name(source.path)
    advice = "restore it from a backup, or delete its part while no run is active and run again"
    try:
        with store.open(name) as stream:
            lines, wrong = _count_lines(iter(lambda: stream.readline(_LINE_BYTES), b""), source)
    except FileNotFoundError:
        reason = f"is not there, of {source.quarantined:,} bad rows"
    except (LakeError, OSError) as error:
        reason = f"cannot be read: {error}"
    else:
        if wrong is not None:
            reason = f"line {wrong:,} is no bad row of {source.path}"
        elif lines != source.quarantined:
            reason = f"has {lines:,} bad rows, its receipt says {source.quarantined:,}"
        else:
            return None
    return Finding(FindingKind.QUARANTINE, name, f"{reason}; {advice}")


def _count_lines(lines: Iterable[bytes], source: Receipt) -> tuple[int, int | None]:
    """Return how many bad rows there are and the number of the first line that is none."""
    count = 0
    for line in lines:
        count += 1
        try:
            row = json.loads(line)
            good = (
                line.endswith(b"\n")
                and row["sourcePath"] == source.path
                and type(row["row"]) is int
                and isinstance(row["reason"], str)
                and isinstance(row["raw"], str)
            )
        except (ValueError, TypeError, KeyError, RecursionError):
            good = False
        if not good:
            return count, count
    return count, None
