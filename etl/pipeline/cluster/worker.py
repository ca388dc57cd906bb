"""In a worker's process: tasks are done here, by the code of a local run.

Dask gives a task nothing but a function to call, so what tasks share is this module's (`_POST`).
"""

import asyncio
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from etl.api.client import Client, connect
from etl.api.transport import HttpCounts, Transport
from etl.archive.reader import ArchiveReader, open_archive_reader
from etl.config.redact import Redactor
from etl.config.settings import open_lake
from etl.model import events
from etl.model.errors import AhtEtlError, RunError, describe
from etl.model.version import __version__
from etl.pipeline.cluster import relay as forward
from etl.pipeline.cluster.messages import EndRun, Order, Outcome, Word
from etl.pipeline.cluster.recovery import OwnPart, look, untold
from etl.pipeline.job import Job, UnderWay
from etl.pipeline.load import load
from etl.pipeline.plan import Plan
from etl.pipeline.resources import threads_for
from etl.pipeline.stop import Stop, StoppedError
from etl.pipeline.tally import Tally
from etl.storage.store import Store

# Runs that end tell it; of a client that was killed, so many keep their connections for a while.
_MOST_IDLE: Final = 4


@dataclass(slots=True, eq=False)
class Station:
    """What a task needs and leaves to the run's next: connections, a token, the server's limits."""

    order: Order
    stop: Stop = field(default_factory=Stop)
    redactor: Redactor = field(default_factory=Redactor)
    transport: Transport = field(init=False)
    store: Store = field(init=False)
    client: Client | ArchiveReader | None = None

    async def open(self) -> None:
        """Make what needs no server."""
        settings = self.order.settings
        for secret in settings.secret_values():
            self.redactor.add(secret)
        clock = asyncio.get_running_loop().time
        transport = Transport(settings, HttpCounts(), clock, self._sleep, self.redactor)
        self.transport = await transport.__aenter__()
        self.store = open_lake(settings)

    async def close(self) -> None:
        """Close the connections."""
        await self.transport.__aexit__()

    def fits(self, order: Order) -> bool:
        """Tell whether a task may go on from here: of the same run, with the same limits."""
        mine = self.order
        return (mine.run_id, mine.settings) == (order.run_id, order.settings)

    async def connect(self) -> Client | ArchiveReader:
        """Find the vendor's hosts, or the archive, once. Raises RunError."""
        if self.client is None:
            settings = self.order.settings
            if self.order.from_archive:
                self.client = await asyncio.to_thread(open_archive_reader, settings)
            else:
                self.client = await connect(self.transport, settings)
        return self.client

    async def _sleep(self, seconds: float) -> None:
        await self.stop.sleep(seconds)  # the stop of the task that is here now


class Attempt:
    """One attempt of a task, while it is being done."""

    def __init__(self, order: Order, worker: str, station: Station) -> None:
        self.order = order
        self.station = station
        self.stop = station.stop = Stop()
        self.tally = Tally(order.run_id, order.account, None, datetime.now(UTC))
        station.transport.counts = self.tally.http
        self.log = forward.EventLog(order.level, station.redactor)
        self._id = str(uuid.uuid4())
        self._worker = worker

    def end(self, word: EndRun) -> None:
        """End as the run does."""
        error = RunError(word.reason) if word.signal is None else None
        self.stop.request(signal=word.signal, error=error)

    def word(self) -> Word:
        """Tell how far it is."""
        tally, limiter = self.tally, self.station.transport.limiter
        return Word(
            self.order.key,
            self._id,
            self._worker,
            UnderWay(
                loaded=tally.loaded,
                failed=len(tally.failures),
                brought_by_others=tally.already_loaded,
                rows=tally.rows_loaded,
                downloaded_bytes=tally.bytes.downloaded,
                throttled=tally.http.throttled,
            ),
            tally.http,
            tally.bytes,
            limiter.in_flight,
            limiter.allowed,
            limiter.rate,
            limiter.paused_s,
            self.log.take(),
        )

    async def do(self) -> Outcome:
        """Load what the order says, but for what the lake has by now."""
        order, station, tally = self.order, self.station, self.tally
        forward.TASK.set(self.log)
        settings, account = order.settings, order.account
        job = Job(settings, account, None, tally, tally.started_at, stop=self.stop)
        job.from_archive = order.from_archive
        job.redactor, job.limiter = station.redactor, station.transport.limiter
        planned, error = False, None
        try:
            # First, and whatever the client says meanwhile: an attempt before this one may have
            # committed parts, and nobody else tells of them.
            plan, own = await look(station.store, order.paths, order.run_id)
            tally.planned(plan)
            planned = True
            self._recover(own)
            there = tally.already_loaded
            if station.client is None and settings.fetch.rate and not order.from_archive:
                # A task in another process may have used this share of the rate a moment ago.
                await self.stop.sleep(1 / settings.fetch.rate)
            client = await self.stop.interruptible(station.connect())
            await load(plan, job, client, station.store)
            if tally.already_loaded > there:
                # By another run, or by an attempt that was taken for dead and is not.
                self._recover((await look(station.store, order.paths, order.run_id))[1])
        except StoppedError:
            pass
        except Exception as failure:  # noqa: BLE001 - the boundary of a task: its tally is due
            if not isinstance(failure, AhtEtlError):
                events.log.debug("task.crashed", exc_info=True)
            error = station.redactor.text(describe(failure))
        if not planned:
            tally.expect(order.paths)
        if error is None and self.stop.error is not None:
            error = station.redactor.text(str(self.stop.error))
        tally.failures = [
            replace(failure, message=station.redactor.text(failure.message))
            for failure in tally.failures
        ]
        tally.plan = Plan((), (), ())  # the client has it
        return Outcome(self.word(), tally, error)

    def _recover(self, own: list[OwnPart]) -> None:
        for part in untold(own, self.tally):
            self.tally.recovered(*part)


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


def exchange(run_id: str, end: EndRun | None) -> tuple[list[Word], Sequence[dict[str, object]]]:
    """Return how far a run's tasks in this process are, and what else was logged here."""
    return _POST.words(run_id, end), forward.PROCESS.take()


def leave(run_id: str) -> None:
    """Let go of what this process kept for a run: it is over."""
    _POST.leave(run_id)
