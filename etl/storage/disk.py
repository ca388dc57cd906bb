"""Files on a local disk: written whole, durable after a power cut, never over an older file.

And the temporary folder: where it is, what its errors mean, files without a name in it.
"""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from etl.model.errors import FailureKind, FileError
from etl.storage.store import StagedFile

#: Errors that only writing meets: a folder that is full or read-only.
CANNOT_WRITE: Final = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_AT_FDCWD: Final = -100
_RENAME_NOREPLACE: Final = 1
_NO_HARD_LINKS: Final = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_NO_EXCLUSIVE_CREATE: Final = (
    "this disk has neither hard links nor a rename that does not replace, so two runs could "
    "overwrite each other; put the lake on another one"
)


class LocalStagedFile:
    """A hidden file that is being written on the same disk as its later name.

    It is locked as long as this process lives, so that a later run can recognise a leftover.
    Closing it removes it.
    """

    def __init__(self, folder: Path) -> None:
        while True:
            self.path = folder / f".{uuid.uuid4().hex}.tmp"
            # Write-only, with a fixed buffer size: six system calls less than the default.
            self.stream: BinaryIO = self.path.open("xb", buffering=2**16)
            with contextlib.suppress(OSError):  # a disk without locks: leftovers stay, harmlessly
                fcntl.flock(self.stream, fcntl.LOCK_EX)
            if os.fstat(self.stream.fileno()).st_nlink:
                return
            # Another run's clean-up removed it after its creation and before its lock.
            self.stream.close()

    def close(self) -> None:
        """Remove the staged name; a committed file keeps its own."""
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # buffered bytes that a full disk refuses
            self.stream.close()


def remove_if_abandoned(file: Path) -> None:
    """Remove a staged file that no living process has locked. Ignores all errors."""
    with contextlib.suppress(OSError), file.open("r+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.unlink()


def sync_all(files: Sequence[StagedFile]) -> list[OSError | None]:
    """Make the bytes of files durable; return each one's error."""
    if len(files) > 1:
        for staged in files:
            # This starts the writing of all files, so that the syncs wait together: it is faster
            # than four syncs at once in threads, and needs half of their processor time.
            with contextlib.suppress(OSError):  # the sync fails as well
                staged.stream.flush()
                os.posix_fadvise(staged.stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return [_sync(staged) for staged in files]


def _sync(staged: StagedFile) -> OSError | None:
    try:
        staged.stream.flush()
        os.fsync(staged.stream.fileno())
    except OSError as error:
        return error
    return None


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder; their server does it.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)


def make_folders(folder: Path) -> list[Path]:
    """Make a folder and its parents; return the new ones, the deepest first. Raises OSError."""
    missing: list[Path] = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
    return missing


def give_name(source: Path, target: str) -> None:
    """Give a file the name `target` in one step. Raises FileExistsError or another OSError.

    On a disk with hard links the file keeps its old name too.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        _rename_new(source, target)


def _rename_new(source: Path, target: str) -> None:
    """Rename without replacing (renameat2), for disks without hard links."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        renameat2 = libc.renameat2
    except AttributeError:
        raise OSError(errno.ENOTSUP, _NO_EXCLUSIVE_CREATE) from None
    names = (os.fsencode(source), os.fsencode(target))
    if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE) == 0:
        return
    code = ctypes.get_errno()
    if code in {errno.EINVAL, errno.ENOSYS}:
        raise OSError(errno.ENOTSUP, _NO_EXCLUSIVE_CREATE)
    raise OSError(code, os.strerror(code))


def is_in_place(file: Path) -> bool:
    """Return whether this is a pipe or a device, which cannot be replaced.

    Links are followed, but do not resolve them before: /dev/stdout and /dev/fd/63 lead to a pipe
    whose resolved name, /proc/123/fd/pipe:[456], nothing has.
    """
    return file.exists() and not file.is_file() and not file.is_dir()


def write_whole(text: str, file: Path) -> None:
    """Write a file whole or not at all, over an older one. Raises OSError.

    What `is_in_place` selects, and a file that cannot be replaced because it is a mount of its own,
    are written in place.
    """
    if is_in_place(file):
        file.write_text(text, encoding="utf-8")
        return
    file = file.resolve()
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(file)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        if error.errno != errno.EBUSY:
            raise
        file.write_text(text, encoding="utf-8")


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
        with contextlib.suppress(OSError):  # buffered bytes that a full disk refuses
            self.stream.close()


@contextlib.contextmanager
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
        with contextlib.suppress(BufferError):
            view.release()
            content.close()
