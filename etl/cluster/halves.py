"""A load of many files by two processes: every second partition is the helper's.

Python lets one thread of a process run at a time, and many small files keep it busy: two processes
take three quarters of the time of one. A server that refuses requests, because they are too many,
is left to this process alone: one limiter finds out what it allows.
"""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import structlog

from etl import __version__
from etl.api.client import Client
from etl.api.throttle import Limiter
from etl.cluster import forward
from etl.cluster.helper import Channel
from etl.cluster.recovery import look
from etl.cluster.shares import portable, share_out
from etl.cluster.words import EndRun, Leave, Order, Outcome, Together, Word
from etl.errors import RunError
from etl.job import Job, UnderWay
from etl.lake.store import Store
from etl.loader import deadline
from etl.loader import load as load_alone
from etl.plan import PartitionPlan, Plan
from etl.replay import Replay
from etl.report import Tally

log = structlog.stdlib.get_logger()

_PROCESSES: Final = 2
# With fewer files one process is as quick.
_LEAST_FILES: Final = 256
# What is done at the end of a run that was told to end may take so long.
_PARTING_S: Final = 1.0


def pays(plan: Plan, job: Job) -> bool:
    """Tell whether two processes take less time than one, as far as the server lets them."""
    many = plan.to_load >= _LEAST_FILES and len(_loadable(plan)) > 1
    return many and not job.tally.http.throttled


def _loadable(plan: Plan) -> list[PartitionPlan]:
    return [each for each in plan.partitions if each.to_load and not each.state.damage]


async def load(plan: Plan, job: Job, client: Client | Replay, store: Store) -> None:
    """Do what `etl.loader.load` does, half of it in `job.helper`."""
    theirs = _loadable(plan)[1::2]
    not_ours = {partition.partition for partition in theirs}
    ours = [each for each in plan.partitions if each.partition not in not_ours]
    half = _Half(job, store, [path.text for each in theirs for path in each.to_load])
    helped = asyncio.ensure_future(half.load(client))
    patience_s: float | None = _PARTING_S
    rest = Plan((), (), ())
    try:
        await load_alone(Plan((), (), tuple(ours)), job, client, store, _PROCESSES)
        await helped
        patience_s = None
    finally:
        half.end()
        await helped
        if job.stop.requested():
            patience_s = _PARTING_S
        # A lake that does not answer does not keep a run that ends: what is not known is not
        # attempted.
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                rest = await half.left()
    if not job.stop.requested():
        await load_alone(rest, job, client, store)


class _Half:
    """The helper's part of a load, and what is known of it."""

    def __init__(self, job: Job, store: Store, paths: list[str]) -> None:
        assert job.helper is not None  # noqa: S101 - the engine was chosen by it
        self._job = job
        self._helper = job.helper
        self._store = store
        self._paths = paths
        self._limiter = job.limiter if isinstance(job.limiter, Limiter) else None
        self._word: Word | None = None
        self._ended = False

    async def load(self, client: Client | Replay) -> None:
        """Let the helper do what it can; return when it has ended, whatever ended it."""
        job, fetch, limiter = self._job, self._job.settings.fetch, self._limiter
        ours, its = share_out(fetch, _PROCESSES)
        order = Order(
            "",
            __version__,
            job.tally.run_id,
            portable(job.settings).model_copy(update={"fetch": its}),
            job.account,
            tuple(self._paths),
            forward.least_level(),
            job.from_archive,
            client.found() if isinstance(client, Client) else None,
            _PROCESSES,
        )
        log.debug("helper.began", files=len(self._paths))
        channel = await self._helper.channel()
        channel.say(order)
        stop = job.stop
        stop.on_request(lambda: channel.say(EndRun(stop.signal, str(stop.error or ""))))
        if limiter is not None:
            limiter.bound(ours.concurrency)
            limiter.on_refusal(lambda: channel.say(Leave()))
            job.limiter = Together(lambda: [limiter, *self._words()], limiter)
        outcome = None
        try:
            async with deadline(stop, job.settings.shutdown.grace):
                outcome = await self._outcome(channel)
        finally:
            self._take(outcome)
            self._helper.end()
            await channel.close()
            if limiter is not None:
                limiter.bound(fetch.concurrency)
                limiter.on_refusal(None)
                job.limiter = limiter

    def end(self) -> None:
        """End the helper at once, if it has not ended."""
        self._ended = True
        self._helper.end()

    async def left(self) -> Plan:
        """Account for what the helper did and did not tell of; return what is left to do."""
        job, tally = self._job, self._job.tally
        paths = tally.open(self._paths)
        share = Tally(tally.run_id, job.account, None, datetime.now(UTC))
        plan, own = await look(self._store, paths, tally.run_id)
        share.planned(plan)
        told = {part["path"] for part in tally.parts}
        for name, sources, size in own:
            if name not in told:
                share.recovered(name, sources, size)
        tally.add(share, paths)
        return plan

    async def _outcome(self, channel: Channel) -> Outcome | None:
        while (said := await channel.hear()) is not None:
            if isinstance(said, Outcome):
                self._hear(said.word)
                return said
            self._hear(said)
        return None

    def _take(self, outcome: Outcome | None) -> None:
        job, tally = self._job, self._job.tally
        if outcome is not None:
            tally.add(outcome.tally, self._paths)
            if outcome.error is not None:
                job.stop.request(error=RunError(outcome.error))
        else:
            for word in self._words():
                tally.http.add(word.http)
                tally.bytes.downloaded += word.bytes.downloaded
                tally.bytes.decompressed += word.bytes.decompressed
            if not (job.stop.requested() or self._ended):
                reason = "the second process was lost, for want of memory perhaps; this one goes on"
                log.warning("helper.lost", reason=reason)
        self._word = None
        job.under_way = UnderWay()

    def _hear(self, word: Word) -> None:
        self._word = word
        self._job.under_way = word.done
        forward.log_again(word.logs)
        if word.paused_s and self._limiter is not None:
            self._limiter.pause(word.paused_s)

    def _words(self) -> list[Word]:
        return [] if self._word is None else [self._word]
