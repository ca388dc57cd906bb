"""What was done: every listed path's one outcome, and their sum (operations.md, "The report")."""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Literal

from etl.api.listing import Listing
from etl.api.transport import HttpCounts
from etl.lake.commit import Committed
from etl.lake.receipts import Receipt
from etl.model.errors import FailureKind
from etl.model.times import Window, rfc3339
from etl.model.version import __version__
from etl.pipeline.plan import InvalidPath, Plan
from etl.storage.disk import write_whole

Status = Literal["ok", "partial", "failed", "interrupted"]

#: Exit codes (operations.md, "Exit codes"); an interrupted run ends with 128 + the signal's number.
EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_PARTIAL: Final = 3


@dataclass(frozen=True, slots=True)
class Failure:
    """A listed file that did not reach the lake, and why."""

    path: str
    kind: FailureKind
    message: str
    attempts: int


@dataclass(slots=True)
class Bytes:
    """Bytes that moved: answers' bodies, text unpacked from files, parts committed."""

    downloaded: int = 0
    decompressed: int = 0
    written: int = 0

    def add(self, more: "Bytes") -> None:
        """Count another's as well."""
        self.downloaded += more.downloaded
        self.decompressed += more.decompressed
        self.written += more.written


@dataclass(slots=True)
class Tally:
    """Collects outcomes while the run goes on; `to_report` sums them up whenever it ends.

    A path is resolved once: a second outcome for it is a KeyError.
    """

    run_id: str
    account: str | None
    window: Window | None
    started_at: datetime
    #: When it started on a clock that nobody sets.
    started_s: float = field(default_factory=time.monotonic)
    http: HttpCounts = field(default_factory=HttpCounts)
    bytes: Bytes = field(default_factory=Bytes)
    listing: Listing = field(default_factory=Listing)
    plan: Plan = field(default_factory=lambda: Plan((), (), ()))
    already_loaded: int = 0
    loaded: int = 0
    rows_loaded: int = 0
    rows_quarantined: int = 0
    #: Rows in which half a surrogate pair in an unknown field was replaced by U+FFFD.
    rows_repaired: int = 0
    failures: list[Failure] = field(default_factory=list)
    parts: list[dict[str, Any]] = field(default_factory=list)
    # For many paths a dictionary takes a fifth of the memory of a set.
    _open: dict[str, None] = field(default_factory=dict)

    def planned(self, plan: Plan) -> None:
        """Take the plan: from now on each of its files to load waits for its outcome."""
        self.plan = plan
        for partition in plan.partitions:
            self.already_loaded += len(partition.already_loaded)
            self.expect(path.text for path in partition.to_load)

    def expect(self, paths: Iterable[str]) -> None:
        """Let these files wait for their outcome from now on."""
        self._open.update(dict.fromkeys(paths))

    def committed(self, result: Committed) -> None:
        """Take a commit: its sources are loaded, those that another run brought already were."""
        for path in result.brought_by_others:
            del self._open[path]
            self.already_loaded += 1
        if result.encoded is None:
            return
        for source in result.encoded.sources:
            del self._open[source.path]
        self._wrote(result.name, result.encoded.sources, result.encoded.bytes)

    def recovered(self, name: str, sources: Sequence[Receipt], size: int) -> None:
        """Take a part of this very run, whose files were taken for loaded by another.

        A process committed it that did not live to tell.
        """
        self.already_loaded -= len(sources)
        self._wrote(name, sources, size)

    def _wrote(self, name: str | None, sources: Sequence[Receipt], size: int) -> None:
        rows = sum(source.rows for source in sources)
        self.loaded += len(sources)
        self.rows_loaded += rows
        self.rows_quarantined += sum(source.quarantined for source in sources)
        self.bytes.written += size
        self.parts.append({"path": name, "rows": rows, "bytes": size, "sources": len(sources)})

    def add(self, share: "Tally", paths: Iterable[str]) -> None:
        """Take what became of these files, which are a share of the plan with a tally of its own.

        Once for each share.
        """
        for path in paths:
            if path not in share._open:  # noqa: SLF001
                self._open.pop(path, None)
        self.already_loaded += share.already_loaded
        self.loaded += share.loaded
        self.rows_loaded += share.rows_loaded
        self.rows_quarantined += share.rows_quarantined
        self.rows_repaired += share.rows_repaired
        self.failures += share.failures
        self.parts += share.parts
        self.bytes.add(share.bytes)
        self.http.add(share.http)

    def sent(self, http: HttpCounts, moved: Bytes) -> None:
        """Count what was sent by a process that did not live to tell what became of it."""
        self.http.add(http)
        self.bytes.downloaded += moved.downloaded
        self.bytes.decompressed += moved.decompressed

    def archived(self, path: str, *, by_others: bool) -> None:
        """Take a file that is in the archive now, in a run that writes no lake.

        What another run kept while this one went on counts as already loaded.
        """
        del self._open[path]
        if by_others:
            self.already_loaded += 1
        else:
            self.loaded += 1

    def failed(
        self, paths: Iterable[str], kind: FailureKind, message: str, attempts: int = 0
    ) -> None:
        """Take files that cannot be loaded."""
        for path in paths:
            del self._open[path]
            self.failures.append(Failure(path, kind, message, attempts))

    def open(self, paths: Iterable[str]) -> list[str]:
        """Return those of these files that have no outcome yet."""
        return [path for path in paths if path in self._open]

    @property
    def not_attempted(self) -> int:
        """How many files have no outcome yet."""
        return len(self._open)

    def newest_complete_hour(self) -> datetime | None:
        """Return the begin of the newest hour up to which the lake holds what was listed.

        It was over when the run began and before the first window that was not answered. Of it
        and of every earlier listed hour each listed file is in the lake; files that are skipped
        on purpose, and entries that are no paths, do not count. None if there is no such hour, or
        nothing was listed.
        """
        missing = self._open.keys() | {failure.path for failure in self.failures}
        newest = None
        # Nobody knows what there is from the first unanswered window on.
        until = min([self.started_at, *(window.start for window in self.listing.unanswered)])
        for hour, plans in groupby(self.plan.partitions, lambda plan: plan.partition.hour):
            over = until - hour >= timedelta(hours=1)
            if not over or any(path.text in missing for plan in plans for path in plan.to_load):
                break
            newest = hour
        return newest

    def other_accounts(self) -> list[str]:
        """Return the accounts of listed files that are not the one asked for, if any was."""
        if self.account is None:
            return []
        found = {partition.partition.account for partition in self.plan.partitions}
        return sorted(found - {self.account})

    @property
    def invalid(self) -> tuple[InvalidPath, ...]:
        """The listed entries that are no paths."""
        return self.plan.invalid

    def status(self, error: str | None, signal: int | None) -> tuple[Status, int]:
        """Return the run's status and exit code."""
        if signal is not None:
            return "interrupted", 128 + signal
        if error is not None:
            return "failed", EXIT_FAILED
        if self.failures or self.invalid or self.listing.unanswered:
            return "partial", EXIT_PARTIAL
        return "ok", EXIT_OK

    def to_report(self, error: str | None, signal: int | None) -> dict[str, Any]:
        """Return the report as it stands now; every listed path is accounted for."""
        status, exit_code = self.status(error, signal)
        # By the clock of its start: one that is set meanwhile changes no duration and no lag.
        duration_s = time.monotonic() - self.started_s
        finished_at = self.started_at + timedelta(seconds=duration_s)
        newest = self.newest_complete_hour()
        return {
            "run_id": self.run_id,
            "version": __version__,
            "status": status,
            "exit_code": exit_code,
            "account": self.account,
            "window": self.window.as_json() if self.window else None,
            "started_at": rfc3339(self.started_at),
            "finished_at": rfc3339(finished_at),
            "duration_seconds": round(duration_s, 3),
            "newest_complete_hour": rfc3339(newest) if newest else None,
            "listing": {
                "requests": self.listing.requests,
                "empty_windows": [window.as_json() for window in self.listing.empty_windows],
                "partial_windows": [window.as_json() for window in self.listing.partial_windows],
                "unanswered_windows": [window.as_json() for window in self.listing.unanswered],
            },
            "quality": {
                "other_accounts": self.other_accounts(),
                "repaired_rows": self.rows_repaired,
            },
            "files": {
                "listed": self.plan.listed,
                "already_loaded": self.already_loaded,
                "loaded": self.loaded,
                "failed": len(self.failures),
                "invalid": len(self.invalid),
                "skipped": len(self.plan.skipped),
                "not_attempted": self.not_attempted,
            },
            "rows": {"loaded": self.rows_loaded, "quarantined": self.rows_quarantined},
            "bytes": {
                "downloaded": self.bytes.downloaded,
                "decompressed": self.bytes.decompressed,
                "written": self.bytes.written,
            },
            "http": {
                "requests": self.http.requests,
                "retries": self.http.retries,
                "throttled": self.http.throttled,
                "concurrency": self.http.concurrency,
                "rate": self.http.rate,
            },
            "parts": self.parts,
            "failures": [
                {
                    "path": failure.path,
                    "kind": failure.kind.value,
                    "message": failure.message,
                    "attempts": failure.attempts,
                }
                for failure in self.failures
            ],
            "invalid_paths": [
                {"path": invalid.text, "message": invalid.reason} for invalid in self.invalid
            ],
            "error": error,
        }


def write_report(report: dict[str, Any], file: Path) -> None:
    """Write the report as JSON; see `write_whole`. Raises OSError."""
    write_whole(json.dumps(report, indent=2) + "\n", file)
