"""A store in a folder of a local disk.

Names are relative to the root, with `/`. All methods block; call them off the event loop.
"""

import errno
import fcntl
import os
import shutil
import stat
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from etl.model.text import size
from etl.storage.disk import (
    LocalStagedFile,
    give_name,
    make_folders,
    remove_if_abandoned,
    sync_all,
    sync_folder,
)
from etl.storage.store import (
    AlreadyExistsError,
    StagedFile,
    StoredFile,
    StoreError,
    explained,
    probe,
)

#: Readers of the lake skip names that begin with `_`, and its files do not end in `.parquet`.
_STAGING: Final = "_staging"
_IN_USE: Final = {errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY}


class LocalStore:
    """A folder that holds a lake or a raw archive."""

    readers: Final = 1
    advice: Final = "its permissions and its free space"
    staged_in: Final = None

    def __init__(self, root: Path) -> None:
        self.root = root
        #: Folders whose names this process made durable. A folder that another process has just
        #: made may not have a durable name yet.
        self._durable: set[Path] = set()

    @property
    def place(self) -> str:
        """The folder's full path."""
        return str(self.root.resolve())

    @property
    def staging(self) -> Path:
        """The folder in which files are written before they get their names."""
        return self.root / _STAGING

    def prepare(self) -> None:
        """Make sure that the store can be written. Raises StoreError."""
        with explained("writing to", str(self.root)):
            for folder in make_folders(self.staging):
                sync_folder(folder.parent)
            self.stage().close()

    def try_out(self) -> str:
        """Do all that a run does, in a folder of its own; remove that and each folder above it.

        Returns what was found. Raises StoreError; nothing is left then either, if the disk allows.
        """
        self.check_readable()
        folders = (self.root.absolute(), *self.root.absolute().parents)
        new = [folder for folder in folders if not folder.exists()]
        trial = LocalStore(self.root / f"_check-{uuid.uuid4().hex[:12]}")
        try:
            trial.prepare()
            if self.staging.exists():
                self.prepare()  # runs write into this one, which another user may have made
            probe(trial, "probe.tmp")
        except BaseException:
            with suppress(OSError):
                _remove(trial.root, new)
            raise
        with explained("removing the probe in", str(trial.root)):
            _remove(trial.root, new)
        there = next(folder for folder in folders if folder.exists())
        free = size(shutil.disk_usage(there).free)
        found = f"a probe was written, read back and removed, {free} free"
        return found + ("; it does not exist yet, a run will make it" if new else "")

    def clean_up(self) -> None:
        """Remove the staged files of killed runs, as far as possible; ignores all errors."""
        with suppress(OSError):
            for leftover in self.staging.iterdir():
                remove_if_abandoned(leftover)

    def hold(self) -> None:
        """Show other processes, as long as this object lives, that it may be written to.

        Call `prepare` first. Raises OSError.
        """
        descriptor = os.open(self.staging, os.O_RDONLY | os.O_DIRECTORY)
        weakref.finalize(self, os.close, descriptor)
        with suppress(OSError):  # a disk without locks: then `is_held` returns None
            fcntl.flock(descriptor, fcntl.LOCK_SH)

    def is_held(self) -> bool | None:
        """Return whether any process holds it, or None if that cannot be known."""
        try:
            descriptor = os.open(self.staging, os.O_RDONLY | os.O_DIRECTORY)
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
        """Return whether the root exists. Raises StoreError if it is not a readable folder."""
        with explained("reading", str(self.root)), suppress(FileNotFoundError):
            os.scandir(self.root).close()
            return True
        return False

    def names(self, folder: str) -> list[str]:
        """List the names in a folder; a missing folder is empty. Raises StoreError."""
        with explained("listing", folder), suppress(FileNotFoundError):
            return sorted(os.listdir(self.root / folder))  # noqa: PTH208 - faster than Path objects
        return []

    def names_of(self, partitions: Sequence[str]) -> dict[str, list[str]]:
        """List the names in the folders of several partitions. Raises StoreError."""
        return {partition: self.names(partition) for partition in partitions}

    def walk(
        self, refused: Callable[[str, StoreError], None], folder: str = ""
    ) -> Iterator[StoredFile]:
        """Yield the files in a folder and below, as `Store.walk` describes.

        Links are followed, each folder once.
        """
        seen: set[tuple[int, int]] = set()
        pending = [folder]
        while pending:
            folder = pending.pop()
            try:
                status = (self.root / folder).stat()
                # A link to a folder above it would never end.
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
                with os.scandir(self.root / folder) as entries:
                    listed = sorted(entries, key=lambda entry: entry.name)
            except FileNotFoundError:
                continue
            except OSError as error:
                refused(folder, StoreError.of("listing", folder or str(self.root), error))
                continue
            folders = []
            for entry in listed:
                name = f"{folder}/{entry.name}" if folder else entry.name
                # One of the vendor's files may have such a name.
                if entry.name.startswith(("_", ".")) and (not folder or _is_folder(entry)):
                    continue
                if not entry.name.endswith(".parquet") and _is_folder(entry):
                    folders.append(name)
                elif (file := _stored(entry, name)) is not None:
                    yield file
            pending += reversed(folders)

    def stat(self, name: str) -> StoredFile:
        """Return a file's size and time. Raises FileNotFoundError or StoreError."""
        try:
            return _stored_file(name, (self.root / name).stat())
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError.of("reading", name, error) from error

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a file for reading. Raises FileNotFoundError, or StoreError if it is not a file."""
        file = self.root / name
        try:
            # Checked first, because opening a pipe would wait for its writer.
            if not stat.S_ISREG(file.stat().st_mode):
                raise StoreError(f"reading {name}: it is not a file")
            stream = file.open("rb")
        except FileNotFoundError:
            if file.is_symlink():
                raise StoreError(f"reading {name}: it is a link to nothing") from None
            raise
        except OSError as error:
            raise StoreError.of("reading", name, error) from error
        with stream:
            yield stream

    def stage(self) -> LocalStagedFile:
        """Start a file. Raises OSError."""
        return LocalStagedFile(self.staging)

    def create(self, staged: StagedFile, name: str) -> None:
        """Create a file under a new name, as `Store.create` describes.

        NFS may repeat a link that succeeded, and then report that the name exists.
        """
        (refusal,) = self.create_all([(staged, name)])
        if refusal is not None:
            raise refusal

    def create_all(self, files: Sequence[tuple[StagedFile, str]]) -> list[StoreError | None]:
        """Create several files; sync each folder once for all of its files."""
        refusals: list[StoreError | None] = [None] * len(files)
        by_folder: dict[str, list[int]] = {}
        # In this order: the bytes, the name, the durability of the name. A name must never be
        # visible, not even after a power cut, without all of its bytes.
        synced = sync_all([staged for staged, _ in files])
        for number, (staged, name) in enumerate(files):
            folder = name.rpartition("/")[0]
            try:
                if (error := synced[number]) is not None:
                    raise error
                if folder not in by_folder:
                    self._durable.difference_update(make_folders(self.root / folder))
                    by_folder[folder] = []
                give_name(staged.path, f"{self.root}/{name}")
                by_folder[folder].append(number)
            except FileExistsError as error:
                # Its creator may not have synced the name yet: the folder is synced below.
                refusals[number] = AlreadyExistsError.of("creating", name, error)
            except OSError as error:
                refusals[number] = StoreError.of("creating", name, error)
        for folder, numbers in by_folder.items():
            try:
                self._sync_names(self.root / folder)
            except OSError as error:
                for number in numbers:
                    refusals[number] = StoreError.of("creating", files[number][1], error)
        return refusals

    def replace(self, staged: StagedFile, name: str) -> None:
        """Create a file, or replace the file of that name. Raises StoreError."""
        target = self.root / name
        with explained("writing", name):
            (refusal,) = sync_all([staged])
            if refusal is not None:
                raise refusal
            self._durable.difference_update(make_folders(target.parent))
            staged.path.replace(target)
            self._sync_names(target.parent)

    def delete(self, name: str) -> None:
        """Delete a file, if it exists. Raises StoreError."""
        file = self.root / name
        with explained("deleting", name):
            file.unlink(missing_ok=True)
            sync_folder(file.parent)

    def _sync_names(self, folder: Path) -> None:
        """Make the names in a folder durable, and the names of the folders that lead to it.

        Starts with the deepest one: its sync often writes what the others would.
        """
        sync_folder(folder)
        while folder != self.root and folder not in self._durable:
            sync_folder(folder.parent)
            self._durable.add(folder)
            folder = folder.parent


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _stored(entry: "os.DirEntry[str]", name: str) -> StoredFile | None:
    """Return a listed file, or None if it has been removed since."""
    try:
        status = entry.stat()
    except OSError:
        if not entry.is_symlink():
            return None
        status = entry.stat(follow_symlinks=False)
    return _stored_file(name, status)


def _stored_file(name: str, status: os.stat_result) -> StoredFile:
    return StoredFile(name, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


def _remove(trial: Path, new: Sequence[Path]) -> None:
    """Remove the trial's folder, then the folders above it that were new. Raises OSError."""
    with suppress(FileNotFoundError):
        shutil.rmtree(trial)
    for folder in new:
        try:
            folder.rmdir()
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno in _IN_USE:
                return  # another process has started to use it
            raise
