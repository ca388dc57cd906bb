"""The result of a verification: findings, notes, and what was read."""

from dataclasses import dataclass, field
from enum import StrEnum


class FindingKind(StrEnum):
    """What is wrong, or what a note says. operations.md says what to do about each."""

    UNREADABLE = "unreadable"
    RECEIPTS = "receipts"
    SCHEMA = "schema"
    ROWS = "rows"
    DUPLICATE = "duplicate"
    MISPLACED = "misplaced"
    QUARANTINE = "quarantine"
    FOREIGN = "foreign"
    ARCHIVE_MISSING = "archive_missing"
    ARCHIVE_DIFFERS = "archive_differs"
    ARCHIVE_ROWS = "archive_rows"
    NOT_LOADED = "not_loaded"
    NUMBER_GAP = "number_gap"
    UNLOADABLE = "unloadable"
    EMPTY = "empty"
    COPY_MISSING = "copy_missing"
    COPY_EXTRA = "copy_extra"
    COPY_DIFFERS = "copy_differs"


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem: its kind, the file or folder, and a message that says what to do."""

    kind: FindingKind
    path: str
    message: str


@dataclass(slots=True)
class Verification:
    """What was read, and what is wrong. Notes are not findings: nothing is wrong with the lake."""

    parts: int = 0
    files: int = 0
    rows: int = 0
    bytes: int = 0
    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether there was nothing to verify; a note says why."""
        return not self.parts and not self.findings

    @property
    def ok(self) -> bool:
        """Whether something was read and nothing is wrong."""
        return self.parts > 0 and not self.findings

    def find(self, kind: FindingKind, path: str, message: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(kind, path, message))

    def note(self, kind: FindingKind, path: str, message: str) -> None:
        """Add a note."""
        self.notes.append(Finding(kind, path, message))
