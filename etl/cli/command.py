"""What every command shares: flags, configuration, logs, and how it ends on an error."""

import asyncio
import functools
import inspect
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import typer

from etl.cli import log
from etl.cli.flags import Config, Flag, LogFormat, LogLevel, RunLogLevel
from etl.cli.process import SIGNALS, handled
from etl.config.keys import Origins
from etl.config.settings import Redactor, Settings
from etl.config.sources import Source, load
from etl.lake.layout import Selection
from etl.model import text
from etl.model.errors import UsageError, explain, is_expected
from etl.model.text import as_json
from etl.pipeline.job import Job, make_job, settle_window
from etl.pipeline.report import write_report
from etl.storage.disk import is_in_place

T = TypeVar("T")

_NAMED: Final = inspect.Parameter.KEYWORD_ONLY


@dataclass(slots=True)
class Call:
    """One call of a command: the configuration flags that it has, and the secrets that it hides."""

    config: Path | None
    log_format: LogFormat
    redactor: Redactor
    knows_secrets: bool = False
    _given: dict[str, str] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)

    def set(self, key: str, flag: str, value: str | None) -> None:
        """Let a flag set a configuration key; None if the flag is not given."""
        self._names[key] = flag
        if value is not None:
            self._given[key] = value

    def read(self) -> tuple[Settings, Origins]:
        """Return the configuration, and where each value came from. Raises UsageError."""
        flags = [Source.of(key, value, self._names[key]) for key, value in self._given.items()]
        if "window.lookback" in self._given and "window.from" not in self._given:
            # Otherwise a `window.from` of a weaker source would win over this flag.
            flags.append(Source.of("window.from", None, self._names["window.lookback"]))
        for key in ("engine.scheduler", "engine.workers"):
            if key in self._given and "engine.kind" not in self._given:
                flags.append(Source.of("engine.kind", "dask", self._names[key]))
        settings, origins = load(flags, self.config, os.environ)
        for secret in settings.secret_values():
            self.redactor.add(secret)
        self.knows_secrets = True
        return settings, origins

    def settings(self) -> Settings:
        """Return the configuration. Raises UsageError."""
        return self.read()[0]

    def select(self, now: datetime) -> tuple[Settings, Selection]:
        """Return the configuration, and the part of the lake that the flags select.

        An account or a window of another source is for runs and selects nothing. Raises UsageError.
        """
        settings, given = self.settings(), self._given
        start = None
        if "window.from" in given or "window.lookback" in given:
            start = settle_window(settings, now, longest=None).start
        end = settings.window.end if "window.to" in given else None
        return settings, Selection(given.get("account"), start, end)

    def job(
        self, paths: str | None, shard: str | None, *, from_archive: bool, archive_only: bool
    ) -> Job:
        """Return the job that the configuration and these flags describe. Raises UsageError."""
        return make_job(
            self.settings(),
            self.redactor,
            open_listing=None if paths is None else functools.partial(_open_paths, paths),
            shard=shard,
            from_archive=from_archive,
            archive_only=archive_only,
        )

    def print_json(self, document: Any) -> None:
        """Print a document without secrets."""
        typer.echo(json.dumps(self.redactor.tree(as_json(document)), indent=2))

    def complain(self, line: str, event: str) -> None:
        """Say without secrets, in the last line on standard error, why the command ends."""
        log.complain(self.redactor.text(line), event, self.log_format)


