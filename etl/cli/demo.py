"""`aht-etl demo`."""

from typing import Annotated

import typer

from etl.cli.common import called_as, check_report_file, usage_errors
from etl.cli.flags import LogFormat, LogLevel, Progress, ReportFile
from etl.cli.process.signals import SIGNALS

DemoLake = Annotated[
    str | None,
    typer.Option(
        "--lake",
        metavar="URI",
        help="Where the lake goes, for example ./demo-lake (the default, if it can be written).",
    ),
]


def demo(
    lake: DemoLake = None,
    report: ReportFile = None,
    progress: Progress = "auto",
    log_format: LogFormat = "auto",
    log_level: LogLevel = "warning",
) -> None:
    """Load two days from an emulator of the vendor's API; you need no account.

    Repeat it to see that nothing is loaded twice.

    Example: aht-etl demo --lake ./demo-lake
    """
    from etl.cli import demonstration
    from etl.cli.process import log
    from etl.config.redact import Redactor
    from etl.pipeline.job import new_job

    redactor = Redactor()
    log.configure(log_format, log_level, redactor)
    with usage_errors(log_format), demonstration.served() as emulator:
        check_report_file(report)
        place = demonstration.choose_place() if lake is None else lake
        settings = demonstration.settings(place, emulator)
        SIGNALS.defer()
        job = new_job(settings, demonstration.WINDOW, demonstration.NOW, redactor)
        if report != "-":
            typer.echo(demonstration.introduction(emulator, settings.lake.uri))
        from etl.cli.execution import execute

        code = execute(job, progress, log_format, report)
    if report != "-" and code == 0:
        text = demonstration.epilogue(settings.lake.uri, called_as(), named=lake is not None)
        typer.echo(text)
    raise typer.Exit(code)
