"""What a lake, or a raw archive, asks of the place where it lies: a disk or an object store.

Names are relative to the root, with `/`. All methods block; they are called off the event loop.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from etl.model.errors import AhtEtlError, RunError


class LakeError(AhtEtlError):
    """The lake refused: what, where, why."""

    @classmethod
    def of(cls, operation: str, name: str, error: OSError) -> "LakeError":
        """Make one of an operating system's error."""
        return cls(f"{operation} {name}: {error.strerror or error}")


class LakeUnusableError(LakeError, RunError):
    """The store refuses whatever is asked: its credentials have ended, say. The run ends."""


class AlreadyExistsError(LakeError):
    """Something stands under that name; it may even be our own."""


def never_there(name: str, refusal: LakeError) -> LakeError:
    """Return what to tell of a creation that was refused although nothing has that name."""
    if not isinstance(refusal, AlreadyExistsError):
        return refusal
    return LakeError(
        f"creating {name}: refused as there already, but nothing is there; ask whoever runs the "
        "store"
    )


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that a walk met; `modified` is when its bytes were written, just before its name."""

    name: str
    bytes: int
    modified: datetime


class StagedFile(Protocol):
    """A file being written where no reader of the lake looks; closing it removes it."""

    path: Path
    stream: BinaryIO

    def close(self) -> None:
        """Remove the file; what was committed of it stays."""


class Store(Protocol):
    """The place of a lake, or of a raw archive."""

    @property
    def readers(self) -> int:
        """How many files are worth reading side by side; 1 where nothing is waited for."""

    @property
    def place(self) -> str:
        """What people call it: a folder's full path, or a URI."""

    @property
    def advice(self) -> str:
        """What to look at, besides its name, where it refuses."""

    @property
    def staged_in(self) -> str | None:
        """Where files wait for their names, if that is another place than theirs."""

    def prepare(self) -> None:
        """Make sure that the store can be written. Raises LakeError."""

    def try_out(self) -> str:
        """Try all that a run does there, and leave nothing; return what was seen. LakeError."""

    def clean_up(self) -> None:
        """Remove what killed runs left behind, never what a living one writes, as far as it goes.

        What cannot be removed is in nobody's way.
        """

    def hold(self) -> None:
        """Let others know, until this object or its process is gone, that it may be written to.

        After `prepare`. Raises OSError.
        """

    def is_held(self) -> bool | None:
        """Tell whether somebody holds it; None where that cannot be known."""

    def check_readable(self) -> bool:
        """Return whether the root exists. Raises LakeError if it cannot be read.

        In an object store a root exists if some object lies below it.
        """

    def names(self, folder: str) -> list[str]:
        """List what is in a folder; one that does not exist is empty. Raises LakeError."""

    def names_of(self, partitions: Sequence[str]) -> dict[str, list[str]]:
        """List the files of several partitions' folders. Raises LakeError."""

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

    def stat(self, name: str) -> StoredFile:
        """Look at one file. Raises FileNotFoundError or LakeError."""

    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open a file to read. Raises FileNotFoundError or, where it is no file, LakeError."""

    def stage(self) -> StagedFile:
        """Begin a file. Raises OSError."""

    def create(self, staged: StagedFile, name: str) -> None:
        """Give a staged file its name, whole and durable, if nothing has that name yet.

        Raises AlreadyExistsError or LakeError; after either the name may be taken by this very
        file all the same (an answer may be lost, a request repeated), so look before concluding.
        """

    def create_all(self, files: Sequence[tuple[StagedFile, str]]) -> list[LakeError | None]:
        """Do as `create` for each file; return what it would raise, in their order.

        Cheaper than one after another, and no file is waited for on behalf of another's error.
        """

    def replace(self, staged: StagedFile, name: str) -> None:
        """Give a staged file its name, whole and durable, over whatever had it. LakeError."""
