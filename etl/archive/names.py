"""The raw archive's names, and which of several files of one path counts.

| name | content |
|---|---|
| `<path>` | the file that came first |
| `<path>.sha256-<12 digits>` | another file that came later for the same path |
| `<path>.failed-<12 digits>.txt` | a note: why the file with this checksum cannot be decoded |

An empty note does not count: by other limits the file could be decoded later. The version that
counts is the newest of the others that can be decoded, else the first.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from etl.model.paths import BreakdownPath, InvalidPathError
from etl.model.times import Window
from etl.storage.store import StoredFile

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
    def several(self) -> bool:
        """Whether there is more than one file."""
        return len(self.others) + (self.first is not None) > 1

    @property
    def modified(self) -> datetime:
        """When the newest version was written."""
        return max(file.modified for file in (self.first, *self.others.values()) if file)

    def best(self, sha256_of: Callable[[str], str]) -> tuple[str, bool]:
        """Return the name of the version that counts, and whether it can be decoded.

        `sha256_of` reads a file; it is called only if there is a note. Raises its errors.
        """
        good = [file for digits, file in self.others.items() if digits not in self.failed]
        if good:
            return max(good, key=lambda file: (file.modified, file.name)).name, True
        if self.first is None:
            return max(self.others.values(), key=lambda file: file.modified).name, False
        name = self.first.name
        return name, not self.failed or sha256_of(name)[:_DIGITS] not in self.failed


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
    return {text: versions for text, versions in found.items() if versions.first or versions.others}


def folders_in(window: Window) -> Iterator[str]:
    """Yield the folders of the days, or months, that a window touches, in both spellings."""
    by_day = window.end - window.start <= _BY_DAY
    day = window.start.date()
    while day <= window.end.date():
        year = f"year={day.year:04}"
        for month in dict.fromkeys((f"{year}/month={day.month}", f"{year}/month={day.month:02}")):
            if by_day:
                yield from dict.fromkeys((f"{month}/day={day.day}", f"{month}/day={day.day:02}"))
            else:
                yield month
        try:
            day = day + _DAY if by_day else (day.replace(day=1) + 32 * _DAY).replace(day=1)
        except OverflowError:
            return
