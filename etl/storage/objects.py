"""A lake in an object store: whole objects or none, created only where there is none.

An object appears whole or not at all, and is durable as soon as the store says so. Nothing lies
beside the lake: what is being written waits in the temporary folder, without a name.
"""

import io
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError as ObjectExistsError,
)
from obstore.exceptions import (
    BaseError,
    PreconditionError,
)

from etl.storage.connection import REQUEST_S, Connection
from etl.storage.places import Place
from etl.storage.ranges import TAIL_BYTES, ObjectFile
from etl.storage.refusals import lake_error, refusal_of
from etl.storage.scratch import Content, ScratchFile
from etl.storage.store import AlreadyExistsError, LakeError, StagedFile, StoredFile

T = TypeVar("T")

# What proves to each run that the store does not replace. It stays: a run needs no permission to
# delete. Readers pass over its name.
_PROBE: Final = "_aht_etl_probe"
_PROBE_TEXT: Final = (
    b"aht-etl tries to create this object at the start of each run, and must be refused.\n"
)
# Seconds before a put is repeated that met another one, or of which nobody knows what became.
_PAUSES_S: Final = (0.1, 0.3, 1.0, 2.0, 4.0)
#: Files that are read side by side: a reader waits, most of the time.
_READERS: Final = 8
# Small files that are put side by side.
_WRITERS: Final = 8


