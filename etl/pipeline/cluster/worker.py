"""The worker's side of `--engine dask`: tasks load files with the code of a local run.

Tasks run in the event loop of Dask's worker. What those of a run share in a worker's process is in
a plugin, which is there from the run's begin to its end. Events are collected for the client, which
logs them: the operator does not see the standard error of a worker on another machine.
"""

import asyncio
import logging
import uuid
from collections import deque
from contextlib import AsyncExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog
from distributed import Worker, WorkerPlugin, get_worker
from structlog.typing import EventDict, WrappedLogger

from etl.config.settings import open_lake
from etl.model import __version__
from etl.model.errors import AhtEtlError, RunError, describe
from etl.model.text import log, name_error
from etl.pipeline.cluster.shares import Order, Progress, plan_again
from etl.pipeline.load import load
from etl.pipeline.source import Source, open_source
from etl.pipeline.state import Limits, Outcomes, RunState
from etl.pipeline.stop import Stop, StoppedError
from etl.storage.store import Store

# A run says when it ends. If its client was killed, what its tasks left is closed after this.
_MOST_IDLE_S: Final = 60.0
# The oldest are dropped beyond this; the client takes them at least once a second.
_MOST_EVENTS: Final = 10_000


@dataclass(slots=True, eq=False)
class Session:
    """What a task leaves to the run's next one: connections, a token, the server's limits."""

    state: RunState
    store: Store
    source: Source | None = None
    opened: AsyncExitStack = field(default_factory=AsyncExitStack)

    @classmethod
    def of(cls, order: Order) -> "Session":
        """Open what needs no server."""
        return cls(RunState(order.job), open_lake(order.job.settings))

    async def connect(self, stop: Stop) -> Source:
        """Find the vendor's hosts, or the archive, once. Raises RunError, StoppedError."""
        if self.source is None:
            rate = self.state.job.settings.fetch.rate
            if rate and not self.state.job.from_archive:
                # A task in another process may have just used this share of the rate.
                await stop.sleep(1 / rate)
            source = open_source(self.state, stop)
            self.source = await self.opened.enter_async_context(source)
        return self.source


class Attempt:
    """One attempt of a task."""

    def __init__(self, order: Order, worker: str, session: Session, stop: Stop) -> None:
        self.level = order.level
        self._order = order
        self._worker = worker
        self._session = session
        self._stop = stop
        self._id = str(uuid.uuid4())
        self._redactor = session.state.job.redactor
        self._outcomes = Outcomes()
        self._traffic_before = replace(session.state.traffic)
        self._events: deque[dict[str, Any]] = deque(maxlen=_MOST_EVENTS)

    def keep(self, method: str, event: dict[str, Any]) -> None:
        """Keep an event, without secrets, that was logged by a method such as `info`."""
        if logging.getLevelNamesMapping()[method.upper()] >= self.level:
            self._events.append({"level": method, **self._redactor.tree(event)})

    def progress(self) -> Progress:
        """Return the progress of this attempt, and its events since the last call."""
        traffic = self._session.state.traffic.since(self._traffic_before)
        limits = self._session.state.limits
        return Progress(
            self._order.key,
            self._id,
            self._worker,
            self._outcomes.counts(),
            traffic,
            None
            if limits is None
            else Limits(limits.allowed, limits.rate, limits.in_flight, limits.paused_s),
            tuple(self._events.popleft() for _ in range(len(self._events))),
        )

    async def load(self) -> Progress:
        """Load the files of the order that the lake lacks; return the outcomes."""
        TASK.set(self)
        error = None
        try:
            await self._load()
        except StoppedError:
            pass
        except Exception as failure:  # noqa: BLE001 - the boundary of a task: it must report
            if not isinstance(failure, AhtEtlError):
                log.debug("task.crashed", exc_info=True)
            error = describe(failure)
        if error is None and self._stop.error is not None:
            error = str(self._stop.error)
        redact = self._redactor.text
        failures = [replace(each, message=redact(each.message)) for each in self._outcomes.failures]
        outcomes = replace(self._outcomes, failures=failures)
        return replace(self.progress(), outcomes=outcomes, error=error and redact(error))

    async def _load(self) -> None:
        order, outcomes, store = self._order, self._outcomes, self._session.store
        try:
            # First, whatever the client asks meanwhile: an earlier attempt may have committed
            # parts, and nobody else reports them.
            plan = await plan_again(store, order.paths, order.job.run_id, outcomes)
        except BaseException:
            outcomes.expect_files(order.paths)
            raise
        outcomes.expect(plan)
        before = outcomes.already_loaded
        source = await self._session.connect(self._stop)
        state = replace(self._session.state, plan=plan, outcomes=outcomes)
        await load(state, source, store, self._stop)
        if outcomes.already_loaded > before:
            # By another run, or by an attempt that was given up but still runs.
            await plan_again(store, order.paths, order.job.run_id, outcomes)


