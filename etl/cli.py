"""The command line: alone reads arguments and environment, sets up logs and signals.

Heavy imports wait inside the commands until one needs them: `aht-etl --version` is quick.
"""

import asyncio
import json
import os
import re
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn

import typer

from etl import __version__
from etl.errors import AhtEtlError, UsageError

if TYPE_CHECKING:
    from etl.log import LogFormat as LogFormatName
    from etl.pipeline import Job
    from etl.plan import Shard
    from etl.progress import ProgressMode
    from etl.settings import Settings
    from etl.stop import Stop
    from etl.times import Window

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
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

Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="YAML with the configuration.")
]
Account = Annotated[
    str | None, typer.Option("--account", metavar="ID", help="The vendor's account (site) id.")
]
BaseUrl = Annotated[
    str | None,
    typer.Option("--base-url", metavar="URL", help="The API's host; else it is looked up."),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="T",
        help="Begin of the window: 2022-06-01T00:00:00Z, 2022-06-01 or epoch milliseconds.",
    ),
]
To = Annotated[str | None, typer.Option("--to", metavar="T", help="End of the window, else now.")]
Lookback = Annotated[
    str | None,
    typer.Option(
        "--lookback", metavar="DURATION", help="Window without --from: 90s, 48h, 7d (default)."
    ),
]
Paths = Annotated[
    str | None,
    typer.Option(
        "--paths",
        metavar="FILE|-",
        help="Saved Breakdown answers, or one path a line, instead of a listing; - is stdin.",
    ),
]
Lake = Annotated[
    str | None, typer.Option("--lake", metavar="URI", help="The lake's folder (default ./lake).")
]
Concurrency = Annotated[
    str | None,
    typer.Option("--concurrency", metavar="N", help="Requests in flight at most (default 16)."),
]
ShardOption = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Load the I-th (from 0) of N disjoint shares."),
]
ReportFile = Annotated[
    str | None,
    typer.Option("--report", metavar="FILE", help="Write the JSON report here; - is stdout."),
]
Progress = Annotated[
    Literal["auto", "on", "off"], typer.Option("--progress", help="Show how far the run is.")
]
LogFormat = Annotated[
    Literal["auto", "console", "json"],
    typer.Option("--log-format", help="auto: readable on a terminal, JSON elsewhere."),
]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"],
    typer.Option("--log-level", help="The least that is logged."),
]


def main() -> None:
    """Run the command line; the entry point of `aht-etl`."""
    # Before anything heavy is imported: from here on a signal ends with the promised exit code,
    # also as process 1 of a container, for which the kernel ignores unhandled ones.
    for number in _SIGNALS:
        signal.signal(number, _signals)
    app()


