"""How far the run is: one live display on a terminal, else a log event every 30 seconds."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final, Literal

import structlog

from etl.report import Tally

ProgressMode = Literal["auto", "on", "off"]

log = structlog.stdlib.get_logger()

_EVENT_EVERY_S: Final = 30.0
_REDRAW_EVERY_S: Final = 0.25


@asynccontextmanager
async def shown(tally: Tally, mode: ProgressMode, *, live: bool) -> AsyncIterator[None]:
    """Show the tally's progress while the block runs; `live` if logs are for a terminal."""
    if mode == "off":
        yield
        return
    task = asyncio.ensure_future(_live(tally) if live and sys.stderr.isatty() else _events(tally))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _events(tally: Tally) -> None:
    while True:
        await asyncio.sleep(_EVENT_EVERY_S)
        log.info(
            "run.progress",
            listed=tally.plan.listed,
            already_loaded=tally.already_loaded,
            loaded=tally.loaded,
            failed=len(tally.failures),
            waiting=tally.not_attempted,
            rows=tally.rows_loaded,
            throttled=tally.http.throttled,
        )


async def _live(tally: Tally) -> None:
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("files · {task.fields[rows]:,} rows · {task.fields[failed]} failed"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task("listing", total=None, rows=0, failed=0)
        while True:
            to_load = tally.loaded + len(tally.failures) + tally.not_attempted
            display.update(
                task,
                description="loading" if to_load else "listing",
                total=to_load or None,
                completed=to_load - tally.not_attempted,
                rows=tally.rows_loaded,
                failed=len(tally.failures),
            )
            await asyncio.sleep(_REDRAW_EVERY_S)
