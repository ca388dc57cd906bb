"""`aht-etl run`."""

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import structlog
import typer

from etl.cli import log
from etl.cli.command import Call, check_report_file, command, deliver
from etl.cli.flags import RUN, ArchiveOnly, FromArchive, Paths, Progress, ReportFile, Shard
from etl.cli.log import LogFormat, cause_of
from etl.cli.process import SIGNALS, leave
from etl.cli.progress import ProgressMode, shown
from etl.model.text import one_line, size
from etl.pipeline import run as pipeline
from etl.pipeline.job import Job
from etl.pipeline.report import EXIT_FAILED, EXIT_OK, Report
from etl.pipeline.state import FailedFile, RunState
from etl.pipeline.stop import Stop
from etl.pipeline.threads import threads_for


@command("run.failed", *RUN, default_log_level=None)
def run(
    call: Call,
    paths: Paths = None,
    shard: Shard = None,
    from_archive: FromArchive = False,
    archive_only: ArchiveOnly = False,
    report: ReportFile = None,
    progress: Progress = "auto",
) -> None:
    """Load the files that are listed and not yet in the lake.

    It is safe to repeat, to interrupt, and to overlap with another run.

    Example: aht-etl run --account 12345678 --lake ./lake --lookback 48h
    """
    check_report_file(report)
    job = call.job(paths, shard, from_archive=from_archive, archive_only=archive_only)
    raise typer.Exit(execute(job, progress, call.log_format, report))


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

    def deliver_report(report: Report) -> int:
        nonlocal exit_code  # not the report's if the report cannot be written
        exit_code = report.exit_code
        SIGNALS.take_back(asyncio.get_running_loop())
        try:
            lake, archive = job.settings.lake.uri, job.settings.raw.uri
            text = to_text(report, lake, archive if job.archive_only else None)
            deliver(report.as_json() if report_file else {}, text, report_file)
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
        return await pipeline.run(job, stop, watch, deliver_report)

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
        leave(exit_code)
    with suppress(RuntimeError):  # closing starts a thread that joins the idle ones
        runner.close()
    return exit_code


_SHOWN_CAUSES: Final = 10
_SHOWN_WINDOWS: Final = 10
_LONGEST_PATH: Final = 300


def to_text(report: Report, lake: str, archive: str | None = None) -> str:
    """Return what a run did and what to do next; `archive` is what it filled instead of a lake."""
    files, rows, moved = report.files, report.rows, report.bytes
    lines = [f"{report.status} in {report.duration_seconds:.1f} s: {_counted(report)}"]
    lines.append(f"  {'archive' if archive else 'lake':<14} {one_line(archive or lake)}")
    if not files.listed:
        return "\n".join(lines + _windows(report)) + "\n"
    lines += [
        f"  loaded         {files.loaded:>12,} files  "
        + (
            "kept; run --from-archive loads them into the lake"
            if archive
            else f"{rows.loaded:,} rows in {len(report.parts):,} parts"
        ),
        f"  already loaded {files.already_loaded:>12,} files",
    ]
    for key, words in (
        ("failed", "will be tried again by the next run"),
        ("invalid", "not a path of the API, never requested"),
        ("skipped", "by fetch.skip"),
        ("not_attempted", "left to the next run"),
    ):
        if count := getattr(files, key):
            lines.append(f"  {key.replace('_', ' '):<14} {count:>12,} files  {words}")
    if rows.quarantined:
        lines.append(
            f"  bad rows       {rows.quarantined:>12,}        in {one_line(lake)}/_quarantine"
        )
    lines.append(
        f"  moved          {size(moved.downloaded):>12}  came down, "
        f"{size(moved.decompressed)} unpacked, {size(moved.written)} of Parquet written"
    )
    lines += _windows(report) + _causes(report.failures)
    return "\n".join(lines) + "\n"


def _counted(report: Report) -> str:
    files = report.files
    if not files.listed:
        return "nothing is listed" if report.status == "ok" else "nothing was listed yet"
    counted = [f"{files.listed:,} files listed", f"{files.loaded:,} loaded"]
    if files.failed:
        counted.append(f"{files.failed:,} failed")
    return ", ".join(counted)


def _windows(report: Report) -> list[str]:
    """Return a line for each window whose listing is not whole."""
    lines = []
    for name, windows, words in (
        ("partial", report.listing.partial_windows, "the vendor misses paths"),
        (
            "unanswered",
            report.listing.unanswered_windows,
            "not answered by the API; the next run asks again",
        ),
    ):
        lines += [f"  {name:<14} {window}: {words}" for window in windows[:_SHOWN_WINDOWS]]
        if len(windows) > _SHOWN_WINDOWS:
            more = len(windows) - _SHOWN_WINDOWS
            lines.append(f"  … and {more:,} more such windows; --report FILE has them all")
    return lines


def _causes(failures: Sequence[FailedFile]) -> list[str]:
    """Return a line for each cause, the most frequent first, with one file as an example."""
    by_cause: dict[tuple[str, str], list[FailedFile]] = {}
    for failure in failures:
        by_cause.setdefault((failure.kind, cause_of(failure.message)), []).append(failure)
    causes = sorted(by_cause.values(), key=len, reverse=True)
    lines = []
    for files in causes[:_SHOWN_CAUSES]:
        first = files[0]
        many = f"{len(files):,} files, for example " if len(files) > 1 else ""
        path = one_line(first.path[:_LONGEST_PATH])
        lines.append(f"  {first.kind}: {many}{path}: {one_line(first.message)}")
    if len(causes) > _SHOWN_CAUSES:
        more = sum(map(len, causes[_SHOWN_CAUSES:]))
        lines.append(f"  … and {more:,} more files; --report FILE has them all")
    return lines
