"""`aht-etl compact`."""

import asyncio
import json
import os
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import structlog
import typer

from etl.cli.command import Call, check_report_file, command, reason_for
from etl.cli.flags import ACCOUNT, HOURS, LAKE, Flag, Json, ReportFile
from etl.cli.process import streams
from etl.cli.process.signals import SIGNALS
from etl.cli.views.compact import in_one_line, to_json, to_text
from etl.config.settings import open_copy, open_lake
from etl.lake.compact import Copied, Copier
from etl.model import events
from etl.model.errors import UsageError
from etl.model.machine import resource_shortage
from etl.pipeline.job import require_lake
from etl.pipeline.report import write_report
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


@command("compact.failed", ACCOUNT, HOURS[0], LAKE, SETTLE, log_level="info")
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
        raise UsageError(
            "compact.uri: is missing; set --to URI, AHT_ETL_COMPACT__URI or the YAML's key"
        )
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
        # A thread may still wait for a disk or a store. Its result no longer counts.
        streams.settle()
        os._exit(code)
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
    events.log.info(
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
        if report == "-" or as_json:
            typer.echo(json.dumps(document, indent=2))
        else:
            typer.echo(to_text(document), nl=False)
        if report is not None and report != "-":
            write_report(document, Path(report))
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
