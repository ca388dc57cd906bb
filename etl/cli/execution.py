"""One execution of the job: signals heard, progress shown, report written, exit code known."""

import asyncio
import gc
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog

from etl.cli.process import log, streams
from etl.cli.process.log import LogFormat
from etl.cli.process.signals import SIGNALS
from etl.cli.views.progress import ProgressMode, shown
from etl.cli.views.summary import to_text
from etl.model import events
from etl.model.errors import is_expected
from etl.model.machine import resource_shortage
from etl.pipeline import run as pipeline
from etl.pipeline.defects import explain
from etl.pipeline.job import Job
from etl.pipeline.report import in_one_line
from etl.pipeline.resources import threads_for
from etl.pipeline.stop import to_its_end
from etl.pipeline.tally import write_report

# When the grace is over, the last commits may take five seconds more (etl.pipeline.gather).
_BEYOND_GRACE_S: Final = 10.0


def execute(
    job: Job, progress: ProgressMode, log_format: LogFormat, report_file: str | None
) -> int:
    """Run the job to its end, whatever that is; write the report; return the exit code.

    After a signal or an error it does not return: the process ends here.
    """
    structlog.contextvars.bind_contextvars(run_id=job.tally.run_id)
    gc.freeze()  # what was imported is no garbage and need not be looked through again
    runner = asyncio.Runner()
    error = _error_of(job, runner, progress, log_format)
    report = job.tally.to_report(error, job.stop.signal)
    code: int = report["exit_code"]
    _log_end(report)
    try:
        _write(job.redactor.tree(report), report_file, job)
    except OSError as failure:
        log.complain(f"error: the report: {failure.strerror}", "report.failed", log_format)
        code = code or 1
    if job.settings.metrics.configured:
        from etl.pipeline import metrics

        metrics.publish(report, code, job.shard, job.settings.metrics)
    # Last of all: it is the line that people look for.
    if error is not None and report["exit_code"] == 1:
        log.complain(f"error: {error}", "run.failed", log_format)
    elif report["exit_code"]:
        line = job.redactor.text(in_one_line(report))
        log.complain(line, "run.interrupted" if job.stop.signal else "run.partial", log_format)
    if error is not None or job.stop.signal is not None:
        # Threads cannot be cancelled, and may wait for a disk or a store that does not answer.
        # Nothing that they do counts any more.
        streams.settle()
        os._exit(code)
    with suppress(RuntimeError):  # it starts a thread to end the others, which are idle
        runner.close()
    return code


def _error_of(
    job: Job, runner: asyncio.Runner, progress: ProgressMode, log_format: LogFormat
) -> str | None:
    """Run the job; return why it failed, in one line, or None."""

    async def go() -> None:
        loop = asyncio.get_running_loop()
        SIGNALS.hand_to(job.stop, loop)
        loop.set_default_executor(threads_for(job.settings))
        grace_s = job.settings.shutdown.grace.total_seconds()
        try:
            async with shown(job, progress, live=not log.is_json(log_format)):
                await to_its_end(pipeline.run(job), job.stop, grace_s + _BEYOND_GRACE_S)
        finally:
            SIGNALS.take_back(loop)

    try:
        runner.run(go())
    except BaseException as failure:
        # What obstore raises where it gets no thread is no Exception.
        if not isinstance(failure, Exception) and resource_shortage(failure) is None:
            raise
        if not is_expected(failure):
            events.log.debug("run.crashed", exc_info=True)
        return explain(failure, job.redactor.text)
    return None


def _log_end(report: dict[str, Any]) -> None:
    """Log the one summary of a run; why it failed is said once, by `run.failed`."""
    events.log.info(
        "run.finished",
        status=report["status"],
        exit_code=report["exit_code"],
        duration_seconds=report["duration_seconds"],
        newest_complete_hour=report["newest_complete_hour"],
        **report["files"],
        rows=report["rows"]["loaded"],
        bad_rows=report["rows"]["quarantined"],
        bytes_downloaded=report["bytes"]["downloaded"],
        bytes_written=report["bytes"]["written"],
        requests=report["http"]["requests"],
        retries=report["http"]["retries"],
        throttled=report["http"]["throttled"],
    )


def _write(report: dict[str, Any], report_file: str | None, job: Job) -> None:
    """Write the report and, if standard output is not its place, the summary. Raises OSError."""
    if report_file == "-":
        print(json.dumps(report, indent=2), flush=True)  # noqa: T201
        return
    try:
        if report_file is not None:
            write_report(report, Path(report_file))
    finally:
        with suppress(OSError):  # who does not read on did not want to know
            lake, archive = job.settings.lake.uri, job.settings.raw.uri
            text = to_text(report, lake, archive if job.archive_only else None)
            print(text, end="", flush=True)  # noqa: T201
