"""`aht-etl compact`."""

import asyncio
import json
import os
import re
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from etl.cli.command import Call, check_report_file, command, reason_for
from etl.cli.flags import ACCOUNT, HOURS, LAKE, Flag, Json, ReportFile
from etl.cli.process import streams
from etl.cli.process.signals import SIGNALS
from etl.model.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from etl.cli.views.compact import CompactReport
    from etl.config.settings import Settings
    from etl.lake.layout import Selection
    from etl.pipeline.stop import Stop

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
    "How old a day must be, for example 0s or 72h (default 48h).",
)


@command("compact.failed", ACCOUNT, HOURS[0], LAKE, SETTLE, log_level="info")
def compact(call: Call, to: To = None, report: ReportFile = None, json_: Json = False) -> None:
    """Keep a coarse copy of the lake: few files, for scans of weeks or months.

    In the copy a partition is a day of an account, the hour is a column, and each hour is a row
    group. The copy is a lake of its own to which parts are only added. So it is safe to repeat, to
    interrupt, to overlap with another call, and to run while loads go on. Files that come late make
    a further part. The flags --account, --from and --to choose whole days. If a part of the lake is
    damaged, its day is left out (exit code 3).

    Example: aht-etl compact --lake ./lake --to ./coarse
    """
    from etl.pipeline.job import require_lake

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

    outcome = _copy(call, settings, selection, started_at)
    code = _tell(call, outcome, report, as_json=json_)
    if outcome.error is not None or outcome.signal is not None:
        # A thread may still wait for a disk or a store; nothing that it does counts any more.
        streams.settle()
        os._exit(code)
    raise typer.Exit(code)


def _copy(
    call: Call, settings: "Settings", selection: "Selection", started_at: datetime
) -> "CompactReport":
    """Copy until all is done, a signal comes or it fails; return how it ended."""
    import structlog

    from etl.cli.views.compact import CompactReport
    from etl.config.settings import open_copy, open_lake
    from etl.lake.compact import Copied, Copier
    from etl.model.machine import resource_shortage
    from etl.pipeline.stop import Stop

    run_id = str(uuid.uuid4())
    structlog.contextvars.bind_contextvars(run_id=run_id)
    stop, copied, error = Stop(), Copied(), None
    try:
        copier = Copier(
            open_lake(settings),
            open_copy(settings),
            settings.lake.compression,
            settings.lake.target_part_size,
            settings.limits.memory,
            run_id,
            stop.requested,
        )
        settled_before = started_at - settings.compact.settle
        grace_s = settings.shutdown.grace.total_seconds()
        _until_stopped(lambda: copier.run(selection, settled_before, copied), stop, grace_s)
    except BaseException as failure:  # the outermost boundary: the report is due
        # What obstore raises where it gets no thread is no Exception.
        if not isinstance(failure, Exception) and resource_shortage(failure) is None:
            raise
        error = reason_for(failure, call.redactor)
    places = settings.lake.uri, str(settings.compact.uri)
    return CompactReport(run_id, started_at, *places, selection, copied, error, stop.signal)


def _tell(call: Call, outcome: "CompactReport", report: str | None, *, as_json: bool) -> int:
    """Log, print and write what was done; return the exit code."""
    from etl.cli.views.compact import in_one_line, to_text
    from etl.model import events
    from etl.pipeline.report import write_report

    document, code = call.redactor.tree(outcome.as_json()), outcome.exit_code
    events.log.info(
        "compact.finished",
        status=outcome.status,
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
    # Last of all: it is the line that people look for.
    if outcome.status == "failed":
        call.complain(f"error: {outcome.error}", "compact.failed")
    elif outcome.status == "interrupted":
        call.complain(in_one_line(document), "compact.interrupted")
    elif outcome.status == "partial":
        call.complain(in_one_line(document), "compact.partial")
    return code


def _place_and_end(values: list[str]) -> tuple[str | None, str | None]:
    """Tell the copy's place from the end of the window; of each kind the last one counts.

    What begins like a time is one, right or wrong: a folder of such a name is `./2022-06-02`.
    """
    place = end = None
    for value in values:
        if _LIKE_A_TIME.fullmatch(value.strip()):
            end = value
        else:
            place = value
    return place, end


def _until_stopped(work: "Callable[[], None]", stop: "Stop", grace_s: float) -> None:
    """Do blocking work; after a signal wait for its end for so many seconds at most."""
    from etl.pipeline.stop import to_its_end

    async def go() -> None:
        loop = asyncio.get_running_loop()
        SIGNALS.hand_to(stop, loop)
        try:
            await to_its_end(asyncio.to_thread(work), stop, grace_s)
        finally:
            SIGNALS.take_back(loop)

    runner = asyncio.Runner()
    runner.run(go())
    if stop.signal is None:
        runner.close()
