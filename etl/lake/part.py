"""A part being built: rows of whole source files, encoded as they come."""

import sys
import uuid
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from etl.decode import Sized
from etl.lake.receipts import Receipt, to_metadata
from etl.lake.store import StagedFile
from etl.schema import DECODED_SCHEMA, INTEGER_COLUMNS, STRING_COLUMNS, TIMESTAMP_COLUMNS
from etl.settings import Compression

# A row group is written when so much Arrow data waits for it: some 120,000 rows, as DuckDB does.
_ROW_GROUP_BYTES: Final = 16 * 2**20
# What encoding leaves of Arrow data: a low guess, used only to tell when a part is large enough.
_ENCODED_SHARE: Final = 8

# Chosen by measurement (tests/bench/README.md has the figures): of a million rows these take two
# thirds of the time of pyarrow's defaults and three quarters of the room. Deltas for the integers
# would save a little more, but fastparquet reads wide ones wrongly and says nothing.
_DICTIONARY: Final = [*STRING_COLUMNS, "sequence", "extras", "sourcePath"]
_WITH_STATISTICS: Final = [*INTEGER_COLUMNS, *TIMESTAMP_COLUMNS]
_ZSTD_LEVEL: Final = 1
# In memory a path is a number for each row, not a hundred characters. Readers see strings: the file
# does not hold Arrow's schema.
_WRITTEN: Final = DECODED_SCHEMA.append(
    pa.field("sourcePath", pa.dictionary(pa.int32(), pa.string()))
)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A finished part that waits for its name."""

    staged: StagedFile
    commit: str
    sources: tuple[Receipt, ...]
    rows: int
    bytes: int


class PartBuilder:
    """Collects source files, each whole, and encodes them into one staged Parquet file.

    Blocking, one caller at a time. Rows wait in memory (`pending_bytes`) until there are enough
    for a row group or `flush` is called; `close` throws all of it away.
    """

    def __init__(
        self, stage: Callable[[], StagedFile], compression: Compression, run_id: str
    ) -> None:
        self._stage = stage
        self._compression = compression
        self._run_id = run_id
        self._staged: StagedFile | None = None
        self._file: pa.NativeFile | None = None
        self._writer: pq.ParquetWriter | None = None
        self._pending: list[tuple[int, pa.RecordBatch]] = []
        self.pending_bytes = 0
        self.rows = 0
        self.sources: list[Receipt] = []

    @property
    def size_guess(self) -> int:
        """About how many bytes the part would have if it ended here."""
        written = self._file.tell() if self._file else 0
        return written + self.pending_bytes // _ENCODED_SHARE

    def add(self, receipt: Receipt, batches: Iterable[Sized]) -> None:
        """Add one source file, whole. Raises OSError, after which only `close` is of use."""
        number = len(self.sources)
        self.sources.append(receipt)
        for batch in batches:
            self._pending.append((number, batch.rows))
            self.pending_bytes += batch.bytes
            if self.pending_bytes >= _ROW_GROUP_BYTES:
                self.flush()
        self.rows += receipt.rows

    def flush(self) -> None:
        """Encode what waits in memory as a row group."""
        if not self._pending:
            return
        batches = [batch for _, batch in self._pending]
        numbers = b"".join(
            number.to_bytes(4, sys.byteorder) * len(batch) for number, batch in self._pending
        )
        self._pending = []
        self.pending_bytes = 0
        rows = pa.Table.from_batches(batches, DECODED_SCHEMA)
        if not rows.num_rows:
            return
        indices = pa.Array.from_buffers(pa.int32(), len(rows), [None, pa.py_buffer(numbers)])
        # With its type: to find that out, pyarrow looks for a library that is not there.
        names = pa.array([source.path for source in self.sources], pa.string())
        paths = pa.DictionaryArray.from_arrays(indices, names)
        table = rows.append_column(_WRITTEN.field("sourcePath"), paths)
        self._open().write_table(table, row_group_size=len(table))

    def _open(self) -> pq.ParquetWriter:
        if self._writer is None:
            self._staged = self._stage()
            # Arrow's own file: each of many small writes to a Python one would wait for the GIL.
            self._file = pa.OSFile(str(self._staged.path), "wb")
            self._writer = pq.ParquetWriter(
                self._file,
                _WRITTEN,
                compression=self._compression,
                compression_level=_ZSTD_LEVEL if self._compression == "zstd" else None,
                use_dictionary=_DICTIONARY,  # type: ignore[arg-type]  # its stub knows bool only
                write_statistics=_WITH_STATISTICS,
                store_schema=False,
                write_page_checksum=True,
            )
        return self._writer

    def finish(self) -> Encoded:
        """Complete the file, receipts in its footer, and hand it over."""
        self.flush()
        writer, staged, file = self._open(), self._staged, self._file
        assert staged is not None  # noqa: S101 - both were opened with the writer
        assert file is not None  # noqa: S101
        commit = str(uuid.uuid4())
        writer.add_key_value_metadata(to_metadata(self.sources, commit, self._run_id))
        writer.close()
        size = file.tell()
        file.close()
        self._staged = None
        return Encoded(staged, commit, tuple(self.sources), self.rows, size)

    def close(self) -> None:
        """Throw away what was not finished."""
        self._pending = []
        self.pending_bytes = 0
        if self._staged is not None:
            with suppress(OSError, pa.ArrowException):
                if self._writer is not None:
                    self._writer.close()
            with suppress(OSError, pa.ArrowException):
                if self._file is not None:
                    self._file.close()
            self._staged.close()
            self._staged = None


def without(encoded: Encoded, paths: Collection[str], builder: PartBuilder) -> Encoded | None:
    """Encode a part again without some of its sources; None if none is left.

    Closes the part that it was given.
    """
    try:
        if all(source.path in paths for source in encoded.sources):
            return None
        with pq.ParquetFile(encoded.staged.path) as file:
            batches = file.iter_batches(columns=DECODED_SCHEMA.names)
            rest: pa.RecordBatch | None = None
            for source in encoded.sources:
                rows: list[pa.RecordBatch] = []
                missing = source.rows
                # A part's rows stand in the order of its sources.
                while missing:
                    batch = next(batches) if rest is None else rest
                    rows.append(batch.slice(0, missing))
                    missing -= len(rows[-1])
                    rest = batch.slice(len(rows[-1])) if len(rows[-1]) < len(batch) else None
                if source.path not in paths:
                    builder.add(source, map(Sized.of, rows))
        return builder.finish()
    finally:
        encoded.staged.close()
        builder.close()  # changes nothing if it was finished
