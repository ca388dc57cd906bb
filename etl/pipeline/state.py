"""The state of a run: its listing, its plan, what became of each file, the source's traffic."""

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from etl.api.limiter import Limiter
from etl.api.listing import Listing
from etl.api.transport import Traffic
from etl.lake.layout import PartWritten
from etl.model.errors import FailureKind
from etl.model.text import log
from etl.pipeline.job import Job
from etl.pipeline.plan import PartitionPlan, Plan

if TYPE_CHECKING:
    from etl.lake.commit import Committed

_COUNTS: Final = (
    *("already_loaded", "loaded", "failed_files", "rows", "bad_rows", "repaired_rows"),
    *("decompressed_bytes", "written_bytes"),
)


@dataclass(frozen=True, slots=True)
class FailedFile:
    """A listed file that did not reach the lake, and why."""

    path: str
    kind: FailureKind
    message: str
    attempts: int


@dataclass(slots=True)
class Outcomes:
    """Collects the outcome of each file to load. A second outcome for a path is a KeyError."""

    already_loaded: int = 0
    loaded: int = 0
    failed_files: int = 0
    rows: int = 0
    bad_rows: int = 0
    #: Rows in which half a surrogate pair in an unknown field was replaced by U+FFFD.
    repaired_rows: int = 0
    decompressed_bytes: int = 0
    written_bytes: int = 0
    failures: list[FailedFile] = field(default_factory=list)
    parts: list[PartWritten] = field(default_factory=list)
    # A dictionary needs a fifth of the memory of a set.
    _open: dict[str, None] = field(default_factory=dict)

    def expect(self, plan: Plan) -> None:
        """Count the plan's loaded files; from now on each of its files to load needs an outcome."""
        self.already_loaded += plan.already_loaded
        self.expect_files(path.text for part in plan.partitions for path in part.to_load)

    def expect_files(self, paths: Iterable[str]) -> None:
        """Each of these files needs an outcome from now on."""
        self._open.update(dict.fromkeys(paths))

    def decoded(self, decompressed_bytes: int, repaired_rows: int = 0) -> None:
        """Count a file that was decoded, which is no outcome yet."""
        self.decompressed_bytes += decompressed_bytes
        self.repaired_rows += repaired_rows

    def committed(self, directory: str, result: "Committed") -> None:
        """Count a commit: its files are loaded, and those that another run brought already were."""
        self._already_loaded(result.brought_by_others)
        for source in result.sources:
            del self._open[source.path]
        if result.part is not None:
            self._wrote(result.part, result.quarantined)
        result.log(directory)

    def recovered(self, part: PartWritten, bad_rows: int) -> None:
        """Count a part of this run whose files were counted as another run's.

        The process that committed it died before it reported.
        """
        self.already_loaded -= part.sources
        self._wrote(part, bad_rows)

    def kept(self, path: str, *, by_another_run: bool) -> None:
        """Count a file that is in the archive now, in a run that writes no lake."""
        del self._open[path]
        if by_another_run:
            self.already_loaded += 1
        else:
            self.loaded += 1

    def failed(self, path: str, kind: FailureKind, message: str, attempts: int) -> None:
        """Count a file that cannot be loaded."""
        self._fail(path, kind, message, attempts)
        log.warning("file.failed", path=path, kind=kind.value, reason=message, attempts=attempts)

    def part_failed(
        self, directory: str, attempts: dict[str, int], loaded: Iterable[str], reason: str
    ) -> None:
        """Count the files of a part that could not be committed, with their attempts.

        Those that another run has `loaded` meanwhile are loaded.
        """
        self._already_loaded(loaded)
        for path, number in attempts.items():
            self._fail(path, FailureKind.LAKE, reason, number)
        log.error("part.failed", partition=directory, files=len(attempts), reason=reason)

    def partition_damaged(self, plan: PartitionPlan) -> None:
        """Count the files of a partition in which nothing can be written."""
        reason = plan.state.damage or ""
        for path in plan.to_load:
            self._fail(path.text, FailureKind.LAKE, reason, 0)
        log.error("partition.damaged", partition=plan.partition.directory, reason=reason)

    def add(self, share: "Outcomes", paths: Iterable[str]) -> None:
        """Add the outcomes of these files, which another process collected and logged."""
        unresolved = share.unresolved()
        for path in paths:
            if path not in unresolved:
                self._open.pop(path, None)
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(share, name))
        self.failures += share.failures
        self.parts += share.parts

    def counts(self) -> "Outcomes":
        """Return what is counted so far, without failures, parts and open files."""
        return Outcomes(**{name: getattr(self, name) for name in _COUNTS})

    def unresolved(self) -> Collection[str]:
        """Return the files that have no outcome yet."""
        return self._open.keys()

    def missing(self) -> set[str]:
        """Return the files to load that are not in the lake: failed, or without an outcome."""
        return {*self._open, *(failure.path for failure in self.failures)}

    def _already_loaded(self, paths: Iterable[str]) -> None:
        for path in paths:
            del self._open[path]
            self.already_loaded += 1

    def _fail(self, path: str, kind: FailureKind, message: str, attempts: int) -> None:
        del self._open[path]
        self.failed_files += 1
        self.failures.append(FailedFile(path, kind, message, attempts))

    def _wrote(self, part: PartWritten, bad_rows: int) -> None:
        self.loaded += part.sources
        self.rows += part.rows
        self.bad_rows += bad_rows
        self.written_bytes += part.bytes
        self.parts.append(part)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of requests at one moment, like those of a `Limiter`."""

    allowed: int
    rate: float
    in_flight: int
    paused_s: float


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What other processes have done that the run's own counts lack; for the display."""

    outcomes: Outcomes = field(default_factory=Outcomes)
    traffic: Traffic = field(default_factory=Traffic)


@dataclass(slots=True)
class RunState:
    """The state of a run. `listing` and `plan` are each set once.

    `limits` are None until requests are sent, and those of all workers on a cluster. `started_s` is
    on a monotonic clock, so a change of the system's clock changes no duration.
    """

    job: Job
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started_s: float = field(default_factory=time.monotonic)
    listing: Listing = field(default_factory=Listing)
    plan: Plan = field(default_factory=lambda: Plan((), (), ()))
    outcomes: Outcomes = field(default_factory=Outcomes)
    traffic: Traffic = field(default_factory=Traffic)
    limits: Limiter | Limits | None = None
    elsewhere: Elsewhere = field(default_factory=Elsewhere)
