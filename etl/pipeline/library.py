"""The job from Python: `from etl import run, plan, Settings`.

For notebooks and for tasks of Airflow, Dagster, Prefect and the like. Nothing here touches what
belongs to the host: no signal handler, no configuration of logs, no state between calls. Calls may
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
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from etl.config.settings import Redactor, Settings
from etl.model.errors import RunError, UsageError
from etl.pipeline import run as pipeline
from etl.pipeline.job import Job, make_job
from etl.pipeline.plan_report import PlanReport, plan_report
from etl.pipeline.progress import logged
from etl.pipeline.report import Report
from etl.pipeline.stop import Stop

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

    It returns however the job ends, a failed job too: look at `status`, or call `raise_for_status`.
    `paths` replaces the settings' window: paths, or a file with a saved listing. `shard` is one of
    disjoint shares, `"0/4"` to `"3/4"`. `from_archive` reads the files from the raw archive
    (`raw.uri`) instead of the API, `archive_only` fills the archive and no lake. Raises UsageError,
    before anything is sent, where these or the settings describe no job.

    In a running event loop (a notebook) the job gets a thread of its own, and that loop waits until
    it is done; `run_async` does not block it.
    """
    job = _job(settings, paths, shard, from_archive=from_archive, archive_only=archive_only)
    return _block_on(partial(_run, job))


async def run_async(
    settings: Settings,
    *,
    paths: Paths | None = None,
    shard: str | None = None,
    from_archive: bool = False,
    archive_only: bool = False,
) -> Report:
    """Do as `run` does, in the running event loop.

    When cancelled, it drops its requests at once, commits what is downloaded, within
    `shutdown.grace`, and raises CancelledError; the next run continues from there. When cancelled
    again, it drops at once what is not committed. Nothing is ever left half-written.
    """
    return await _run(
        _job(settings, paths, shard, from_archive=from_archive, archive_only=archive_only)
    )


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
    without secrets, where no plan can be made: listing refused, lake unreadable.
    """
    job = _job(settings, paths, shard, from_archive=from_archive, archive_only=archive_only)
    return _block_on(partial(_plan, job))


async def plan_async(
    settings: Settings,
    *,
    paths: Paths | None = None,
    shard: str | None = None,
    from_archive: bool = False,
    archive_only: bool = False,
) -> PlanReport:
    """Do as `plan` does, in the running event loop; when cancelled, end at once."""
    return await _plan(
        _job(settings, paths, shard, from_archive=from_archive, archive_only=archive_only)
    )


def _job(
    settings: Settings,
    paths: Paths | None,
    shard: str | None,
    *,
    from_archive: bool,
    archive_only: bool,
) -> Job:
    if isinstance(paths, str):
        raise UsageError("paths: takes several paths, or a Path of a file; this is one text")
    return make_job(
        settings,
        Redactor(),
        open_listing=None if paths is None else partial(_open_listing, paths),
        shard=shard,
        from_archive=from_archive,
        archive_only=archive_only,
    )


def _open_listing(paths: Paths) -> BinaryIO:
    if isinstance(paths, Path):
        try:
            return paths.open("rb")
        except OSError as error:
            raise UsageError(f"paths: {paths} cannot be read: {error.strerror}") from None
    # As a saved answer: each entry stays as it is, whatever characters it has.
    return io.BytesIO(json.dumps({"files": list(paths)}).encode())


async def _run(job: Job) -> Report:
    """Run the job; when cancelled, request a stop, wait for that, and raise."""
    stop = Stop()
    task = asyncio.ensure_future(pipeline.run(job, stop, logged))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.request(signal=signal.SIGTERM)
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()  # changes nothing if it has ended
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # retrieved, so that asyncio does not log it
        raise


async def _plan(job: Job) -> PlanReport:
    try:
        return await plan_report(job)
    except RunError as error:
        # A server's text may quote what it was sent.
        raise RunError(job.redactor.text(str(error))) from None


def _block_on(start: Callable[[], Coroutine[Any, Any, T]]) -> T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(start())
    return _in_a_thread(start)


def _in_a_thread(start: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run in another thread's loop and wait; when interrupted, cancel it there and wait."""
    started: asyncio.Future[T]
    has_started = threading.Event()

    async def go() -> T:
        nonlocal started
        started = asyncio.ensure_future(start())
        has_started.set()
        return await started

    context = contextvars.copy_context()
    with ThreadPoolExecutor(1, "aht-etl") as thread:
        done = thread.submit(context.run, lambda: asyncio.run(go()))
        try:
            return done.result()
        except BaseException:
            if not done.done():
                has_started.wait()
                with suppress(RuntimeError):  # its loop has ended
                    started.get_loop().call_soon_threadsafe(started.cancel)
            raise
