"""In a worker's process: tasks are done here, by the code of a local run.

Dask gives a task nothing but a function to call, so what tasks share is this module's (`_POST`).
"""

import asyncio
import threading
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from etl.api.client import connect
from etl.api.transport import Traffic, Transport
from etl.archive.reader import open_archive_reader
from etl.config.redact import Redactor
from etl.config.settings import open_lake
from etl.model import events
from etl.model.errors import AhtEtlError, RunError, describe
from etl.model.version import __version__
from etl.pipeline.cluster import relay as forward
from etl.pipeline.cluster.messages import EndRun, Order, Outcome, Word
from etl.pipeline.cluster.recovery import look, recover
from etl.pipeline.job import Job
from etl.pipeline.load import load
from etl.pipeline.resources import threads_for
from etl.pipeline.source import Source
from etl.pipeline.state import Elsewhere, RunState
from etl.pipeline.stop import Stop, StoppedError
from etl.storage.store import Store

# Runs that end tell it; of a client that was killed, so many keep their connections for a while.
_MOST_IDLE: Final = 4


@dataclass(slots=True, eq=False)
class Station:
    """What a task needs and leaves to the run's next: connections, a token, the server's limits."""

    order: Order
    stop: Stop = field(default_factory=Stop)
    redactor: Redactor = field(default_factory=Redactor)
    traffic: Traffic = field(default_factory=Traffic)
    transport: Transport = field(init=False)
    store: Store = field(init=False)
    source: Source | None = None

    async def open(self) -> None:
        """Make what needs no server."""
        settings = self.order.settings
        for secret in settings.secret_values():
            self.redactor.add(secret)
        clock = asyncio.get_running_loop().time
        transport = Transport(settings, self.traffic, clock, self._sleep, self.redactor)
        self.transport = await transport.__aenter__()
        self.store = open_lake(settings)

    async def close(self) -> None:
        """Close the connections."""
        await self.transport.__aexit__()

    def fits(self, order: Order) -> bool:
        """Tell whether a task may go on from here: of the same run, with the same limits."""
        mine = self.order
        return (mine.run_id, mine.settings) == (order.run_id, order.settings)

    async def connect(self) -> Source:
        """Find the vendor's hosts, or the archive, once. Raises RunError."""
        if self.source is not None:
            return self.source
        settings = self.order.settings
        if self.order.from_archive:
            source: Source = await asyncio.to_thread(open_archive_reader, settings, self.traffic)
        else:
            source = await connect(self.transport, settings)
        self.source = source
        return source

    async def _sleep(self, seconds: float) -> None:
        await self.stop.sleep(seconds)  # the stop of the task that is here now


class Attempt:
    """One attempt of a task."""

    def __init__(self, order: Order, worker: str, station: Station) -> None:
        self.order = order
        self.station = station
        self.stop = station.stop = Stop()
        job = Job(
            order.settings,
            None,
            datetime.now(UTC),
            station.redactor,
            from_archive=order.from_archive,
            run_id=order.run_id,
        )
        self.state = RunState(job, traffic=station.traffic, limits=station.transport.limiter)
        self.log = forward.EventLog(order.level, station.redactor)
        self._traffic_before = replace(station.traffic)
        self._id = str(uuid.uuid4())
        self._worker = worker

    def end(self, word: EndRun) -> None:
        """Stop as the run does."""
        error = RunError(word.reason) if word.signal is None else None
        self.stop.request(signal=word.signal, error=error)

    def word(self) -> Word:
        """Return how far this attempt is."""
        outcomes, limiter = self.state.outcomes, self.station.transport.limiter
        traffic = self.station.traffic.since(self._traffic_before)
        return Word(
            self.order.key,
            self._id,
            self._worker,
            Elsewhere(
                loaded=outcomes.loaded,
                failed=len(outcomes.failures),
                brought_by_others=outcomes.already_loaded,
                rows=outcomes.rows,
                downloaded_bytes=traffic.downloaded_bytes,
                throttled=traffic.throttled,
            ),
            traffic,
            outcomes.decompressed_bytes,
            limiter.in_flight,
            limiter.allowed,
            limiter.rate,
            limiter.paused_s,
            self.log.take(),
        )

    async def do(self) -> Outcome:
        """Load the files of the order that the lake lacks."""
        order, station, state = self.order, self.station, self.state
        forward.TASK.set(self.log)
        error = None
        try:
            # First, whatever the client asks meanwhile: an earlier attempt may have committed
            # parts, and nobody else reports them.
            state.plan, own = await look(station.store, order.paths, order.run_id)
            state.outcomes.expect(state.plan)
            recover(own, state.outcomes, ())
            before = state.outcomes.already_loaded
            if station.source is None and order.settings.fetch.rate and not order.from_archive:
                # A task in another process may have just used this share of the rate.
                await self.stop.sleep(1 / order.settings.fetch.rate)
            source = await self.stop.interruptible(station.connect())
            await load(state, source, station.store, self.stop)
            if state.outcomes.already_loaded > before:
                # By another run, or by an attempt that was given up but still runs.
                _, own = await look(station.store, order.paths, order.run_id)
                recover(own, state.outcomes, state.outcomes.parts)
        except StoppedError:
            pass
        except Exception as failure:  # noqa: BLE001 - the boundary of a task: it must report
            if not isinstance(failure, AhtEtlError):
                events.log.debug("task.crashed", exc_info=True)
            error = station.redactor.text(describe(failure))
        if not state.plan.partitions:
            state.outcomes.expect_files(order.paths)
        if error is None and self.stop.error is not None:
            error = station.redactor.text(str(self.stop.error))
        outcomes = replace(
            state.outcomes,
            failures=[
                replace(failure, message=station.redactor.text(failure.message))
                for failure in state.outcomes.failures
            ],
        )
        return Outcome(self.word(), outcomes, error)


