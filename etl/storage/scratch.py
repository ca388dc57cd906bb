"""The temporary folder: where it is, what its errors mean, and files without a name in it."""

import errno
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from etl.model.errors import FailureKind, FileError

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
    """A staged file without a name, so that a killed process leaves nothing. Raises OSError."""

    def __init__(self) -> None:
        self.stream: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115
        # Linux opens the file by this name too.
        self.path = Path(f"/proc/self/fd/{self.stream.fileno()}")

    def close(self) -> None:
        """Free its space."""
        with suppress(OSError):  # buffered bytes that a full disk refuses
            self.stream.close()
