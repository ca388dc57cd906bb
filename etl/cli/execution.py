"""One run of the job by the command: signals, terminal, report file, exit code."""

import asyncio
import gc
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog

from etl.cli.process import log, streams
from etl.cli.process.log import LogFormat
from etl.cli.process.signals import SIGNALS
from etl.cli.views.progress import ProgressMode, shown
from etl.cli.views.summary import to_text
from etl.pipeline import run as pipeline
from etl.pipeline.job import Job
from etl.pipeline.report import EXIT_FAILED, EXIT_OK, Report, write_report
from etl.pipeline.resources import threads_for
from etl.pipeline.state import RunState
from etl.pipeline.stop import Stop


def execute(
    job: Job, progress: ProgressMode, log_format: LogFormat, report_file: str | None
) -> int:
    """Run the job to its end, write the report and return the exit code.

    After a signal or an error it does not return: the process ends here.
    """
    structlog.contextvars.bind_contextvars(run_id=job.run_id)
    gc.freeze()  # modules are no garbage: the collector need not look through them again
    stop = Stop()
    exit_code = EXIT_OK

    def deliver(report: Report) -> int:
        nonlocal exit_code
        exit_code = report.exit_code
        SIGNALS.take_back(asyncio.get_running_loop())
        try:
            _write(report, report_file, job)
        except OSError as failure:
            log.complain(f"error: the report: {failure.strerror}", "report.failed", log_format)
            exit_code = exit_code or EXIT_FAILED
        return exit_code

    @asynccontextmanager
    async def watch(state: RunState, stop: Stop) -> AsyncIterator[None]:
        # Here, so that the report says if there is no thread.
        asyncio.get_running_loop().set_default_executor(threads_for(job.settings))
        async with shown(state, stop, progress, live=not log.is_json(log_format)):
            yield

    async def go() -> Report:
        SIGNALS.hand_to(stop, asyncio.get_running_loop())
        return await pipeline.run(job, stop, watch, deliver)

    runner = asyncio.Runner()
    report = runner.run(go())
    # The last line, because people look for it there.
    if report.exit_code == EXIT_FAILED:
        log.complain(f"error: {report.error}", "run.failed", log_format)
    elif report.exit_code != EXIT_OK:
        event = "run.partial" if stop.signal is None else "run.interrupted"
        log.complain(report.in_one_line(), event, log_format)
    if report.error is not None or stop.signal is not None:
        # Threads cannot be cancelled, and may wait for a disk or a store that does not answer.
        # Nothing that they do matters any more.
        streams.settle()
        os._exit(exit_code)
    with suppress(RuntimeError):  # it starts a thread to end the others, which are idle
        runner.close()
    return exit_code


def _write(report: Report, report_file: str | None, job: Job) -> None:
    """Write the report and, if it does not go to standard output, the summary. Raises OSError."""
    if report_file == "-":
        print(json.dumps(report.as_json(), indent=2), flush=True)  # noqa: T201
        return
    try:
        if report_file is not None:
            write_report(report.as_json(), Path(report_file))
    finally:
        with suppress(OSError):  # the reader has closed the pipe
            lake, archive = job.settings.lake.uri, job.settings.raw.uri
            text = to_text(report, lake, archive if job.archive_only else None)
            print(text, end="", flush=True)  # noqa: T201
