"""The temporary folder: where it is, what its errors mean, files without a name in it."""

import errno
import mmap
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, Self

from etl.model.errors import FailureKind, FileError
from etl.storage.store import StagedFile

#: Errors that only writing meets: a folder that is full or read-only.
CANNOT_WRITE: Final = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def scratch_folder() -> str:
    """Return the temporary folder, also if no file can be written there: writing then says so."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return os.environ.get("TMPDIR", "/tmp")  # noqa: S108


def scratch_error(error: OSError) -> FileError:
    """Return the error to report if the temporary folder refuses a file."""
    return FileError(
        FailureKind.LAKE,
        f"the temporary folder {scratch_folder()}: {error.strerror or error}; make room, or "
        "set TMPDIR to another",
    )


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
