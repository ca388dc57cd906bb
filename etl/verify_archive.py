"""Comparing the lake with the raw archive, both ways: what `verify --deep` does besides."""

import errno
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, Final

from etl.api.body import scratch_folder
from etl.archive import name_beside
from etl.decode import Decoded, DecodeLimits, decode
from etl.errors import FailureKind, FileError, RunError
from etl.lake.commit import read_state
from etl.lake.layout import Selection
from etl.lake.proof import Finding, FindingKind
from etl.lake.receipts import Receipt
from etl.lake.store import LakeError, Store
from etl.paths import BreakdownPath, InvalidPathError
from etl.settings import LimitSettings

_SPILL_BYTES: Final = 16 * 2**20
_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


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
        for kept_as in (name, name_beside(name, receipt.sha256)):
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
        busy = self._archive.is_held()
        for path in self._absent(lake, absent):
            problem = self._unloadable(path)
            name = path.text.removeprefix("/")
            if problem is not None:
                message = f"is in the archive and not in the lake, for it is no rows: {problem}"
                notes.append(Finding(FindingKind.UNLOADABLE, name, message))
            elif busy:
                message = (
                    "is in the archive and not in the lake: a run may be active and load it; if "
                    "none is, run again over its hour, while the vendor still has it"
                )
                notes.append(Finding(FindingKind.NOT_LOADED, name, message))
            else:
                message = (
                    "is in the archive and not in the lake: run again over its hour, while the "
                    "vendor still has it"
                )
                findings.append(Finding(FindingKind.NOT_LOADED, name, message))

    def _archived(self, selection: Selection, findings: list[Finding]) -> Iterator[BreakdownPath]:
        """Yield the files of the archive, those of a partition together."""

        def refused(name: str, error: LakeError) -> None:
            if name.startswith("year="):
                message = f"{error}; check its permissions and its disk"
                findings.append(Finding(FindingKind.UNREADABLE, name, message))

        self._archive.check_readable()
        for file in self._archive.walk(refused):
            try:
                path = BreakdownPath.parse(f"/{file.name}")
            except InvalidPathError:
                continue
            skipped = any(path.text == p or fnmatchcase(path.text, p) for p in self._skip)
            if selection.takes(path.partition) and not skipped:
                yield path

    def _absent(self, lake: Store, paths: Iterable[BreakdownPath]) -> Iterator[BreakdownPath]:
        """Yield those that the lake does not hold; where a part is damaged nobody knows."""
        for partition, group in groupby(paths, key=lambda path: path.partition):
            state = read_state(lake, partition.directory)
            if state.damage is None:
                yield from (path for path in group if path.text not in state.loaded)

    def _unloadable(self, path: BreakdownPath) -> str | None:
        """Return why a run cannot load an archived file, if so."""
        try:
            with (
                self._archive.open(path.text.removeprefix("/")) as body,
                _decode(body, path.text, self._limits),
            ):
                return None
        except FileNotFoundError:
            return None
        except FileError as error:
            return error.message
        except (LakeError, OSError) as error:
            return f"cannot be read: {error}"


def _decode(body: BinaryIO, path: str, limits: DecodeLimits) -> Decoded:
    """Decode an archived file. Raises FileError; RunError where there is no room to do it."""
    try:
        return decode(body, path, limits, scratch=Path(scratch_folder()))
    except (FileError, LakeError):
        raise
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise RunError(
                f"writing to {scratch_folder()}: {error.strerror}; set TMPDIR"
            ) from error
        raise
    except Exception as error:
        # As when it is loaded: one file that no decoder foresaw must not end the whole.
        message = f"{type(error).__name__}; please report it"
        raise FileError(FailureKind.MALFORMED, message) from error
