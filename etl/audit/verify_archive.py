"""Comparing the lake with the raw archive, both ways: what `verify --deep` does besides."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import BinaryIO, Final

from etl.archive.names import (
    Versions,
    failure_note_name,
    folders_in,
    version_name,
    versions_by_path,
)
from etl.archive.writer import sha256_of
from etl.audit.verify_part import Finding, FindingKind
from etl.config.sections import LimitSettings
from etl.decode import DecodeLimits
from etl.decode.decoded import Decoded
from etl.decode.file import decode
from etl.lake.commit import read_state
from etl.lake.layout import Selection
from etl.lake.receipts import Receipt
from etl.model.errors import FailureKind, FileError, RunError
from etl.model.paths import is_skipped
from etl.model.times import Window
from etl.storage.scratch import CANNOT_WRITE, scratch_folder
from etl.storage.store import LakeError, Store, StoredFile

# Where nobody knows whether a run is active: what was archived longer ago, none will load.
_LONGEST_RUN: Final = timedelta(days=1)
# What never was rows is kept with a note; without one, this came later.
_DAMAGED: Final = {FailureKind.TRUNCATED, FailureKind.CORRUPT}
_SPILL_BYTES: Final = 16 * 2**20


class ArchiveCheck:
    """The archive that a lake is compared with; its methods block and may run in threads."""

    def __init__(self, archive: Store, limits: LimitSettings, skip: Sequence[str]) -> None:
        self._archive = archive
        self._limits = DecodeLimits(limits.max_file_size, limits.max_bad_row_ratio, _SPILL_BYTES)
        self._skip = skip

    def check(self, receipt: Receipt) -> Finding | None:
        """Decode a source's archived file anew and compare it with its receipt."""
        name = receipt.path.removeprefix("/")
        finding: Finding | None = None
        for kept_as in (name, version_name(name, receipt.sha256)):
            try:
                with self._archive.open(kept_as) as body:
                    problem = self._compare(body, receipt)
            except FileNotFoundError:
                continue
            except (LakeError, OSError) as error:
                problem = FindingKind.ARCHIVE_DIFFERS, f"cannot be read: {error}"
            if problem is None:
                return None
            kind, message = problem
            finding = finding or Finding(kind, kept_as, message)
        return finding or Finding(
            FindingKind.ARCHIVE_MISSING,
            name,
            "is in the lake and not in the archive (raw.uri): get it back from a backup; if it was "
            "loaded before there was an archive, nothing is wrong with the lake",
        )

    def _compare(self, body: BinaryIO, receipt: Receipt) -> tuple[FindingKind, str] | None:
        try:
            # How bad a file may be was judged when it was loaded.
            with _decode(
                body, receipt.path, replace(self._limits, max_bad_row_ratio=1.0)
            ) as decoded:
                if (decoded.sha256, decoded.bytes) != (receipt.sha256, receipt.bytes):
                    return FindingKind.ARCHIVE_DIFFERS, (
                        f"has {decoded.bytes:,} bytes and SHA-256 {decoded.sha256}, the receipt of "
                        f"what is loaded says {receipt.bytes:,} and {receipt.sha256}; get the "
                        "right file back from a backup"
                    )
                if (decoded.rows, decoded.quarantined) != (receipt.rows, receipt.quarantined):
                    return FindingKind.ARCHIVE_ROWS, (
                        f"has {decoded.rows:,} rows and {decoded.quarantined:,} bad ones, the "
                        f"receipt of what is loaded says {receipt.rows:,} and "
                        f"{receipt.quarantined:,}; delete its part while no run is active and run "
                        "again"
                    )
        except FileError as error:
            return FindingKind.ARCHIVE_DIFFERS, (
                f"cannot be decoded any more: {error.message}; get the right file back from a "
                "backup"
            )
        return None

    def look_for_forgotten(
        self,
        lake: Store,
        selection: Selection,
        findings: list[Finding],
        notes: list[Finding],
    ) -> None:
        """Find archived files that the lake does not hold. Raises LakeError."""
        absent = list(self._absent(lake, self._archived(selection, findings)))
        # In this order: if nobody writes now, then whoever kept these files has committed their
        # rows by now or never will, and the lake as it is read from here on tells.
        held = self._archive.is_held()
        recent = datetime.now(UTC) - _LONGEST_RUN
        for versions in self._absent(lake, absent):
            name = versions.path.text.removeprefix("/")
            problem = self._unloadable(versions)
            if problem is not None:
                (notes if problem.kind is FindingKind.UNLOADABLE else findings).append(problem)
            elif held or (held is None and versions.modified > recent):
                active = "a run is active and may" if held else "a run may be active and"
                message = (
                    f"is in the archive and not in the lake; {active} load it; if not, run over "
                    "its hour with --from-archive"
                )
                notes.append(Finding(FindingKind.NOT_LOADED, name, message))
            else:
                message = (
                    "is in the archive and not in the lake: run over its hour with --from-archive; "
                    "fetch.skip, and deleting it here, are for one that shall not be loaded"
                )
                findings.append(Finding(FindingKind.NOT_LOADED, name, message))

    def _archived(self, selection: Selection, findings: list[Finding]) -> Iterator[Versions]:
        """Yield the files of the archive, those of a partition together."""

        def refused(name: str, error: LakeError) -> None:
            if not name:
                raise error
            if name.startswith("year="):
                message = f"{error}; check its permissions and its disk"
                findings.append(Finding(FindingKind.UNREADABLE, name, message))

        self._archive.check_readable()
        folders: Iterable[str] = [""]
        if selection.start and selection.end:
            folders = folders_in(Window(selection.start, selection.end))
        walks = (self._archive.walk(refused, folder) for folder in folders)
        for _, files in groupby(chain.from_iterable(walks), key=_folder):
            for text, versions in versions_by_path(files).items():
                if selection.includes(versions.path.partition) and not is_skipped(self._skip, text):
                    yield versions

    def _absent(self, lake: Store, archived: Iterable[Versions]) -> Iterator[Versions]:
        """Yield those that the lake does not hold; where a part is damaged nobody knows."""
        for partition, group in groupby(archived, key=lambda versions: versions.path.partition):
            state = read_state(lake, partition.directory)
            if state.damage is None:
                yield from (
                    versions for versions in group if versions.path.text not in state.loaded
                )

    def _unloadable(self, versions: Versions) -> Finding | None:
        """Tell why a run cannot load an archived file, if so."""
        name = versions.path.text.removeprefix("/")
        try:
            name, decodable = versions.best(partial(sha256_of, self._archive))
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
            message = f"is in the archive and not in the lake, for it is no rows: {error.message}"
            return Finding(FindingKind.UNLOADABLE, versions.path.text.removeprefix("/"), message)
        except (LakeError, OSError) as error:
            message = (
                f"is in the archive and not in the lake, and cannot be read: {error}; mend it, or "
                "get it back from a backup"
            )
            return Finding(FindingKind.ARCHIVE_DIFFERS, name, message)

    def _is_noted(self, versions: Versions, name: str) -> bool:
        """Look for a file's note, which a listing need not show though it is the older."""
        try:
            note = failure_note_name(
                versions.path.text.removeprefix("/"), sha256_of(self._archive, name)
            )
            return self._archive.stat(note).bytes > 0
        except (FileNotFoundError, LakeError):
            return False


def _folder(file: StoredFile) -> str:
    return file.name.rpartition("/")[0]


def _decode(body: BinaryIO, path: str, limits: DecodeLimits) -> Decoded:
    """Decode an archived file. Raises FileError; RunError where there is no room to do it."""
    try:
        return decode(body, path, limits, scratch=Path(scratch_folder()))
    except (FileError, LakeError):
        raise
    except OSError as error:
        if error.errno in CANNOT_WRITE:
            raise RunError(
                f"writing to {scratch_folder()}: {error.strerror}; set TMPDIR"
            ) from error
        raise
    except Exception as error:
        # As when it is loaded: one file that no decoder foresaw must not end the whole.
        message = f"{type(error).__name__}; please report it"
        raise FileError(FailureKind.MALFORMED, message) from error
