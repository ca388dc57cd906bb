"""A store in a bucket or a container.

An object appears whole or not at all, and is durable as soon as the store says so. Staged files are
in the temporary folder, without a name.
"""

import io
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError as ObjectExistsError
from obstore.exceptions import BaseError, PreconditionError

from etl.storage.connection import REQUEST_S, Connection
from etl.storage.disk import ScratchFile, mapped
from etl.storage.places import Place
from etl.storage.refusals import refusal_of
from etl.storage.store import (
    PAUSES_S,
    TAIL_BYTES,
    AlreadyExistsError,
    ForbiddenError,
    RepeatableError,
    StagedFile,
    StoredFile,
    StoreError,
    StoreUnusableError,
    probe,
    replaced,
)

T = TypeVar("T")

# The object that proves to each run that the store does not replace. It stays, because a run needs
# no permission to delete. Readers skip its name.
_PROBE: Final = "_aht_etl_probe"
_PROBE_TEXT: Final = (
    b"aht-etl tries to create this object at the start of each run, and must be refused.\n"
)
# The least size of a request for a piece: columns lie one after another, and are read in order.
_PIECE_BYTES: Final = 4 * 2**20
# How many small files are put at once.
_WRITERS: Final = 8


class ObjectFile(io.RawIOBase):
    """An object as a file: its last bytes are `tail`, and `fetch(start, end)` returns others.

    It holds the tail and one other piece in memory.
    """

    def __init__(self, size: int, tail: Any, fetch: Callable[[int, int], Any]) -> None:
        super().__init__()
        self._size = size
        self._tail = memoryview(tail)
        self._tail_start = size - len(self._tail)
        self._fetch = fetch
        self._piece = memoryview(b"")
        self._piece_start = 0
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position; this sends no request."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, perhaps in part. Raises StoreError."""
        wanted = memoryview(buffer).cast("B")
        start = self._position
        if start >= self._size or not wanted:
            return 0
        found = self._from(start, min(len(wanted), self._size - start))
        count = min(len(found), len(wanted))
        wanted[:count] = found[:count]
        self._position += count
        return count

    def _from(self, start: int, length: int) -> memoryview:
        """Return bytes from `start` on, at least one; fetch them if they are not in memory."""
        if start >= self._tail_start:
            return self._tail[start - self._tail_start :]
        inside = start - self._piece_start
        if not 0 <= inside < len(self._piece):
            end = min(start + max(length, _PIECE_BYTES), self._tail_start)
            self._piece = memoryview(self._fetch(start, end))
            self._piece_start = start
            inside = 0
        return self._piece[inside:]


