"""`aht-etl run`."""

import typer

from etl.cli.common import check_report_file, prepare, usage_errors
from etl.cli.configured import by_key
from etl.cli.flags import (
    Account,
    ArchiveOnly,
    BaseUrl,
    Concurrency,
    Config,
    DaskScheduler,
    DaskWorkers,
    Engine,
    From,
    FromArchive,
    Lake,
    LogFormat,
    Lookback,
    Paths,
    Progress,
    Raw,
    ReportFile,
    RunLogLevel,
    ShardOption,
    To,
)


def run(
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
    engine: Engine = None,
    dask_scheduler: DaskScheduler = None,
    dask_workers: DaskWorkers = None,
    report: ReportFile = None,
    progress: Progress = "auto",
    log_format: LogFormat = "auto",
    log_level: RunLogLevel = None,
) -> None:
    """Load the files that are listed and not yet in the lake.

    It is safe to repeat, to interrupt, and to overlap with another run.

    Example: aht-etl run --account 12345678 --lake ./lake --lookback 48h
    """
    from etl.cli.process import log
    from etl.config.redact import Redactor

    redactor = Redactor()
    log.configure(log_format, log_level, redactor)
    span = (from_, to, lookback)
    where = (engine, dask_scheduler, dask_workers)
    flags = by_key(account, base_url, *span, lake, raw, concurrency, *where)
    with usage_errors(log_format):
        check_report_file(report)
        job = prepare(
            flags,
            config,
            paths,
            shard,
            redactor,
            from_archive=from_archive,
            archive_only=archive_only,
        )
        # Behind `prepare`, which imports aiohttp in a way of its own.
        from etl.pipeline.engine import require_engine

        require_engine(job.settings)
    from etl.cli.execution import execute

    raise typer.Exit(execute(job, progress, log_format, report))
