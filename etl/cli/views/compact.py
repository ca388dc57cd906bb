"""What `aht-etl compact` did: the report for programs, a summary for people."""

import signal as signals
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from etl.lake.compact import Copied
from etl.lake.layout import Selection
from etl.model.printable import one_line, size
from etl.model.times import rfc3339
from etl.model.version import __version__
from etl.pipeline.report import EXIT_FAILED, EXIT_OK, EXIT_PARTIAL, Status

_SHOWN_FAILURES: Final = 10


@dataclass(frozen=True, slots=True)
class CompactReport:
    """The outcome of a copier, whatever its end; `copied` may still change if it was stopped."""

    run_id: str
    started_at: datetime
    lake: str
    copy: str
    selection: Selection
    copied: Copied
    error: str | None
    signal: int | None

    @property
    def status(self) -> Status:
        """As a run's."""
        if self.signal is not None:
            return "interrupted"
        if self.error is not None:
            return "failed"
        return "partial" if self.copied.failures else "ok"

    @property
    def exit_code(self) -> int:
        """As a run's."""
        if self.signal is not None:
            return 128 + self.signal
        return {"ok": EXIT_OK, "failed": EXIT_FAILED, "partial": EXIT_PARTIAL}[self.status]

    def as_json(self) -> dict[str, Any]:
        """Return the document of `--report` and `--json`: a run's keys, as far as they apply.

        `window` holds the flags, null where none was given; `days` are the copy's partitions.
        """
        copied, finished_at = self.copied, datetime.now(UTC)
        start, end = self.selection.start, self.selection.end
        with copied.lock:
            return {
                "run_id": self.run_id,
                "version": __version__,
                "status": self.status,
                "exit_code": self.exit_code,
                "account": self.selection.account,
                "window": {
                    "from": rfc3339(start) if start else None,
                    "to": rfc3339(end) if end else None,
                }
                if start or end
                else None,
                "started_at": rfc3339(self.started_at),
                "finished_at": rfc3339(finished_at),
                "duration_seconds": round((finished_at - self.started_at).total_seconds(), 3),
                "lake": self.lake,
                "copy": self.copy,
                "days": {
                    "copied": copied.days_copied,
                    "already_copied": copied.days_already_copied,
                    "failed": copied.days_failed,
                    "not_settled": copied.days_not_settled,
                    "not_attempted": copied.days_not_attempted,
                },
                "files": {
                    "listed": copied.files_listed,
                    "already_loaded": copied.files_already_loaded,
                    "loaded": copied.files_loaded,
                    "failed": copied.files_failed,
                    "invalid": 0,
                    "skipped": 0,
                    "not_attempted": copied.files_not_attempted,
                },
                "rows": {"loaded": copied.rows, "quarantined": copied.quarantined},
                "bytes": {"written": sum(part.bytes for part in copied.parts)},
                "parts": [asdict(part) for part in copied.parts],
                "failures": [
                    {
                        "path": damage.name,
                        "kind": "lake",
                        "message": damage.message,
                        "attempts": 1,
                    }
                    for damage in copied.failures
                ],
                "error": self.error,
            }


def to_text(report: dict[str, Any]) -> str:
    """Return what was copied and what to do next, for people."""
    days, files = report["days"], report["files"]
    settled = days["copied"] + days["already_copied"] + days["failed"] + days["not_attempted"]
    lines = [
        f"{report['status']}: {settled:,} days in {report['duration_seconds']:.1f} s, "
        f"copy {report['copy']}",
        f"  copied         {files['loaded']:>12,} files  {report['rows']['loaded']:,} rows of "
        f"{days['copied']:,} days in {len(report['parts']):,} parts, "
        f"{size(report['bytes']['written'])}",
        f"  already copied {files['already_loaded']:>12,} files",
    ]
    for key, words in (
        ("failed", "left out; see below"),
        ("not_settled", "too young (compact.settle); a later call copies them"),
        ("not_attempted", "left to the next call"),
    ):
        if days[key]:
            lines.append(f"  {key.replace('_', ' '):<14} {days[key]:>12,} days   {words}")
    for failure in report["failures"][:_SHOWN_FAILURES]:
        lines.append(f"  {failure['kind']}: {one_line(failure['path'])}")
        lines.append(f"    {one_line(failure['message'])}")
    if len(report["failures"]) > _SHOWN_FAILURES:
        more = len(report["failures"]) - _SHOWN_FAILURES
        lines.append(f"  … and {more:,} more; --report FILE has them all")
    return "\n".join(lines) + "\n"


def in_one_line(report: dict[str, Any]) -> str:
    """Return how a copier that is not `ok` ended, why, and what comes of it."""
    days = report["days"]
    if report["status"] == "interrupted":
        name = signals.Signals(report["exit_code"] - 128).name
        return (
            f"interrupted: {name}; {days['copied']:,} days copied, {days['not_attempted']:,} left "
            "to the next call"
        )
    first = report["failures"][0]
    return one_line(
        f"partial: {days['failed']:,} days left out, all others are copied; the first: "
        f"{first['path']}: {first['message']}"
    )
