"""The source of a run's files, the vendor's API or the raw archive, and what it lists."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import BinaryIO, Final, Protocol

from etl.api.client import connect
from etl.api.listing import Listing, read_listing, require_an_answer
from etl.api.responses import Body
from etl.api.retry import Attempts
from etl.api.transport import Transport
from etl.archive.reader import open_archive_reader
from etl.model.errors import RunError
from etl.model.paths import BreakdownPath
from etl.model.text import as_json, log
from etl.model.times import Window
from etl.pipeline.state import RunState
from etl.pipeline.stop import Stop

# The vendor keeps a month (Actual Handle Time API, "Breakdown": `from`).
_KEPT_BY_VENDOR: Final = timedelta(days=31)

_EMPTY: Final = "404: the vendor has no files for this window"
_NOTHING_LISTED: Final = (
    "nothing is listed in any window; check account and api.base_url, and that the vendor has "
    "switched the API on"
)
_NOTHING_KEPT: Final = (
    "the archive has nothing in this window for this account; check --from, --to and --account"
)


class Source(Protocol):
    """Lists and downloads files: a client of the API, or a replay of the archive."""

    async def list(self, windows: list[Window], listing: Listing) -> None:
        """List the windows, which follow each other, into `listing`. Raises RunError."""

    def attempts(self, path: BreakdownPath) -> Attempts:
        """Return the attempts of one file."""

    async def download(
        self, path: BreakdownPath, memory_bytes: int, max_bytes: int, *, new_connection: bool
    ) -> Body:
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


async def list_files(state: RunState, source: Source | None) -> None:
    """List the job's files into `state`; log windows that are empty, partial or unanswered.

    A saved listing needs no source. Raises RunError where a window is refused, and where the API
    answers none.
    """
    job = state.job
    if job.saved_listing is not None:
        state.listing = await asyncio.to_thread(_read_saved, job.saved_listing)
        return
    window = job.window
    assert window is not None  # noqa: S101 - a job has a saved listing or a window
    assert source is not None  # noqa: S101 - and a source for the window
    if not job.from_archive and window.start < job.now - _KEPT_BY_VENDOR:
        log.warning("window.old", reason="the vendor keeps one month; it may refuse this window")
    windows = list(window.cut(job.settings.api.request_window))
    listing = state.listing
    await source.list(windows, listing)
    for empty_window in listing.empty_windows:
        log.warning("window.empty", **as_json(empty_window), reason=_EMPTY)
    for unanswered, error in listing.unanswered.items():
        log.warning("window.unanswered", **as_json(unanswered), reason=error.message)
    require_an_answer(listing, windows)
    if not listing.entries and not listing.partial_windows and not listing.unanswered:
        log.warning("listing.empty", reason=_NOTHING_KEPT if job.from_archive else _NOTHING_LISTED)
    for partial_window in listing.partial_windows:
        log.warning(
            "listing.partial",
            **as_json(partial_window),
            reason="the vendor says that paths are missing here; a later run will find them",
        )


def _read_saved(saved: BinaryIO) -> Listing:
    try:
        with saved:
            return read_listing(saved.read().decode("utf-8", "replace"))
    except OSError as error:
        raise RunError(f"--paths: cannot be read: {error.strerror or error}") from error
