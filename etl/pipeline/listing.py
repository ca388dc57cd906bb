"""The listing of a run: from its source, or from a file of saved paths."""

import asyncio
from datetime import timedelta
from typing import BinaryIO, Final

from etl.api.listing import Listing, read_listing, require_an_answer
from etl.model.errors import RunError
from etl.model.events import log
from etl.pipeline.source import Source
from etl.pipeline.state import RunState

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
    listing = state.listing = await source.list(windows)
    for empty_window in listing.empty_windows:
        log.warning("window.empty", **empty_window.as_json(), reason=_EMPTY)
    for unanswered, error in listing.unanswered.items():
        log.warning("window.unanswered", **unanswered.as_json(), reason=error.message)
    require_an_answer(listing, windows)
    if not listing.entries and not listing.partial_windows and not listing.unanswered:
        log.warning("listing.empty", reason=_NOTHING_KEPT if job.from_archive else _NOTHING_LISTED)
    for partial_window in listing.partial_windows:
        log.warning(
            "listing.partial",
            **partial_window.as_json(),
            reason="the vendor says that paths are missing here; a later run will find them",
        )


def _read_saved(saved: BinaryIO) -> Listing:
    try:
        with saved:
            return read_listing(saved.read().decode("utf-8", "replace"))
    except OSError as error:
        raise RunError(f"--paths: cannot be read: {error.strerror or error}") from error
