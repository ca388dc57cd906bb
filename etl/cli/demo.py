"""`aht-etl demo`."""

from typing import Annotated

import typer

from etl.cli.command import Call, check_report_file, command, own_name
from etl.cli.flags import Progress, ReportFile
from etl.cli.process.signals import SIGNALS

DemoLake = Annotated[
    str | None,
    typer.Option(
        "--lake",
        metavar="URI",
        help="Where the lake goes, for example ./demo-lake (the default, if it can be written).",
    ),
]


@command("command.failed", log_level="warning")
def demo(
    call: Call,
    lake: DemoLake = None,
    report: ReportFile = None,
    progress: Progress = "auto",
) -> None:
    """Load two days from an emulator of the vendor's API; you need no account.

    Repeat it to see that nothing is loaded twice.

    Example: aht-etl demo --lake ./demo-lake
    """
    from etl.cli import demonstration
    from etl.pipeline.job import Job

    with demonstration.served() as emulator:
        check_report_file(report)
        place = demonstration.choose_place() if lake is None else lake
        settings = demonstration.settings(place, emulator)
        SIGNALS.defer()
        job = Job(settings, demonstration.WINDOW, demonstration.NOW, call.redactor)
        if report != "-":
            typer.echo(demonstration.introduction(emulator, settings.lake.uri))
        from etl.cli.execution import execute

        code = execute(job, progress, call.log_format, report)
    if report != "-" and code == 0:
        text = demonstration.epilogue(settings.lake.uri, own_name(), named=lake is not None)
        typer.echo(text)
    raise typer.Exit(code)
