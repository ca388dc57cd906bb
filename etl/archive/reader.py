"""The raw archive: its names, which of several files of one path counts, and reading it again.

| name | content |
|---|---|
| `<path>` | the file that came first |
| `<path>.sha256-<12 digits>` | another file that came later for the same path |
| `<path>.failed-<12 digits>.txt` | a note: why the file with this checksum cannot be decoded |

An empty note does not count: by other limits the file could be decoded later. The version that
counts is the newest of the others that can be decoded, else the first.

An archive is listed and read as etl.api.client lists and reads the API. A window selects all hours
that it touches. The vendor selects by the time at which a segment closed, but the archive knows
only the hour of a file's folder.
"""

import asyncio
import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from etl.api.listing import Listing
from etl.api.responses import Body
from etl.api.retry import Attempts
from etl.api.transport import Traffic
from etl.config.settings import Settings, open_archive
from etl.lake.layout import PartitionState, Selection
from etl.model.errors import FailureKind, FileError, RunError
from etl.model.paths import BreakdownPath, InvalidPathError
from etl.model.text import log
from etl.model.times import Window
from etl.storage.store import Store, StoredFile, StoreError, StoreUnusableError

_DIGITS: Final = 12
# For a longer window whole months are listed instead of days: object stores charge by request.
_BY_DAY: Final = timedelta(days=62)
_DAY: Final = timedelta(days=1)
_BESIDE: Final = re.compile(
    r"(?P<name>.*\.json\.gz)\.(?:sha256-(?P<other>[0-9a-f]{12})|failed-(?P<failed>[0-9a-f]{12})\.txt)"
)


def version_name(name: str, sha256: str) -> str:
    """Return the name of a file if another version already has the path as its name."""
    return f"{name}.sha256-{sha256[:_DIGITS]}"


def failure_note_name(name: str, sha256: str) -> str:
    """Return the name of the note for a file with this checksum that cannot be decoded."""
    return f"{name}.failed-{sha256[:_DIGITS]}.txt"


@dataclass(slots=True)
class Versions:
    """All files of one path in an archive."""

    path: BreakdownPath
    first: StoredFile | None = None
    others: dict[str, StoredFile] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)

    @property
    def files(self) -> list[StoredFile]:
        """The first file and the others."""
        return [*([self.first] if self.first else ()), *self.others.values()]

    @property
    def modified(self) -> datetime:
        """When the newest version was written."""
        return max(file.modified for file in self.files)

    def best(self, store: Store) -> tuple[str, bool]:
        """Return the name of the version that counts, and whether it can be decoded.

        Reads the first file if there is a note. Raises OSError or StoreError.
        """
        good = [file for digits, file in self.others.items() if digits not in self.failed]
        if good:
            return max(good, key=lambda file: (file.modified, file.name)).name, True
        if self.first is None:
            return max(self.others.values(), key=lambda file: file.modified).name, False
        name = self.first.name
        return name, not self.failed or sha256_of(store, name)[:_DIGITS] not in self.failed


def versions_by_path(files: Iterable[StoredFile]) -> dict[str, Versions]:
    """Group an archive's files by the vendor's paths; ignore all other files."""
    found: dict[str, Versions] = {}
    for file in files:
        match = _BESIDE.fullmatch(file.name)
        try:
            path = BreakdownPath.parse(f"/{match['name'] if match else file.name}")
        except InvalidPathError:
            continue
        versions = found.setdefault(path.text, Versions(path))
        if match is None:
            versions.first = file
        elif match["other"]:
            versions.others[match["other"]] = file
        elif file.bytes:
            versions.failed.add(match["failed"])
    # A note may be older than its file, and may remain after an operator deletes the file.
    return {text: versions for text, versions in found.items() if versions.files}


def folders_in(window: Window) -> list[str]:
    """Return the folders of the days, or months, that a window touches, in both spellings."""
    by_day = window.end - window.start <= _BY_DAY
    first = window.start.date()
    folders: dict[str, None] = {}
    for number in range((window.end.date() - first).days + 1):
        day = first + number * _DAY
        for month in (f"{day.month}", f"{day.month:02}"):
            folder = f"year={day.year:04}/month={month}"
            days = (f"/day={day.day}", f"/day={day.day:02}") if by_day else ("",)
            folders.update(dict.fromkeys(folder + each for each in days))
    return list(folders)


def sha256_of(store: Store, name: str) -> str:
    """Return the SHA-256 of a file in a store. Raises OSError or StoreError."""
    with store.open(name) as stream:
        digest = hashlib.file_digest(stream, "sha256")  # type: ignore[arg-type]  # BinaryIO is one
        return digest.hexdigest()


def archive_error(error: Exception) -> FileError:
    """Return the error of a file that the archive refused; raise an error that ends the run."""
    if isinstance(error, StoreUnusableError):
        raise error
    return FileError(FailureKind.LAKE, f"the raw archive: {error}; check raw.uri")


