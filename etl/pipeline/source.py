"""The source of a run's files: the vendor's API, or the raw archive."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from etl.api.client import connect
from etl.api.listing import Listing
from etl.api.responses import Body
from etl.api.retry import Attempts
from etl.api.transport import Transport
from etl.archive.reader import open_archive_reader
from etl.model.paths import BreakdownPath
from etl.model.times import Window
from etl.pipeline.state import RunState
from etl.pipeline.stop import Stop


class Source(Protocol):
    """Lists and downloads files: a client of the API, or a replay of the archive."""

    async def list(self, windows: list[Window]) -> Listing:
        """List the windows, which follow each other. Raises RunError."""

    def attempts(self, path: BreakdownPath) -> Attempts:
        """Return the attempts of one file."""

    async def download(self, path: BreakdownPath, memory_bytes: int, max_bytes: int) -> Body:
        """Make one attempt to download a whole file. Raises FileError."""


@asynccontextmanager
async def open_source(state: RunState, stop: Stop) -> AsyncIterator[Source]:
    """Yield the job's source; it counts its traffic in `state`. Raises RunError, StoppedError."""
    job = state.job
    settings = job.settings
    if job.from_archive:
        opening = asyncio.to_thread(open_archive_reader, settings, state.traffic)
        yield await stop.interruptible(opening)
        return
    clock = asyncio.get_running_loop().time
    transport = Transport(settings, state.traffic, clock, stop.sleep, job.redactor)
    state.limits = transport.limiter
    async with transport:
        yield await stop.interruptible(connect(transport, settings))
