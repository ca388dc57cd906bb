"""Writing a part: rows of whole source files, encoded into one Parquet file as they are added."""

import sys
import threading
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from etl.config.sections import Compression
from etl.lake.receipts import Receipt, source_rows, to_metadata
from etl.model.dataset import (
    COPY_SCHEMA,
    DECODED_SCHEMA,
    INTEGER_COLUMNS,
    STRING_COLUMNS,
    TIMESTAMP_COLUMNS,
    SizedBatch,
)
from etl.model.paths import BreakdownPath
from etl.storage.store import StagedFile

# Chosen by measurement (tests/bench/README.md has the figures): a million rows need two thirds of
# the time of pyarrow's defaults and three quarters of the size. Delta encoding of the integers
# would save a little more, but fastparquet reads wide ones wrongly without an error.
_DICTIONARY: Final = [*STRING_COLUMNS, "sequence", "extras", "sourcePath"]
_HOUR: Final = COPY_SCHEMA.field("hour")
_WITH_STATISTICS: Final = [*INTEGER_COLUMNS, *TIMESTAMP_COLUMNS]
_ZSTD_LEVEL: Final = 1
# In memory each row has a number for its path, not a hundred characters. Readers see strings,
# because the file does not contain Arrow's schema.
_WRITTEN: Final = DECODED_SCHEMA.append(
    pa.field("sourcePath", pa.dictionary(pa.int32(), pa.string()))
)
# The Arrow data of a row group: about 120,000 rows, as DuckDB writes.
_ROW_GROUP_BYTES: Final = 16 * 2**20
# Encoding makes Arrow data about this many times smaller: a guess, for the size of a part.
_ENCODED_SHARE: Final = 8


class Encoder:
    """Writes one Parquet file, a row group at a time. Raises OSError.

    With `with_hour`, for a coarse copy, the file also has the column `hour`, from the paths.
    """

    def __init__(self, path: Path, compression: Compression, *, with_hour: bool = False) -> None:
        self._with_hour = with_hour
        # Arrow's own file: with a Python file, each of many small writes would wait for the GIL.
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pq.ParquetWriter(
            self._file,
            _WRITTEN.append(_HOUR) if with_hour else _WRITTEN,
            compression=compression,
            compression_level=_ZSTD_LEVEL if compression == "zstd" else None,
            use_dictionary=_DICTIONARY,  # type: ignore[arg-type]  # its stub knows bool only
            write_statistics=[*_WITH_STATISTICS, _HOUR.name] if with_hour else _WITH_STATISTICS,
            store_schema=False,
            write_page_checksum=True,
        )

    @property
    def bytes(self) -> int:
        """The number of bytes written so far."""
        return self._file.tell()

    def write(self, batches: Sequence[tuple[int, SizedBatch]], paths: Sequence[str]) -> None:
        """Write a row group of batches, each with the number of its source among the `paths`."""
        # Only the paths of these batches: each row group has a dictionary of its own.
        first = batches[0][0]
        paths = paths[first : batches[-1][0] + 1]
        numbers = b"".join(
            (number - first).to_bytes(4, sys.byteorder) * len(batch.rows)
            for number, batch in batches
        )
        rows = pa.Table.from_batches([batch.rows for _, batch in batches], DECODED_SCHEMA)
        if not rows.num_rows:
            return
        indices = pa.Array.from_buffers(pa.int32(), len(rows), [None, pa.py_buffer(numbers)])
        # The type is given, because pyarrow would look for an absent library to infer it.
        names = pa.array(paths, pa.string())
        column = pa.DictionaryArray.from_arrays(indices, names)
        table = rows.append_column(_WRITTEN.field("sourcePath"), column)
        if self._with_hour:
            hours = [BreakdownPath.parse(path).partition.hour.hour for path in paths]
            table = table.append_column(_HOUR, pa.array(hours, pa.int32()).take(indices))
        self._writer.write_table(table, row_group_size=len(table))

    def finish(self, metadata: dict[str, str]) -> int:
        """Complete the file with this metadata in its footer; return its size in bytes."""
        self._writer.add_key_value_metadata(metadata)
        self._writer.close()
        size = self._file.tell()
        self._file.close()
        return size

    def discard(self) -> None:
        """Close the file, which is of no use any more."""
        for closing in (self._writer, self._file):
            with suppress(OSError, pa.ArrowException):
                closing.close()