class ArchiveReader:
    """Lists and reads an archive's files, of one account or of all."""

    def __init__(self, store: Store, account: str | None, traffic: Traffic) -> None:
        self._store = store
        self._traffic = traffic
        self._account = account
        self._versions: dict[str, Versions] = {}

    async def list(self, windows: list[Window], listing: Listing) -> None:
        """List the hours that these consecutive windows touch into `listing`. Raises RunError.

        A path is listed once, also if it has several versions.
        """
        window = Window(windows[0].start, windows[-1].end)
        selection = Selection(self._account, window.start, window.end)
        found = await asyncio.gather(
            *(asyncio.to_thread(self._below, folder) for folder in folders_in(window))
        )
        self._versions = {
            text: versions
            for folder in found
            for text, versions in folder.items()
            if selection.includes(versions.path.partition)
        }
        if not self._versions:
            await asyncio.to_thread(self._require_files)
        several = [text for text, versions in self._versions.items() if len(versions.files) > 1]
        if several:
            reason = "the newest that can be decoded is taken of each"
            log.warning("archive.several", paths=len(several), first=several[0], reason=reason)
        listing.add(self._versions)

    def attempts(self, _path: BreakdownPath) -> Attempts:
        """Return a single attempt: a file that is read again is the same."""
        return Attempts((), 0, asyncio.sleep, lambda _error, _number: None)

    async def download(
        self,
        path: BreakdownPath,
        memory_bytes: int,
        max_bytes: int,
        *,
        new_connection: bool = False,  # noqa: ARG002 - there is none
    ) -> Body:
        """Read a file; one of more than `memory_bytes` is read while it is decoded. FileError."""
        body = await asyncio.to_thread(self._open, path, memory_bytes, max_bytes)
        self._traffic.downloaded_bytes += body.size
        return body

    def _below(self, folder: str) -> dict[str, Versions]:
        def stop(_: str, error: StoreError) -> None:
            # A folder that cannot be listed must not count as empty.
            raise RunError(f"the raw archive: {error}; check raw.uri") from error

        return versions_by_path(self._store.walk(stop, folder))

    def _require_files(self) -> None:
        """Raise RunError if the archive holds nothing: its name may be wrong."""
        try:
            names = self._store.names("")
        except StoreError as error:
            raise RunError(f"the raw archive: {error}; check raw.uri") from error
        if all(name.startswith(("_", ".")) for name in names):
            raise RunError(f"the raw archive {self._store.place} holds nothing; check raw.uri")

    def _open(self, path: BreakdownPath, memory_bytes: int, max_bytes: int) -> Body:
        try:
            versions = self._versions.get(path.text) or self._look_up(path)
            name, _ = versions.best(self._store)
            with ExitStack() as stack:
                stream = stack.enter_context(self._store.open(name))
                size = stream.seek(0, io.SEEK_END)
                stream.seek(0)
                if size > max_bytes:
                    raise FileError(
                        FailureKind.TOO_LARGE,
                        f"has more than {max_bytes} bytes; if right, raise limits.max_file_size",
                    )
                if size <= memory_bytes:
                    return Body(size, io.BytesIO(stream.read()), in_memory=True)
                release = stack.pop_all().close
                return Body(size, stream, in_memory=False, release=release)
        except FileNotFoundError:
            raise FileError(FailureKind.NOT_FOUND, "not in the raw archive") from None
        except (StoreError, OSError, RunError) as error:
            raise archive_error(error) from error

    def _look_up(self, path: BreakdownPath) -> Versions:
        """Find a path that was not listed, and its neighbours, which are read next."""
        found = self._below(path.partition.directory)
        self._versions.update(found)
        if path.text not in found:
            raise FileNotFoundError
        return found[path.text]


def open_archive_reader(settings: Settings, traffic: Traffic) -> ArchiveReader:
    """Open the archive of the settings, which must name one. Blocking. Raises RunError."""
    archive = open_archive(settings)
    assert archive is not None  # noqa: S101 - checked with the job
    try:
        archive.check_readable()
    except StoreError as error:
        raise RunError(f"{error}; check raw.uri") from error
    with suppress(OSError):  # an archive that cannot be written to is enough
        # Until the end: a comparison with the lake must know that more files may be loaded.
        archive.hold()
    return ArchiveReader(archive, settings.account, traffic)


def read_archived(store: Store, directories: Sequence[str]) -> list[PartitionState]:
    """Return the files of some hours that an archive holds and that can be decoded. Blocking.

    An archive that refuses is reported as damage, as read_states does of a lake.
    """
    with ThreadPoolExecutor(store.readers) as pool:
        return list(pool.map(partial(_read_hour, store), directories))


def _read_hour(store: Store, directory: str) -> PartitionState:
    state = PartitionState()

    def refused(_: str, error: StoreError) -> None:
        state.damage = str(error)

    for text, versions in versions_by_path(store.walk(refused, directory)).items():
        try:
            _, decodable = versions.best(store)
        except FileNotFoundError:
            continue  # an operator deleted it
        except (StoreError, OSError) as error:
            state.damage = str(error)
            continue
        if decodable:
            state.loaded.add(text)
    return state
