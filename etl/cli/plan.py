"""`aht-etl plan`."""

import shutil
import sys
from typing import Annotated, Literal

import typer

from etl.cli.common import failures, prepare, usage_errors
from etl.cli.configured import by_key
from etl.cli.flags import (
    Account,
    ArchiveOnly,
    BaseUrl,
    Concurrency,
    Config,
    From,
    FromArchive,
    Json,
    Lake,
    LogFormat,
    LogLevel,
    Lookback,
    Paths,
    Raw,
    ShardOption,
    To,
)


def plan(
    config: Config = None,
    account: Account = None,
    base_url: BaseUrl = None,
    from_: From = None,
    to: To = None,
    lookback: Lookback = None,
    paths: Paths = None,
    lake: Lake = None,
    raw: Raw = None,
    concurrency: Concurrency = None,
    shard: ShardOption = None,
    from_archive: FromArchive = False,
    archive_only: ArchiveOnly = False,
    by: Annotated[
        Literal["auto", "hour", "day"],
        typer.Option("--by", help="auto: by hour; by day if there are more than 200 hours."),
    ] = "auto",
    json_: Json = False,
    log_format: LogFormat = "auto",
    log_level: LogLevel = "warning",
) -> None:
    """Show what `run` would load, hour by hour, without fetching or writing anything.

    The exit code is 0 even if files would fail: the plan names them. Files of a damaged partition
    count as to load. With --paths nothing is sent.

    Example: aht-etl plan --account 12345678 --lake ./lake --lookback 48h
    """
    import json

    from etl.cli.process import log
    from etl.cli.process.signals import SIGNALS
    from etl.cli.views.plan import to_text
    from etl.config.redact import Redactor
    from etl.pipeline.library import plan_of

    redactor = Redactor()
    log.configure(log_format, log_level, redactor)
    flags = by_key(account, base_url, from_, to, lookback, lake, raw, concurrency)
    with usage_errors(log_format):
        job = prepare(
            flags,
            config,
            paths,
            shard,
            redactor,
            from_archive=from_archive,
            archive_only=archive_only,
        )

    with failures("plan.failed", log_format, redactor):
        report = SIGNALS.run(plan_of(job))
    if json_:
        typer.echo(json.dumps(redactor.tree(report.as_json()), indent=2))
        return
    ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
    width = shutil.get_terminal_size().columns
    typer.echo(to_text(report, by, width, ascii_only=ascii_only), nl=False)
