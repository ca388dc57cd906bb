"""A part being built: rows of whole source files, encoded as they come."""

import uuid
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from etl.lake.receipts import Receipt, to_metadata
from etl.lake.store import StagedFile
from etl.schema import SCHEMA
from etl.settings import Compression

# A row group is written when this much Arrow data waits for it: some 100,000 rows, which is what
# DuckDB reads best, in 25 MiB.
_ROW_GROUP_BYTES: Final = 24 * 2**20
# What encoding leaves of Arrow data: a low guess, used only to tell when a part is large enough.
_ENCODED_SHARE: Final = 8


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
        self._writer: pq.ParquetWriter | None = None
        self._pending: list[pa.RecordBatch] = []
        self.pending_bytes = 0
        self.rows = 0
        self.sources: list[Receipt] = []

    @property
    def size_guess(self) -> int:
        """About how many bytes the part would have if it ended here."""
        written = self._staged.stream.tell() if self._staged else 0
        return written + self.pending_bytes // _ENCODED_SHARE

    def add(self, receipt: Receipt, batches: Iterable[pa.RecordBatch]) -> None:
        """Add one source file, whole. Raises OSError, after which only `close` is of use."""
        for batch in batches:
            self._pending.append(batch)
            self.pending_bytes += batch.nbytes
            if self.pending_bytes >= _ROW_GROUP_BYTES:
                self.flush()
        self.rows += receipt.rows
        self.sources.append(receipt)

    def flush(self) -> None:
        """Encode what waits in memory as a row group."""
        if not self._pending:
            return
        table = pa.Table.from_batches(self._pending, SCHEMA)
        self._pending = []
        self.pending_bytes = 0
        if table.num_rows:
            self._open().write_table(table, row_group_size=table.num_rows)

    def _open(self) -> pq.ParquetWriter:
        if self._writer is None:
            self._staged = self._stage()
            self._writer = pq.ParquetWriter(
                self._staged.stream, SCHEMA, compression=self._compression
            )
        return self._writer

    def finish(self) -> Encoded:
        """Complete the file, receipts in its footer, and hand it over."""
        self.flush()
        writer = self._open()
        staged = self._staged
        assert staged is not None  # noqa: S101 - it was opened with the writer
        commit = str(uuid.uuid4())
        writer.add_key_value_metadata(to_metadata(self.sources, commit, self._run_id))
        writer.close()
        staged.stream.flush()
        self._staged = None
        return Encoded(staged, commit, tuple(self.sources), self.rows, staged.path.stat().st_size)

    def close(self) -> None:
        """Throw away what was not finished."""
        self._pending = []
        self.pending_bytes = 0
        if self._staged is not None:
            if self._writer is not None:
                with suppress(OSError, pa.ArrowException):
                    self._writer.close()
            self._staged.close()
            self._staged = None


def without(encoded: Encoded, paths: Collection[str], builder: PartBuilder) -> Encoded | None:
    """Encode a part again without some of its sources; None if none is left.

    Closes the part that it was given.
    """
    sources = [source for source in encoded.sources if source.path not in paths]
    drop = pa.array(sorted(paths), pa.string())
    try:
        if not sources:
            return None
        with pq.ParquetFile(encoded.staged.path) as file:
            kept = (
                batch.filter(pc.invert(pc.is_in(batch["sourcePath"], value_set=drop)))
                for batch in file.iter_batches()
            )
            # The rows of all come in one go; each source's receipt is added beside them.
            builder.add(sources[0], kept)
        builder.sources = sources
        builder.rows = sum(source.rows for source in sources)
        return builder.finish()
    finally:
        encoded.staged.close()
        builder.close()  # changes nothing if it was finished
