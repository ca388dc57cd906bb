"""`aht-etl compact`."""

import asyncio
import re
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from signal import Signals
from typing import Annotated, Any, Final

import structlog
import typer

from etl.cli.command import Call, check_report_file, command, deliver, reason_for
from etl.cli.flags import ACCOUNT, HOURS, LAKE, Flag, Json, ReportFile
from etl.cli.process import SIGNALS, leave
from etl.config.keys import missing
from etl.config.settings import Settings, open_copy, open_lake
from etl.lake.compact import Copied, Copier
from etl.lake.layout import Selection
from etl.model import __version__
from etl.model.machine import resource_shortage
from etl.model.text import log, one_line, size
from etl.model.times import rfc3339
from etl.pipeline.job import require_lake
from etl.pipeline.report import EXIT_FAILED, EXIT_OK, EXIT_PARTIAL, Status
from etl.pipeline.stop import Stop, within_grace

_LIKE_A_TIME: Final = re.compile(r"-?[0-9]+|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?")

To = Annotated[
    list[str] | None,
    typer.Option(
        "--to",
        metavar="URI|T",
        help=(
            "The copy's place, a folder or an object store outside the lake, for example "
            "s3://bucket/coarse. A time, for example 2022-06-02, is the end of the window; give "
            "the flag twice for both."
        ),
    ),
]
SETTLE: Final = Flag(
    "compact.settle",
    "--settle",
    "DURATION",
    "How long ago a day must have ended to be copied, for example 0s or 72h (default 48h).",
)


@command("compact.failed", ACCOUNT, HOURS[0], LAKE, SETTLE, default_log_level="info")
def compact(call: Call, to: To = None, report: ReportFile = None, json_: Json = False) -> None:
    """Keep a coarse copy of the lake: few files, for scans of weeks or months.

    In the copy, a partition is one day of one account, the hour is a column, and each hour is a row
    group. The copy is a lake of its own, and parts are only added to it. So you can repeat or
    interrupt this command, and run it at the same time as itself or as a load. Late files make
    another part. The flags --account, --from and --to select whole days. If a part of the lake is
    damaged, its day is left out (exit code 3).

    Example: aht-etl compact --lake ./lake --to ./coarse
    """
    started_at = datetime.now(UTC)
    check_report_file(report)
    place, end = _place_and_end(to or [])
    call.set("compact.uri", "--to", place)
    call.set("window.to", "--to", end)
    settings, selection = call.select(started_at)
    if settings.compact.uri is None:
        raise missing("compact.uri", "--to URI")
    require_lake(settings)

    run_id, stop, copied = str(uuid.uuid4()), Stop(), Copied()
    structlog.contextvars.bind_contextvars(run_id=run_id)

    def copy() -> None:
        copier = Copier(
            open_lake(settings),
            open_copy(settings),
            settings.lake.compression,
            settings.lake.target_part_size,
            settings.limits.memory,
            run_id,
            stop.requested,
        )
        copier.run(selection, started_at - settings.compact.settle, copied)

    error = _until_stopped(call, copy, stop, settings.shutdown.grace.total_seconds())
    document = to_json(settings, selection, run_id, started_at, copied, error, stop.signal)
    code = _report(call, call.redactor.tree(document), report, as_json=json_)
    if error is not None or stop.signal is not None:
        leave(code)  # a thread may still wait for a disk or a store: its result no longer counts
    raise typer.Exit(code)


def _place_and_end(values: list[str]) -> tuple[str | None, str | None]:
    """Return the copy's place and the end of the window; the last value of each kind counts.

    A value that looks like a time is one, even a wrong one; a folder of that name is
    `./2022-06-02`.
    """
    place = end = None
    for value in values:
        if _LIKE_A_TIME.fullmatch(value.strip()):
            end = value
        else:
            place = value
    return place, end


def _until_stopped(call: Call, work: Callable[[], None], stop: Stop, grace_s: float) -> str | None:
    """Do blocking work in a thread; return why it failed.

    A signal requests `stop`. Then this waits `grace_s` at most: the thread may still run.
    """

    async def go() -> None:
        loop = asyncio.get_running_loop()
        SIGNALS.hand_to(stop, loop)
        try:
            await within_grace(asyncio.to_thread(work), stop, grace_s)
        finally:
            SIGNALS.take_back(loop)

    runner = asyncio.Runner()
    try:
        runner.run(go())
    except BaseException as failure:  # the outermost boundary: the report is due
        # obstore raises a BaseException if it gets no thread.
        if not isinstance(failure, Exception) and resource_shortage(failure) is None:
            raise
        return reason_for(failure, call.redactor)
    if stop.signal is None:
        runner.close()
    return None


def _report(call: Call, document: dict[str, Any], report: str | None, *, as_json: bool) -> int:
    """Log, print and write what was done; return the exit code."""
    code: int = document["exit_code"]
    log.info(
        "compact.finished",
        status=document["status"],
        exit_code=code,
        duration_seconds=document["duration_seconds"],
        days=document["days"],
        files=document["files"],
        rows=document["rows"]["loaded"],
        bytes_written=document["bytes"]["written"],
    )
    try:
        deliver(document, to_text(document), report, as_json=as_json)
    except OSError as failure:
        call.complain(f"error: the report: {failure.strerror}", "report.failed")
        code = code or 1
    # This line comes last, because people look for the reason there.
    if document["status"] == "failed":
        call.complain(f"error: {document['error']}", "compact.failed")
    elif document["status"] == "interrupted":
        call.complain(in_one_line(document), "compact.interrupted")
    elif document["status"] == "partial":
        call.complain(in_one_line(document), "compact.partial")
    return code


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
