"""`aht-etl plan`."""

import shutil
import sys
from typing import Annotated, Literal

import typer

from etl.cli.command import Call, command, run_async
from etl.cli.flags import (
    ACCOUNT,
    BASE_URL,
    CONCURRENCY,
    LAKE,
    RAW,
    WINDOW,
    ArchiveOnly,
    FromArchive,
    Json,
    Paths,
    Shard,
)
from etl.cli.views.plan import to_text
from etl.pipeline.plan_report import plan_report


@command("plan.failed", ACCOUNT, BASE_URL, *WINDOW, LAKE, RAW, CONCURRENCY, log_level="warning")
def plan(
    call: Call,
    paths: Paths = None,
    shard: Shard = None,
    from_archive: FromArchive = False,
    archive_only: ArchiveOnly = False,
    by: Annotated[
        Literal["auto", "hour", "day"],
        typer.Option("--by", help="auto: by hour; by day if there are more than 200 hours."),
    ] = "auto",
    json_: Json = False,
) -> None:
    """Show what `run` would load, hour by hour, without fetching or writing anything.

    The exit code is 0 even if files would fail: the plan names them. Files of a damaged partition
    count as to load. With --paths nothing is sent.

    Example: aht-etl plan --account 12345678 --lake ./lake --lookback 48h
    """
    job = call.job(paths, shard, from_archive=from_archive, archive_only=archive_only)
    report = run_async(plan_report(job))
    if json_:
        call.print_json(report.as_json())
        return
    ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
    width = shutil.get_terminal_size().columns
    typer.echo(to_text(report, by, width, ascii_only=ascii_only), nl=False)
