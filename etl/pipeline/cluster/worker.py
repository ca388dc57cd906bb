"""The worker's side of `--engine dask`: tasks load files with the code of a local run.

Dask only calls a function, so the state that tasks share is in this module (`_WORKER`).
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
from etl.model import __version__, events
from etl.model.errors import AhtEtlError, RunError, describe
from etl.pipeline.cluster.shares import (
    TASK,
    EventLog,
    Order,
    Outcome,
    Progress,
    StopRequest,
    collect,
    plan_again,
    recover,
)
from etl.pipeline.job import Job
from etl.pipeline.load import load
from etl.pipeline.resources import threads_for
from etl.pipeline.source import Source
from etl.pipeline.state import Elsewhere, RunState
from etl.pipeline.stop import Stop, StoppedError
from etl.storage.store import Store

# A run says when it ends. If a client was killed, this many of its connections stay open.
_MOST_IDLE: Final = 4


@dataclass(slots=True, eq=False)
class Session:
    """What a task leaves to the run's next one: connections, a token, the server's limits."""

    order: Order
    stop: Stop = field(default_factory=Stop)
    redactor: Redactor = field(default_factory=Redactor)
    traffic: Traffic = field(default_factory=Traffic)
    transport: Transport = field(init=False)
    store: Store = field(init=False)
    source: Source | None = None

    async def open(self) -> None:
        """Open everything that needs no server."""
        settings = self.order.settings
        clock = asyncio.get_running_loop().time
        transport = Transport(settings, self.traffic, clock, self._sleep, self.redactor)
        self.transport = await transport.__aenter__()
        self.store = open_lake(settings)

    async def close(self) -> None:
        """Close the connections."""
        await self.transport.__aexit__()

    def fits(self, order: Order) -> bool:
        """Return whether a task can use this session: it has the same run and limits."""
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
        await self.stop.sleep(seconds)  # the stop request of the current task


class Attempt:
    """One attempt of a task."""

    def __init__(self, order: Order, worker: str, session: Session) -> None:
        self.order = order
        self.session = session
        self.stop = session.stop = Stop()
        job = Job(
            order.settings,
            None,
            datetime.now(UTC),
            session.redactor,
            from_archive=order.from_archive,
            run_id=order.run_id,
        )
        self.state = RunState(job, traffic=session.traffic, limits=session.transport.limiter)
        self.log = EventLog(order.level, session.redactor)
        self._traffic_before = replace(session.traffic)
        self._id = str(uuid.uuid4())
        self._worker = worker

    def end(self, request: StopRequest) -> None:
        """Stop as the run does."""
        error = RunError(request.reason) if request.signal is None else None
        self.stop.request(signal=request.signal, error=error)

    def progress(self) -> Progress:
        """Return the progress of this attempt."""
        outcomes, limiter = self.state.outcomes, self.session.transport.limiter
        traffic = self.session.traffic.since(self._traffic_before)
        return Progress(
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
        order, session, state = self.order, self.session, self.state
        TASK.set(self.log)
        error = None
        try:
            # First, whatever the client asks meanwhile: an earlier attempt may have committed
            # parts, and nobody else reports them.
            state.plan, own = await plan_again(session.store, order.paths, order.run_id)
            state.outcomes.expect(state.plan)
            recover(own, state.outcomes, ())
            before = state.outcomes.already_loaded
            if session.source is None and order.settings.fetch.rate and not order.from_archive:
                # A task in another process may have just used this share of the rate.
                await self.stop.sleep(1 / order.settings.fetch.rate)
            source = await self.stop.interruptible(session.connect())
            await load(state, source, session.store, self.stop)
            if state.outcomes.already_loaded > before:
                # By another run, or by an attempt that was given up but still runs.
                _, own = await plan_again(session.store, order.paths, order.run_id)
                recover(own, state.outcomes, state.outcomes.parts)
        except StoppedError:
            pass
        except Exception as failure:  # noqa: BLE001 - the boundary of a task: it must report
            if not isinstance(failure, AhtEtlError):
                events.log.debug("task.crashed", exc_info=True)
            error = session.redactor.text(describe(failure))
        if not state.plan.partitions:
            state.outcomes.expect_files(order.paths)
        if error is None and self.stop.error is not None:
            error = session.redactor.text(str(self.stop.error))
        outcomes = replace(
            state.outcomes,
            failures=[
                replace(failure, message=session.redactor.text(failure.message))
                for failure in state.outcomes.failures
            ],
        )
        return Outcome(self.progress(), outcomes, error)


class Worker:
    """A worker's process. It has its own event loop, so that it never blocks Dask's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: list[Session] = []
        self._running_attempts: dict[str, Attempt] = {}

    def do(self, order: Order, worker: str) -> Outcome:
        """Do a task. Blocking; Dask calls it in a thread."""
        return asyncio.run_coroutine_threadsafe(
            self._do(order, worker), self._loop_for(order)
        ).result()

    def progress(self, run_id: str, stop: StopRequest | None) -> list[Progress]:
        """Return the progress of a run's tasks; pass a stop request on to them."""
        attempts = [each for each in self._running_attempts.values() if each.order.run_id == run_id]
        if stop is not None and self._loop is not None:
            for attempt in attempts:
                self._loop.call_soon_threadsafe(attempt.end, stop)
        return [attempt.progress() for attempt in attempts]

    def leave(self, run_id: str) -> None:
        """Close the sessions of a run."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._leave(run_id), self._loop)

    def _loop_for(self, order: Order) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                collect()
                self._loop = asyncio.new_event_loop()
                self._loop.set_default_executor(threads_for(order.settings))
                threading.Thread(target=self._loop.run_forever, name="aht-etl", daemon=True).start()
            return self._loop

    async def _do(self, order: Order, worker: str) -> Outcome:
        session = next((each for each in self._idle if each.fits(order)), None)
        if session is None:
            session = Session(order)
            await session.open()
        else:
            self._idle.remove(session)
        attempt = self._running_attempts[order.key] = Attempt(order, worker, session)
        try:
            outcome = await attempt.do()
        finally:
            if self._running_attempts.get(order.key) is attempt:
                del self._running_attempts[order.key]
            self._idle.append(session)
            while len(self._idle) > _MOST_IDLE:
                await self._idle.pop(0).close()
        return outcome

    async def _leave(self, run_id: str) -> None:
        for session in [each for each in self._idle if each.order.run_id == run_id]:
            self._idle.remove(session)
            await session.close()


_WORKER: Final = Worker()


def work(order: Order) -> Outcome:
    """Do one task. The client submits this function to Dask."""
    from distributed import get_worker  # noqa: PLC0415 - an extra

    if order.version != __version__:
        # This worker joined after the client checked the versions.
        raise RunError(
            f"the worker {get_worker().address} has aht-etl {__version__}, this run is of "
            f"{order.version}: install the same version on scheduler and workers"
        )
    return _WORKER.do(order, get_worker().address)


def exchange(run_id: str, stop: StopRequest | None) -> list[Progress]:
    """Return the progress of a run's tasks in this process; pass a stop request on to them."""
    return _WORKER.progress(run_id, stop)


def leave(run_id: str) -> None:
    """Close what this process keeps for a run, which has ended."""
    _WORKER.leave(run_id)
