"""Listing and reading files from the raw archive instead of the API, as etl.api.client does.

A window selects all hours that it touches. The vendor selects by the time at which a segment
closed, but the archive knows only the hour of a file's folder.
"""

import asyncio
import io
from contextlib import ExitStack, suppress
from functools import partial

from etl.api.errors import Attempts
from etl.api.listing import Listing
from etl.api.responses import Body
from etl.api.transport import Traffic
from etl.archive.names import Versions, folders_in, versions_by_path
from etl.archive.writer import archive_error, sha256_of
from etl.config.settings import Settings, open_archive
from etl.lake.layout import Selection
from etl.model.errors import FailureKind, FileError, RunError
from etl.model.events import log
from etl.model.paths import BreakdownPath
from etl.model.times import Window
from etl.storage.store import Store, StoreError


class ArchiveReader:
    """Lists and reads an archive's files, of one account or of all."""

    def __init__(self, store: Store, account: str | None, traffic: Traffic) -> None:
        self._store = store
        self._traffic = traffic
        self._account = account
        self._versions: dict[str, Versions] = {}

    async def list(self, windows: list[Window]) -> Listing:
        """List the hours that these consecutive windows touch. Raises RunError.

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
        several = [text for text, versions in self._versions.items() if versions.several]
        if several:
            reason = "the newest that can be decoded is taken of each"
            log.warning("archive.several", paths=len(several), first=several[0], reason=reason)
        listing = Listing()
        listing.add(self._versions)
        return listing

    def attempts(self, _path: BreakdownPath) -> Attempts:
        """Return a single attempt: a file that is read again is the same."""
        return Attempts((), 0, asyncio.sleep, lambda _error, _number: None)

    async def download(self, path: BreakdownPath, memory_bytes: int, max_bytes: int) -> Body:
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
            name, _ = versions.best(partial(sha256_of, self._store))
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
