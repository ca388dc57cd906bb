"""Writing the raw archive: files as they were downloaded, byte for byte.

The first file of a path gets the path as its name, and is never replaced. A later file with other
content gets a name with its checksum. A note marks each file that could not be decoded.
`etl.archive.reader` has the names, and says which version counts.
"""

import asyncio
import hashlib
import io
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from aiofiles.os import wrap

from etl.api.responses import Body
from etl.archive.reader import archive_error, failure_note_name, version_name
from etl.decode.file import Decoded
from etl.decode.unpack import removable_encodings, without_encodings
from etl.model.errors import FileError
from etl.model.text import log
from etl.storage.store import (
    AlreadyExistsError,
    StagedFile,
    Store,
    StoreError,
    create_new,
    replace_file,
    settle,
)


@dataclass(frozen=True, slots=True)
class Download:
    """A downloaded file, and the result of decoding it."""

    path: str
    body: Body
    outcome: Decoded | FileError


@dataclass(frozen=True, slots=True)
class _Staged:
    """A file of the archive that has no name yet; `failed` if it cannot be decoded."""

    path: str
    file: StagedFile
    sha256: str
    failed: FileError | None

    @property
    def name(self) -> str:
        return self.path.removeprefix("/")

    @property
    def note_name(self) -> str:
        return failure_note_name(self.name, self.sha256)


class ArchiveWriter:
    """Adds files to an archive, each whole and durable or not at all; replaces none."""

    def __init__(self, store: Store, max_file_size: int) -> None:
        self._store = store
        self._max_file_size = max_file_size
        self._waiting: list[tuple[Download, asyncio.Future[bool]]] = []
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
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((file, done))
        if self._writing is None:
            self._writing = asyncio.ensure_future(self._write_waiting())
        return await done

    async def _write_waiting(self) -> None:
        """Write all files that wait, in one of aiofiles' threads."""
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                results: Sequence[Exception | bool]
                try:
                    results = await wrap(self._write)([file for file, _ in batch])
                except Exception as error:  # noqa: BLE001 - raised in each worker
                    results = [error] * len(batch)
                for (_, done), result in zip(batch, results, strict=True):
                    if done.done():
                        continue  # its worker was cancelled
                    if isinstance(result, Exception):
                        done.set_exception(result)
                    else:
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
                if refusal is not None:
                    try:
                        results[number] = self._after_refusal(one, refusal)
                    except (StoreError, OSError) as error:
                        results[number] = archive_error(error)
        return results

    def _stage(self, file: Download, closing: ExitStack) -> _Staged:
        """Write a file that has no name yet. Raises OSError or StoreError."""
        staged = self._store.stage()
        closing.callback(staged.close)
        body, outcome = file.body.stream, file.outcome
        if not isinstance(outcome, FileError):
            pieces = without_encodings(body, outcome.encodings, self._max_file_size)
            staged.stream.writelines(pieces)
            return _Staged(file.path, staged, outcome.sha256, None)
        digest = hashlib.sha256()
        encodings = removable_encodings(body, self._max_file_size)
        for piece in without_encodings(body, encodings, self._max_file_size):
            digest.update(piece)
            staged.stream.write(piece)
        one = _Staged(file.path, staged, digest.hexdigest(), outcome)
        # Before the file itself: without its note, the file would count as decodable.
        self._note(one, f"{outcome.kind.value}: {outcome.message}\n")
        return one

    def _note(self, one: _Staged, text: str) -> bool:
        """Note why a file cannot be decoded, or that it can; return whether that is news.

        A note that says so already stays as it is: the store may have object lock.
        """
        try:
            noted = self._store.stat(one.note_name).bytes > 0
        except FileNotFoundError:
            noted = False
        if noted == bool(text):
            return False
        replace_file(self._store, one.note_name, io.BytesIO(text.encode()))
        return True

    def _after_refusal(self, one: _Staged, refusal: StoreError) -> bool:
        """Add a file whose creation was refused; return whether it is new."""
        if settle(self._store, one.file, one.name, refusal):
            # Without an answer it is most likely this very creation that succeeded, or its repeat.
            new = not isinstance(refusal, AlreadyExistsError)
            return self._withdraw_note(one) or new
        beside = version_name(one.name, one.sha256)
        log.warning("archive.differs", path=one.path, kept_as=beside)
        if not create_new(self._store, one.file, beside):
            raise StoreError(f"creating {beside}: another file has this name")
        self._withdraw_note(one)
        return True

    def _withdraw_note(self, one: _Staged) -> bool:
        """Empty the note of a file that can now be decoded; return whether it had one."""
        return one.failed is None and self._note(one, "")
