"""Writing the raw archive: files as they were downloaded, byte for byte.

The first file of a path gets the path as its name, and is never replaced. A later file with other
content gets a name with its checksum. A note marks each file that could not be decoded.
`etl.archive.reader` has the names, and says which version counts.
"""

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiofiles.os import wrap

from etl.api.responses import Body
from etl.archive.reader import archive_error, failure_note_name, sha256_of, version_name
from etl.decode.unpack import damaged_file, without_encodings
from etl.model.errors import FileError
from etl.model.events import log
from etl.storage.store import (
    AlreadyExistsError,
    StagedFile,
    Store,
    StoreError,
    StoreUnusableError,
    never_there,
)

if TYPE_CHECKING:
    from etl.decode.file import Decoded


@dataclass(frozen=True, slots=True)
class Download:
    """A downloaded file, and the result of decoding it."""

    path: str
    body: Body
    outcome: "Decoded | FileError"


@dataclass(frozen=True, slots=True)
class _Staged:
    """A file of the archive that has no name yet; `failed` if it cannot be decoded."""

    path: str
    file: StagedFile
    bytes: int
    sha256: str
    failed: FileError | None

    @property
    def name(self) -> str:
        return self.path.removeprefix("/")


class ArchiveWriter:
    """Adds files to an archive, each whole and durable or not at all; replaces none."""

    def __init__(self, store: Store, max_file_size: int) -> None:
        self._store = store
        self._max_file_size = max_file_size
        self._waiting: list[tuple[Download, asyncio.Future[FileError | bool]]] = []
        self._writing: asyncio.Task[None] | None = None

    def prepare(self) -> None:
        """Make sure that the archive can be written. Raises StoreError."""
        self._store.prepare()
        self._store.clean_up()
        try:
            # From the first file in the archive until its rows are in the lake: a comparison of the
            # two must not report files of an active run as missing.
            self._store.hold()
        except OSError as error:
            raise StoreError.of("writing to", "raw.uri", error) from error

    async def add(self, file: Download) -> bool:
        """Add a file without its transport encodings; return whether it is new. Then it is durable.

        Files that arrive while others are written are written together after them, so that a
        folder is synced once for all of them. Raises FileError if the archive cannot be written to.
        """
        done: asyncio.Future[FileError | bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((file, done))
        if self._writing is None:
            self._writing = asyncio.ensure_future(self._write_waiting())
        result = await done
        if isinstance(result, FileError):
            raise result
        return result

    async def _write_waiting(self) -> None:
        """Write all files that wait, in one of aiofiles' threads."""
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                try:
                    results = await wrap(self._write)([file for file, _ in batch])
                except Exception as error:  # noqa: BLE001 - raised in each worker
                    for _, done in batch:
                        if not done.done():
                            done.set_exception(error)
                    continue
                for (_, done), result in zip(batch, results, strict=True):
                    if not done.done():  # else its worker was cancelled
                        done.set_result(result)
        finally:
            self._writing = None

    def _write(self, files: Sequence[Download]) -> list[FileError | bool]:
        results: list[FileError | bool] = [True] * len(files)
        staged: dict[int, _Staged] = {}
        with ExitStack() as closing:
            for number, file in enumerate(files):
                try:
                    staged[number] = self._stage(file, closing)
                except (StoreError, OSError) as error:
                    results[number] = archive_error(error)
            refusals = self._store.create_all([(one.file, one.name) for one in staged.values()])
            for (number, one), refusal in zip(staged.items(), refusals, strict=True):
                try:
                    if refusal is not None:
                        results[number] = self._after_refusal(one, refusal)
                except (StoreError, OSError) as error:
                    results[number] = archive_error(error)
        return results

    def _stage(self, file: Download, closing: ExitStack) -> _Staged:
        """Write a file that has no name yet. Raises OSError or StoreError."""
        staged = self._store.stage()
        closing.callback(staged.close)
        outcome = file.outcome
        if not isinstance(outcome, FileError):
            staged.stream.writelines(
                without_encodings(file.body.stream, outcome.encodings, self._max_file_size)
            )
            return _Staged(file.path, staged, outcome.bytes, outcome.sha256, None)
        sha256 = self._write_failed(staged, file.body)
        one = _Staged(file.path, staged, staged.stream.tell(), sha256, outcome)
        # Before the file itself: without its note, the file would count as decodable.
        self._note(one, f"{outcome.kind.value}: {outcome.message}\n")
        return one

    def _write_failed(self, staged: StagedFile, body: Body) -> str:
        """Write a file that cannot be decoded; return its SHA-256.

        If its transport encodings cannot be removed, it is written as it was received.
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

    def _after_refusal(self, one: _Staged, refusal: StoreError) -> bool:
        """Add a file whose creation was refused, unless it has its name nevertheless."""
        new = False
        if isinstance(refusal, StoreUnusableError):
            raise refusal
        same = self._is(one, one.name)
        if same is None and isinstance(refusal, AlreadyExistsError):
            # The file that had the name is gone, or never existed.
            same = self._create(one, one.name)
            new = True
        if same:
            return self._withdraw_note(one) or new
        if same is False and isinstance(refusal, AlreadyExistsError):
            beside = version_name(one.name, one.sha256)
            log.warning("archive.differs", path=one.path, kept_as=beside)
            if not self._create(one, beside):
                raise StoreError(f"creating {beside}: another file has this name")
            self._withdraw_note(one)
            return True
        raise refusal

    def _create(self, one: _Staged, name: str) -> bool:
        """Give a file this name; return whether it has it then. Raises StoreError."""
        try:
            self._store.create(one.file, name)
        except StoreError as refusal:
            same = self._is(one, name)
            if same is None:
                raise never_there(name, refusal) from None
            return same
        return True

    def _is(self, one: _Staged, name: str) -> bool | None:
        """Return whether this very file has that name; None if no file has it."""
        try:
            return (
                self._store.stat(name).bytes == one.bytes
                and sha256_of(self._store, name) == one.sha256
            )
        except FileNotFoundError:
            return None

    def _withdraw_note(self, one: _Staged) -> bool:
        """Empty the note of a file that can now be decoded; return whether it had one."""
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

