"""An object as a file to read: its end at once, the rest in a few large pieces."""

import io
from collections.abc import Callable
from typing import Any, Final

#: What the first request reads: pyarrow looks for a footer in so many bytes at the end.
TAIL_BYTES: Final = 64 * 2**10
# Less is not worth a request: columns lie behind one another, and are read in that order.
_PIECE_BYTES: Final = 4 * 2**20


class ObjectFile(io.RawIOBase):
    """An object whose last bytes, `tail`, are there; `fetch` gets others by start and end.

    At most one further piece is held in memory.
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
        """Go to a position; nothing is fetched for that."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as there is something at hand. Raises LakeError."""
        wanted = memoryview(buffer).cast("B")
        start = self._position
        if start >= self._size or not wanted:
            return 0
        found = self._at(start, min(len(wanted), self._size - start))
        count = min(len(found), len(wanted))
        wanted[:count] = found[:count]
        self._position += count
        return count

    def _at(self, start: int, length: int) -> memoryview:
        """Return what there is from `start` on, a byte at least."""
        if start >= self._tail_start:
            return self._tail[start - self._tail_start :]
        inside = start - self._piece_start
        if not 0 <= inside < len(self._piece):
            end = min(start + max(length, _PIECE_BYTES), self._tail_start)
            self._piece = memoryview(self._fetch(start, end))
            self._piece_start = start
            inside = 0
        return self._piece[inside:]
