"""The report of `aht-etl compact`: JSON for programs, text for people."""

from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from signal import Signals
from typing import Any, Final

from etl.config.settings import Settings
from etl.lake.compact import Copied
from etl.lake.layout import Selection
from etl.model import __version__
from etl.model.text import one_line, size
from etl.model.times import rfc3339
from etl.pipeline.report import EXIT_FAILED, EXIT_OK, EXIT_PARTIAL, Status

_SHOWN_FAILURES: Final = 10


def to_json(
    settings: Settings,
    selection: Selection,
    run_id: str,
    started_at: datetime,
    copied: Copied,
    error: str | None,
    signal: int | None,
) -> dict[str, Any]:
    """Return the document of `--report` and `--json`: a run's keys, as far as they apply.

    `window` has the flags, null if none is given; `days` counts the copy's partitions. `error` is
    why the command failed, `signal` what stopped it.
    """
    # A thread may still be copying: what is final comes first, then the numbers in this order.
    broken = [day for day in copied.days if day.damage is not None]
    failures = [*copied.damaged_folders, *(day.damage for day in broken if day.damage)]
    failed = sum(day.files - day.in_copy for day in broken)
    days = Counter(day.outcome for day in copied.days)
    parts = [part for day in copied.days for part in day.parts]
    loaded = sum(part.sources for part in parts)
    in_copy = sum(day.in_copy for day in copied.days)
    listed = sum(day.files for day in copied.days)
    status: Status
    if signal is not None:
        status, exit_code = "interrupted", 128 + signal
    elif error is not None:
        status, exit_code = "failed", EXIT_FAILED
    elif failures:
        status, exit_code = "partial", EXIT_PARTIAL
    else:
        status, exit_code = "ok", EXIT_OK
    finished_at = datetime.now(UTC)
    start, end = selection.start, selection.end
    window = {"from": rfc3339(start) if start else None, "to": rfc3339(end) if end else None}
    return {
        "run_id": run_id,
        "version": __version__,
        "status": status,
        "exit_code": exit_code,
        "account": selection.account,
        "window": window if start or end else None,
        "started_at": rfc3339(started_at),
        "finished_at": rfc3339(finished_at),
        "duration_seconds": round((finished_at - started_at).total_seconds(), 3),
        "lake": settings.lake.uri,
        "copy": settings.compact.uri,
        "days": {
            "copied": days["copied"],
            "already_copied": days["already_copied"],
            "failed": len(failures),
            "not_settled": copied.days_not_settled,
            "not_attempted": days["not_attempted"],
        },
        "files": {
            "listed": listed,
            "already_loaded": in_copy - loaded,
            "loaded": loaded,
            "failed": failed,
            "invalid": 0,
            "skipped": 0,
            "not_attempted": listed - in_copy - failed,
        },
        "rows": {
            "loaded": sum(part.rows for part in parts),
            "quarantined": sum(day.quarantined for day in copied.days),
        },
        "bytes": {"written": sum(part.bytes for part in parts)},
        "parts": [asdict(part) for part in parts],
        "failures": [
            {"path": damage.name, "kind": "lake", "message": damage.message, "attempts": 1}
            for damage in failures
        ],
        "error": error,
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
    """Return why a report is `interrupted` or `partial`, and what to expect."""
    days = report["days"]
    if report["status"] == "interrupted":
        name = Signals(report["exit_code"] - 128).name
        return (
            f"interrupted: {name}; {days['copied']:,} days copied, {days['not_attempted']:,} left "
            "to the next call"
        )
    first = report["failures"][0]
    return one_line(
        f"partial: {days['failed']:,} days left out, all others are copied; the first: "
        f"{first['path']}: {first['message']}"
    )
