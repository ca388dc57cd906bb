"""The job from Python: `from etl import run, plan, Settings`.

For notebooks and for tasks of Airflow, Dagster, Prefect and the like. Nothing here touches what
belongs to the host: no signal handler, no set-up of logs, no state between calls; calls may
overlap, in one loop or in several threads. Nothing is logged until the host configures structlog:
then each event has the `run_id` of its run, and there is `run.progress` every 30 seconds.
"""

import asyncio
import contextvars
import io
import json
import signal
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import structlog

from etl.config.redact import Redactor
from etl.config.settings import Settings, open_lake
from etl.model import events
from etl.model.errors import RunError, UsageError, is_expected
from etl.pipeline import run as pipeline
from etl.pipeline.defects import explain
from etl.pipeline.engine import require_engine
from etl.pipeline.estimate import estimate
from etl.pipeline.job import LONGEST_WINDOW, Job, new_job, parse_shard, require, settle_window
from etl.pipeline.plan_report import PlanReport, report_on
from etl.pipeline.progress import logged
from etl.pipeline.report import Report

T = TypeVar("T")

Paths = Path | Iterable[str]


def run(
    settings: Settings,
    *,
    paths: Paths | None = None,
    shard: str | None = None,
    from_archive: bool = False,
    archive_only: bool = False,
) -> Report:
    """Load what is listed and not yet in the lake, like `aht-etl run`; return the report.

    It returns whatever the end, a failed job too: look at `status`, or call `raise_for_status`.
    `paths` takes the place of the settings' window: paths, or a file with a saved listing.
    `shard` is one of disjoint shares, `"0/4"` to `"3/4"`. `from_archive` takes the files from the
    raw archive (`raw.uri`) instead of the API, `archive_only` fills that and no lake. Raises
    UsageError, before anything is sent, where these or the settings describe no job.

    Where an event loop runs already (a notebook) the job gets a thread of its own, and that loop
    stands still until it is done: `run_async` lets it go on.
    """
    return _to_the_end(
        lambda: run_async(
            settings,
            paths=paths,
            shard=shard,
            from_archive=from_archive,
            archive_only=archive_only,
        )
    )


async def run_async(
    settings: Settings,
    *,
    paths: Paths | None = None,
    shard: str | None = None,
    from_archive: bool = False,
    archive_only: bool = False,
) -> Report:
    """Do as `run` does, in the running event loop.

    Cancelled, it lets go of the network at once, commits what was downloaded already, for at most
    `shutdown.grace`, and raises CancelledError; the next run goes on from there. Cancelled once
    more, it gives up at once what is not committed. Nothing is ever left half.
    """
    require_engine(settings)
    job = _job(settings, paths, shard, from_archive=from_archive, archive_only=archive_only)
    with structlog.contextvars.bound_contextvars(run_id=job.tally.run_id):
        error = None
        try:
            async with logged(job):
                await _gracefully(pipeline.run(job), job)
        except Exception as failure:  # noqa: BLE001 - the boundary of a run: the report is due
            if not is_expected(failure):
                events.log.debug("run.crashed", exc_info=True)
            error = explain(failure, job.redactor.text)
    return Report.of(job.redactor.tree(job.tally.to_report(error, None)))


def plan(
    settings: Settings,
    *,
    paths: Paths | None = None,
    shard: str | None = None,
    from_archive: bool = False,
    archive_only: bool = False,
) -> PlanReport:
    """Find out what `run` would do now, like `aht-etl plan`; fetch nothing, write nothing.

    The arguments are those of `run`. Raises UsageError as `run` does, and RunError, in one line
    without secrets, where there can be no plan: listing refused, lake unreadable.
    """
    return _to_the_end(
        lambda: plan_async(
            settings,
            paths=paths,
            shard=shard,
            from_archive=from_archive,
            archive_only=archive_only,
        )
    )


async def plan_async(
    settings: Settings,
    *,
    paths: Paths | None = None,
    shard: str | None = None,
    from_archive: bool = False,
    archive_only: bool = False,
) -> PlanReport:
    """Do as `plan` does, in the running event loop; cancelled, it ends at once."""
    job = _job(settings, paths, shard, from_archive=from_archive, archive_only=archive_only)
    try:
        return await plan_of(job)
    except RunError as error:
        # A server's words may hold what it was sent: they leave without secrets.
        raise RunError(job.redactor.text(str(error))) from None


async def plan_of(job: Job) -> PlanReport:
    """Make the plan of a job and report on it. Raises RunError, not yet redacted."""
    settings, tally = job.settings, job.tally
    with structlog.contextvars.bound_contextvars(run_id=tally.run_id):
        await pipeline.plan(job)
    blocked = sum(len(p.to_load) for p in tally.plan.partitions if p.state.damage)
    expected = await asyncio.to_thread(
        estimate,
        open_lake(settings),
        tally.plan.to_load - blocked,
        None if job.from_archive else settings.fetch.rate,
    )
    return report_on(
        tally.plan,
        settings.account,
        job.window,
        settings.lake.uri,
        settings.raw.uri if job.archive_only else None,
        tally.listing,
        expected,
        job.redactor,
    )


def _job(
    settings: Settings,
    paths: Paths | None,
    shard: str | None,
    *,
    from_archive: bool,
    archive_only: bool,
) -> Job:
    require(settings, from_archive=from_archive, archive_only=archive_only)
    now = datetime.now(UTC)
    longest = None if from_archive else LONGEST_WINDOW
    window = settle_window(settings, now, longest=longest) if paths is None else None
    job = new_job(settings, window, now, Redactor())
    job.from_archive, job.archive_only = from_archive, archive_only
    job.shard = parse_shard(shard)
    if isinstance(paths, str):
        raise UsageError("paths: takes several paths, or a Path of a file; this is one text")
    if isinstance(paths, Path):
        try:
            job.saved_listing = paths.open("rb")
        except OSError as error:
            raise UsageError(f"paths: {paths} cannot be read: {error.strerror}") from None
    elif paths is not None:
        # As a saved answer: each entry stays what it is, whatever characters it has.
        job.saved_listing = io.BytesIO(json.dumps({"files": list(paths)}).encode())
    return job


async def _gracefully(work: Coroutine[Any, Any, None], job: Job) -> None:
    """Do the work; cancelled, tell it to end as a signal would, wait for that, and raise."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        job.stop.request(signal=signal.SIGTERM)
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()  # changes nothing if it has ended
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # looked at: what was cancelled has no other outcome
        raise


def _to_the_end(begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(begin())
    return _in_a_thread(begin)


def _in_a_thread(begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run in another thread's loop and wait; interrupted, cancel it there and wait for that."""
    begun: asyncio.Future[T]
    has_begun = threading.Event()

    async def go() -> T:
        nonlocal begun
        begun = asyncio.ensure_future(begin())
        has_begun.set()
        return await begun

    context = contextvars.copy_context()
    with ThreadPoolExecutor(1, "aht-etl") as thread:
        done = thread.submit(context.run, lambda: asyncio.run(go()))
        try:
            return done.result()
        except BaseException:
            if not done.done():
                has_begun.wait()
                with suppress(RuntimeError):  # its loop has ended by itself
                    begun.get_loop().call_soon_threadsafe(begun.cancel)
            raise