class Post:
    """A worker's process: a loop of its own, so that Dask's is never kept from answering."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: list[Station] = []
        self._at_work: dict[str, Attempt] = {}

    def do(self, order: Order, worker: str) -> Outcome:
        """Do a task. Blocking, for one of Dask's threads."""
        return asyncio.run_coroutine_threadsafe(
            self._do(order, worker), self._running(order)
        ).result()

    def words(self, run_id: str, end: EndRun | None) -> list[Word]:
        """Tell how far the tasks of a run are, and tell them to end if they should."""
        attempts = [each for each in self._at_work.values() if each.order.run_id == run_id]
        if end is not None and self._loop is not None:
            for attempt in attempts:
                self._loop.call_soon_threadsafe(attempt.end, end)
        return [attempt.word() for attempt in attempts]

    def leave(self, run_id: str) -> None:
        """Let go of what was kept for a run."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._leave(run_id), self._loop)

    def _running(self, order: Order) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                forward.collect()
                self._loop = asyncio.new_event_loop()
                self._loop.set_default_executor(threads_for(order.settings))
                threading.Thread(target=self._loop.run_forever, name="aht-etl", daemon=True).start()
            return self._loop

    async def _do(self, order: Order, worker: str) -> Outcome:
        station = next((each for each in self._idle if each.fits(order)), None)
        if station is None:
            station = Station(order)
            await station.open()
        else:
            self._idle.remove(station)
        attempt = self._at_work[order.key] = Attempt(order, worker, station)
        try:
            outcome = await attempt.do()
        finally:
            if self._at_work.get(order.key) is attempt:
                del self._at_work[order.key]
            self._idle.append(station)
            while len(self._idle) > _MOST_IDLE:
                await self._idle.pop(0).close()
        return outcome

    async def _leave(self, run_id: str) -> None:
        for station in [each for each in self._idle if each.order.run_id == run_id]:
            self._idle.remove(station)
            await station.close()


_POST: Final = Post()


def work(order: Order) -> Outcome:
    """Do one task: what the client submits to Dask."""
    from distributed import get_worker  # noqa: PLC0415 - an extra, and there is one here

    if order.version != __version__:
        # A worker that has joined since the client looked.
        raise RunError(
            f"the worker {get_worker().address} has aht-etl {__version__}, this run is of "
            f"{order.version}: install the same version on scheduler and workers"
        )
    return _POST.do(order, get_worker().address)


def exchange(run_id: str, end: EndRun | None) -> list[Word]:
    """Return how far a run's tasks in this process are; end them if `end` is given."""
    return _POST.words(run_id, end)


def leave(run_id: str) -> None:
    """Let go of what this process kept for a run: it is over."""
    _POST.leave(run_id)
