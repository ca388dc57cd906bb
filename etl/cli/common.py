"""What several commands share: flags into settings, windows, jobs, errors of usage."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import typer

from etl.cli.configured import configured
from etl.model.errors import UsageError, is_foreseen

if TYPE_CHECKING:
    from etl.cli.process.log import LogFormat as LogFormatName
    from etl.config.redact import Redactor
    from etl.pipeline.job import Job


def called_as() -> str:
    """Return what to type to call this very command again."""
    called = Path(sys.argv[0])
    on_path = shutil.which("aht-etl")
    if called.name != "aht-etl" or (on_path and Path(on_path).samefile(called)):
        return "aht-etl"
    return shlex.quote(str(called))


@contextmanager
def usage_errors(log_format: "LogFormatName") -> Iterator[None]:
    """End with exit code 2 and one line when the block finds wrong usage or configuration."""
    try:
        yield
    except UsageError as error:
        from etl.cli.process import log

        log.complain(f"wrong usage: {error}", "usage.wrong", log_format)
        raise typer.Exit(2) from None


@contextmanager
def failures(event: str, log_format: "LogFormatName", redactor: "Redactor") -> Iterator[None]:
    """End with exit code 1 and one line when the block fails, foreseen or not.

    The line is logged as `event`; what nobody foresaw has a traceback at `debug`.
    """
    try:
        yield
    except typer.Exit:
        raise
    except Exception as failure:  # noqa: BLE001 - the outermost boundary: one line says why
        from etl.cli.process import log
        from etl.model import events
        from etl.pipeline.defects import explain

        if not is_foreseen(failure):
            events.log.debug("command.crashed", exc_info=True)
        log.complain(f"error: {explain(failure, redactor.text)}", event, log_format)
        raise typer.Exit(1) from None


def prepare(
    flags: dict[str, str | None],
    config: Path | None,
    paths: str | None,
    shard: str | None,
    redactor: "Redactor",
    *,
    from_archive: bool,
    archive_only: bool,
) -> "Job":
    """Return the job that the flags and all other sources describe; UsageError where none."""
    from etl.api.network import import_aiohttp

    import_aiohttp()
    from etl.pipeline.job import LONGEST_WINDOW, new_job, parse_shard, require, settle_window

    settings = configured(config, flags).settings
    require(settings, from_archive=from_archive, archive_only=archive_only)
    now = datetime.now(UTC)
    # A list of paths has no window; one that is configured is for other runs.
    longest = None if from_archive else LONGEST_WINDOW
    window = settle_window(settings, now, longest=longest) if paths is None else None
    job = new_job(settings, window, now, redactor)
    job.from_archive, job.archive_only = from_archive, archive_only
    job.shard = parse_shard(shard)
    if paths is not None:
        job.saved_listing = open_paths(paths)
    return job


def open_paths(file: str) -> BinaryIO:
    """Open the file of `--paths`; UsageError where it cannot be read."""
    try:
        return sys.stdin.buffer if file == "-" else Path(file).open("rb")
    except OSError as error:
        raise UsageError(f"--paths {file}: cannot be read: {error.strerror}") from None


def check_report_file(report: str | None) -> None:
    """Raise UsageError where no report could be written at the end."""
    if report is None or report == "-":
        return
    folder = Path(report).parent
    if Path(report).is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UsageError(f"--report {report}: not a file in a folder that can be written to")
