"""The job: list, plan, fetch, decode, commit. `run` reads top to bottom; `plan` stops half-way."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import BinaryIO, Final

from etl.api.client import Client, connect
from etl.api.listing import Listing, read_listing, require_an_answer
from etl.api.transport import Transport
from etl.archive.reader import ArchiveReader, open_archive_reader
from etl.config.settings import open_archive, open_lake
from etl.lake.commit import read_states
from etl.model.errors import RunError
from etl.model.events import log
from etl.pipeline.archive_only import read_archived
from etl.pipeline.engine import engine_of
from etl.pipeline.job import Job
from etl.pipeline.plan import Plan, make_plan
from etl.pipeline.stop import StoppedError
from etl.storage.store import LakeError, Store

# The vendor keeps a month (Actual Handle Time API, "Breakdown": `from`).
_KEPT_BY_VENDOR: Final = timedelta(days=31)

_OTHER_ACCOUNT: Final = (
    "files of another account than the one asked for are listed, and loaded; the vendor's ids may "
    "have a prefix, otherwise check account"
)
_EMPTY: Final = "404: the vendor has no files for this window"
_NOTHING_LISTED: Final = (
    "nothing is listed in any window; check account and api.base_url, and that the vendor has "
    "switched the API on"
)
_NOTHING_KEPT: Final = (
    "the archive has nothing in this window for this account; check --from, --to and --account"
)


async def run(job: Job) -> None:
    """Do the job; its outcome is in `job.tally`, whether this returns or raises.

    Returns early, with the rest not attempted, when `job.stop` is requested: what was downloaded
    by then is committed within `shutdown.grace`. Raises RunError when the job cannot do its work;
    what was downloaded before is committed then, too.
    """
    store = _target(job)
    async with _transport(job) as transport:
        await job.stop.interruptible(_open(store, job))
        await job.stop.interruptible(asyncio.to_thread(store.clean_up))
        client = await job.stop.interruptible(_connect(job, transport))
        listing = await job.stop.interruptible(_list(job, client))
        what_to_do = await job.stop.interruptible(_plan(job, listing, store))
        _say(what_to_do, job)
        await engine_of(job.settings)(what_to_do, job, client, store)


async def plan(job: Job) -> None:
    """Find out what `run` would do, in `job.tally` too; fetch nothing, write nothing.

    A saved listing needs no server: then nothing is sent at all. Raises RunError as `run` does.
    """
    store = _target(job)
    async with _transport(job) as transport:
        await job.stop.interruptible(_open(store, job))
        client = None
        if job.saved_listing is None:
            client = await job.stop.interruptible(_connect(job, transport))
        listing = await job.stop.interruptible(_list(job, client))
        await job.stop.interruptible(_plan(job, listing, store))


@asynccontextmanager
async def _transport(job: Job) -> AsyncIterator[Transport | None]:
    """Yield what requests are sent with, if any; to be told to end ends the block, no more."""
    stop = job.stop
    try:
        if job.from_archive:
            yield None
        else:
            async with _limited(job) as transport:
                yield transport
    except StoppedError:
        pass
    if stop.error is not None:
        raise stop.error


@asynccontextmanager
async def _limited(job: Job) -> AsyncIterator[Transport]:
    settings, tally, stop = job.settings, job.tally, job.stop
    clock = asyncio.get_running_loop().time
    transport = Transport(settings, tally.http, clock, stop.sleep, job.redactor)
    job.limiter = transport.limiter
    try:
        async with transport:
            yield transport
    finally:
        # By now it may be an engine's: what many processes settled on together.
        limits = job.limiter
        tally.http.concurrency = limits.allowed
        tally.http.rate = round(limits.rate, 1) if math.isfinite(limits.rate) else None


def _target(job: Job) -> Store:
    """Return what the job fills, which tells what is loaded: the lake, or the archive alone."""
    archive = open_archive(job.settings) if job.archive_only else None
    return archive or open_lake(job.settings)


async def _open(store: Store, job: Job) -> None:
    try:
        await asyncio.to_thread(store.check_readable)
    except LakeError as error:
        key = "raw.uri" if job.archive_only else "lake.uri"
        raise RunError(f"{error}; check {key}") from error


async def _connect(job: Job, transport: Transport | None) -> Client | ArchiveReader:
    if transport is None:
        return await asyncio.to_thread(open_archive_reader, job.settings)
    return await connect(transport, job.settings)


async def _list(job: Job, client: Client | ArchiveReader | None) -> Listing:
    if job.saved_listing is not None:
        return await asyncio.to_thread(_read, job.saved_listing)
    window = job.window
    assert window is not None  # noqa: S101 - a job has a saved listing or a window
    assert client is not None  # noqa: S101 - and to list a window somebody to ask
    if not job.from_archive and window.start < job.now - _KEPT_BY_VENDOR:
        log.warning("window.old", reason="the vendor keeps one month; it may refuse this window")
    windows = list(window.cut(job.settings.api.request_window))
    listing = job.tally.listing = await client.list(windows)
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
    return listing


def _read(saved_listing: BinaryIO) -> Listing:
    try:
        with saved_listing:
            return read_listing(saved_listing.read().decode("utf-8", "replace"))
    except OSError as error:
        raise RunError(f"--paths: cannot be read: {error.strerror or error}") from error


async def _plan(job: Job, listing: Listing, store: Store) -> Plan:
    job.tally.listing = listing
    skip = job.settings.fetch.skip
    read = read_archived if job.archive_only else read_states
    made = await make_plan(listing.entries, skip, job.shard, partial(read, store))
    job.tally.planned(made)
    if not job.from_archive and (others := job.tally.other_accounts()):
        log.warning("account.other", asked=job.account, listed=others, reason=_OTHER_ACCOUNT)
    return made


def _say(made: Plan, job: Job) -> None:
    for invalid in made.invalid[:100]:
        text = job.redactor.text(invalid.text[:500])
        log.warning("path.invalid", path=text, reason=invalid.reason)
    log.info(
        "plan.made",
        listed=made.listed,
        already_loaded=made.already_loaded,
        to_load=made.to_load,
        invalid=len(made.invalid),
        skipped=len(made.skipped),
    )