@dataclass(frozen=True, slots=True)
class Encoded:
    """A complete part without a name."""

    staged: StagedFile
    sources: tuple[Receipt, ...]
    rows: int
    bytes: int


class PartBuilder:
    """Collects source files, each whole, and encodes them into one staged Parquet file.

    Blocking, one caller at a time. Rows wait in memory (`pending_bytes`) until there are enough
    for a row group or `flush` is called. `close` discards everything. It may be called while a
    thread is still building because its caller was cancelled: then that thread frees everything
    when it is done.

    With `with_hour`, for a coarse copy, the file has a column `hour`, and no row group has rows of
    two hours if the sources are added in the order of their hours.
    """

    def __init__(
        self,
        stage: Callable[[], StagedFile],
        compression: Compression,
        run_id: str,
        *,
        with_hour: bool = False,
    ) -> None:
        self._stage = stage
        self._compression = compression
        self._run_id = run_id
        self._with_hour = with_hour
        self._staged: StagedFile | None = None
        self._encoder: Encoder | None = None
        self._pending: list[tuple[int, SizedBatch]] = []
        self.pending_bytes = 0
        self.rows = 0
        self.sources: list[Receipt] = []
        self._lock = threading.Lock()
        self._closed = False

    @contextmanager
    def _building(self) -> Iterator[None]:
        try:
            with self._lock:
                if self._closed:
                    raise ValueError("the part was discarded")
                yield
        finally:
            if self._closed:  # by another thread
                self.close()

    @property
    def size_guess(self) -> int:
        """About how many bytes the part would have if it were complete."""
        written = self._encoder.bytes if self._encoder else 0
        return written + self.pending_bytes // _ENCODED_SHARE

    def has_room(self, in_memory_bytes: int) -> bool:
        """Return whether a file with this Arrow data in memory can be added without encoding."""
        return self.pending_bytes + in_memory_bytes < _ROW_GROUP_BYTES

    def add(self, receipt: Receipt, batches: Iterable[SizedBatch]) -> None:
        """Add a whole source file. Raises OSError; then only `close` may be called."""
        with self._building():
            if self._with_hour and self.sources and _hour(receipt) != _hour(self.sources[-1]):
                self._flush()
            number = len(self.sources)
            self.sources.append(receipt)
            for batch in batches:
                self._pending.append((number, batch))
                self.pending_bytes += batch.bytes
                if self.pending_bytes >= _ROW_GROUP_BYTES:
                    self._flush()
            self.rows += receipt.rows

    def flush(self) -> None:
        """Encode the rows that wait in memory as a row group."""
        with self._building():
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        self.pending_bytes = 0
        self._open().write(pending, [source.path for source in self.sources])

    def _open(self) -> Encoder:
        if self._encoder is None:
            self._staged = self._stage()
            self._encoder = Encoder(self._staged.path, self._compression, with_hour=self._with_hour)
        return self._encoder

    def finish(self) -> Encoded:
        """Write the receipts into the footer, and return the complete file."""
        with self._building():
            self._flush()
            encoder, staged = self._open(), self._staged
            assert staged is not None  # noqa: S101 - it was opened with the encoder
            metadata = to_metadata(self.sources, str(uuid.uuid4()), self._run_id)
            size = encoder.finish(metadata)
            self._staged = None
        return Encoded(staged, tuple(self.sources), self.rows, size)

    def close(self) -> None:
        """Discard the part unless it is complete."""
        self._closed = True
        if not self._lock.acquire(blocking=False):
            return  # the thread that is building does it
        try:
            self._pending = []
            self.pending_bytes = 0
            if self._staged is not None:
                if self._encoder is not None:
                    self._encoder.discard()
                self._staged.close()
                self._staged = None
        finally:
            self._lock.release()


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


def _hour(receipt: Receipt) -> datetime:
    return BreakdownPath.parse(receipt.path).partition.hour
