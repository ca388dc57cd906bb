"""The client's side of `--engine dask`: it runs a fixed number of tasks at once.

Each of these places submits one share of the plan after another and waits for its outcome. Dask
gives the share of a worker that died to another worker. The places bound what a run sends, also if
the cluster grows or shrinks.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from etl.config.sections import EngineSettings, FetchSettings
from etl.model import __version__
from etl.model.errors import RunError, describe
from etl.model.events import log
from etl.pipeline.cluster.shares import (
    Order,
    Outcome,
    Progress,
    StopRequest,
    SummedLimits,
    cut,
    least_level,
    log_again,
    outcomes_by_receipts,
    portable,
    share_out,
)
from etl.pipeline.cluster.worker import exchange, leave, work
from etl.pipeline.load import deadline
from etl.pipeline.outcomes import Outcomes
from etl.pipeline.source import Source
from etl.pipeline.state import Elsewhere, RunState
from etl.pipeline.stop import Stop
from etl.storage.store import Store, StoreError

if TYPE_CHECKING:
    import distributed
    from distributed import Client

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
        places = max(1, min(settings.engine.workers or workers, most))
        run = _Run(state, stop, store, dask, cut(todo, places))
        await run.go(share_out(settings.fetch, places))


@dataclass(slots=True, eq=False)
class _Place:
    """One task at a time: its limits, its share, and the last progress of each attempt."""

    limits: FetchSettings
    key: str = ""
    paths: list[str] = field(default_factory=list)
    future: Any = None
    attempts: dict[str, Progress] = field(default_factory=dict)
    last: Progress | None = None


class _Run:
    """The places of one run, and what they share."""

    def __init__(
        self,
        state: RunState,
        stop: Stop,
        store: Store,
        dask: "distributed.Client",
        shares: Iterator[list[str]],
    ) -> None:
        self._state = state
        self._job = state.job
        self._stop = stop
        self._store = store
        self._dask = dask
        self._shares = enumerate(shares)
        self._settings = portable(state.job.settings)
        self._level = least_level()
        self._places: list[_Place] = []
        self._wake = asyncio.Event()
        self._ended = False
        self._deadly_shares: list[str] = []

    async def go(self, limits: Iterable[FetchSettings]) -> None:
        """Load all shares, or at a stop request those that are downloaded."""
        self._places = [_Place(each) for each in limits]
        if self._state.limits is not None:
            own = self._state.limits
            self._state.limits = SummedLimits(lambda: self._limits() or [own])
        self._stop.on_request(self._wake.set)
        exchange = asyncio.ensure_future(self._exchange())
        try:
            async with (
                deadline(self._stop, self._job.settings.shutdown.grace),
                asyncio.TaskGroup() as group,
            ):
                for place in self._places:
                    group.create_task(self._work(place))
        finally:
            # One last exchange: it may bring events that nothing else brings.
            self._ended = True
            self._wake.set()
            await asyncio.wait({exchange}, timeout=_LAST_STEP_S)
            exchange.cancel()
        # A lake that does not answer does not delay the end: unknown files are not attempted.
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_STEP_S):
                for place in self._places:
                    await self._settle(place)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_STEP_S):
                await self._run_on_workers(leave, self._job.run_id)
        if self._deadly_shares and not self._stop.requested():
            raise RunError(self._deadly_shares[0])

    async def _work(self, place: _Place) -> None:
        for number, paths in self._shares:
            if self._stop.requested():
                return
            place.paths, place.key = paths, f"aht-etl-{self._job.run_id}-{number}"
            try:
                place.future = self._dask.submit(work, self._order(place), key=place.key)
                outcome = await place.future
            except Exception as error:  # noqa: BLE001 - any error means that there is no outcome
                self._lost(place, error)
                await self._settle(place)
            else:
                await self._take(place, outcome)

    def _order(self, place: _Place) -> Order:
        settings = self._settings.model_copy(update={"fetch": place.limits})
        return Order(
            place.key,
            __version__,
            self._job.run_id,
            settings,
            tuple(place.paths),
            self._level,
            self._job.from_archive,
        )

    async def _take(self, place: _Place, outcome: Outcome) -> None:
        self._receive(outcome.progress)
        try:
            await asyncio.to_thread(self._look_for, outcome)
        except (StoreError, OSError):
            where = f"{self._store.place} is another folder on the worker {outcome.progress.worker}"
            reason = f"{where} than here; lake.uri must be a place that all workers share"
            self._stop.request(error=RunError(reason))
            return
        self._add(place, outcome.outcomes, outcome.progress.attempt)
        if outcome.error is not None:
            self._stop.request(error=RunError(outcome.error))

    def _look_for(self, outcome: Outcome) -> None:
        if outcome.outcomes.parts:
            self._store.stat(outcome.outcomes.parts[0].path)

    def _lost(self, place: _Place, error: Exception) -> None:
        """Handle a task that has no outcome."""
        from distributed import KilledWorker  # noqa: PLC0415 - an extra
        from distributed.client import FutureCancelledError  # noqa: PLC0415

        if isinstance(error, KilledWorker):
            first = place.paths[0].rpartition("/")[0]
            reason = (
                f"{error.allowed_failures + 1} workers died over the {len(place.paths)} files from "
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

    async def _settle(self, place: _Place) -> None:
        """Account for a share whose task has no outcome, by the parts that it committed."""
        if not place.paths:
            return
        counted = self._state.outcomes.parts
        share = await outcomes_by_receipts(self._store, place.paths, self._job.run_id, counted)
        self._add(place, share, None)

    def _add(self, place: _Place, share: Outcomes, attempt: str | None) -> None:
        """Add a share's outcomes, and the traffic of all its attempts, lost ones too."""
        self._state.outcomes.add(share, place.paths)
        for progress in place.attempts.values():
            self._state.traffic.add(progress.traffic)
            if progress.attempt != attempt:
                self._state.outcomes.decoded(progress.decompressed_bytes)
        place.paths, place.key, place.future = [], "", None
        place.attempts.clear()
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
            stop = self._stop
            end = StopRequest(stop.signal, str(stop.error or "")) if stop.requested() else None
            answers = await self._run_on_workers(exchange, self._job.run_id, end)
            received = [each for messages in answers.values() for each in messages]
            for progress in received:
                self._receive(progress)
            self._show()
            if answers:
                answered_at = loop.time()
            elif loop.time() >= answered_at + _WAITING_S:
                answered_at = loop.time()
                log.warning("engine.waiting", reason="no worker of the Dask cluster answers")
            if end is not None:
                asked += 1
                if asked >= _CANCELLED_AFTER:
                    await self._cancel_all_but({progress.key for progress in received})
                await asyncio.sleep(_ENDING_EVERY_S)

    async def _cancel_all_but(self, running: set[str]) -> None:
        futures = [p.future for p in self._places if p.future is not None and p.key not in running]
        if futures:
            await self._dask.cancel(futures)  # type: ignore[no-untyped-call]

    async def _run_on_workers(self, function: Any, *arguments: Any) -> dict[str, Any]:
        if self._dask.status != "running":
            return {}
        try:
            async with asyncio.timeout(_ANSWER_S):
                answers: dict[str, Any] = await self._dask.run(
                    function, *arguments, on_error="ignore"
                )
        except Exception as error:  # noqa: BLE001 - only the display misses something
            log.debug("engine.silent", reason=describe(error))
            return {}
        return answers

    def _receive(self, progress: Progress) -> None:
        place = next((place for place in self._places if place.key == progress.key), None)
        if place is None:
            return  # its outcome was received already, or its place gave it up
        if place.attempts and progress.attempt not in place.attempts:
            files = len(place.paths)
            reason = f"the worker {next(reversed(place.attempts.values())).worker} was lost"
            log.warning("task.repeated", files=files, reason=reason)
        log_again(progress.logs, worker=progress.worker)
        place.attempts[progress.attempt] = progress
        place.last = progress

    def _limits(self) -> list[Progress]:
        return [place.last for place in self._places if place.last is not None]

    def _show(self) -> None:
        running = [place.last for place in self._places if place.last and place.attempts]
        self._state.elsewhere = Elsewhere(
            *(
                sum(getattr(progress.done, name) for progress in running)
                for name in Elsewhere.__dataclass_fields__
            )
        )


@asynccontextmanager
async def connected(engine: EngineSettings) -> AsyncIterator["Client"]:
    """Connect to the scheduler, whose workers must have this version. Raises RunError."""
    dask = _imported()
    client = dask.Client(engine.scheduler, asynchronous=True, set_as_default=False, name="aht-etl")
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
        await _close(client)


def _imported() -> Any:
    """Import Dask without its own handlers: its logs go where those of libraries go."""
    import dask.config  # noqa: PLC0415 - an extra

    with dask.config.set(logging={"version": 1, "disable_existing_loggers": False}):
        import distributed  # noqa: PLC0415 - an extra
    return distributed


async def _check_versions(client: "Client") -> None:
    """Raise RunError where the cluster has another version of this package, or none."""
    try:
        versions: Any = await client.get_versions(packages=["aht-etl"])  # type: ignore[misc]
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


async def _close(client: Any) -> None:
    """Close the client to the end, also when the run is cancelled meanwhile."""
    task = asyncio.ensure_future(client.close())
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
