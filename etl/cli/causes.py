"""Many failures of one cause, told once: how many there are, and one of them as an example."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from etl.model.printable import one_line

# What differs between two failures of one cause: paths, hours, counts, addresses.
_DIFFERENT: Final = re.compile(r"\S*\d\S*")
_LONGEST_PATH: Final = 300


@dataclass(slots=True)
class Cause:
    """Failures of one kind and reason; `path` and `message` are those of the first."""

    kind: str
    path: str
    message: str
    count: int = 0

    def __str__(self) -> str:
        """Return one printable line."""
        kind = f"{self.kind}: " if self.kind else ""
        path = one_line(self.path[:_LONGEST_PATH])
        many = f"{self.count:,} files, for example " if self.count > 1 else ""
        return f"{kind}{many}{path}: {one_line(self.message)}"


def reason_of(message: str) -> str:
    """Return a message without what differs from file to file: all words with a digit."""
    return _DIFFERENT.sub("#", message)


def by_cause(failures: Iterable[tuple[str, str, str]]) -> list[Cause]:
    """Group failures, each with its kind, path and message, the most frequent cause first."""
    causes: dict[tuple[str, str], Cause] = {}
    for kind, path, message in failures:
        cause = causes.setdefault((kind, reason_of(message)), Cause(kind, path, message))
        cause.count += 1
    return sorted(causes.values(), key=lambda cause: -cause.count)
