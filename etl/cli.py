"""The command line: alone reads arguments and environment, sets up logs and signals.

Heavy imports wait inside the commands until one needs them: `aht-etl --version` is quick.
"""

import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final, Literal

import typer

from etl import __version__, streams
from etl.errors import UsageError
from etl.flags import (
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
from etl.signals import HANDLED, SIGNALS

if TYPE_CHECKING:
    from etl.log import LogFormat as LogFormatName
    from etl.pipeline import Job
    from etl.plan import Shard
    from etl.redact import Redactor
    from etl.settings import Settings
    from etl.times import Window

_SHARD: Final = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")

app = typer.Typer(
    name="aht-etl",
    help=(
        "Loads LivePerson's Actual Handle Time files into a partitioned Parquet lake: "
        "completely, exactly once, unattended."
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; the entry point of `aht-etl`."""
    # Before anything heavy is imported: from here on a signal ends with the promised exit code,
    # also as process 1 of a container, for which the kernel ignores unhandled ones. A run keeps
    # the first for the job that it prepares: there is to be a report.
    if sys.argv[1:2] == ["run"]:
        SIGNALS.defer()
    for number in HANDLED:
        signal.signal(number, SIGNALS)
    streams.guard()
    try:
        app()
    finally:
        streams.settle()


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"aht-etl {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


@app.command()
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
    """Load what is listed and not yet in the lake; safe to repeat, interrupt and overlap.

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
    nested = _nested(flags)
    if lookback is not None and from_ is None:
        # A begin that stands in a weaker source must not make this flag a silent nothing.
        nested["window"]["from"] = None
    with _usage_errors(log_format):
        settings = load(nested, config, os.environ)
        if settings.account is None:
            raise UsageError(
                "account: is missing; set --account, AHT_ETL_ACCOUNT or the YAML's key"
            )
        now = datetime.now(UTC)
        # A list of paths has no window; one that is configured is for other runs.
        window = _window(settings, now) if paths is None else None
        parsed_shard = _shard(shard)
        _check_report_file(report)
        listing = _open_paths(paths) if paths is not None else None

    job = _new_job(settings, window, now, redactor)
    job.saved_listing, job.shard = listing, parsed_shard
    from etl.execution import execute

    raise typer.Exit(execute(job, progress, log_format, report))


@app.command()
def demo(
    lake: Lake = "./demo-lake",
    report: ReportFile = None,
    progress: Progress = "auto",
    log_format: LogFormat = "auto",
    log_level: LogLevel = "warning",
) -> None:
    """Load two days from the emulator, no account needed; repeat it to see nothing loaded twice.

    Example: aht-etl demo --lake ./demo-lake
    """
    from etl import demo as demonstration
    from etl import log
    from etl.redact import Redactor

    redactor = Redactor()
    log.configure(log_format, log_level, redactor)
    with _usage_errors(log_format), demonstration.served() as emulator:
        _check_report_file(report)
        settings = demonstration.settings(lake or "./demo-lake", emulator)
        SIGNALS.defer()
        job = _new_job(settings, demonstration.WINDOW, demonstration.NOW, redactor)
        if report != "-":
            typer.echo(demonstration.introduction(emulator))
        from etl.execution import execute

        code = execute(job, progress, log_format, report)
    if report != "-" and code == 0:
        typer.echo(demonstration.epilogue(settings.lake.uri, _called_as()))
    raise typer.Exit(code)


@app.command()
def emulator(
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="On 127.0.0.1; 0 is any free one.")
    ] = 8080,
    account: Annotated[
        str, typer.Option("--account", metavar="ID", help="Whose data it is.")
    ] = "le79344075",
    from_: Annotated[
        str | None, typer.Option("--from", metavar="T", help="Begin of the data, else 2 days ago.")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="T", help="End of the data, else tomorrow.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed, the same data.")] = 1,
    files_per_hour: Annotated[
        float, typer.Option("--files-per-hour", min=0, help="On average; more by day.")
    ] = 3,
    rows_per_file: Annotated[
        float, typer.Option("--rows-per-file", min=0, help="The median; sizes differ widely.")
    ] = 300,
    mixed_shapes: Annotated[
        bool, typer.Option("--mixed-shapes", help="Files in all documented forms, not only lines.")
    ] = False,
    auth: Annotated[
        Literal["none", "oauth1", "oauth2"], typer.Option("--auth", help="What callers need.")
    ] = "none",
    latency: Annotated[
        str, typer.Option("--latency", metavar="DURATION", help="Before each answer.")
    ] = "0s",
    rate: Annotated[
        float | None, typer.Option("--rate", help="Requests a second; more are answered 429.")
    ] = None,
    at_once: Annotated[
        int | None, typer.Option("--at-once", help="Requests at once; more are answered 429.")
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            "--fault",
            metavar="ENDPOINT:KIND[:TIMES]",
            help=(
                "Something to go wrong, once or TIMES times or 'always'; may be repeated. For "
                "example file:503:2, listing:429, file:reset_middle:always."
            ),
        ),
    ] = None,
) -> None:
    """Serve the API's stand-in on loopback, for trying things out.

    Example: aht-etl emulator --auth oauth1 --mixed-shapes --fault file:503:5
    """
    from etl import serve

    with _usage_errors("console"):
        dataset = serve.dataset(
            account, from_, to, seed, files_per_hour, rows_per_file, mixed_shapes=mixed_shapes
        )
        options = serve.options(auth, latency, rate, at_once, fault or [])
    try:
        serve.serve(dataset, options, port, account, _called_as())
    except OSError as error:
        typer.echo(f"aht-etl: error: port {port}: {error.strerror}; try --port", err=True)
        raise typer.Exit(1) from None


