"""Reading a part: its receipts, which list the source files that are whole in it, and its rows.

The receipts are in the part's own metadata. The rows are in the order of the receipts.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, TypeAdapter

from etl.model import __version__
from etl.model.dataset import SCHEMA
from etl.storage.store import TAIL_BYTES, StoreError

# A file up to this size is read at once: Arrow's calls into Python cost more than its bytes.
_AT_ONCE_BYTES: Final = 4 * 2**20
_BATCH_ROWS: Final = 2**16
_READ: Final = [
    *list(SCHEMA)[:-1],
    pa.field("sourcePath", pa.dictionary(pa.int32(), pa.string())),
]
_UNREADABLE: Final = (pa.ArrowException, OSError, ValueError)

_SCHEMA: Final = "1"
_SOURCES: Final = b"aht_etl.sources"
_RUN: Final = b"aht_etl.run"


# Arrow slices rows by numbers of 64 bits.
_Count = Annotated[int, Field(ge=0, lt=2**63)]


class UnreadablePartError(StoreError):
    """A part that is no Parquet file, or one without receipts."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """One source file that is whole in a part."""

    path: str
    rows: _Count
    quarantined: _Count
    bytes: _Count
    sha256: str


# A later version may write more fields of a source; these are required.
_JSON: Final = TypeAdapter(tuple[Receipt, ...])


@dataclass(frozen=True, slots=True)
class PartReceipts:
    """A part's receipts, and the run that wrote it."""

    sources: tuple[Receipt, ...]
    run: str


def to_metadata(sources: Sequence[Receipt], commit: str, run_id: str) -> dict[str, str]:
    """Return a part's Parquet metadata (how-it-works.md, "Receipts")."""
    return {
        _SOURCES.decode(): _JSON.dump_json(tuple(sources)).decode(),
        "aht_etl.commit": commit,
        _RUN.decode(): run_id,
        "aht_etl.version": __version__,
        "aht_etl.schema": _SCHEMA,
    }


def read_receipts(part: BinaryIO) -> PartReceipts:
    """Read a part's receipts from its footer. Raises UnreadablePartError."""
    try:
        try:
            # Arrow's calls into Python cost more than the bytes, which mostly hold the footer.
            part.seek(max(0, part.seek(0, os.SEEK_END) - TAIL_BYTES))
            found = pq.read_metadata(pa.BufferReader(part.read()))
        except (pa.ArrowException, OSError):
            part.seek(0)
            found = pq.read_metadata(part)
        metadata: dict[bytes, bytes] = found.metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise _damaged(error) from None
    if _SOURCES not in metadata:
        raise UnreadablePartError("a Parquet file without receipts")
    try:
        sources = _JSON.validate_json(metadata[_SOURCES], strict=True)
        return PartReceipts(sources, metadata.get(_RUN, b"").decode())
    except ValueError:
        raise UnreadablePartError("a Parquet file with damaged receipts") from None


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, at most 200 characters."""
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


#: A source's receipt, and its rows in batches of the lake's columns; nothing where it has none.
SourceRows = tuple[Receipt, Iterator[pa.RecordBatch]]


def source_rows(stream: BinaryIO, size: int, receipts: Sequence[Receipt]) -> Iterator[SourceRows]:
    """Yield each receipt of a part with its rows in the columns of `SCHEMA`, batch by batch.

    `size` is the part's, in bytes. Rows that the caller has not read are skipped with the next
    source. Raises UnreadablePartError if the part is damaged or does not match its receipts.
    """
    with _open(stream, size) as file:
        batches = _batches(file)
        rest: list[pa.RecordBatch] = []

        def rows_of(receipt: Receipt) -> Iterator[pa.RecordBatch]:
            missing = receipt.rows
            while missing:
                batch = rest.pop() if rest else next(batches, None)
                if batch is None:
                    raise UnreadablePartError(
                        "a Parquet file with fewer rows than its receipts say"
                    )
                piece = batch.slice(0, missing)
                if len(piece) < len(batch):
                    rest.append(batch.slice(len(piece)))
                if _sources(piece) != [receipt.path]:
                    raise UnreadablePartError(
                        f"a Parquet file with other rows than the receipt of {receipt.path} says"
                    )
                missing -= len(piece)
                yield piece

        for receipt in receipts:
            rows = rows_of(receipt)
            yield receipt, rows
            for _ in rows:
                pass
        if rest or next(batches, None) is not None:
            raise UnreadablePartError("a Parquet file with more rows than it says")


def _open(stream: BinaryIO, size: int) -> pq.ParquetFile:
    try:
        stream.seek(0)
        source: Any = pa.BufferReader(stream.read()) if size <= _AT_ONCE_BYTES else stream
        # Each row repeats the path: as a dictionary it is in memory once.
        file = pq.ParquetFile(
            source, read_dictionary=["sourcePath"], page_checksum_verification=True
        )
        # Not `file.schema`: it and the metadata refer to each other until garbage collection.
        there = file.schema_arrow
    except _UNREADABLE as error:
        raise _damaged(error) from None
    if not all(field.name in there.names and there.field(field.name) == field for field in _READ):
        raise UnreadablePartError("a Parquet file with other columns than the lake's")
    return file


def _batches(file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    try:
        # One row group after another: a reader of all keeps what it has read until its end.
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(
                _BATCH_ROWS, row_groups=[group], columns=SCHEMA.names, use_threads=False
            ):
                if len(batch):
                    yield batch
    except _UNREADABLE as error:
        raise _damaged(error) from None


def _damaged(error: Exception) -> UnreadablePartError:
    return UnreadablePartError(f"no readable Parquet file: {first_line(error)}")


def _sources(batch: pa.RecordBatch) -> list[Any]:
    found: list[Any] = batch["sourcePath"].unique().to_pylist()
    return found
