"""`aht-etl run`."""

import os
from datetime import UTC, datetime

import typer

from etl.cli.common import (
    check_report_file,
    nested,
    new_job,
    open_paths,
    parse_shard,
    settle_window,
    usage_errors,
)
from etl.cli.flags import (
    Account,
    BaseUrl,
    Concurrency,
    Config,
    From,
    Lake,
    LogFormat,
    LogLevel,
    Lookback,
    Paths,
    Progress,
    ReportFile,
    ShardOption,
    To,
)
from etl.errors import UsageError


def run(
    config: Config = None,
    account: Account = None,
    base_url: BaseUrl = None,
    from_: From = None,
    to: To = None,
    lookback: Lookback = None,
    paths: Paths = None,
    lake: Lake = None,
    concurrency: Concurrency = None,
    shard: ShardOption = None,
    report: ReportFile = None,
    progress: Progress = "auto",
    log_format: LogFormat = "auto",
    log_level: LogLevel = "info",
) -> None:
    """Load what is listed and not yet in the lake.

    Safe to repeat, to interrupt, and to overlap with another run.

    Example: aht-etl run --account 12345678 --lake ./lake --lookback 48h
    """
    from etl import log
    from etl.redact import Redactor
    from etl.sources import load

    redactor = Redactor()
    log.configure(log_format, log_level, redactor)
    flags = {
        "account": account,
        "api.base_url": base_url,
        "window.from": from_,
        "window.to": to,
        "window.lookback": lookback,
        "lake.uri": lake,
        "fetch.concurrency": concurrency,
    }
    nested_flags = nested(flags)
    if lookback is not None and from_ is None:
        # A begin that stands in a weaker source must not make this flag a silent nothing.
        nested_flags["window"]["from"] = None
    with usage_errors(log_format):
        settings = load(nested_flags, config, os.environ)
        if settings.account is None:
            raise UsageError(
                "account: is missing; set --account, AHT_ETL_ACCOUNT or the YAML's key"
            )
        now = datetime.now(UTC)
        # A list of paths has no window; one that is configured is for other runs.
        window = settle_window(settings, now) if paths is None else None
        parsed_shard = parse_shard(shard)
        check_report_file(report)
        listing = open_paths(paths) if paths is not None else None

    job = new_job(settings, window, now, redactor)
    job.saved_listing, job.shard = listing, parsed_shard
    from etl.execution import execute

    raise typer.Exit(execute(job, progress, log_format, report))
