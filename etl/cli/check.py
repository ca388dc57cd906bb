"""`aht-etl check`."""

import json
import shutil
import signal
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from etl.cli.command import Call, command, run_async
from etl.cli.flags import RUN
from etl.cli.process import SIGNALS, handled
from etl.config.keys import ShownValue, shown_values
from etl.config.settings import Redactor, Settings
from etl.model.errors import UsageError
from etl.model.text import as_json, one_line
from etl.model.times import Window
from etl.pipeline.check import Check, Checkup, configuration
from etl.pipeline.job import require_account, settle_window

_WORDS: Final = {
    "ok": ("ok", "green"),
    "failed": ("FAILED", "bold red"),
    "skipped": ("skipped", "yellow"),
}
# The columns where a check's name and its message start.
_NAME_COLUMN: Final = 9
_MESSAGE_COLUMN: Final = 25
_VALUE_MAX_CHARS: Final = 200
# On a narrower terminal, messages wrap below the name.
_WIDE_COLUMNS: Final = 80
# The vendor keeps a month (of February).
_MONTH: Final = timedelta(days=28)


@command("check.failed", *RUN, default_log_level="error")
def check(
    call: Call,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Write JSON: ok, and the checks with name, ok and message."),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Also show the keys that have their defaults.")
    ] = False,
) -> None:
    """Try everything that a run needs, and say how to fix what fails.

    Each check has one line: the configuration, the look-up of the host, TLS, authentication, the
    listing of the last day, one file, the lake (and the raw archive), the temporary folder, and
    Dask if it is used. The lake does not change. A check is skipped if one that it needs has
    failed. The exit code is 0 if everything is ok, else 1, and 2 for a wrong configuration.

    Example: aht-etl check --config configs/daily.yaml
    """
    try:
        settings, origins = call.read()
        window = _window(settings)
    except UsageError as error:
        if as_json:
            _print_json([Check("configuration", "failed", str(error))])
        raise
    values = list(shown_values(settings, origins))
    checks = _check(settings, values, window, call.redactor, as_json=as_json, verbose=verbose)
    failed = [check for check in checks if check.outcome == "failed"]
    if not failed:
        raise typer.Exit
    names = ", ".join(check.name for check in failed)
    why = f"{failed[0].name}: {failed[0].message}"
    call.complain(f"Not ready for a run: fix {names} and check again; {why}", "check.failed")
    raise typer.Exit(1)


def _window(settings: Settings) -> Window:
    """Return the window in which to look for a file: a month, unless `window.from` is set."""
    require_account(settings)
    now = datetime.now(UTC).replace(microsecond=0)
    return settle_window(settings, now, lookback=_MONTH)


def _check(
    settings: Settings,
    values: Sequence[ShownValue],
    window: Window,
    redactor: Redactor,
    *,
    as_json: bool,
    verbose: bool,
) -> list[Check]:
    """Run all checks; print each when it ends, or all as JSON at the end."""
    checks = [configuration(values)]
    console = Console(highlight=False)
    if not as_json:
        _print_configuration(console, values, verbose=verbose)

    def on_end(check: Check) -> None:
        checks.append(check)
        if not as_json:
            _print_check(console, check)

    live = console.is_terminal and not as_json
    with _exit_on_signal(), console.status("checking") if live else nullcontext() as status:

        def on_start(name: str) -> None:
            if status is not None:
                status.update(f"checking {name}")

        run_async(Checkup(settings, window, redactor, on_end, on_start).run())
    if as_json:
        _print_json(checks)
    elif all(check.ok for check in checks):
        _print(console, Text("\nReady: all that a run needs is there."))
    return checks


@contextmanager
def _exit_on_signal() -> Iterator[None]:
    """End the block by SystemExit at the first signal, so that it cleans up; then at once.

    The cursor of the terminal comes back, and the file that tries the lake goes.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        if SIGNALS.repeated():
            return
        for each in before:
            signal.signal(each, SIGNALS)
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in handled()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_json(checks: Sequence[Check]) -> None:
    ok = all(check.ok for check in checks)
    with suppress(OSError):
        shown = [as_json(check, "name", "ok", "outcome", "message") for check in checks]
        typer.echo(json.dumps({"ok": ok, "checks": shown}, indent=2))


def _print(console: Console, text: Text) -> None:
    """Print without wrapping. A reader that closes the pipe does not change the exit code."""
    try:
        console.print(text, soft_wrap=True)
    except OSError:
        pass
    except SystemExit as end:
        if end.code != 1:  # rich exits with 1 if the pipe is closed
            raise


def _print_configuration(console: Console, values: Sequence[ShownValue], *, verbose: bool) -> None:
    """Print each value that is set on its own line; if `verbose`, the defaults too."""
    chosen = [value for value in values if not value.is_default]
    defaults = [value for value in values if value.is_default]
    summary = f"{len(chosen)} values set, {len(defaults)} left at their defaults"
    _print_check(console, Check("configuration", "ok", summary))
    key_width = max((len(value.key) for value in chosen), default=0)
    value_width = min(24, max((len(value.text) for value in chosen), default=0))
    rows = [
        (f"{value.key:<{key_width}}  {_cut(value.text):<{value_width}}  {value.origin}", "")
        for value in chosen
    ]
    if verbose:
        rows.append(("defaults: " + ", ".join(f"{v.key} {v.text}" for v in defaults), "dim"))
    for row, style in rows:
        _print(console, Text(_wrapped(" " * _NAME_COLUMN + row, _NAME_COLUMN + 2), style))


def _cut(text: str) -> str:
    """Cut a long value; `aht-etl config show` prints all of it."""
    return text if len(text) <= _VALUE_MAX_CHARS else f"{text[:_VALUE_MAX_CHARS]}…"


def _print_check(console: Console, check: Check) -> None:
    word, style = _WORDS[check.outcome]
    head = f"{word:<{_NAME_COLUMN}}{check.name:<{_MESSAGE_COLUMN - _NAME_COLUMN}}"
    text = Text(_wrapped(head + one_line(check.message), _MESSAGE_COLUMN))
    text.stylize(style, 0, len(word))
    _print(console, text)


def _wrapped(line: str, indent: int) -> str:
    """Wrap a line at the terminal's width; in a pipe it stays one line."""
    columns = shutil.get_terminal_size((0, 0)).columns or sys.maxsize
    if columns < _WIDE_COLUMNS and indent == _MESSAGE_COLUMN:
        indent = _NAME_COLUMN
    return textwrap.fill(
        line,
        max(40, columns),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
