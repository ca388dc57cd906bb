"""A part's rows, source by source; they are in the order of its receipts."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from etl.lake.part import Encoded, PartBuilder
from etl.lake.receipts import Receipt, UnreadablePartError, first_line
from etl.model.dataset import DECODED_SCHEMA, SCHEMA, SizedBatch

# A file up to this size is read at once: Arrow's calls into Python cost more than its bytes.
_AT_ONCE_BYTES: Final = 4 * 2**20
_BATCH_ROWS: Final = 2**16
_READ: Final = [
    *list(SCHEMA)[:-1],
    pa.field("sourcePath", pa.dictionary(pa.int32(), pa.string())),
]
_UNREADABLE: Final = (pa.ArrowException, OSError, ValueError)

#: A source's receipt, and its rows in batches of the lake's columns; nothing where it has none.
SourceRows = tuple[Receipt, Iterator[pa.RecordBatch]]


def source_rows(stream: BinaryIO, size: int, receipts: Sequence[Receipt]) -> Iterator[SourceRows]:
    """Yield each receipt of a part with its rows in the columns of `SCHEMA`, batch by batch.

    `size` is the part's, in bytes. Rows that the caller has not read are skipped with the next
    source. Raises UnreadablePartError if the part is damaged or does not match its receipts.
    """
    with _opened(stream, size) as file:
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


def add_source(builder: PartBuilder, receipt: Receipt, rows: Iterator[pa.RecordBatch]) -> None:
    """Add a source of an existing part to a new one."""
    builder.add(receipt, (SizedBatch.of(batch.select(DECODED_SCHEMA.names)) for batch in rows))


def without(encoded: Encoded, paths: Collection[str], builder: PartBuilder) -> Encoded | None:
    """Encode a staged part again without these sources, and close it; None if none is left."""
    try:
        if all(source.path in paths for source in encoded.sources):
            return None
        with encoded.staged.path.open("rb") as stream:
            for source, rows in source_rows(stream, encoded.bytes, encoded.sources):
                if source.path not in paths:
                    add_source(builder, source, rows)
        return builder.finish()
    finally:
        encoded.staged.close()
        builder.close()


@contextmanager
def _opened(stream: BinaryIO, size: int) -> Iterator[pq.ParquetFile]:
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
    with file:
        if not all(
            field.name in there.names and there.field(field.name) == field for field in _READ
        ):
            raise UnreadablePartError("a Parquet file with other columns than the lake's")
        yield file


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
