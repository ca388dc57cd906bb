"""The client's side of `--engine dask`: as many tasks at once as there are places, no graph.

Each place hands out one share after another and waits for its outcome; Dask gives the share of a
worker that died to another one. What a run sends and how fast is bounded by its places, whatever
becomes of the cluster meanwhile.
"""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from etl.config.sections import FetchSettings
from etl.model.errors import RunError, describe
from etl.model.events import log
from etl.model.version import __version__
from etl.pipeline.cluster import relay as forward
from etl.pipeline.cluster.connection import connected
from etl.pipeline.cluster.messages import EndRun, Order, Outcome, Together, Word
from etl.pipeline.cluster.recovery import account_for
from etl.pipeline.cluster.shares import cut, portable, share_out
from etl.pipeline.cluster.worker import exchange, leave, work
from etl.pipeline.load import deadline
from etl.pipeline.outcomes import Outcomes
from etl.pipeline.source import Source
from etl.pipeline.state import Elsewhere, RunState
from etl.pipeline.stop import Stop
from etl.storage.store import LakeError, Store

if TYPE_CHECKING:
    import distributed

_EXCHANGE_EVERY_S: Final = 1.0
# While a run ends, its workers are told more often.
_ENDING_EVERY_S: Final = 0.2
# How long workers may take to say how far they are, and how long what is done at the end may take.
_PATIENCE_S: Final = 10.0
_PARTING_S: Final = 1.0
# Exchanges after which a task that no worker has, though the run is to end, is taken back.
_TAKEN_BACK_AFTER: Final = 3
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
    """One task at a time: its limits, its share, and what its attempts said last."""

    limits: FetchSettings
    key: str = ""
    paths: list[str] = field(default_factory=list)
    future: Any = None
    words: dict[str, Word] = field(default_factory=dict)
    last: Word | None = None


