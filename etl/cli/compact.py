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

from etl.cli.common import check_report_file, usage_errors
from etl.cli.flags import Account, Config, From, Json, Lake, LogFormat, LogLevel, ReportFile
from etl.cli.process import streams
from etl.cli.process.signals import SIGNALS
from etl.cli.selection import load_selected
from etl.model.errors import UsageError, is_foreseen

if TYPE_CHECKING:
    from collections.abc import Callable

    from etl.cli.process.log import LogFormat as LogFormatName
    from etl.cli.views.compact import CompactReport
    from etl.config.redact import Redactor
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
Settle = Annotated[
    str | None,
    typer.Option(
        "--settle",
        metavar="DURATION",
        help="How old a day must be, for example 0s or 72h (default 48h).",
    ),
]


def compact(
    config: Config = None,
    account: Account = None,
    from_: From = None,
    to: To = None,
    lake: Lake = None,
    settle: Settle = None,
    report: ReportFile = None,
    json_: Json = False,
    log_format: LogFormat = "auto",
    log_level: LogLevel = "info",
) -> None:
    """Keep a coarse copy of the lake: few files, for scans of weeks or months.

    In the copy a partition is a day of an account, the hour is a column, and each hour is a row
    group. The copy is a lake of its own to which parts are only added. So it is safe to repeat, to
    interrupt, to overlap with another call, and to run while loads go on. Files that come late make
    a further part. The flags --account, --from and --to choose whole days. If a part of the lake is
    damaged, its day is left out (exit code 3).

    Example: aht-etl compact --lake ./lake --to ./coarse
    """
    from etl.cli.process import log
    from etl.config.redact import Redactor
    from etl.pipeline.job import require_lake

    redactor = Redactor()
    log.configure(log_format, log_level, redactor)
    started_at = datetime.now(UTC)
    with usage_errors(log_format):
        check_report_file(report)
        place, end = _place_and_end(to or [])
        settings, selection = load_selected(
            config,
            started_at,
            account=account,
            from_=from_,
            to=end,
            lookback=None,
            lake__uri=lake,
            compact__uri=place,
            compact__settle=settle,
        )
        if settings.compact.uri is None:
            raise UsageError(
                "compact.uri: is missing; set --to URI, AHT_ETL_COMPACT__URI or the YAML's key"
            )
        require_lake(settings)
    for secret in settings.secret_values():
        redactor.add(secret)

    outcome = _copy(settings, selection, started_at, redactor)
    code = _tell(outcome, redactor, report, log_format, as_json=json_)
    if outcome.error is not None or outcome.signal is not None:
        # A thread may still wait for a disk or a store; nothing that it does counts any more.
        streams.settle()
        os._exit(code)
    raise typer.Exit(code)


def _copy(
    settings: "Settings", selection: "Selection", started_at: datetime, redactor: "Redactor"
) -> "CompactReport":
    """Copy until all is done, a signal comes or it fails; return how it ended."""
    import structlog

    from etl.cli.views.compact import CompactReport
    from etl.config.settings import open_copy, open_lake
    from etl.lake.compact import Copied, Copier
    from etl.model import events
    from etl.model.machine import lack
    from etl.pipeline.defects import explain
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
        if not isinstance(failure, Exception) and lack(failure) is None:
            raise
        if not is_foreseen(failure):
            events.log.debug("command.crashed", exc_info=True)
        error = explain(failure, redactor.text)
    places = settings.lake.uri, str(settings.compact.uri)
    return CompactReport(run_id, started_at, *places, selection, copied, error, stop.signal)


def _tell(
    outcome: "CompactReport",
    redactor: "Redactor",
    report: str | None,
    log_format: "LogFormatName",
    *,
    as_json: bool,
) -> int:
    """Log, print and write what was done; return the exit code."""
    from etl.cli.process import log
    from etl.cli.views.compact import in_one_line, to_text
    from etl.model import events
    from etl.pipeline.tally import write_report

    document, code = redactor.tree(outcome.as_json()), outcome.exit_code
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
        log.complain(f"error: the report: {failure.strerror}", "report.failed", log_format)
        code = code or 1
    # Last of all: it is the line that people look for.
    if outcome.status == "failed":
        log.complain(f"error: {outcome.error}", "compact.failed", log_format)
    elif outcome.status == "interrupted":
        log.complain(in_one_line(document), "compact.interrupted", log_format)
    elif outcome.status == "partial":
        log.complain(in_one_line(document), "compact.partial", log_format)
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
