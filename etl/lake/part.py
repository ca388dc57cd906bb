"""A part being built: rows of whole source files, encoded as they come."""

import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol

from etl.config.sections import Compression
from etl.lake.receipts import Receipt, to_metadata
from etl.model.paths import BreakdownPath
from etl.storage.store import StagedFile

if TYPE_CHECKING:
    from etl.lake.encoding import Encoder
    from etl.model.dataset import SizedBatch

# A row group is written when so much Arrow data waits for it: some 120,000 rows, as DuckDB does.
_ROW_GROUP_BYTES: Final = 16 * 2**20
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


class InMemory(Protocol):
    """Rows of one file, as far as they are in memory."""

    in_memory_bytes: int

    @property
    def spilled(self) -> bool:
        """Whether some of them are on disk."""


class PartBuilder:
    """Collects source files, each whole, and encodes them into one staged Parquet file.

    Blocking, one caller at a time. Rows wait in memory (`pending_bytes`) until there are enough
    for a row group or `flush` is called; `close` throws all of it away. It may be called while a
    thread still builds, whose caller was cancelled: then that thread frees what it uses at its end.

    `with_hour`, for a coarse copy, the file has a column `hour`, and no row group has rows of two
    hours, if the sources come in the order of their hours.
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
                raise ValueError("a part that was thrown away")
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
        """About how many bytes the part would have if it ended here."""
        written = self._encoder.bytes if self._encoder else 0
        return written + self.pending_bytes // _ENCODED_SHARE

    def has_room(self, decoded: InMemory) -> bool:
        """Whether adding a file only takes note of it: nothing is read from disk or encoded."""
        return not decoded.spilled and (
            self.pending_bytes + decoded.in_memory_bytes < _ROW_GROUP_BYTES
        )

    def add(self, receipt: Receipt, batches: "Iterable[SizedBatch]") -> None:
        """Add one source file, whole. Raises OSError, after which only `close` is of use."""
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
        """Encode what waits in memory as a row group."""
        with self._building():
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        self.pending_bytes = 0
        self._open().write(pending, [source.path for source in self.sources])

    def _open(self) -> "Encoder":
        if self._encoder is None:
            from etl.lake.encoding import Encoder  # noqa: PLC0415 - not before it is needed

            self._staged = self._stage()
            self._encoder = Encoder(self._staged.path, self._compression, with_hour=self._with_hour)
        return self._encoder

    def finish(self) -> Encoded:
        """Complete the file, receipts in its footer, and hand it over."""
        with self._building():
            self._flush()
            encoder, staged = self._open(), self._staged
            assert staged is not None  # noqa: S101 - it was opened with the encoder
            commit = str(uuid.uuid4())
            size = encoder.finish(to_metadata(self.sources, commit, self._run_id))
            self._staged = None
        return Encoded(staged, commit, tuple(self.sources), self.rows, size)

    def close(self) -> None:
        """Throw away what was not finished."""
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