class _Run:
    """What the places of one run share."""

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
        self._level = forward.least_level()
        self._places: list[_Place] = []
        self._told = asyncio.Event()
        self._over = False
        self._killers: list[str] = []

    async def go(self, limits: Iterable[FetchSettings]) -> None:
        """Load all shares, or what can be had of them when the run is told to end."""
        self._places = [_Place(each) for each in limits]
        if self._state.limits is not None:
            own = self._state.limits
            self._state.limits = Together(lambda: self._limits() or [own])
        self._stop.on_request(self._told.set)
        talk = asyncio.ensure_future(self._talk())
        try:
            async with (
                deadline(self._stop, self._job.settings.shutdown.grace),
                asyncio.TaskGroup() as group,
            ):
                for place in self._places:
                    group.create_task(self._work(place))
        finally:
            # What workers have said by now is heard to the end: it may be all there is of an event.
            self._over = True
            self._told.set()
            await asyncio.wait({talk}, timeout=_PARTING_S)
            talk.cancel()
        # A lake that does not answer keeps nobody: what is not known is not attempted.
        with suppress(TimeoutError):
            async with asyncio.timeout(_PARTING_S):
                for place in self._places:
                    await self._settle(place)
        with suppress(TimeoutError):
            async with asyncio.timeout(_PARTING_S):
                await self._run_on_workers(leave, self._job.run_id)
        if self._killers and not self._stop.requested():
            raise RunError(self._killers[0])

    async def _work(self, place: _Place) -> None:
        for number, paths in self._shares:
            if self._stop.requested():
                return
            place.paths, place.key = paths, f"aht-etl-{self._job.run_id}-{number}"
            try:
                place.future = self._dask.submit(work, self._order(place), key=place.key)
                outcome = await place.future
            except Exception as error:  # noqa: BLE001 - whatever became of it, it did not come back
                self._not_back(place, error)
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
        self._hear(outcome.word)
        try:
            await asyncio.to_thread(self._look_for, outcome)
        except (LakeError, OSError):
            where = f"{self._store.place} is another folder on the worker {outcome.word.worker}"
            reason = f"{where} than here; lake.uri must be a place that all workers share"
            self._stop.request(error=RunError(reason))
            return
        self._add(place, outcome.outcomes, outcome.word.attempt)
        if outcome.error is not None:
            self._stop.request(error=RunError(outcome.error))

    def _look_for(self, outcome: Outcome) -> None:
        if outcome.outcomes.parts:
            self._store.stat(outcome.outcomes.parts[0].path)

    def _not_back(self, place: _Place, error: Exception) -> None:
        """Make sense of a task that has no outcome."""
        from distributed import KilledWorker  # noqa: PLC0415 - an extra
        from distributed.client import FutureCancelledError  # noqa: PLC0415

        if isinstance(error, KilledWorker):
            first = place.paths[0].rpartition("/")[0]
            reason = (
                f"{error.allowed_failures + 1} workers died over the {len(place.paths)} files from "
                f"{first} on, for want of memory perhaps: each needs more than limits.memory"
            )
            log.error("task.failed", reason=reason)
            # It may be these files' fault: the others are loaded before the run fails.
            self._killers.append(reason)
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
        """Account for a share whose task did not come back: the lake has what it committed."""
        if not place.paths:
            return
        counted = self._state.outcomes.parts
        share = await account_for(self._store, place.paths, self._job.run_id, counted)
        self._add(place, share, None)

    def _add(self, place: _Place, share: Outcomes, attempt: str | None) -> None:
        """Add a share's outcomes, and the traffic of all its attempts, lost ones too."""
        self._state.outcomes.add(share, place.paths)
        for word in place.words.values():
            self._state.traffic.add(word.traffic)
            if word.attempt != attempt:
                self._state.outcomes.decoded(word.decompressed_bytes)
        place.paths, place.key, place.future = [], "", None
        place.words.clear()
        self._show()

    async def _talk(self) -> None:
        """Hear from the workers now and then, and tell them when the run is to end."""
        loop = asyncio.get_running_loop()
        heard_at, asked = loop.time(), 0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_EXCHANGE_EVERY_S):
                    await self._told.wait()
            if self._over:
                return
            stop = self._stop
            end = EndRun(stop.signal, str(stop.error or "")) if stop.requested() else None
            answers = await self._run_on_workers(exchange, self._job.run_id, end)
            words = [word for said in answers.values() for word in said]
            for word in words:
                self._hear(word)
            self._show()
            if answers:
                heard_at = loop.time()
            elif loop.time() >= heard_at + _WAITING_S:
                heard_at = loop.time()
                log.warning("engine.waiting", reason="no worker of the Dask cluster answers")
            if end is not None:
                asked += 1
                if asked >= _TAKEN_BACK_AFTER:
                    await self._take_back({word.key for word in words})
                await asyncio.sleep(_ENDING_EVERY_S)

    async def _take_back(self, at_work: set[str]) -> None:
        futures = [p.future for p in self._places if p.future is not None and p.key not in at_work]
        if futures:
            await self._dask.cancel(futures)  # type: ignore[no-untyped-call]

    async def _run_on_workers(self, function: Any, *arguments: Any) -> dict[str, Any]:
        if self._dask.status != "running":
            return {}
        try:
            async with asyncio.timeout(_PATIENCE_S):
                answers: dict[str, Any] = await self._dask.run(
                    function, *arguments, on_error="ignore"
                )
        except Exception as error:  # noqa: BLE001 - the display lacks something, no more
            log.debug("engine.silent", reason=describe(error))
            return {}
        return answers

    def _hear(self, word: Word) -> None:
        place = next((place for place in self._places if place.key == word.key), None)
        if place is None:
            return  # its outcome is there already, or its place gave it up
        if place.words and word.attempt not in place.words:
            files = len(place.paths)
            reason = f"the worker {next(reversed(place.words.values())).worker} was lost"
            log.warning("task.repeated", files=files, reason=reason)
        forward.log_again(word.logs, worker=word.worker)
        place.words[word.attempt] = word
        place.last = word

    def _limits(self) -> list[Word]:
        return [place.last for place in self._places if place.last is not None]

    def _show(self) -> None:
        words = [place.last for place in self._places if place.last is not None and place.words]
        self._state.elsewhere = Elsewhere(
            *(
                sum(getattr(word.done, name) for word in words)
                for name in Elsewhere.__dataclass_fields__
            )
        )
