"""A part that is being built: rows of whole source files, encoded as they are added."""

import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from etl.config.sections import Compression
from etl.lake.encoding import Encoder
from etl.lake.receipts import Receipt, to_metadata
from etl.model.dataset import SizedBatch
from etl.model.paths import BreakdownPath
from etl.storage.store import StagedFile

# The Arrow data of a row group: about 120,000 rows, as DuckDB writes.
_ROW_GROUP_BYTES: Final = 16 * 2**20
# Encoding makes Arrow data about this many times smaller: a guess, for the size of a part.
_ENCODED_SHARE: Final = 8


@dataclass(frozen=True, slots=True)
class Encoded:
    """A complete part without a name."""

    staged: StagedFile
    commit: str
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
        self._busy = False
        self._closed = False

    @contextmanager
    def _building(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise ValueError("the part was discarded")
            self._busy = True
        try:
            yield
        finally:
            with self._lock:
                self._busy = False
                if self._closed:  # by another thread
                    self._free()  # type: ignore[unreachable]  # mypy knows no other thread

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
            commit = str(uuid.uuid4())
            size = encoder.finish(to_metadata(self.sources, commit, self._run_id))
            self._staged = None
        return Encoded(staged, commit, tuple(self.sources), self.rows, size)

    def close(self) -> None:
        """Discard the part unless it is complete."""
        with self._lock:
            self._closed = True
            if not self._busy:
                self._free()

    def _free(self) -> None:
        self._pending = []
        self.pending_bytes = 0
        if self._staged is not None:
            if self._encoder is not None:
                self._encoder.discard()
            self._staged.close()
            self._staged = None


def _hour(receipt: Receipt) -> datetime:
    return BreakdownPath.parse(receipt.path).partition.hour