class ObjectStore:
    """A bucket, or a container, or a prefix in one, that holds a lake or a raw archive.

    Raises ValueError where the options are wrong; nothing is sent. Not `patient`, it repeats no
    request that failed.
    """

    readers: Final = _READERS
    advice: Final = "its options and its credentials"

    def __init__(self, place: Place, options: Mapping[str, str], *, patient: bool = True) -> None:
        self._place = place
        self._connection = Connection(place, options, patient=patient)
        self._store = self._connection.store
        self._pauses_s = _PAUSES_S if patient else ()
        # Sizes that listings told: not all stores can be asked for the end of an object.
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
        """Make sure that the store can be written, and creates only what is not there.

        Raises LakeError.
        """
        if not self._refuses_to_replace(_PROBE) and not self._refuses_to_replace(_PROBE):
            with suppress(BaseError, FileNotFoundError):
                obstore.delete(self._store, _PROBE)
            raise self._replaces()

    def _refuses_to_replace(self, name: str) -> bool:
        """Create a small object; tell whether it was refused because it is there."""
        try:
            self._put_new(memoryview(_PROBE_TEXT), name, look=False)
        except AlreadyExistsError:
            return True
        return False

    def _replaces(self) -> LakeError:
        return LakeError(
            f"{self.place}: an object that was there was replaced, so two runs could overwrite "
            "each other: this store does not know conditional puts (If-None-Match); use one that "
            "does, or a newer version of it"
        )

    def try_out(self) -> str:
        """Write an object as a part is written, read it back, try to replace it, remove it.

        Returns what was seen. Raises LakeError.
        """
        self.check_readable()
        name = f"_check-{uuid.uuid4().hex[:12]}"
        kept = ""
        try:
            written_already = self._refuses_to_replace(name)  # by a put whose answer was lost
            with self.open(name) as there:
                if there.read() != _PROBE_TEXT:
                    raise LakeError(f"reading {self.place}: what was written came back otherwise")
            if not written_already and not self._refuses_to_replace(name):
                raise self._replaces()
        except FileNotFoundError:
            raise LakeError(f"reading {self.place}: what was written is not there") from None
        finally:
            try:
                obstore.delete(self._store, name)
            except FileNotFoundError:
                pass
            except BaseError as error:
                kept = f"; {name} stays: {refusal_of(error, self._place).reason}"
        return f"a probe was written, read back and {'not ' if kept else ''}removed{kept}"

    def clean_up(self) -> None:
        """Do nothing: a killed run leaves nothing behind."""

    def hold(self) -> None:
        """Do nothing: there are no locks here."""

    def is_held(self) -> None:
        """Return None: it cannot be known."""

    def check_readable(self) -> bool:
        """Return whether something lies below the root.

        Raises LakeError if it cannot be listed; a bucket that is not there cannot.
        """
        try:
            found = self._again(lambda: obstore.list_with_delimiter(self._store))
            return bool(found["objects"] or found["common_prefixes"])
        except (BaseError, FileNotFoundError) as error:
            raise lake_error("listing", self.place, error, self._place) from None

    def names(self, folder: str) -> list[str]:
        """List what is in a folder; one that does not exist is empty. Raises LakeError."""
        objects, folders = self._list(folder)
        return sorted(_last(name) for name in (*(file.name for file in objects), *folders))

    def names_of(self, partitions: Sequence[str]) -> dict[str, list[str]]:
        """List the files of several partitions' folders, a day a request. Raises LakeError."""
        names: dict[str, list[str]] = {partition: [] for partition in partitions}
        # A partition is an hour and an account of a day.
        for day in sorted({partition.rsplit("/", 2)[0] for partition in partitions}):
            for file in self._below(day):
                folder, _, name = file.name.rpartition("/")
                if folder in names:
                    names[folder].append(name)
        return names

    def walk(
        self, refused: Callable[[str, LakeError], None], folder: str = ""
    ) -> Iterator[StoredFile]:
        """Yield a folder's files and those below, ordered by name in each, from the root's down.

        Folders with `_` or `.` first are hidden, and files in the root; `folder` may have such a
        name. No snapshot: what appears or goes meanwhile is seen or not. What cannot be listed is
        told to `refused`.
        """
        try:
            objects, folders = self._list(folder)
        except LakeError as error:
            refused(folder, error)
            return
        yield from (file for file in objects if folder or not _is_hidden(file.name))
        for name in folders:
            if _is_hidden(_last(name)):
                continue
            if _last(name).startswith("year="):
                # An archive's year is more than should be held and sorted at once.
                yield from self.walk(refused, name)
                continue
            try:
                # As many as a store lists at once, and as it likes: they are put in order here.
                below = sorted(self._below(name), key=_in_order)
            except LakeError as error:
                refused(name, error)
                continue
            start = len(name) + 1
            yield from (
                file
                for file in below
                if not any(_is_hidden(part) for part in file.name[start:].split("/")[:-1])
            )

    def stat(self, name: str) -> StoredFile:
        """Look at one object. Raises FileNotFoundError or LakeError."""
        try:
            return _stored(self._again(lambda: obstore.head(self._store, name)))
        except FileNotFoundError as error:
            raise self._absent("reading", name, error) from None
        except BaseError as error:
            raise lake_error("reading", name, error, self._place) from None

    def open(self, name: str) -> io.BufferedReader:
        """Open an object to read: its end is there then. Raises FileNotFoundError or LakeError."""
        try:
            size, tag, tail = self._again(lambda: self._end(name))
        except FileNotFoundError as error:
            raise self._absent("reading", name, error) from None
        except BaseError as error:
            raise lake_error("reading", name, error, self._place) from None

        def fetch(start: int, end: int) -> Any:
            try:
                options: Any = {"range": (start, end), "if_match": tag}
                return self._again(lambda: obstore.get(self._store, name, options=options).bytes())
            except (PreconditionError, FileNotFoundError):
                raise LakeError(f"reading {name}: it was replaced meanwhile; try again") from None
            except BaseError as error:
                raise lake_error("reading", name, error, self._place) from None

        return io.BufferedReader(ObjectFile(size, tail, fetch))

    def stage(self) -> ScratchFile:
        """Begin a file in the temporary folder. Raises OSError."""
        return ScratchFile()

    def create(self, staged: StagedFile, name: str) -> None:
        """Give a staged file its name, whole and durable, if nothing has that name yet.

        Raises AlreadyExistsError or LakeError; after either the name may be taken by this very
        file all the same: the answer to a put that succeeded may be lost, and the put repeated.
        """
        with Content(staged) as content:
            self._put_new(content.view, name, look=True)

    def _put_new(self, content: memoryview, name: str, *, look: bool) -> None:
        """Put what is not there yet; repeat it where it met another put or got no answer.

        It may be repeated without harm: at most one of them creates the object. Where that itself
        is not to be proved, a `look` after a lost answer spares what would be refused.
        """
        store = self._connection.for_bytes(len(content))
        begun_s = time.monotonic()
        for pause_s in (*self._pauses_s, None):
            try:
                # Never in several parts: only a single put is conditional.
                obstore.put(store, name, content, mode="create", use_multipart=False)
            except (BaseError, FileNotFoundError) as error:
                refusal = refusal_of(error, self._place)
                if look and refusal.unanswered and self._is_there(name):
                    raise AlreadyExistsError(f"creating {name}: it is there already") from None
                may_pass = refusal.conflict or refusal.unanswered
                if pause_s is not None and may_pass and time.monotonic() < begun_s + REQUEST_S:
                    time.sleep(pause_s)
                    continue
                if (
                    isinstance(error, ObjectExistsError | PreconditionError)
                    and not refusal.conflict
                ):
                    raise AlreadyExistsError(f"creating {name}: it is there already") from None
                if look and refusal.forbidden and not self._may_create():
                    refusal = replace(refusal, lasting=True)
                raise refusal.as_error("creating", name) from None
            return

    def _may_create(self) -> bool:
        """Tell whether anything at all may be created, or only one object may not."""
        try:
            self._refuses_to_replace(_PROBE)
        except LakeError:
            return False
        return True

    def _is_there(self, name: str) -> bool:
        try:
            self.stat(name)
        except (FileNotFoundError, LakeError):
            return False
        return True

    def create_all(self, files: Sequence[tuple[StagedFile, str]]) -> list[LakeError | None]:
        """Do as `create` for each file, several at once; return what it would raise."""

        def put(file: tuple[StagedFile, str]) -> LakeError | None:
            try:
                self.create(*file)
            except LakeError as error:
                return error
            return None

        with ThreadPoolExecutor(min(len(files), _WRITERS) or 1) as pool:
            return list(pool.map(put, files))

    def replace(self, staged: StagedFile, name: str) -> None:
        """Give a staged file its name, whole and durable, over whatever had it. LakeError."""
        with Content(staged) as content:
            store = self._connection.for_bytes(len(content.view))
            try:
                obstore.put(store, name, content.view, use_multipart=False)
            except (BaseError, FileNotFoundError) as error:
                raise lake_error("writing", name, error, self._place) from None

    def _again(self, work: Callable[[], T]) -> T:
        """Do what changes nothing, and do it again where its answer broke off.

        obstore repeats most requests by itself, but no listing that ended too early.
        """
        begun_s = time.monotonic()
        for pause_s in self._pauses_s:
            try:
                return work()
            except BaseError as error:
                late = time.monotonic() > begun_s + REQUEST_S
                if late or not refusal_of(error, self._place).unanswered:
                    raise
                time.sleep(pause_s)
        return work()

    def _list(self, folder: str) -> tuple[list[StoredFile], list[str]]:
        """Return a folder's objects and the folders in it, by name. Raises LakeError."""
        try:
            found = self._again(lambda: obstore.list_with_delimiter(self._store, folder or None))
        except (BaseError, FileNotFoundError) as error:
            raise lake_error("listing", folder or self.place, error, self._place) from None
        objects = sorted(self._seen(found["objects"]), key=lambda file: file.name)
        return objects, sorted(found["common_prefixes"])

    def _below(self, folder: str) -> list[StoredFile]:
        """Return all objects below a folder. Raises LakeError."""

        def listed() -> list[StoredFile]:
            pages = obstore.list(self._store, folder, chunk_size=1000)
            return [file for page in pages for file in self._seen(page)]

        try:
            return self._again(listed)
        except (BaseError, FileNotFoundError) as error:
            raise lake_error("listing", folder, error, self._place) from None

    def _seen(self, found: Sequence[Any]) -> Iterator[StoredFile]:
        """Yield listed objects that are files; tools mark folders by empty objects."""
        for each in found:
            file = _stored(each)
            if file.bytes or "." in _last(file.name):
                if self._place.scheme == "az":
                    self._sizes[file.name] = file.bytes
                yield file

    def _end(self, name: str) -> tuple[int, str | None, Any]:
        """Return an object's size, its tag and its last bytes, in one request where that goes."""
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
            # It is empty, or was replaced by a shorter one, or the store knows no range of an end.
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

    def _absent(self, operation: str, name: str, error: FileNotFoundError) -> Exception:
        """Return what to raise where a store says 404: of the object, or of the whole bucket."""
        if refusal_of(error, self._place).container_is_missing:
            return lake_error(operation, name, error, self._place)
        return FileNotFoundError(name)


def _stored(meta: Any) -> StoredFile:
    modified: datetime = meta["last_modified"]
    return StoredFile(meta["path"], int(meta["size"]), modified.astimezone(UTC))


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _is_hidden(name: str) -> bool:
    return name.startswith(("_", "."))


def _in_order(file: StoredFile) -> list[tuple[bool, str]]:
    """Return what sorts a folder's own files before those of the folders in it."""
    *folders, name = file.name.split("/")
    return [*((True, folder) for folder in folders), (False, name)]
