"""The job: list, plan, fetch, decode, commit. `run` reads top to bottom."""

import asyncio
import math
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import structlog

from etl.api.client import Client, connect
from etl.api.listing import Listing, read_listing
from etl.api.throttle import Limiter
from etl.api.transport import Transport
from etl.errors import RunError
from etl.job import Job
from etl.lake.commit import read_state
from etl.lake.store import LakeError, LocalStore
from etl.loader import load
from etl.plan import Plan, make_plan
from etl.stop import StoppedError

log = structlog.stdlib.get_logger()

# The vendor keeps a month (Actual Handle Time API, "Breakdown": `from`).
_KEPT_BY_VENDOR: Final = timedelta(days=31)
_THROTTLE_DELAY_LEAST_S: Final = 0.05


async def run(job: Job) -> None:
    """Do the job; its outcome is in `job.tally`, whether this returns or raises.

    Returns early, with the rest not attempted, when `job.stop` is requested: what was downloaded
    by then is committed within `shutdown.grace`. Raises RunError when the job cannot do its work;
    what was downloaded before is committed then, too.
    """
    settings, tally, stop = job.settings, job.tally, job.stop
    store = LocalStore(Path(settings.lake.uri))
    loop = asyncio.get_running_loop()
    limiter = Limiter(
        settings.fetch.concurrency,
        settings.fetch.rate,
        loop.time,
        stop.sleep,
        # One request for each pause after a 429: what the vendor asks for is enough.
        rate_least=1 / max(settings.retry.throttle_delay, _THROTTLE_DELAY_LEAST_S),
    )
    try:
        await stop.interruptible(asyncio.to_thread(_open_lake, store))
        async with Transport(
            limiter, settings.retry, settings.fetch.timeout, tally.http, stop.sleep
        ) as transport:
            client = await stop.interruptible(
                connect(transport, settings, job.account, loop.time, job.redactor.add)
            )
            tally.listing = await stop.interruptible(_list(job, client))
            plan = await stop.interruptible(
                make_plan(
                    tally.listing.entries,
                    settings.fetch.skip,
                    job.shard,
                    partial(read_state, store),
                )
            )
            _say(plan)
            tally.planned(plan)
            await load(plan, job, client, store)
    except StoppedError:
        pass
    finally:
        tally.http.concurrency = limiter.allowed
        tally.http.rate = round(limiter.rate, 1) if math.isfinite(limiter.rate) else None
    if stop.error is not None:
        raise stop.error


def _open_lake(store: LocalStore) -> None:
    try:
        store.check_readable()
    except LakeError as error:
        raise RunError(f"{error}; check lake.uri") from error
    store.clean_up()


async def _list(job: Job, client: Client) -> Listing:
    if job.saved_listing is not None:
        return await asyncio.to_thread(_read, job.saved_listing)
    window = job.window
    assert window is not None  # noqa: S101 - a job has a saved listing or a window
    if window.start < job.now - _KEPT_BY_VENDOR:
        log.warning("window.old", reason="the vendor keeps one month; it may refuse this window")
    listing = await client.list(list(window.cut(job.settings.api.request_window)))
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


def _say(plan: Plan) -> None:
    for invalid in plan.invalid[:100]:
        log.warning("path.invalid", path=invalid.text[:500], reason=invalid.reason)
    log.info(
        "plan.made",
        listed=plan.listed,
        already_loaded=sum(len(p.already_loaded) for p in plan.partitions),
        to_load=sum(len(p.to_load) for p in plan.partitions),
        invalid=len(plan.invalid),
        skipped=len(plan.skipped),
    )
