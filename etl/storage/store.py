"""What the program needs of the place of a lake or a raw archive: a folder or an object store.

Names are relative to the root, with `/`. All methods block; call them off the event loop.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from etl.model.errors import AhtEtlError, RunError

#: The end of a file that is fetched first: pyarrow looks for a footer in this many bytes.
TAIL_BYTES: Final = 64 * 2**10
_PROBE: Final = b"aht-etl check was here and should have removed this file\n"
#: Seconds before a creation is repeated that was refused although nothing has the name.
PAUSES_S: Final = (0.1, 0.3, 1.0, 2.0, 4.0)
_PIECE_BYTES: Final = 2**20


class StoreError(AhtEtlError):
    """The store refused an operation: which one, on what, why."""

    @classmethod
    def of(cls, operation: str, name: str, error: OSError) -> "StoreError":
        """Return the error for one of the operating system's."""
        return cls(f"{operation} {name}: {error.strerror or error}")


@contextmanager
def explained(operation: str, name: str) -> Iterator[None]:
    """Raise StoreError for the operating system's errors."""
    try:
        yield
    except OSError as error:
        raise StoreError.of(operation, name, error) from error


class StoreUnusableError(StoreError, RunError):
    """The store refuses every request, for example because its credentials expired.

    The run ends.
    """


class ForbiddenError(StoreError):
    """The credentials may not do this."""


class RepeatableError(StoreError):
    """No answer, or a conflict with another request: it may have been done, or may pass later."""


class AlreadyExistsError(StoreError):
    """A file of that name exists; it may even be the one that was to be created."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in a store; `modified` is when its bytes were written, just before its name."""

    name: str
    bytes: int
    modified: datetime


class StagedFile(Protocol):
    """A file that is being written where no reader of the lake looks; closing it removes it."""

    path: Path
    stream: BinaryIO

    def close(self) -> None:
        """Remove the file; what was created from it stays."""


