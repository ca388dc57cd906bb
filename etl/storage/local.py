"""A lake on a local disk: whole files or none, created only where there is none, synced.

Names are relative to the root, with `/`. All methods block; they are called off the event loop.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from pydantic import ByteSize

from etl.storage.naming import give_name
from etl.storage.probe import probe
from etl.storage.store import AlreadyExistsError, LakeError, StagedFile, StoredFile

#: Hidden from every reader by its first letter; its files do not end in `.parquet` either.
_STAGING: Final = "_staging"


class LocalStagedFile:
    """A file being written beside the lake's parts, on the same disk, invisible to readers.

    Locked while this process lives, so that a later run can tell a leftover from one in use.
    Closing it removes it.
    """

    def __init__(self, folder: Path) -> None:
        while True:
            self.path = folder / f".{uuid.uuid4().hex}.tmp"
            # Never read, and a buffer of a given size: six system calls less than otherwise.
            self.stream: BinaryIO = self.path.open("xb", buffering=2**16)
            with contextlib.suppress(OSError):  # no locks on this disk: leftovers stay, no harm
                fcntl.flock(self.stream, fcntl.LOCK_EX)
            if os.fstat(self.stream.fileno()).st_nlink:
                return
            # A clean-up took it between its creation and its lock.
            self.stream.close()

    def close(self) -> None:
        """Remove the file's staged name; what was committed of it stays."""
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # bytes that a full disk did not take: of no use now
            self.stream.close()


