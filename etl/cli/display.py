"""The live displays on a terminal: a run's bar and facts below the log, and the bar of `verify`.

The cursor stays visible, so a process that is killed leaves a usable terminal.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from etl.model.text import duration, size
from etl.pipeline.progress import Facts

_BAR_LEAST: Final = 6
_BAR_MOST: Final = 50


def new_console() -> Console:
    """Return standard error as a console that never breaks a line of the log."""
    return Console(stderr=True, soft_wrap=True, highlight=False)


class Display:
    """A display that stays below everything else that is written to standard error.

    `redraw` draws it; the end of the block removes it.
    """

    def __init__(self, read: Callable[[], Facts], console: Console | None = None) -> None:
        self._read = read
        self._live = Live(
            console=console or new_console(),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            vertical_overflow="crop",
        )

    def __enter__(self) -> Self:
        self._live.start()
        self._live.console.show_cursor(True)
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def redraw(self) -> None:
        """Draw the facts of this moment."""
        self._live.update(View(self._read()), refresh=True)


class View:
    """Facts as lines that fit any width; a line breaks only between facts."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield a line with the bar, then the other facts."""
        facts = self._facts
        # A line that fills the last column is broken by some terminals.
        width = max(1, options.max_width - 1)
        dot = " | " if options.ascii_only else " · "
        head = facts.phase
        count = f"{facts.done:,}/{facts.to_load:,} files"
        if facts.to_load:
            bar = min(_BAR_MOST, width - len(head) - len(count) - 2)
            if bar >= _BAR_LEAST:
                full = bar * min(facts.done, facts.to_load) // facts.to_load
                sign = "-" if options.ascii_only else "━"
                # Without colours only the finished part is drawn.
                rest = sign if console.color_system and not console.no_color else " "
                bars = (sign * full, "green"), (rest * (bar - full), "dim")
                yield Text.assemble((f"{head} ", "bold"), *bars, f" {count}")
            else:
                yield _line(f"{head} {count}", width, "bold")
        else:
            yield _line(f"{head} {facts.listed:,} files" if facts.listed else head, width, "bold")
        line = ""
        for fact in _facts(facts):
            if line and len(line) + len(dot) + len(fact) > width:
                yield _line(line, width)
                line = fact
            else:
                line += (dot if line else "") + fact
        if line:
            yield _line(line, width)


def _facts(facts: Facts) -> list[str]:
    shown = []
    if facts.phase == "stopping":
        shown.append("commits what is downloaded")
    if facts.to_load:
        shown.append(f"{facts.rows:,} rows")
    if facts.failed:
        shown.append(f"{facts.failed:,} failed")
    if facts.files_per_second is not None:
        shown.append(f"{facts.files_per_second:,.1f} files/s")
    if facts.bytes_per_second is not None:
        shown.append(f"{size(round(facts.bytes_per_second))}/s")
    shown.append(f"{facts.in_flight:,} of {facts.concurrency:,} in flight")
    if facts.paused_seconds:
        shown.append(f"throttled, waits {duration(facts.paused_seconds)}")
    elif facts.throttled:
        shown.append(f"throttled {facts.throttled:,} times")
    if facts.rate_limit is not None:
        shown.append(f"at most {facts.rate_limit:,.1f} requests/s")
    if facts.seconds_left is not None:
        shown.append(f"{duration(facts.seconds_left)} left")
    return shown


def _line(text: str, width: int, style: str = "") -> Text:
    return Text(text[:width], style=style, no_wrap=True)


@contextmanager
def reading_bar() -> Iterator[Callable[[int, int], None]]:
    """Yield a function that moves a bar: it takes the bytes that are read, and all bytes."""
    columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.console.show_cursor(True)
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