class Store(Protocol):
    """The place of a lake or of a raw archive."""

    @property
    def readers(self) -> int:
        """How many files to read at once; 1 if reading does not wait for a network."""

    @property
    def place(self) -> str:
        """A folder's full path, or a URI."""

    @property
    def advice(self) -> str:
        """What to check, in addition to its name, if it refuses."""

    @property
    def staged_in(self) -> str | None:
        """Where staged files are, if they are not in the store itself."""

    def prepare(self) -> None:
        """Make sure that the store can be written. Raises StoreError."""

    def try_out(self) -> str:
        """Do all that a run does, and leave nothing; return what was found. Raises StoreError."""

    def clean_up(self) -> None:
        """Remove the staged files of killed runs, as far as possible; ignores all errors."""

    def hold(self) -> None:
        """Show other processes, as long as this object lives, that it may be written to.

        Call `prepare` first. Raises OSError.
        """

    def is_held(self) -> bool | None:
        """Return whether any process holds it, or None if that cannot be known."""

    def check_readable(self) -> bool:
        """Return whether the root exists. Raises StoreError if it cannot be read.

        In an object store a root exists if there is an object below it.
        """

    def names(self, folder: str) -> list[str]:
        """List the names in a folder; a missing folder is empty. Raises StoreError."""

    def names_of(self, partitions: Sequence[str]) -> dict[str, list[str]]:
        """List the names in the folders of several partitions. Raises StoreError."""

    def walk(
        self, refused: Callable[[str, StoreError], None], folder: str = ""
    ) -> Iterator[StoredFile]:
        """Yield the files in a folder and below: its own first, by name, then folder by folder.

        Skips folders whose names begin with `_` or `.`, and such files in the root; `folder` itself
        may have such a name. A name that ends in `.parquet` is yielded even if it is not a file.
        Calls `refused` with the name of each folder that cannot be read. The result is not a
        snapshot: changes during the walk may be missing.
        """

    def stat(self, name: str) -> StoredFile:
        """Return a file's size and time. Raises FileNotFoundError or StoreError."""

    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open a file for reading. Raises FileNotFoundError, or StoreError if it is not a file."""

    def stage(self) -> StagedFile:
        """Start a file. Raises OSError."""

    def create(self, staged: StagedFile, name: str) -> None:
        """Give a staged file its name, whole and durable, if no file has that name yet.

        Raises AlreadyExistsError or StoreError. The file may exist even then, because an answer may
        be lost or a request repeated: look at the name before you draw a conclusion.
        """

    def create_all(self, files: Sequence[tuple[StagedFile, str]]) -> list[StoreError | None]:
        """Create several files; return the error of each, in their order.

        It is faster than one `create` after another. One file's error does not stop the others.
        """

    def replace(self, staged: StagedFile, name: str) -> None:
        """Create a file, whole and durable, or replace the file of that name. Raises StoreError."""

    def delete(self, name: str) -> None:
        """Delete a file, if it exists. Raises StoreError."""


def probe(store: Store, name: str) -> None:
    """Create a small file as a part is created, read it back, and try to create it again.

    The caller removes it. Raises StoreError.
    """
    _create(store, name, partial(create_new, store))
    try:
        with store.open(name) as file:
            if file.read() != _PROBE:
                raise StoreError(f"reading {store.place}: the probe came back with other content")
    except FileNotFoundError:
        raise StoreError(f"reading {store.place}: the probe that was written is missing") from None
    try:
        _create(store, name, store.create)
    except AlreadyExistsError:
        return
    raise replaced(store.place)


def _create(store: Store, name: str, create: Callable[[StagedFile, str], object]) -> None:
    place = store.staged_in or store.place
    with explained("writing to", place), closing(store.stage()) as staged:
        staged.stream.write(_PROBE)
        create(staged, name)


def replaced(place: str) -> StoreError:
    """Return the error for a store that replaces a file instead of refusing to create it."""
    return StoreError(
        f"{place}: an existing file was replaced, so two runs could overwrite each other: this "
        "store does not know conditional puts (If-None-Match), or this disk neither hard links nor "
        "exclusive renames; use another one, or a newer version of it"
    )


def create_new(store: Store, staged: StagedFile, name: str) -> bool:
    """Create a file; return whether it has the name now: False if another file has it.

    Raises StoreError; OSError if the name or the staged file cannot be read. If it cannot even be
    read whether the creation succeeded, the file may exist.
    """
    try:
        store.create(staged, name)
    except StoreError as refusal:
        return settle(store, staged, name, refusal)
    return True


def settle(store: Store, staged: StagedFile, name: str, refusal: StoreError) -> bool:
    """Return the result of a creation that was refused, as `create_new` does.

    A refusal proves nothing: the answer to a creation that succeeded may be lost, and a store may
    say that a file exists which does not (S3's 409). So the name is read, and if nothing has it,
    the creation is repeated.
    """
    for pause_s in (*PAUSES_S, None):
        if isinstance(refusal, StoreUnusableError):
            raise refusal
        try:
            return _is_at(store, name, staged)
        except FileNotFoundError:
            if not isinstance(refusal, AlreadyExistsError | RepeatableError):
                raise refusal from None
        except (StoreError, OSError) as error:
            # Why nothing was created says more than why the name cannot be read.
            raise (error if isinstance(refusal, AlreadyExistsError) else refusal) from None
        if pause_s is None:
            break
        time.sleep(pause_s)
        try:
            store.create(staged, name)
        except StoreError as error:
            refusal = error
        else:
            return True
    if isinstance(refusal, RepeatableError):
        raise refusal
    raise StoreError(
        f"creating {name}: the store says that it exists, but it does not; ask the store's operator"
    )


def _is_at(store: Store, name: str, staged: StagedFile) -> bool:
    """Return whether this name has the bytes of a staged file. Raises OSError or StoreError."""
    descriptor = staged.stream.fileno()
    # Linux opens the file by this name, even if its own name is gone.
    with store.open(name) as there, Path(f"/proc/self/fd/{descriptor}").open("rb") as ours:
        if there.seek(0, os.SEEK_END) != os.fstat(descriptor).st_size:
            return False
        there.seek(0)
        while piece := ours.read(_PIECE_BYTES):
            if there.read(len(piece)) != piece:
                return False
    return True


def replace_file(store: Store, name: str, content: BinaryIO) -> None:
    """Create a file, whole and durable, or replace the file of that name. Raises StoreError."""
    with explained("writing", store.staged_in or name), closing(store.stage()) as staged:
        shutil.copyfileobj(content, staged.stream)
        store.replace(staged, name)