def _called_as() -> str:
    """Return what to type to call this very command again."""
    called = Path(sys.argv[0])
    on_path = shutil.which("aht-etl")
    if called.name != "aht-etl" or (on_path and Path(on_path).samefile(called)):
        return "aht-etl"
    return shlex.quote(str(called))


@contextmanager
def _usage_errors(log_format: "LogFormatName") -> Iterator[None]:
    """End with exit code 2 and one line when the block finds wrong usage or configuration."""
    try:
        yield
    except UsageError as error:
        from etl import log

        log.complain(f"wrong usage: {error}", "usage.wrong", log_format)
        raise typer.Exit(2) from None


def _new_job(
    settings: "Settings", window: "Window | None", now: datetime, redactor: "Redactor"
) -> "Job":
    import uuid

    from etl.pipeline import Job
    from etl.report import Tally

    for secret in settings.secret_values():
        redactor.add(secret)
    account = settings.account or ""
    tally = Tally(str(uuid.uuid4()), account, window, datetime.now(UTC))
    return Job(settings, account, window, tally, now, redactor=redactor)


def _nested(flags: dict[str, str | None]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flags.items():
        if value is not None:
            section, _, name = key.rpartition(".")
            (nested.setdefault(section, {}) if section else nested)[name] = value
    return nested


def _window(settings: "Settings", now: datetime) -> "Window":
    from etl.times import Window, rfc3339, whole_millis

    end = whole_millis(settings.window.end or now)
    try:
        start = whole_millis(settings.window.start or end - settings.window.lookback)
    except OverflowError:
        raise UsageError("--lookback: reaches back before the year 1") from None
    if start >= end:
        raise UsageError(f"--from {rfc3339(start)} is not before --to {rfc3339(end)}")
    return Window(start, end)


def _shard(text: str | None) -> "Shard":
    from etl.plan import Shard

    if text is None:
        return Shard()
    match = _SHARD.fullmatch(text)
    if match is None or int(match[1]) >= int(match[2]):
        raise UsageError(f"--shard {text}: write I/N with I from 0 to N-1, for example 0/4")
    return Shard(int(match[1]), int(match[2]))


def _open_paths(file: str) -> BinaryIO:
    try:
        return sys.stdin.buffer if file == "-" else Path(file).open("rb")
    except OSError as error:
        raise UsageError(f"--paths {file}: cannot be read: {error.strerror}") from None


def _check_report_file(report: str | None) -> None:
    if report is None or report == "-":
        return
    folder = Path(report).parent
    if Path(report).is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UsageError(f"--report {report}: not a file in a folder that can be written to")
