"""The raw archive's names, and which of several files of one path counts.

| name | what it is |
|---|---|
| `<path>` | the file that came first, whatever it is |
| `<path>.sha256-<12 digits>` | another file that came later for the same path |
| `<path>.failed-<12 digits>.txt` | the file with this checksum cannot be decoded, and why |

An empty note counts for nothing: by other limits the file could be decoded later. What counts is
the newest of the others that can be decoded, else the first.
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
# Of a longer window whole months are listed, not days: fewer requests where they are dear.
_BY_DAY: Final = timedelta(days=62)
_DAY: Final = timedelta(days=1)
_BESIDE: Final = re.compile(
    r"(?P<name>.*\.json\.gz)\.(?:sha256-(?P<other>[0-9a-f]{12})|failed-(?P<failed>[0-9a-f]{12})\.txt)"
)


def version_name(name: str, sha256: str) -> str:
    """Return under which name a file is kept where another one has its own."""
    return f"{name}.sha256-{sha256[:_DIGITS]}"


def failure_note_name(name: str, sha256: str) -> str:
    """Return the name of the note that a file with this checksum cannot be decoded."""
    return f"{name}.failed-{sha256[:_DIGITS]}.txt"


@dataclass(slots=True)
class Versions:
    """All that an archive has of one path."""

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
        """When the newest file was written."""
        return max(file.modified for file in (self.first, *self.others.values()) if file)

    def best(self, sha256_of: Callable[[str], str]) -> tuple[str, bool]:
        """Return the name of the file that counts, and whether it can be decoded.

        `sha256_of` reads a file; it is asked only where there is a note. Raises what it raises.
        """
        good = [file for digits, file in self.others.items() if digits not in self.failed]
        if good:
            return max(good, key=lambda file: (file.modified, file.name)).name, True
        if self.first is None:
            return max(self.others.values(), key=lambda file: file.modified).name, False
        name = self.first.name
        return name, not self.failed or sha256_of(name)[:_DIGITS] not in self.failed


def versions_by_path(files: Iterable[StoredFile]) -> dict[str, Versions]:
    """Sort an archive's files by the vendor's paths; what is no file of it is passed over."""
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
    # A note may be older than its file, and outlive it where an operator deletes that.
    return {text: versions for text, versions in found.items() if versions.first or versions.others}


def folders_in(window: Window) -> Iterator[str]:
    """Yield the folders of the days, or months, that a window touches, however they are spelt."""
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