class RunPlugin(WorkerPlugin):
    """What the tasks of a run share in a worker's process."""

    def __init__(self) -> None:
        self.stop = Stop()
        self._attempts: set[Attempt] = set()
        self._idle: list[Session] = []
        self._expiry: asyncio.TimerHandle | None = None
        self._closing: asyncio.Future[None] | None = None
        self._over = False

    def setup(self, worker: Worker) -> None:  # noqa: ARG002
        """Collect this process's events from now on, unless structlog is configured already."""
        if not structlog.is_configured():
            structlog.configure(
                processors=[_collect],
                wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
                cache_logger_on_first_use=False,
            )

    async def teardown(self, worker: Worker) -> None:  # noqa: ARG002
        """Close what is kept, also by a task that still runs: the run has ended."""
        self._over = True
        await self._close()

    async def load(self, order: Order, worker: str) -> Progress:
        """Do a task."""
        if self._expiry is not None:
            self._expiry.cancel()
        fitting = [each for each in self._idle if each.state.job.settings == order.job.settings]
        session = fitting[0] if fitting else Session.of(order)
        if fitting:
            self._idle.remove(session)
        attempt = Attempt(order, worker, session, self.stop)
        self._attempts.add(attempt)
        try:
            return await attempt.load()
        finally:
            self._attempts.discard(attempt)
            self._idle.append(session)
            if self._over:
                await self._close()
            elif not self._attempts:
                loop = asyncio.get_running_loop()
                self._expiry = loop.call_later(_MOST_IDLE_S, self._expire)

    def progress(self) -> list[Progress]:
        """Return the progress of the tasks that run now."""
        return [attempt.progress() for attempt in self._attempts]

    def _expire(self) -> None:
        self._closing = asyncio.ensure_future(self._close())

    async def _close(self) -> None:
        while self._idle:
            await self._idle.pop().opened.aclose()


#: Where the events of the running task go; events outside a task are dropped.
TASK: Final[ContextVar[Attempt]] = ContextVar("aht_etl_task")


def _collect(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    if (attempt := TASK.get(None)) is not None:
        debug = attempt.level <= logging.DEBUG
        render = structlog.processors.format_exc_info if debug else name_error
        attempt.keep(method, dict(render(logger, method, event)))
    raise structlog.DropEvent


async def work(order: Order) -> Progress:
    """Do one task. The client submits this function to Dask."""
    worker = get_worker()
    if order.version != __version__:
        # This worker joined after the client checked the versions.
        raise RunError(
            f"the worker {worker.address} has aht-etl {__version__}, this run is of "
            f"{order.version}: install the same version on scheduler and workers"
        )
    return await _plugin(worker, order.job.run_id).load(order, worker.address)


def exchange(
    run_id: str, signal: int | None, error: RunError | None, dask_worker: Worker
) -> list[Progress]:
    """Return the progress of a run's tasks in this process; pass a stop request on to them."""
    run = _plugin(dask_worker, run_id)
    if signal is not None or error is not None:
        run.stop.request(signal=signal, error=error)
    return run.progress()


def _plugin(worker: Worker, run_id: str) -> RunPlugin:
    plugin = worker.plugins[run_id]
    assert isinstance(plugin, RunPlugin)  # noqa: S101 - the client registered it
    return plugin