class ObjectStore:
    """A bucket, or a container, or a prefix in one, that holds a lake or a raw archive.

    Raises ValueError if the options are wrong; nothing is sent. With `patient=False`, failed
    requests are not repeated.
    """

    readers: Final = 8
    advice: Final = "its options and its credentials"

    def __init__(self, place: Place, options: Mapping[str, str], *, patient: bool = True) -> None:
        self._place = place
        self._connection = Connection(place, options, patient=patient)
        self._store = self._connection.store
        self._pauses_s = PAUSES_S if patient else ()
        # Sizes from listings, because Azure cannot be asked for the end of an object.
        self._sizes: dict[str, int] = {}

    @property
    def place(self) -> str:
        """Its URI."""
        return str(self._place)

    @property
    def staged_in(self) -> str:
        """The temporary folder."""
        return f"the temporary folder {tempfile.gettempdir()} (TMPDIR)"

    def prepare(self) -> None:
        """Make sure that the store can be written and does not replace. Raises StoreError."""
        if not self._refuses_to_replace() and not self._refuses_to_replace():
            with suppress(StoreError):
                self.delete(_PROBE)
            raise replaced(self.place)

    def _refuses_to_replace(self) -> bool:
        """Try to create the probe; return whether that was refused because it exists."""
        try:
            self._patiently(lambda: self._put_new(memoryview(_PROBE_TEXT), _PROBE))
        except AlreadyExistsError:
            return True
        return False

    def try_out(self) -> str:
        """Create an object as a part is created, read it back, try to replace it, remove it.

        Returns what was found. Raises StoreError.
        """
        self.check_readable()
        name = f"_check-{uuid.uuid4().hex[:12]}"
        kept = ""
        try:
            probe(self, name)
        finally:
            try:
                self.delete(name)
            except StoreError as error:
                kept = f"; it stays: {error}"
        return f"a probe was written, read back and {'not ' if kept else ''}removed{kept}"

    def clean_up(self) -> None:
        """Do nothing: a killed run leaves nothing behind."""

    def hold(self) -> None:
        """Do nothing: there are no locks here."""

    def is_held(self) -> None:
        """Return None: this is unknown."""

    def check_readable(self) -> bool:
        """Return whether there is an object below the root.

        Raises StoreError if it cannot be listed, for example because the bucket is missing.
        """
        found = self._ask("listing", self.place, lambda: obstore.list_with_delimiter(self._store))
        return bool(found["objects"] or found["common_prefixes"])

    def names(self, folder: str) -> list[str]:
        """List the names in a folder; a missing folder is empty. Raises StoreError."""
        objects, folders = self._list(folder)
        return sorted(_last(name) for name in (*(file.name for file in objects), *folders))

    def names_of(self, partitions: Sequence[str]) -> dict[str, list[str]]:
        """List the names in the folders of several partitions, with one request for each day.

        Raises StoreError.
        """
        names: dict[str, list[str]] = {partition: [] for partition in partitions}
        # The last two levels of a partition are its hour and its account.
        for day in sorted({partition.rsplit("/", 2)[0] for partition in partitions}):
            for file in self._below(day):
                folder, _, name = file.name.rpartition("/")
                if folder in names:
                    names[folder].append(name)
        return names

    def walk(
        self, refused: Callable[[str, StoreError], None], folder: str = ""
    ) -> Iterator[StoredFile]:
        """Yield the files in a folder and below, as `Store.walk` describes."""
        try:
            objects, folders = self._list(folder)
        except StoreError as error:
            refused(folder, error)
            return
        yield from (file for file in objects if folder or not _is_hidden(file.name))
        for name in folders:
            if _is_hidden(_last(name)):
                continue
            if _last(name).startswith("year="):
                # A whole year of an archive is too much to hold and sort at once.
                yield from self.walk(refused, name)
                continue
            try:
                # One listing for all folders below; its order is not that of a walk.
                below = sorted(self._below(name), key=_walk_order)
            except StoreError as error:
                refused(name, error)
                continue
            start = len(name) + 1
            yield from (
                file
                for file in below
                if not any(_is_hidden(part) for part in file.name[start:].split("/")[:-1])
            )

    def stat(self, name: str) -> StoredFile:
        """Return an object's size and time. Raises FileNotFoundError or StoreError."""
        return _stored(self._ask("reading", name, lambda: obstore.head(self._store, name)))

    def open(self, name: str) -> io.BufferedReader:
        """Open an object for reading; fetch its end. Raises FileNotFoundError or StoreError."""
        size, tag, tail = self._ask("reading", name, lambda: self._end(name))

        def fetch(start: int, end: int) -> Any:
            options: Any = {"range": (start, end), "if_match": tag}
            try:
                return obstore.get(self._store, name, options=options).bytes()
            except (PreconditionError, FileNotFoundError):
                raise StoreError(f"reading {name}: it was replaced meanwhile; try again") from None

        def piece(start: int, end: int) -> Any:
            return self._ask("reading", name, partial(fetch, start, end))

        return io.BufferedReader(ObjectFile(size, tail, piece))

    def stage(self) -> ScratchFile:
        """Start a file in the temporary folder. Raises OSError."""
        return ScratchFile()

    def create(self, staged: StagedFile, name: str) -> None:
        """Create an object, as `Store.create` describes."""
        with mapped(staged) as content:
            try:
                self._put_new(content, name)
            except ForbiddenError as error:
                if self._may_create():
                    raise
                raise StoreUnusableError(str(error)) from None

    def _put_new(self, content: memoryview, name: str) -> None:
        """Put an object if it does not exist. Raises StoreError."""
        store = self._connection.for_bytes(len(content))
        start_s = time.monotonic()
        try:
            # Never multipart: only a single put can be conditional.
            obstore.put(store, name, content, mode="create", use_multipart=False)
        except (BaseError, FileNotFoundError) as error:
            refusal = refusal_of(error, self._place)
            exists = isinstance(error, ObjectExistsError | PreconditionError)
            if exists and not refusal.conflict:
                raise AlreadyExistsError(f"creating {name}: it exists already") from None
            if time.monotonic() > start_s + REQUEST_S:
                # A network that cannot carry it would only take as long again, for each repetition.
                refusal = replace(refusal, unanswered=False)
            raise refusal.as_error("creating", name) from None

    def _may_create(self) -> bool:
        """Return whether the credentials may create another object."""
        try:
            self._refuses_to_replace()
        except StoreError:
            return False
        return True

    def create_all(self, files: Sequence[tuple[StagedFile, str]]) -> list[StoreError | None]:
        """Create several objects at once; return the error of each, in their order."""

        def put(file: tuple[StagedFile, str]) -> StoreError | None:
            try:
                self.create(*file)
            except StoreError as error:
                return error
            return None

        with ThreadPoolExecutor(min(len(files), _WRITERS) or 1) as pool:
            return list(pool.map(put, files))

    def replace(self, staged: StagedFile, name: str) -> None:
        """Create an object, or replace the object of that name. Raises StoreError."""
        with mapped(staged) as content:
            store = self._connection.for_bytes(len(content))
            with self._explained("writing", name):
                obstore.put(store, name, content, use_multipart=False)

    def delete(self, name: str) -> None:
        """Delete an object, if it exists. Raises StoreError."""
        with self._explained("deleting", name), suppress(FileNotFoundError):
            obstore.delete(self._store, name)

    @contextmanager
    def _explained(self, operation: str, name: str) -> Iterator[None]:
        """Raise StoreError, or FileNotFoundError if nothing but the object to read is missing."""
        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            refusal = refusal_of(error, self._place)
            is_object = operation == "reading" and not refusal.container_is_missing
            if isinstance(error, FileNotFoundError) and is_object:
                raise FileNotFoundError(name) from None
            raise refusal.as_error(operation, name) from None

    def _patiently(self, work: Callable[[], T]) -> T:
        """Do what may be done twice, and do it again, for a while, if there is no answer."""
        ends_s = time.monotonic() + REQUEST_S
        for pause_s in self._pauses_s:
            try:
                return work()
            except RepeatableError:
                if time.monotonic() > ends_s:
                    raise
                time.sleep(pause_s)
        return work()

    def _ask(self, operation: str, name: str, work: Callable[[], T]) -> T:
        """Send requests that change nothing; see `_explained` for the errors.

        obstore repeats most requests by itself, but not a listing that breaks off.
        """

        def once() -> T:
            with self._explained(operation, name):
                return work()

        return self._patiently(once)

    def _list(self, folder: str) -> tuple[list[StoredFile], list[str]]:
        """Return the objects and the folders in a folder, sorted by name. Raises StoreError."""
        found = self._ask(
            "listing",
            folder or self.place,
            lambda: obstore.list_with_delimiter(self._store, folder or None),
        )
        objects = sorted(self._seen(found["objects"]), key=lambda file: file.name)
        return objects, sorted(found["common_prefixes"])

    def _below(self, folder: str) -> list[StoredFile]:
        """Return all objects below a folder. Raises StoreError."""

        def listed() -> list[StoredFile]:
            pages = obstore.list(self._store, folder, chunk_size=1000)
            return [file for page in pages for file in self._seen(page)]

        return self._ask("listing", folder, listed)

    def _seen(self, found: Sequence[Any]) -> Iterator[StoredFile]:
        """Yield listed objects that are files: some tools mark a folder by an empty object."""
        for each in found:
            file = _stored(each)
            if file.bytes or "." in _last(file.name):
                if self._place.scheme == "az":
                    self._sizes[file.name] = file.bytes
                yield file

    def _end(self, name: str) -> tuple[int, str | None, Any]:
        """Return an object's size, its tag and its last bytes, if possible with one request."""
        by_size = self._place.scheme == "az"
        size = self._sizes.get(name)
        if by_size and not size:
            size = int(obstore.head(self._store, name)["size"])
            if not size:
                return 0, None, b""
        tail = {"suffix": TAIL_BYTES} if size is None else (max(0, size - TAIL_BYTES), size)
        try:
            options: Any = {"range": tail}
            got = obstore.get(self._store, name, options=options)
            now = int(got.meta["size"])
        except BaseError as error:
            if not refusal_of(error, self._place).has_no_such_range:
                raise
            # It is empty, it was replaced by a shorter one, or the store cannot read from the end.
            now = int(obstore.head(self._store, name)["size"])
            if now == 0:
                return 0, None, b""
            if size == now:
                raise
        else:
            if size in {None, now}:
                return now, got.meta.get("e_tag"), got.bytes()
        self._sizes[name] = now
        return self._end(name)


def _stored(meta: Any) -> StoredFile:
    modified: datetime = meta["last_modified"]
    return StoredFile(meta["path"], int(meta["size"]), modified.astimezone(UTC))


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _is_hidden(name: str) -> bool:
    return name.startswith(("_", "."))


def _walk_order(file: StoredFile) -> list[tuple[bool, str]]:
    """Return a sort key that puts a folder's own files before those of its folders."""
    *folders, name = file.name.split("/")
    return [*((True, folder) for folder in folders), (False, name)]
