"""Progress for people: one live display on a terminal, else a log event every 30 seconds."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Literal

from etl.cli.views.live import Display, new_console
from etl.pipeline.progress import EVENT_EVERY_S, Meter, logged, meanwhile
from etl.pipeline.state import RunState
from etl.pipeline.stop import Stop

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
    if (live or mode == "on") and sys.stderr.isatty() and new_console().is_interactive:
        meter = Meter(state, stop, asyncio.get_running_loop().time)
        watched = meanwhile(_live(meter))
    else:
        watched = logged(state, stop, event_every_s)
    async with watched:
        yield


async def _live(meter: Meter) -> None:
    with Display(meter.read) as display:
        while True:
            display.redraw()
            await asyncio.sleep(_REDRAW_EVERY_S)
