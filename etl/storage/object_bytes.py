"""The bytes of objects: an object as a file to read, and a staged file as one body to put."""

import io
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from etl.storage.store import StagedFile

#: The size of the first request: pyarrow looks for a footer in this many bytes at the end.
TAIL_BYTES: Final = 64 * 2**10
# The least size of the others: columns lie one after another, and are read in that order.
_PIECE_BYTES: Final = 4 * 2**20


class ObjectFile(io.RawIOBase):
    """An object as a file: its last bytes are `tail`, and `fetch(start, end)` returns others.

    It holds the tail and one other piece in memory.
    """

    def __init__(self, size: int, tail: Any, fetch: Callable[[int, int], Any]) -> None:
        super().__init__()
        self._size = size
        self._tail = memoryview(tail)
        self._tail_start = size - len(self._tail)
        self._fetch = fetch
        self._piece = memoryview(b"")
        self._piece_start = 0
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position; this sends no request."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, perhaps in part. Raises StoreError."""
        wanted = memoryview(buffer).cast("B")
        start = self._position
        if start >= self._size or not wanted:
            return 0
        found = self._from(start, min(len(wanted), self._size - start))
        count = min(len(found), len(wanted))
        wanted[:count] = found[:count]
        self._position += count
        return count

    def _from(self, start: int, length: int) -> memoryview:
        """Return bytes from `start` on, at least one; fetch them if they are not in memory."""
        if start >= self._tail_start:
            return self._tail[start - self._tail_start :]
        inside = start - self._piece_start
        if not 0 <= inside < len(self._piece):
            end = min(start + max(length, _PIECE_BYTES), self._tail_start)
            self._piece = memoryview(self._fetch(start, end))
            self._piece_start = start
            inside = 0
        return self._piece[inside:]


@contextmanager
def mapped(staged: StagedFile) -> Iterator[memoryview]:
    """Yield the bytes of a staged file, mapped into memory instead of copied."""
    staged.stream.flush()
    descriptor = staged.stream.fileno()
    if not os.fstat(descriptor).st_size:  # an empty file cannot be mapped
        yield memoryview(b"")
        return
    content = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    view = memoryview(content)
    try:
        yield view
    finally:
        # An abandoned connection may use it for a moment longer.
        with suppress(BufferError):
            view.release()
            content.close()