def command(
    event: str, *flags: Flag, default_log_level: LogLevel | None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command: it receives a `Call` and the values of its own flags.

    The command also has the configuration flags `flags`, with them `--config`, and the flags of the
    logs; `default_log_level` is None if it depends on the terminal. On wrong usage it ends with
    exit code 2. On any other error it ends with exit code 1 and `event` in the log. Both say why in
    one line.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def called(
            log_format: LogFormat, log_level: LogLevel, config: Path | None = None, **values: Any
        ) -> None:

            call = Call(config, log_format, Redactor())
            log.configure(log_format, log_level, call.redactor)
            for flag in flags:
                call.set(flag.key, flag.name, values.pop(flag.parameter))
            try:
                function(call, **values)
            except (typer.Exit, BrokenPipeError):  # typer ends quietly if nobody reads the output
                raise
            except UsageError as error:
                call.complain(f"wrong usage: {error}", "usage.wrong")
                raise typer.Exit(2) from None
            except Exception as failure:
                if not is_expected(failure) and not call.knows_secrets:
                    raise  # `main` reports it without its text
                call.complain(f"error: {reason_for(failure, call.redactor)}", event)
                raise typer.Exit(1) from None

        _, *own = inspect.signature(function).parameters.values()
        level = RunLogLevel if default_log_level is None else LogLevel
        # typer reads the flags from here.
        called.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                *([_parameter("config", Config, None)] if flags else []),
                *(_parameter(flag.parameter, flag.annotation, None) for flag in flags),
                *(parameter.replace(kind=_NAMED) for parameter in own),
                _parameter("log_format", LogFormat, "auto"),
                _parameter("log_level", level, default_log_level),
            ]
        )
        return called

    return decorate


def _parameter(name: str, annotation: Any, default: str | None) -> inspect.Parameter:
    return inspect.Parameter(name, _NAMED, default=default, annotation=annotation)


def reason_for(failure: BaseException, redactor: Redactor) -> str:
    """Return in one line why a command failed; log the traceback of a defect at `debug`."""
    if not is_expected(failure):
        text.log.debug("command.crashed", exc_info=failure)
    return explain(failure, redactor.text)


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, in a loop that a signal wakes.

    The present handlers still handle the signals, but only the loop's own handlers wake it. Without
    those, a signal just before the loop waits would be handled too late.
    """
    before: dict[int, Any] = {number: signal.getsignal(number) for number in handled()}
    came = False

    def handle(number: int) -> None:
        nonlocal came
        came = True
        before[number](number, None)

    async def awake() -> T:
        loop = asyncio.get_running_loop()
        for number in before:
            loop.add_signal_handler(number, handle, number)
        try:
            return await work
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, SIGNALS if came else handler)

    return asyncio.run(awake())


def own_name() -> str:
    """Return what to type to call `aht-etl` again."""
    called = Path(sys.argv[0])
    on_path = shutil.which("aht-etl")
    if called.name != "aht-etl" or (on_path and Path(on_path).samefile(called)):
        return "aht-etl"
    return shlex.quote(str(called))


def check_report_file(report: str | None) -> None:
    """Raise UsageError if no report could be written at the end."""
    if report is None or report == "-":
        return
    file = Path(report)
    # Resolve only a link: the folders above the present one may be closed to this user.
    folder = (file.resolve() if file.is_symlink() else file).parent
    replaceable = not file.is_dir() and folder.is_dir() and os.access(folder, os.W_OK)
    if not (os.access(file, os.W_OK) if is_in_place(file) else replaceable):
        raise UsageError(f"--report {report}: not a file in a folder that can be written to")


def deliver(
    document: dict[str, Any], text: str, report: str | None, *, as_json: bool = False
) -> None:
    """Write the file of `--report`, and print the document or, for people, the text.

    Raises OSError, but not if the text cannot be printed: its reader may have closed the pipe.
    """
    try:
        if report is not None and report != "-":
            write_report(document, Path(report))
    finally:
        if as_json or report == "-":
            print(json.dumps(document, indent=2), flush=True)  # noqa: T201
        else:
            with suppress(OSError):
                print(text, end="", flush=True)  # noqa: T201


def _open_paths(file: str) -> BinaryIO:
    """Open the file of `--paths`. Raises UsageError."""
    try:
        return sys.stdin.buffer if file == "-" else Path(file).open("rb")
    except OSError as error:
        raise UsageError(f"--paths {file}: cannot be read: {error.strerror}") from None
