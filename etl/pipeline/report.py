"""What a run did, as an object: the content of `--report` (operations.md, "The report")."""

import copy
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Self, TypeVar

from etl.model.errors import FailureKind, RunError
from etl.model.times import Window, parse_rfc3339
from etl.pipeline.tally import Status

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ListingOutcome:
    """How the listing went: requests, and the windows that were empty, partial or unanswered."""

    requests: int
    empty_windows: Sequence[Window]
    partial_windows: Sequence[Window]
    unanswered_windows: Sequence[Window]


@dataclass(frozen=True, slots=True)
class Quality:
    """What is odd about the data.

    Accounts that files are of, other than the one asked for; rows in which half a surrogate pair in
    an unknown field was replaced by U+FFFD.
    """

    other_accounts: Sequence[str]
    repaired_rows: int


@dataclass(frozen=True, slots=True)
class FileCounts:
    """Each listed path in exactly one count: `listed` is the sum of all others."""

    listed: int
    already_loaded: int
    loaded: int
    failed: int
    invalid: int
    skipped: int
    not_attempted: int


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Rows that are in the lake now, and bad rows that are in its quarantine."""

    loaded: int
    quarantined: int


@dataclass(frozen=True, slots=True)
class ByteCounts:
    """Bytes that came down, that they unpacked to, and of the Parquet that was written."""

    downloaded: int
    decompressed: int
    written: int


@dataclass(frozen=True, slots=True)
class HttpOutcome:
    """What was sent, and where the limiter settled (`rate` None: no limit was found)."""

    requests: int
    retries: int
    throttled: int
    concurrency: int
    rate: float | None


@dataclass(frozen=True, slots=True)
class PartWritten:
    """A part that this run committed; `path` in the lake, `sources` how many files are in it."""

    path: str
    rows: int
    bytes: int
    sources: int


@dataclass(frozen=True, slots=True)
class FailedFile:
    """A listed file that did not reach the lake, and why."""

    path: str
    kind: FailureKind
    message: str
    attempts: int


@dataclass(frozen=True, slots=True)
class InvalidEntry:
    """A listed entry that is no path of the API, and why; it was never requested."""

    path: str
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """What one run did; the same content as the file of `--report`, without secrets.

    `exit_code` is what `aht-etl run` would end with. `error` says in one line why it failed.
    `account` is None where an archive's files of all accounts were loaded.
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
    listing: ListingOutcome
    quality: Quality
    files: FileCounts
    rows: RowCounts
    bytes: ByteCounts
    http: HttpOutcome
    parts: Sequence[PartWritten]
    failures: Sequence[FailedFile]
    invalid_paths: Sequence[InvalidEntry]
    newest_complete_hour: datetime | None
    error: str | None
    _json: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> Self:
        """Take the JSON form of a report."""
        listing = report["listing"]
        newest = report["newest_complete_hour"]
        return cls(
            run_id=report["run_id"],
            version=report["version"],
            status=report["status"],
            exit_code=report["exit_code"],
            account=report["account"],
            window=_window(report["window"]) if report["window"] else None,
            started_at=parse_rfc3339(report["started_at"]),
            finished_at=parse_rfc3339(report["finished_at"]),
            duration_seconds=report["duration_seconds"],
            listing=ListingOutcome(
                listing["requests"],
                tuple(map(_window, listing["empty_windows"])),
                tuple(map(_window, listing["partial_windows"])),
                tuple(map(_window, listing["unanswered_windows"])),
            ),
            quality=_known(Quality, report["quality"]),
            files=_known(FileCounts, report["files"]),
            rows=_known(RowCounts, report["rows"]),
            bytes=_known(ByteCounts, report["bytes"]),
            http=_known(HttpOutcome, report["http"]),
            parts=tuple(_known(PartWritten, part) for part in report["parts"]),
            failures=tuple(
                _known(FailedFile, {**failure, "kind": FailureKind(failure["kind"])})
                for failure in report["failures"]
            ),
            invalid_paths=tuple(_known(InvalidEntry, path) for path in report["invalid_paths"]),
            newest_complete_hour=parse_rfc3339(newest) if newest else None,
            error=report["error"],
            _json=copy.deepcopy(dict(report)),
        )

    def as_json(self) -> dict[str, Any]:
        """Return what `--report` writes; times are RFC 3339 in UTC."""
        return copy.deepcopy(dict(self._json))

    def raise_for_status(self) -> Self:
        """Raise RunError, in one line, unless the status is `ok`; return this report if it is.

        Also for `partial`: some files failed, or were invalid. What was loaded stays loaded.
        """
        if self.status == "ok":
            return self
        raise RunError(in_one_line(self._json))


def _window(json: Mapping[str, str]) -> Window:
    return Window(parse_rfc3339(json["from"]), parse_rfc3339(json["to"]))


def _known(cls: type[T], json: Mapping[str, Any]) -> T:
    names = [one.name for one in fields(cls)]  # type: ignore[arg-type] # they are dataclasses
    return cls(**{name: json[name] for name in names})


def in_one_line(report: Mapping[str, Any]) -> str:
    """Return how a run that is not `ok` ended, why, and what comes of it."""
    files, status = report["files"], report["status"]
    if status == "failed":
        return f"failed: {report['error']}"
    if status == "interrupted":
        return (
            f"interrupted: {signal.Signals(report['exit_code'] - 128).name}; "
            f"{files['loaded']:,} files loaded, {files['not_attempted'] + files['failed']:,} left "
            "to the next run"
        )
    said = []
    if files["failed"]:
        kinds = Counter(failure["kind"] for failure in report["failures"])
        counted = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
        causes = ", ".join(f"{kind} {count:,}" for kind, count in counted)
        said.append(
            f"{files['failed']:,} of {files['listed']:,} files failed: {causes}; the next run "
            "tries them again"
        )
    if files["invalid"]:
        said.append(
            f"{files['invalid']:,} of {files['listed']:,} listed entries are no paths of the API "
            "and are never requested"
        )
    if said:
        first = [*report["failures"], *report["invalid_paths"]][0]
        said.append(f"the first: {first['path'][:300]}: {first['message']}")
    if unanswered := report["listing"]["unanswered_windows"]:
        said.append(
            f"windows not answered by the API: {len(unanswered):,}, the first from "
            f"{unanswered[0]['from']} to {unanswered[0]['to']}; the next run asks again, aht-etl "
            "check says what answers"
        )
    return f"partial: {'; '.join(said)}"
