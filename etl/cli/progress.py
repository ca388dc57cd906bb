"""Progress for people: one live display on a terminal, else a log event every 30 seconds.

The display is imported late: only a terminal needs rich, which takes a fourteenth of a run's start.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final, Literal

from etl.model.text import log
from etl.pipeline.progress import EVENT_EVERY_S, Meter, logged, meanwhile
from etl.pipeline.state import RunState
from etl.pipeline.stop import Stop

if TYPE_CHECKING:
    from etl.cli.display import Display

ProgressMode = Literal["auto", "on", "off"]

_REDRAW_EVERY_S: Final = 0.25


@asynccontextmanager
async def shown(
    state: RunState,
    stop: Stop,
    mode: ProgressMode,
    *,
    live: bool,
    event_every_s: float = EVENT_EVERY_S,
) -> AsyncIterator[None]:
    """Show a run's progress while the block runs: live on a terminal, else as events.

    `live` is whether logs are for people. Mode `on` shows the display also where they are not. A
    terminal that cannot move its cursor gets events.
    """
    if mode == "off":
        yield
        return
    watched = None
    if (live or mode == "on") and sys.stderr.isatty():
        from etl.cli.display import Display, new_console  # noqa: PLC0415 - rich, see above

        if new_console().is_interactive:
            meter = Meter(state, stop, asyncio.get_running_loop().time)
            watched = meanwhile(_redraw(Display(meter.read)))
    async with watched or logged(state, stop, event_every_s):
        yield


async def _redraw(display: "Display") -> None:
    with display:
        while True:
            display.redraw()
            await asyncio.sleep(_REDRAW_EVERY_S)


@contextmanager
def show_progress(mode: ProgressMode, *, live: bool) -> Iterator[Callable[[int, int], None]]:
    """Yield a function for the bytes that are done, and all bytes. It moves a bar, or logs.

    A bar needs a terminal, and logs that are for a terminal (`live`).
    """
    if mode == "off":
        yield lambda _done, _total: None
    elif live and sys.stderr.isatty():
        from etl.cli.display import reading_bar  # noqa: PLC0415 - rich, see above

        with reading_bar() as on_part:
            yield on_part
    else:
        yield _events()


def _events() -> Callable[[int, int], None]:
    said_at = time.monotonic()

    def on_part(done: int, total: int) -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= EVENT_EVERY_S:
            said_at = time.monotonic()
            log.info("verify.progress", bytes_read=done, bytes=total)

    return on_part
