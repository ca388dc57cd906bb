"""The report of a run: the content of `--report` (operations.md, "The report")."""

import json
import math
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Literal, Self

from etl.lake.layout import PartWritten
from etl.model import __version__
from etl.model.errors import RunError
from etl.model.text import as_json
from etl.model.times import Window
from etl.pipeline.job import whole_millis
from etl.pipeline.plan import InvalidPath
from etl.pipeline.state import FailedFile, RunState
from etl.storage.disk import write_whole

Status = Literal["ok", "partial", "failed", "interrupted"]

#: Exit codes (operations.md, "Exit codes"); an interrupted run ends with 128 + the signal's number.
EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_PARTIAL: Final = 3


@dataclass(frozen=True, slots=True)
class ListingOutcome:
    """Listing requests, and the windows that were empty, partial or unanswered."""

    requests: int
    empty_windows: Sequence[Window]
    partial_windows: Sequence[Window]
    unanswered_windows: Sequence[Window]


@dataclass(frozen=True, slots=True)
class Quality:
    """Oddities of the data.

    `other_accounts` are listed accounts that were not asked for. In `repaired_rows`, half a
    surrogate pair in an unknown field was replaced by U+FFFD.
    """

    other_accounts: Sequence[str]
    repaired_rows: int


@dataclass(frozen=True, slots=True)
class FileCounts:
    """Listed paths by outcome: `listed` is the sum of all others."""

    listed: int
    already_loaded: int
    loaded: int
    failed: int
    invalid: int
    skipped: int
    not_attempted: int


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Rows that this run put into the lake, and bad rows that it put into the quarantine."""

    loaded: int
    quarantined: int


@dataclass(frozen=True, slots=True)
class ByteCounts:
    """Bytes downloaded, bytes of the text in them, and bytes of Parquet written."""

    downloaded: int
    decompressed: int
    written: int


@dataclass(frozen=True, slots=True)
class HttpOutcome:
    """Requests sent, and the limits at the end of the run.

    `concurrency` is requests in flight, `rate` requests a second: None if no limit was found.
    """

    requests: int
    retries: int
    throttled: int
    concurrency: int
    rate: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """What one run did: the content of the `--report` file, without secrets.

    `exit_code` is that of `aht-etl run`. `error` says in one line why the run failed. `account` is
    None where an archive's files of all accounts were loaded.
    """

    run_id: str
    version: str
    status: Status
    exit_code: int
    account: str | None
    window: Window | None
    started_at: datetime
    finished_at: datetime
    duration_seconds: float
    newest_complete_hour: datetime | None
    listing: ListingOutcome
    quality: Quality
    files: FileCounts
    rows: RowCounts
    bytes: ByteCounts
    http: HttpOutcome
    parts: Sequence[PartWritten]
    failures: Sequence[FailedFile]
    invalid_paths: Sequence[InvalidPath]
    error: str | None

    @classmethod
    def of(cls, state: RunState, error: str | None, signal_number: int | None) -> Self:
        """Report on a run that ended now. `error` says, without secrets, why it failed."""
        job, listing, plan, outcomes = state.job, state.listing, state.plan, state.outcomes
        redact, traffic, limits = job.redactor.text, state.traffic, state.limits
        duration_s = time.monotonic() - state.started_s
        status, exit_code = _status(state, error, signal_number)
        return cls(
            run_id=job.run_id,
            version=__version__,
            status=status,
            exit_code=exit_code,
            account=job.settings.account,
            window=job.window,
            started_at=whole_millis(state.started_at),
            finished_at=whole_millis(state.started_at + timedelta(seconds=duration_s)),
            duration_seconds=round(duration_s, 3),
            newest_complete_hour=_newest_complete_hour(state),
            listing=ListingOutcome(
                listing.requests,
                tuple(listing.empty_windows),
                tuple(listing.partial_windows),
                tuple(listing.unanswered),
            ),
            quality=Quality(plan.other_accounts(job.account), outcomes.repaired_rows),
            files=FileCounts(
                listed=plan.listed,
                already_loaded=outcomes.already_loaded,
                loaded=outcomes.loaded,
                failed=outcomes.failed_files,
                invalid=len(plan.invalid),
                skipped=len(plan.skipped),
                not_attempted=len(outcomes.unresolved()),
            ),
            rows=RowCounts(outcomes.rows, outcomes.bad_rows),
            bytes=ByteCounts(
                traffic.downloaded_bytes, outcomes.decompressed_bytes, outcomes.written_bytes
            ),
            http=HttpOutcome(
                traffic.requests,
                traffic.retries,
                traffic.throttled,
                limits.allowed if limits else 0,
                round(limits.rate, 1) if limits and math.isfinite(limits.rate) else None,
            ),
            parts=tuple(outcomes.parts),
            failures=tuple(
                replace(failure, path=redact(failure.path), message=redact(failure.message))
                for failure in outcomes.failures
            ),
            invalid_paths=tuple(
                InvalidPath(redact(entry.path), redact(entry.message)) for entry in plan.invalid
            ),
            error=error,
        )

    def as_json(self) -> dict[str, Any]:
        """Return what `--report` writes; times are RFC 3339 in UTC."""
        document: dict[str, Any] = as_json(self)
        return document

    def raise_for_status(self) -> Self:
        """Raise RunError, in one line, unless the status is `ok`; return this report if it is.

        Also for `partial`: some files failed, or were invalid. What was loaded stays loaded.
        """
        if self.status == "ok":
            return self
        raise RunError(self.in_one_line())

    def in_one_line(self) -> str:
        """Return how a run that is not `ok` ended, why, and what the next run does."""
        files = self.files
        if self.status == "failed":
            return f"failed: {self.error}"
        if self.status == "interrupted":
            return (
                f"interrupted: {signal.Signals(self.exit_code - 128).name}; "
                f"{files.loaded:,} files loaded, {files.not_attempted + files.failed:,} left to "
                "the next run"
            )
        reasons = []
        if files.failed:
            kinds = Counter(failure.kind.value for failure in self.failures)
            counted = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
            causes = ", ".join(f"{kind} {count:,}" for kind, count in counted)
            reasons.append(
                f"{files.failed:,} of {files.listed:,} files failed: {causes}; the next run tries "
                "them again"
            )
        if files.invalid:
            reasons.append(
                f"{files.invalid:,} of {files.listed:,} listed entries are no paths of the API "
                "and are never requested"
            )
        if reasons:
            first = self.failures[0] if self.failures else self.invalid_paths[0]
            reasons.append(f"the first: {first.path[:300]}: {first.message}")
        if unanswered := self.listing.unanswered_windows:
            reasons.append(
                f"windows not answered by the API: {len(unanswered):,}, the first from "
                f"{unanswered[0]}; the next run asks again, aht-etl check says what answers"
            )
        return f"partial: {'; '.join(reasons)}"


def _status(state: RunState, error: str | None, signal_number: int | None) -> tuple[Status, int]:
    """Return status and exit code: a signal comes first, then an error, then failed files."""
    if signal_number is not None:
        return "interrupted", 128 + signal_number
    if error is not None:
        return "failed", EXIT_FAILED
    if state.outcomes.failures or state.plan.invalid or state.listing.unanswered:
        return "partial", EXIT_PARTIAL
    return "ok", EXIT_OK


def _newest_complete_hour(state: RunState) -> datetime | None:
    """Return the start of the newest hour up to which the lake holds every listed file.

    It was over when the run started, and before the first window that was not answered. Skipped
    files and invalid entries do not count. None if there is no such hour or nothing was listed.
    """
    missing = state.outcomes.missing()
    # What exists in an unanswered window is unknown.
    until = min([state.started_at, *(window.start for window in state.listing.unanswered)])
    newest = None
    for hour, plans in groupby(state.plan.partitions, lambda plan: plan.partition.hour):
        over = until - hour >= timedelta(hours=1)
        if not over or any(path.text in missing for plan in plans for path in plan.to_load):
            break
        newest = hour
    return newest


def write_report(report: dict[str, Any], file: Path) -> None:
    """Write a report as JSON; see `write_whole`. Raises OSError."""
    write_whole(json.dumps(report, indent=2) + "\n", file)