class _Signals:
    """Tells the job to end at the first signal, ends the process at the second.

    Without a job to report on, it ends at the first.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self._deferred = False
        self._stop: Stop | None = None

    def __call__(self, number: int, _frame: FrameType | None = None) -> None:
        if self.first is not None or not self._deferred:
            os._exit(128 + number)
        self.first = number
        if self._stop is not None:
            self._stop.request(signal=number)

    def defer(self) -> None:
        """From now on there will be a job to report on: keep the first signal for it."""
        self._deferred = True

    def hand_to(self, stop: "Stop", loop: asyncio.AbstractEventLoop) -> None:
        """From now on tell the job itself, inside its loop."""
        self._stop = stop
        for number in _SIGNALS:
            loop.add_signal_handler(number, self, number)
        if self.first is not None:
            stop.request(signal=self.first)


_signals = _Signals()


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
    from etl.settings import load

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
    try:
        settings = load(_nested(flags), config, os.environ)
        for secret in settings.secret_values():
            redactor.add(secret)
        if settings.account is None:
            raise UsageError(
                "account: is missing; set --account, AHT_ETL_ACCOUNT or the YAML's key"
            )
        if paths is not None and (from_ or to or lookback):
            raise UsageError(
                "--paths takes its files from a list; --from, --to and --lookback do not go with it"
            )
        now = datetime.now(UTC)
        window = _window(settings, now) if paths is None else None
        parsed_shard = _shard(shard)
        _check_report_file(report)
        listing = _read_paths(paths) if paths is not None else None
    except UsageError as error:
        _complain(f"wrong usage: {error}", "usage.wrong", log_format)
        raise typer.Exit(2) from None

    _signals.defer()
    from etl.pipeline import Job
    from etl.report import Tally

    tally = Tally(_new_run_id(), settings.account, window, now)
    job = Job(
        settings, settings.account, window, listing, tally, now, parsed_shard, redactor=redactor
    )
    _finish(_execute(job, progress, log_format, report))


@app.command()
def emulator() -> None:
    """Placeholder"""


def _nested(flags: dict[str, str | None]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flags.items():
        if value is not None:
            section, _, name = key.rpartition(".")
            (nested.setdefault(section, {}) if section else nested)[name] = value
    return nested


def _window(settings: "Settings", now: datetime) -> "Window":
    from etl.times import Window, rfc3339

    end = settings.window.end or now
    try:
        start = settings.window.start or end - settings.window.lookback
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


def _read_paths(file: str) -> str:
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"--paths {file}: cannot be read: {error.strerror}") from None
    return content.decode("utf-8", "replace")


def _check_report_file(report: str | None) -> None:
    if report is None or report == "-":
        return
    folder = Path(report).parent
    if Path(report).is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UsageError(f"--report {report}: not a file in a folder that can be written to")


def _new_run_id() -> str:
    import uuid

    return str(uuid.uuid4())


def _execute(
    job: "Job", progress: "ProgressMode", log_format: "LogFormatName", report_file: str | None
) -> int:
    """Run the job to its end, whatever that is; write the report; return the exit code."""
    import structlog

    from etl import log, pipeline
    from etl.progress import shown
    from etl.report import write_report
    from etl.summary import to_text

    live = not log.is_json(log_format)
    error: str | None = None

    async def go() -> None:
        _signals.hand_to(job.stop, asyncio.get_running_loop())
        async with shown(job.tally, progress, live=live):
            await pipeline.run(job)

    structlog.contextvars.bind_contextvars(run_id=job.tally.run_id)
    runner = asyncio.Runner()
    try:
        runner.run(go())
    except AhtEtlError as failure:
        error = job.redactor.text(" ".join(str(failure).split()))
    except Exception as failure:  # noqa: BLE001 - the outermost boundary: the report is due
        structlog.get_logger().debug("run.crashed", exc_info=True)
        error = f"unexpected {type(failure).__name__}: {failure}; please report it"
        error = job.redactor.text(" ".join(error.split()))
    report = job.tally.to_report(error, job.stop.signal)
    shown_report = job.redactor.tree(report)
    code: int = report["exit_code"]
    if error is not None and code == 1:
        _complain(f"error: {error}", "run.failed", log_format)
    try:
        if report_file == "-":
            sys.stdout.write(json.dumps(shown_report, indent=2) + "\n")
        else:
            if report_file is not None:
                write_report(shown_report, Path(report_file))
            sys.stdout.write(to_text(shown_report, job.settings.lake.uri))
        sys.stdout.flush()
    except OSError as failure:
        _complain(f"error: the report: {failure.strerror}", "report.failed", log_format)
        code = code or 1
    if job.stop.signal is not None:
        # Threads that were decoding cannot be called back; nothing that they do counts any more.
        sys.stderr.flush()
        os._exit(code)
    runner.close()
    return code


def _complain(line: str, event: str, log_format: "LogFormatName") -> None:
    """Say in one line on standard error why the command ends."""
    from etl import log

    if log.is_json(log_format):
        import structlog

        structlog.get_logger().error(event, reason=line)
    else:
        sys.stderr.write(f"aht-etl: {line}\n")


def _finish(code: int) -> NoReturn:
    raise typer.Exit(code)
