"""The job, from the listing to the report. `run` and `_load` read top to bottom."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from typing import Final

import structlog

from etl.archive.reader import read_archived
from etl.config.settings import open_archive, open_lake
from etl.lake.layout import PartitionState
from etl.model.errors import RunError, explain, is_expected
from etl.model.machine import resource_shortage
from etl.model.text import log
from etl.model.times import rfc3339
from etl.pipeline.job import Job
from etl.pipeline.plan import make_plan
from etl.pipeline.report import Report
from etl.pipeline.source import Source, list_files, open_source
from etl.pipeline.state import RunState
from etl.pipeline.stop import Stop, StoppedError, within_grace
from etl.storage.store import Store, StoreError

#: Watches a run while it lasts: shows it, or logs how far it is.
Watch = Callable[[RunState, Stop], AbstractAsyncContextManager[None]]
# Returns the states of a store's partitions by their directories.
_Read = Callable[[Store, Sequence[str]], list[PartitionState]]
# Loads what is planned in a run's state, and records the outcomes there.
_Engine = Callable[[RunState, Source, Store, Stop], Awaitable[None]]

# When the grace is over, the last commits may take five seconds more (etl.pipeline.gather).
_BEYOND_GRACE_S: Final = 10.0
_SHOWN_INVALID: Final = 100
_OTHER_ACCOUNT: Final = (
    "files of another account than the one asked for are listed, and loaded; the vendor's ids may "
    "have a prefix, otherwise check account"
)


async def run(
    job: Job, stop: Stop, watch: Watch, deliver: Callable[[Report], int] | None = None
) -> Report:
    """Do the job and return the report, however the job ends.

    `deliver` writes the report where the caller wants it, before metrics are published, and returns
    the exit code that they show. A stop request ends the job early: what was downloaded until then
    is committed within `shutdown.grace`, and the rest is not attempted.
    """
    state = RunState(job)
    error = None
    with structlog.contextvars.bound_contextvars(run_id=job.run_id):
        try:
            async with watch(state, stop):
                grace_s = job.settings.shutdown.grace.total_seconds() + _BEYOND_GRACE_S
                await within_grace(_load(state, stop), stop, grace_s)
        except BaseException as failure:
            # obstore raises a BaseException where the machine refuses it a thread.
            if not isinstance(failure, Exception) and resource_shortage(failure) is None:
                raise
            if not is_expected(failure):
                log.debug("run.crashed", exc_info=True)
            error = explain(failure, job.redactor.text)
        report = Report.of(state, error, stop.signal)
        _log_end(report)
        exit_code = report.exit_code if deliver is None else deliver(report)
        if job.settings.metrics.configured:
            from etl.pipeline.metrics import publish  # noqa: PLC0415 - most runs need none of it

            await publish(report, exit_code, job.shard, job.settings.metrics)
    return report


async def _load(state: RunState, stop: Stop) -> None:
    """List, plan and load; the outcome is in `state`, whether this returns or raises.

    Raises RunError where the job cannot do its work; what was downloaded before is committed.
    """
    job = state.job
    try:
        store = await stop.interruptible(_open_store(job))
        await stop.interruptible(asyncio.to_thread(store.clean_up))
        async with open_source(state, stop) as source:
            read, load = await stop.interruptible(_list_and_import(state, source))
            await stop.interruptible(_plan(state, read, store))
            _log_plan(state)
            await load(state, source, store, stop)
    except StoppedError:
        pass
    if stop.error is not None:
        raise stop.error


async def plan(job: Job) -> RunState:
    """Find out what `run` would load: listing and plan. Nothing is fetched or written.

    A saved listing needs no server, so nothing is sent. Raises RunError.
    """
    state = RunState(job)
    store = await _open_store(job)
    async with nullcontext() if job.saved_listing else open_source(state, Stop()) as source:
        read, _ = await _list_and_import(state, source)
        await _plan(state, read, store)
    return state


async def _open_store(job: Job) -> Store:
    """Return the store that the job fills: the lake, or the archive. Raises RunError."""
    archive = open_archive(job.settings) if job.archive_only else None
    store = archive or open_lake(job.settings)
    try:
        await asyncio.to_thread(store.check_readable)
    except StoreError as error:
        raise RunError(f"{error}; check {'raw.uri' if archive else 'lake.uri'}") from error
    return store


async def _list_and_import(state: RunState, source: Source | None) -> tuple[_Read, _Engine]:
    """List the files; meanwhile a thread imports what reads the receipts and what loads."""
    _, stages = await asyncio.gather(
        list_files(state, source), asyncio.to_thread(_stages, state.job)
    )
    return stages


def _stages(job: Job) -> tuple[_Read, _Engine]:
    """Import the stages after the listing. Only here are imports late.

    They load Arrow, which takes 0.15 s. If a listing takes 0.3 s, importing in a thread meanwhile
    makes a run 0.2 s shorter than importing before or after; if it answers at once, no longer.
    """
    from etl.lake.commit import read_states  # noqa: PLC0415
    from etl.pipeline.load import load  # noqa: PLC0415

    read = read_archived if job.archive_only else read_states
    if job.settings.engine.kind == "dask":
        from etl.pipeline.cluster.run import load as load_on_a_cluster  # noqa: PLC0415

        return read, load_on_a_cluster
    return read, load


async def _plan(state: RunState, read: _Read, store: Store) -> None:
    job = state.job
    skip = job.settings.fetch.skip
    state.plan = await make_plan(state.listing.entries, skip, job.shard, partial(read, store))
    state.outcomes.expect(state.plan)
    if not job.from_archive and (others := state.plan.other_accounts(job.account)):
        log.warning("account.other", asked=job.account, listed=[*others], reason=_OTHER_ACCOUNT)


def _log_plan(state: RunState) -> None:
    plan = state.plan
    for entry in plan.invalid[:_SHOWN_INVALID]:
        text = state.job.redactor.text(entry.path[:500])
        log.warning("path.invalid", path=text, reason=entry.message)
    log.info(
        "plan.made",
        listed=plan.listed,
        already_loaded=plan.already_loaded,
        to_load=plan.to_load,
        invalid=len(plan.invalid),
        skipped=len(plan.skipped),
    )


def _log_end(report: Report) -> None:
    """Log the sums of a run; the event `run.failed` says why one failed."""
    newest = report.newest_complete_hour
    log.info(
        "run.finished",
        status=report.status,
        exit_code=report.exit_code,
        duration_seconds=report.duration_seconds,
        newest_complete_hour=rfc3339(newest) if newest else None,
        **asdict(report.files),
        rows=report.rows.loaded,
        bad_rows=report.rows.quarantined,
        bytes_downloaded=report.bytes.downloaded,
        bytes_written=report.bytes.written,
        requests=report.http.requests,
        retries=report.http.retries,
        throttled=report.http.throttled,
    )
