"""The raw archive's writing half: files as they were downloaded, byte for byte.

The first file that came for a path lies under that path, and nothing there is ever replaced. What
else came for it later lies beside, with its checksum behind the name; of a file that could not be
decoded a note beside says so (`etl.archive.names` has the names, and which of several counts).
"""

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiofiles.os import wrap

from etl.api.responses import Body
from etl.archive.names import failure_note_name, version_name
from etl.decode.unpack import damaged_file, without_encodings
from etl.model.errors import FailureKind, FileError
from etl.model.events import log
from etl.storage.store import (
    AlreadyExistsError,
    LakeError,
    LakeUnusableError,
    StagedFile,
    Store,
    never_there,
)

if TYPE_CHECKING:
    from etl.decode.decoded import Decoded

_PIECE_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True)
class Download:
    """A downloaded file, and what decoding made of it."""

    path: str
    body: Body
    outcome: "Decoded | FileError"


@dataclass(frozen=True, slots=True)
class _Staged:
    """A file of the archive, written and without its name; `failed` if it cannot be decoded."""

    path: str
    file: StagedFile
    bytes: int
    sha256: str
    failed: FileError | None

    @property
    def name(self) -> str:
        return self.path.removeprefix("/")


class ArchiveWriter:
    """A folder of raw files.

    A file appears whole and synced or not at all, and is never replaced: the same again changes
    nothing; another one under the same path is kept beside it.
    """

    def __init__(self, store: Store, max_file_size: int) -> None:
        self._store = store
        self._max_file_size = max_file_size
        self._waiting: list[tuple[Download, asyncio.Future[FileError | bool]]] = []
        self._keeping: asyncio.Task[None] | None = None

    def prepare(self) -> None:
        """Make sure that the archive can be written. Raises LakeError."""
        self._store.prepare()
        self._store.clean_up()
        try:
            # From the first file that is kept until its rows are in the lake: whoever compares
            # the two must not take what is under way for forgotten.
            self._store.hold()
        except OSError as error:
            raise LakeError.of("writing to", "raw.uri", error) from error

    async def keep(self, file: Download) -> bool:
        """Store a file without transport encodings; return whether it is new. It is durable then.

        Files that come while others are written are written together after them: what makes a
        folder durable is paid once for all. Raises FileError where the archive refuses.
        """
        done: asyncio.Future[FileError | bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((file, done))
        if self._keeping is None:
            self._keeping = asyncio.ensure_future(self._keep_waiting())
        how = await done
        if isinstance(how, FileError):
            raise how
        return how

    async def _keep_waiting(self) -> None:
        """Keep all that waits, in one of aiofiles' threads."""
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                try:
                    kept = await wrap(self._keep)([file for file, _ in batch])
                except Exception as error:  # noqa: BLE001 - each worker hears of it
                    for _, done in batch:
                        if not done.done():
                            done.set_exception(error)
                    continue
                for (_, done), how in zip(batch, kept, strict=True):
                    if not done.done():  # else its worker was cancelled
                        done.set_result(how)
        finally:
            self._keeping = None

    def _keep(self, files: Sequence[Download]) -> list[FileError | bool]:
        kept: list[FileError | bool] = [True] * len(files)
        staged: dict[int, _Staged] = {}
        with ExitStack() as closing:
            for number, file in enumerate(files):
                try:
                    staged[number] = self._stage(file, closing)
                except (LakeError, OSError) as error:
                    kept[number] = archive_error(error)
            refusals = self._store.create_all([(one.file, one.name) for one in staged.values()])
            for (number, one), refusal in zip(staged.items(), refusals, strict=True):
                try:
                    if refusal is not None:
                        kept[number] = self._keep_refused(one, refusal)
                except (LakeError, OSError) as error:
                    kept[number] = archive_error(error)
        return kept

    def _stage(self, file: Download, closing: ExitStack) -> _Staged:
        """Write a file without its name. Raises OSError or LakeError."""
        staged = self._store.stage()
        closing.callback(staged.close)
        outcome = file.outcome
        if not isinstance(outcome, FileError):
            if outcome.encodings or not file.body.in_memory:
                pieces = without_encodings(file.body.stream, outcome.encodings, self._max_file_size)
                for piece in pieces:
                    staged.stream.write(piece)
            else:
                file.body.stream.seek(0)
                staged.stream.write(file.body.stream.read())
            return _Staged(file.path, staged, outcome.bytes, outcome.sha256, None)
        sha256 = self._write_failed(staged, file.body)
        one = _Staged(file.path, staged, staged.stream.tell(), sha256, outcome)
        # Before the file itself: without its note it would pass for one that can be decoded.
        self._note(one, f"{outcome.kind.value}: {outcome.message}\n")
        return one

    def _write_failed(self, staged: StagedFile, body: Body) -> str:
        """Write a file that cannot be decoded; return its SHA-256.

        As it came where not even its transport encodings can be taken off.
        """
        try:
            return _copy(damaged_file(body.stream, self._max_file_size), staged)
        except FileError:
            staged.stream.seek(0)
            staged.stream.truncate()
            return _copy(without_encodings(body.stream, 0, self._max_file_size), staged)

    def _note(self, one: _Staged, text: str) -> None:
        name = failure_note_name(one.name, one.sha256)
        note = self._store.stage()
        try:
            note.stream.write(text.encode())
            try:
                self._store.create(note, name)
            except AlreadyExistsError:
                if bool(self._store.stat(name).bytes) != bool(text):
                    self._store.replace(note, name)
        finally:
            note.close()

    def _keep_refused(self, one: _Staged, refusal: LakeError) -> bool:
        """Keep a file whose creation was refused, unless it has its name all the same."""
        new = False
        if isinstance(refusal, LakeUnusableError):
            raise refusal
        same = self._is(one, one.name)
        if same is None and isinstance(refusal, AlreadyExistsError):
            # What was there is gone, or never was.
            same = self._create(one, one.name)
            new = True
        if same:
            return self._forgive(one) or new
        if same is False and isinstance(refusal, AlreadyExistsError):
            beside = version_name(one.name, one.sha256)
            log.warning("archive.differs", path=one.path, kept_as=beside)
            if not self._create(one, beside):
                raise LakeError(f"creating {beside}: another file has this name")
            self._forgive(one)
            return True
        raise refusal

    def _create(self, one: _Staged, name: str) -> bool:
        """Give a file this name; tell whether it has it then. Raises LakeError."""
        try:
            self._store.create(one.file, name)
        except LakeError as refusal:
            same = self._is(one, name)
            if same is None:
                raise never_there(name, refusal) from None
            return same
        return True

    def _is(self, one: _Staged, name: str) -> bool | None:
        """Tell whether this very file has that name; None if nothing has."""
        try:
            return (
                self._store.stat(name).bytes == one.bytes
                and sha256_of(self._store, name) == one.sha256
            )
        except FileNotFoundError:
            return None

    def _forgive(self, one: _Staged) -> bool:
        """Take a note back, if there is one: by other limits the file can be decoded now."""
        if one.failed is not None:
            return False
        try:
            noted = self._store.stat(failure_note_name(one.name, one.sha256)).bytes > 0
        except FileNotFoundError:
            return False
        if noted:
            self._note(one, "")
        return noted


def _copy(pieces: Iterable[bytes], staged: StagedFile) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
        staged.stream.write(piece)
    return digest.hexdigest()


def sha256_of(store: Store, name: str) -> str:
    """Return the SHA-256 of a file in a store. Raises OSError or LakeError."""
    with store.open(name) as stream:
        digest = hashlib.sha256()
        while piece := stream.read(_PIECE_BYTES):
            digest.update(piece)
        return digest.hexdigest()


def archive_error(error: Exception) -> FileError:
    """Return what to tell of a file when the archive refuses; raise what ends the run."""
    if isinstance(error, LakeUnusableError):
        raise error
    return FileError(FailureKind.LAKE, f"the raw archive: {error}; check raw.uri")
