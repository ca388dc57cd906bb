"""Compare the lake with the raw archive, in both directions: `verify --deep`."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain, groupby
from pathlib import Path
from typing import BinaryIO, Final

from etl.archive.reader import (
    Versions,
    failure_note_name,
    folders_in,
    sha256_of,
    version_name,
    versions_by_path,
)
from etl.audit.verify import Finding, FindingKind, Verification
from etl.config.sections import LimitSettings
from etl.decode.file import Decoded, DecodeLimits, decode
from etl.lake.commit import read_state
from etl.lake.layout import Selection
from etl.lake.receipts import Receipt
from etl.model.errors import FailureKind, FileError, RunError
from etl.model.paths import is_skipped
from etl.model.times import Window
from etl.storage.disk import CANNOT_WRITE, scratch_folder
from etl.storage.store import Store, StoreError

# An object store does not show whether a run is active: no run loads files older than this.
_LONGEST_RUN: Final = timedelta(days=1)
# A file that was damaged when it was downloaded has a note. Without one, it was damaged later.
_DAMAGED: Final = {FailureKind.TRUNCATED, FailureKind.CORRUPT}
_SPILL_BYTES: Final = 16 * 2**20


class ArchiveCheck:
    """The archive that a lake is compared with. All methods block; `check` may run in threads."""

    def __init__(self, archive: Store, limits: LimitSettings, skip: Sequence[str]) -> None:
        self._archive = archive
        self._limits = DecodeLimits(limits.max_file_size, limits.max_bad_row_ratio, _SPILL_BYTES)
        self._skip = skip

    def check(self, receipt: Receipt) -> Finding | None:
        """Decode the archived file of a receipt and compare the two."""
        name = receipt.path.removeprefix("/")
        first = None
        for kept_as in (name, version_name(name, receipt.sha256)):
            try:
                with self._archive.open(kept_as) as body:
                    problem = self._compare(body, receipt)
            except FileNotFoundError:
                continue
            except (StoreError, OSError) as error:
                problem = FindingKind.ARCHIVE_DIFFERS, f"cannot be read: {error}"
            if problem is None:
                return None
            first = first or Finding(problem[0], kept_as, problem[1])
        return first or Finding(
            FindingKind.ARCHIVE_MISSING,
            name,
            "is in the lake and not in the archive (raw.uri): get it back from a backup; if it was "
            "loaded before there was an archive, nothing is wrong with the lake",
        )

    def _compare(self, body: BinaryIO, receipt: Receipt) -> tuple[FindingKind, str] | None:
        """Return what differs, with advice; None if nothing does."""
        # The ratio of bad rows was checked when the file was loaded.
        limits = replace(self._limits, max_bad_row_ratio=1.0)
        try:
            with _decode(body, receipt.path, limits) as file:
                if (file.sha256, file.bytes) != (receipt.sha256, receipt.bytes):
                    return FindingKind.ARCHIVE_DIFFERS, (
                        f"has {file.bytes:,} bytes and SHA-256 {file.sha256}, the receipt of the "
                        f"loaded file says {receipt.bytes:,} and {receipt.sha256}; get the right "
                        "file back from a backup"
                    )
                if (file.rows, file.quarantined) != (receipt.rows, receipt.quarantined):
                    return FindingKind.ARCHIVE_ROWS, (
                        f"has {file.rows:,} rows and {file.quarantined:,} bad ones, the receipt of "
                        f"the loaded file says {receipt.rows:,} and {receipt.quarantined:,}; "
                        "delete its part while no run is active and run again"
                    )
        except FileError as error:
            return FindingKind.ARCHIVE_DIFFERS, (
                f"cannot be decoded any more: {error.message}; get the right file back from a "
                "backup"
            )
        return None

    def find_not_loaded(self, lake: Store, selection: Selection, result: Verification) -> None:
        """Find archived files that the lake does not hold. Raises StoreError."""
        absent = list(self._absent(lake, self._archived(selection, result)))
        # Check for an active run first, then read the lake again: without a run, the files that are
        # still absent will not be loaded.
        held = self._archive.is_held()
        recent = datetime.now(UTC) - _LONGEST_RUN
        for versions in self._absent(lake, absent):
            name = versions.path.text.removeprefix("/")
            problem = self._unloadable(versions)
            if problem is not None:
                unloadable = problem.kind is FindingKind.UNLOADABLE
                (result.notes if unloadable else result.findings).append(problem)
            elif held or (held is None and versions.modified > recent):
                active = "a run is active and may" if held else "a run may be active and"
                message = (
                    f"is in the archive and not in the lake; {active} load it; if not, run over "
                    "its hour with --from-archive"
                )
                result.note(FindingKind.NOT_LOADED, name, message)
            else:
                message = (
                    "is in the archive and not in the lake: run over its hour with --from-archive; "
                    "if it should not be loaded, name it in fetch.skip or delete it here"
                )
                result.find(FindingKind.NOT_LOADED, name, message)

    def _archived(self, selection: Selection, result: Verification) -> Iterator[Versions]:
        """Yield the files of the archive, those of a partition together."""

        def refused(name: str, error: StoreError) -> None:
            if not name:
                raise error
            if name.startswith("year="):
                message = f"{error}; check its permissions and its disk"
                result.find(FindingKind.UNREADABLE, name, message)

        self._archive.check_readable()
        folders: Iterable[str] = [""]
        if selection.start and selection.end:
            folders = folders_in(Window(selection.start, selection.end))
        walks = (self._archive.walk(refused, folder) for folder in folders)
        everything = chain.from_iterable(walks)
        for _, files in groupby(everything, key=lambda file: file.name.rpartition("/")[0]):
            for text, versions in versions_by_path(files).items():
                if selection.includes(versions.path.partition) and not is_skipped(self._skip, text):
                    yield versions

    def _absent(self, lake: Store, archived: Iterable[Versions]) -> Iterator[Versions]:
        """Yield the files that the lake does not hold, except from partitions with damage."""
        for partition, group in groupby(archived, key=lambda versions: versions.path.partition):
            state = read_state(lake, partition.directory)
            if state.damage is None:
                yield from (
                    versions for versions in group if versions.path.text not in state.loaded
                )

    def _unloadable(self, versions: Versions) -> Finding | None:
        """Return why a run cannot load an archived file, or None if it can."""
        name = versions.path.text.removeprefix("/")
        try:
            name, decodable = versions.best(self._archive)
            with (
                self._archive.open(name) as body,
                _decode(body, versions.path.text, self._limits),
            ):
                return None
        except FileNotFoundError:
            return None
        except FileError as error:
            if decodable and error.kind in _DAMAGED and not self._is_noted(versions, name):
                message = (
                    f"is damaged since it was kept, and not in the lake: {error.message}; get it "
                    "back from a backup, or delete it and run again"
                )
                return Finding(FindingKind.ARCHIVE_DIFFERS, name, message)
            message = (
                "is in the archive and not in the lake, because it does not hold rows: "
                f"{error.message}"
            )
            return Finding(FindingKind.UNLOADABLE, versions.path.text.removeprefix("/"), message)
        except (StoreError, OSError) as error:
            message = (
                f"is in the archive and not in the lake, and cannot be read: {error}; repair "
                "it, or get it back from a backup"
            )
            return Finding(FindingKind.ARCHIVE_DIFFERS, name, message)

    def _is_noted(self, versions: Versions, name: str) -> bool:
        """Return whether a file has a note, also one that the listing did not show yet."""
        try:
            note = failure_note_name(
                versions.path.text.removeprefix("/"), sha256_of(self._archive, name)
            )
            return self._archive.stat(note).bytes > 0
        except (FileNotFoundError, StoreError):
            return False


def _decode(body: BinaryIO, path: str, limits: DecodeLimits) -> Decoded:
    """Decode an archived file. Raises FileError, or RunError if the disk has no room."""
    try:
        return decode(body, path, limits, scratch=Path(scratch_folder()))
    except (FileError, StoreError):
        raise
    except OSError as error:
        if error.errno in CANNOT_WRITE:
            raise RunError(
                f"writing to {scratch_folder()}: {error.strerror}; set TMPDIR"
            ) from error
        raise
    except Exception as error:
        # As in a run: an unexpected error in one file must not end the verification.
        message = f"{type(error).__name__}; please report it"
        raise FileError(FailureKind.MALFORMED, message) from error
