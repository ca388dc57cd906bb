"""The client's side of `--engine dask`: it runs a fixed number of tasks at once.

Each of these slots submits one share of the plan after another and waits for its outcome. Dask
gives the share of a worker that died to another worker. The slots bound what a run sends, also if
the cluster grows or shrinks.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog
from distributed import Client, KilledWorker
from distributed.client import FutureCancelledError

from etl.config.sections import EngineSettings, FetchSettings
from etl.model import __version__
from etl.model.errors import RunError, describe
from etl.model.text import log
from etl.pipeline.cluster.shares import (
    Order,
    Progress,
    cut,
    plan_again,
    portable,
    share_out,
)
from etl.pipeline.cluster.worker import RunPlugin, exchange, work
from etl.pipeline.source import Source
from etl.pipeline.state import Elsewhere, Limits, Outcomes, RunState
from etl.pipeline.stop import Stop, deadline
from etl.storage.store import Store, StoreError

_EXCHANGE_EVERY_S: Final = 1.0
# While a run stops, workers are asked more often.
_ENDING_EVERY_S: Final = 0.2
# How long workers may take to answer, and how long each step at the end of a run may take.
_ANSWER_S: Final = 10.0
_LAST_STEP_S: Final = 1.0
# After a stop request, a task that no worker has is cancelled after this many exchanges.
_CANCELLED_AFTER: Final = 3
_WAITING_S: Final = 60.0


async def load(state: RunState, _source: Source, store: Store, stop: Stop) -> None:
    """Do what `etl.pipeline.load.load` does, on the workers of a Dask cluster."""
    todo = [partition for partition in state.plan.partitions if partition.to_load]
    if not todo:
        return
    settings = state.job.settings
    most = min(settings.fetch.concurrency, len(todo))
    async with AsyncExitStack() as stack:
        dask = await stop.interruptible(stack.enter_async_context(connected(settings.engine)))
        workers = len(await stop.interruptible(dask.nthreads()))  # type: ignore[no-untyped-call]
        slots = max(1, min(settings.engine.workers or workers, most))
        run = _Run(state, stop, store, dask, cut(todo, slots))
        await run.go(share_out(settings.fetch, slots))


@asynccontextmanager
async def connected(engine: EngineSettings) -> AsyncIterator[Client]:
    """Connect to the scheduler, whose workers must have this version. Raises RunError."""
    client: Any = Client(  # type: ignore[no-untyped-call]
        engine.scheduler, asynchronous=True, set_as_default=False, name="aht-etl"
    )
    try:
        try:
            await client
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise RunError(
                f"the Dask scheduler at {engine.scheduler}: no answer: {reason}; check "
                "engine.scheduler"
            ) from error
        await _check_versions(client)
        yield client
    finally:
        # To the end, also when the run is cancelled meanwhile.
        task = asyncio.ensure_future(client.close())
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task})
            raise


async def _check_versions(client: Any) -> None:
    """Raise RunError where the cluster has another version of this package, or none."""
    try:
        versions = await client.get_versions(packages=["aht-etl"])
    except Exception as error:
        raise RunError(
            f"the Dask cluster does not report its versions: {describe(error)}"
        ) from error
    for name, found in {"the scheduler": versions["scheduler"], **versions["workers"]}.items():
        version = found["packages"].get("aht-etl") if found else None
        if version != __version__:
            raise RunError(
                f"{name} of the Dask cluster has "
                f"{f'aht-etl {version}' if version else 'no aht-etl'}, this is {__version__}: "
                "install the same version on scheduler and workers"
            )


@dataclass(slots=True, eq=False)
class _Share:
    """A share that a slot has submitted, and the last progress of each attempt at it."""

    key: str
    slot: int
    paths: list[str]
    future: Any = None
    attempts: dict[str, Progress] = field(default_factory=dict)


class _Run:
    """The slots of one run, and what they share."""

    def __init__(
        self, state: RunState, stop: Stop, store: Store, dask: Client, shares: Iterator[list[str]]
    ) -> None:
        self._state = state
        self._job = state.job
        self._stop = stop
        self._store = store
        self._dask: Any = dask
        self._shares = enumerate(shares)
        self._job_there = portable(state.job)
        self._level = _least_level()
        self._running: dict[str, _Share] = {}  # by key
        self._limits: dict[int, Limits] = {}  # by slot
        self._wake = asyncio.Event()
        self._ended = False
        self._deadly_shares: list[str] = []

    async def go(self, slots: list[FetchSettings]) -> None:
        """Load all shares, or at a stop request those that are downloaded."""
        plugin = self._dask.register_plugin(RunPlugin(), name=self._job.run_id)
        await self._stop.interruptible(plugin)
        self._stop.on_request(self._wake.set)
        exchanging = asyncio.ensure_future(self._exchange())
        try:
            async with (
                deadline(self._stop, self._job.settings.shutdown.grace),
                asyncio.TaskGroup() as group,
            ):
                for slot, limits in enumerate(slots):
                    group.create_task(self._work(slot, limits))
        finally:
            # An exchange that is under way may bring events that nothing else brings.
            self._ended = True
            self._wake.set()
            await asyncio.wait({exchanging}, timeout=_LAST_STEP_S)
            exchanging.cancel()
        # A lake that does not answer does not delay the end: unknown files are not attempted.
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_STEP_S):
                for share in list(self._running.values()):
                    await self._settle(share)
        with suppress(Exception):  # the scheduler may be lost
            async with asyncio.timeout(_LAST_STEP_S):
                await self._dask.unregister_worker_plugin(self._job.run_id)
        if self._deadly_shares and not self._stop.requested():
            raise RunError(self._deadly_shares[0])

    async def _work(self, slot: int, limits: FetchSettings) -> None:
        """Submit one share after another, and take its outcomes."""
        settings = self._job_there.settings.model_copy(update={"fetch": limits})
        job = replace(self._job_there, settings=settings)
        for number, paths in self._shares:
            if self._stop.requested():
                return
            share = _Share(f"aht-etl-{job.run_id}-{number}", slot, paths)
            self._running[share.key] = share
            order = Order(share.key, __version__, job, tuple(paths), self._level)
            try:
                share.future = self._dask.submit(work, order, key=share.key)
                progress = await share.future
            except Exception as error:  # noqa: BLE001 - any error means that there is no outcome
                self._lost(share, error)
                await self._settle(share)
            else:
                await self._take(share, progress)

    async def _take(self, share: _Share, progress: Progress) -> None:
        self._receive(progress)
        try:
            if parts := progress.outcomes.parts:
                await asyncio.to_thread(self._store.stat, parts[0].path)
        except (StoreError, OSError):
            where = f"{self._store.place} is another folder on the worker {progress.worker}"
            reason = f"{where} than here; lake.uri must be a place that all workers share"
            self._stop.request(error=RunError(reason))
            return
        self._add(share, progress.outcomes, progress.attempt)
        if progress.error is not None:
            self._stop.request(error=RunError(progress.error))

    def _lost(self, share: _Share, error: Exception) -> None:
        """Handle a task that has no outcome."""
        if isinstance(error, KilledWorker):
            first = share.paths[0].rpartition("/")[0]
            reason = (
                f"{error.allowed_failures + 1} workers died over the {len(share.paths)} files from "
                f"{first} on, perhaps because memory ran out: each needs more than limits.memory"
            )
            log.error("task.failed", reason=reason)
            # These files may be the cause: the others are loaded before the run fails.
            self._deadly_shares.append(reason)
        elif not isinstance(error, FutureCancelledError):
            text = self._job.redactor.text(describe(error))
            advice = f"; is aht-etl {__version__} on scheduler and workers?"
            reason = f"a task failed on the Dask cluster: {text}{advice}"
            self._stop.request(error=RunError(reason))
        elif not self._stop.requested():
            where = self._job.settings.engine.scheduler
            reason = f"the Dask scheduler at {where} was lost; committed parts stay"
            self._stop.request(error=RunError(reason))

    async def _settle(self, share: _Share) -> None:
        """Account for a share whose task has no outcome, by the parts that it committed."""
        outcomes = Outcomes()
        outcomes.expect(await plan_again(self._store, share.paths, self._job.run_id, outcomes))
        self._add(share, outcomes, None)

    def _add(self, share: _Share, outcomes: Outcomes, attempt: str | None) -> None:
        """Add a share's outcomes, and the traffic of all its attempts, lost ones too."""
        del self._running[share.key]
        self._state.outcomes.add(outcomes, share.paths)
        for progress in share.attempts.values():
            self._state.traffic.add(progress.traffic)
            if progress.attempt != attempt:
                self._state.outcomes.decoded(progress.outcomes.decompressed_bytes)
        self._show()

    async def _exchange(self) -> None:
        """Receive the workers' progress, and send them a stop request when there is one."""
        loop = asyncio.get_running_loop()
        answered_at, asked = loop.time(), 0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_EXCHANGE_EVERY_S):
                    await self._wake.wait()
            if self._ended:
                return
            ending = self._stop.requested()
            answers = await self._ask_workers()
            received = [each for messages in answers.values() for each in messages]
            for progress in received:
                self._receive(progress)
            self._show()
            if answers:
                answered_at = loop.time()
            elif loop.time() >= answered_at + _WAITING_S:
                answered_at = loop.time()
                log.warning("engine.waiting", reason="no worker of the Dask cluster answers")
            if ending:
                asked += 1
                if asked >= _CANCELLED_AFTER:
                    await self._cancel_all_but({progress.key for progress in received})
                await asyncio.sleep(_ENDING_EVERY_S)

    async def _cancel_all_but(self, kept: set[str]) -> None:
        running = self._running.values()
        if futures := [each.future for each in running if each.future and each.key not in kept]:
            await self._dask.cancel(futures)

    async def _ask_workers(self) -> dict[str, list[Progress]]:
        """Return the progress of all tasks by worker; pass a stop request on."""
        if self._dask.status != "running":
            return {}
        stop = self._stop
        try:
            async with asyncio.timeout(_ANSWER_S):
                answers: dict[str, list[Progress]] = await self._dask.run(
                    exchange, self._job.run_id, stop.signal, stop.error, on_error="ignore"
                )
        except Exception as error:  # noqa: BLE001 - only the display misses something
            log.debug("engine.silent", reason=describe(error))
            return {}
        return answers

    def _receive(self, progress: Progress) -> None:
        share = self._running.get(progress.key)
        if share is None:
            return  # its outcome was received already, or its slot gave it up
        if share.attempts and progress.attempt not in share.attempts:
            reason = f"the worker {next(reversed(share.attempts.values())).worker} was lost"
            log.warning("task.repeated", files=len(share.paths), reason=reason)
        for event in progress.events:
            fields = {**event, "worker": progress.worker}
            log.log(fields.pop("level"), fields.pop("event"), **fields)
        share.attempts[progress.attempt] = progress
        if progress.limits is not None:
            self._limits[share.slot] = progress.limits

    def _show(self) -> None:
        """Show what the running tasks have done, and their limits together."""
        elsewhere = self._state.elsewhere = Elsewhere()
        for share in self._running.values():
            if share.attempts:
                last = next(reversed(share.attempts.values()))
                elsewhere.outcomes.add(last.outcomes, ())
                elsewhere.traffic.add(last.traffic)
        if limits := list(self._limits.values()):
            self._state.limits = Limits(
                sum(each.allowed for each in limits),
                sum(each.rate for each in limits),
                sum(each.in_flight for each in limits),
                max(each.paused_s for each in limits),
            )


def _least_level() -> int:
    """Return the least level that this process logs, by its configuration of structlog."""
    if not structlog.is_configured():
        return logging.CRITICAL
    logger = structlog.get_logger().bind()
    try:
        return int(logger.get_effective_level())
    except AttributeError:
        return logging.INFO
