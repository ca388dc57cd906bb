"""Files being written in the temporary folder, for a store that has no room of its own for them."""

import mmap
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

from etl.storage.store import StagedFile


class ScratchFile:
    """A file without a name: a kill leaves nothing behind. Raises OSError."""

    def __init__(self) -> None:
        self.stream: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115
        # Linux opens it by this as well.
        self.path = Path(f"/proc/self/fd/{self.stream.fileno()}")

    def close(self) -> None:
        """Give its room back."""
        with suppress(OSError):  # bytes that a full disk did not take: of no use now
            self.stream.close()


class Content:
    """A staged file's bytes as they lie on the disk, `view`: no copy of them is made."""

    def __init__(self, staged: StagedFile) -> None:
        staged.stream.flush()
        descriptor = staged.stream.fileno()
        size = os.fstat(descriptor).st_size
        # An empty file cannot be mapped.
        self._map = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) if size else None
        self.view = memoryview(self._map if self._map is not None else b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # A connection that was given up may hold on to it for a moment longer.
        with suppress(BufferError):
            self.view.release()
            if self._map is not None:
                self._map.close()
