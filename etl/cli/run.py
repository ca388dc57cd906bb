"""`aht-etl run`."""

import typer

from etl.cli.command import Call, check_report_file, command
from etl.cli.execution import execute
from etl.cli.flags import RUN, ArchiveOnly, FromArchive, Paths, Progress, ReportFile, Shard


@command("run.failed", *RUN, log_level=None)
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