class LocalStore:
    """A folder that holds a lake, or a raw archive."""

    readers: Final = 1
    advice: Final = "its permissions and its free space"
    staged_in: Final = None

    def __init__(self, root: Path) -> None:
        self.root = root
        #: Folders whose own names this process has made last: one that another has just made may
        #: not have its name on the disk yet.
        self._lasting: set[Path] = set()

    @property
    def place(self) -> str:
        """The folder's full path."""
        return str(self.root.resolve())

    @property
    def staging(self) -> Path:
        """The folder in which files are written before they get their names."""
        return self.root / _STAGING

    def prepare(self) -> None:
        """Make sure that the store can be written. Raises LakeError."""
        try:
            for folder in _make_folders(self.staging):
                _sync_folder(folder.parent)
            self.stage().close()
        except OSError as error:
            raise LakeError.of("writing to", str(self.root), error) from error

    def try_out(self) -> str:
        """Try all that a run does there, and leave nothing; return what was seen. LakeError."""
        was_there = probe(self.root, LocalStore)
        there = next(
            folder
            for folder in (self.root.absolute(), *self.root.absolute().parents)
            if folder.exists()
        )
        free = ByteSize(shutil.disk_usage(there).free).human_readable(decimal=True, separator=" ")
        seen = f"a probe was written, read back and removed, {free} free"
        return seen + ("" if was_there else "; it is not there yet, a run will make it")

    def clean_up(self) -> None:
        """Remove what killed runs left behind, never what a living one writes, as far as it goes.

        What cannot be removed is in nobody's way.
        """
        with contextlib.suppress(OSError):
            for leftover in self.staging.iterdir():
                _remove_if_abandoned(leftover)

    def hold(self) -> None:
        """Let others know, until this object or its process is gone, that it may be written to.

        After `prepare`. Raises OSError.
        """
        descriptor = os.open(self.root / _STAGING, os.O_RDONLY | os.O_DIRECTORY)
        weakref.finalize(self, os.close, descriptor)
        with contextlib.suppress(OSError):  # no locks on this disk: `is_held` does not know either
            fcntl.flock(descriptor, fcntl.LOCK_SH)

    def is_held(self) -> bool | None:
        """Tell whether somebody holds it; None where that cannot be known."""
        try:
            descriptor = os.open(self.root / _STAGING, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return False  # nothing was ever written
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return None
        finally:
            os.close(descriptor)
        return False

    def check_readable(self) -> bool:
        """Return whether the root exists. Raises LakeError if it is no folder that can be read."""
        try:
            with os.scandir(self.root):
                return True
        except FileNotFoundError:
            return False
        except OSError as error:
            raise LakeError.of("reading", str(self.root), error) from error

    def names(self, folder: str) -> list[str]:
        """List what is in a folder; one that does not exist is empty. Raises LakeError."""
        try:
            with os.scandir(self.root / folder) as entries:
                return sorted(entry.name for entry in entries)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise LakeError.of("listing", folder, error) from error

    def names_of(self, partitions: Sequence[str]) -> dict[str, list[str]]:
        """List the files of several partitions' folders. Raises LakeError."""
        return {partition: self.names(partition) for partition in partitions}

    def walk(
        self, refused: Callable[[str, LakeError], None], folder: str = ""
    ) -> Iterator[StoredFile]:
        """Yield a folder's files and those below, ordered by name in each, from the root's down.

        Folders with `_` or `.` first are hidden, and files in the root; `folder` may have such a
        name.

        No snapshot: what appears or goes meanwhile is seen or not. A folder that cannot be read is
        told to `refused`, with its name. What is named like a Parquet file is yielded whatever it
        is: to open it tells.
        """
        seen: set[tuple[int, int]] = set()
        pending = [folder]
        while pending:
            folder = pending.pop()
            try:
                status = (self.root / folder).stat()
                # A folder that links to one above it would have no end.
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
                with os.scandir(self.root / folder) as entries:
                    listed = sorted(entries, key=lambda entry: entry.name)
            except FileNotFoundError:
                continue
            except OSError as error:
                refused(folder, LakeError.of("listing", folder or str(self.root), error))
                continue
            folders = []
            for entry in listed:
                name = f"{folder}/{entry.name}" if folder else entry.name
                # A file of the vendor's may have such a name.
                if entry.name.startswith(("_", ".")) and (not folder or _is_folder(entry)):
                    continue
                if not entry.name.endswith(".parquet") and _is_folder(entry):
                    folders.append(name)
                elif (file := _stored(entry, name)) is not None:
                    yield file
            pending += reversed(folders)

    def stat(self, name: str) -> StoredFile:
        """Look at one file. Raises FileNotFoundError or LakeError."""
        try:
            status = (self.root / name).stat()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise LakeError.of("reading", name, error) from error
        return StoredFile(name, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a file to read. Raises FileNotFoundError or, where it is no file, LakeError."""
        file = self.root / name
        try:
            # Looked at first: to open a pipe would wait for its writer.
            if not stat.S_ISREG(file.stat().st_mode):
                raise LakeError(f"reading {name}: it is no file")
            stream = file.open("rb")
        except FileNotFoundError:
            if file.is_symlink():
                raise LakeError(f"reading {name}: it links to nothing") from None
            raise
        except OSError as error:
            raise LakeError.of("reading", name, error) from error
        with stream:
            yield stream

    def stage(self) -> LocalStagedFile:
        """Begin a file. Raises OSError."""
        return LocalStagedFile(self.staging)

    def create(self, staged: StagedFile, name: str) -> None:
        """Give a staged file its name, whole and durable, if nothing has that name yet.

        Raises AlreadyExistsError or LakeError; after either the name may be taken by this very
        file all the same (NFS may repeat a link that succeeded), so look before concluding.
        """
        (refusal,) = self.create_all([(staged, name)])
        if refusal is not None:
            raise refusal

    def create_all(self, files: Sequence[tuple[StagedFile, str]]) -> list[LakeError | None]:
        """Do as `create` for each file; return what it would raise, in their order.

        Each folder is synced once for all of its files.
        """
        refusals: list[LakeError | None] = [None] * len(files)
        by_folder: dict[str, list[int]] = {}
        # In this order: the bytes, then the name, then the name's own durability. A name must never
        # be seen, not even after a power cut, without all of its bytes.
        synced = _sync_all([staged for staged, _ in files])
        for number, (staged, name) in enumerate(files):
            folder = name.rpartition("/")[0]
            try:
                if (error := synced[number]) is not None:
                    raise error
                if folder not in by_folder:
                    self._lasting.difference_update(_make_folders(self.root / folder))
                    by_folder[folder] = []
                give_name(staged.path, f"{self.root}/{name}")
                by_folder[folder].append(number)
            except FileExistsError as error:
                # Whoever made it may not have synced its name yet: its folder is synced below.
                refusals[number] = AlreadyExistsError.of("creating", name, error)
            except OSError as error:
                refusals[number] = LakeError.of("creating", name, error)
        for folder, numbers in by_folder.items():
            try:
                self._sync_names(self.root / folder)
            except OSError as error:
                for number in numbers:
                    refusals[number] = LakeError.of("creating", files[number][1], error)
        return refusals

    def replace(self, staged: StagedFile, name: str) -> None:
        """Give a staged file its name, whole and durable, over whatever had it. LakeError."""
        target = self.root / name
        try:
            if (refusal := _sync(staged)) is not None:
                raise refusal
            self._lasting.difference_update(_make_folders(target.parent))
            staged.path.replace(target)
            self._sync_names(target.parent)
        except OSError as error:
            raise LakeError.of("writing", name, error) from error

    def _sync_names(self, folder: Path) -> None:
        """Make the names in a folder last, and those of the folders that lead to it.

        From below: what the first sync brings to the disk, the others need not.
        """
        _sync_folder(folder)
        while folder != self.root and folder not in self._lasting:
            _sync_folder(folder.parent)
            self._lasting.add(folder)
            folder = folder.parent


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _stored(entry: "os.DirEntry[str]", name: str) -> StoredFile | None:
    try:
        status = entry.stat()
    except OSError:
        if not entry.is_symlink():
            return None  # gone since it was listed
        status = entry.stat(follow_symlinks=False)
    return StoredFile(name, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


def _sync_all(files: Sequence[StagedFile]) -> list[OSError | None]:
    """Make the bytes of files last; return each one's error."""
    if len(files) > 1:
        for staged in files:
            # The disk begins to write, so that the syncs wait for it together: less waiting than
            # with four syncs at once in threads, and half of their processor time.
            with contextlib.suppress(OSError):  # the sync will tell
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


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder; there the server does.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and its parents; return those that are new, from below."""
    missing: list[Path] = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
    return missing


def _remove_if_abandoned(file: Path) -> None:
    """Remove a staged file whose writer is gone: it holds no lock any more."""
    with contextlib.suppress(OSError), file.open("r+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.unlink()
