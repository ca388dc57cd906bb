"""A load by two processes: every second partition is the helper's.

Python lets one thread of a process run at a time, and files keep it busy: two processes take three
quarters of the time of one for many small files, nine tenths for few large ones. A server that
refuses requests, because they are too many, is left to this process alone: one limiter finds out
what it allows.
"""

import asyncio
from contextlib import suppress
from typing import Any, Final

import structlog

from etl import __version__
from etl.api.client import Client
from etl.api.throttle import Limiter
from etl.cluster import forward
from etl.cluster.helper import Channel
from etl.cluster.recovery import account_for, look, untold
from etl.cluster.shares import portable, share_out
from etl.cluster.words import EndRun, Leave, Order, Outcome, Refused, Together, Word
from etl.errors import RunError
from etl.job import Job, UnderWay
from etl.lake.store import Store
from etl.loader import deadline
from etl.loader import load as load_alone
from etl.plan import PartitionPlan, Plan
from etl.replay import Replay
from etl.stop import StoppedError

log = structlog.stdlib.get_logger()

_PROCESSES: Final = 2
# Two processes are not slower with fewer, but where there is little to share they are of no use.
_LEAST_FILES: Final = 16
# It says how far it is several times a second: after so long it is as good as lost.
_SILENCE_S: Final = 60.0
# What is done at the end of a run that was told to end may take so long.
_PARTING_S: Final = 1.0


def pays(plan: Plan, job: Job) -> bool:
    """Tell whether two processes take less time than one, as far as the server lets them."""
    many = plan.to_load >= _LEAST_FILES and len(_loadable(plan)) > 1
    return many and not (job.tally.http.throttled or job.tally.http.retries)


def _loadable(plan: Plan) -> list[PartitionPlan]:
    return [each for each in plan.partitions if each.to_load and not each.state.damage]


async def load(plan: Plan, job: Job, client: Client | Replay, store: Store) -> None:
    """Do what `etl.loader.load` does, half of it in `job.helper`."""
    theirs = _loadable(plan)[1::2]
    not_ours = {partition.partition for partition in theirs}
    ours = [each for each in plan.partitions if each.partition not in not_ours]
    if isinstance(client, Client):
        await job.stop.interruptible(client.authenticate())  # one token for both
    half = _Half(job, store, [path.text for each in theirs for path in each.to_load])
    helped = asyncio.ensure_future(half.load(client))
    failed = True
    try:
        await load_alone(Plan((), (), tuple(ours)), job, client, store, _PROCESSES)
        await asyncio.wait({helped})
        failed = False
    finally:
        half.end()
        await asyncio.wait({helped})
        rest = await half.left(at_once=failed)
    helped.result()
    if not job.stop.requested():
        there = job.tally.already_loaded
        await load_alone(rest, job, client, store)
        if job.tally.already_loaded > there:
            await half.recover()


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
        ours, self._its = share_out(job.settings.fetch, _PROCESSES)
        if (limiter := self._limiter) is not None:
            limiter.bound(ours.concurrency)
            job.limiter = Together(lambda: [limiter, *self._words()])

    async def load(self, client: Client | Replay) -> None:
        """Let the helper do what it can; return when it has ended, whatever ended it."""
        job, limiter = self._job, self._limiter
        order = Order(
            "",
            __version__,
            job.tally.run_id,
            portable(job.settings).model_copy(update={"fetch": self._its}),
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
            limiter.on_refusal(lambda: channel.say(Leave()))
        outcome = None
        try:
            async with deadline(stop, job.settings.shutdown.grace):
                outcome = await self._outcome(channel)
        finally:
            self._take(outcome)
            self.end()
            await channel.close()

    def end(self) -> None:
        """End the helper at once, if it has not ended: all that may be sent is sent from here."""
        self._ended = True
        self._helper.end()
        if self._limiter is not None:
            self._limiter.bound(self._job.settings.fetch.concurrency)
            self._limiter.on_refusal(None)
            self._job.limiter = self._limiter

    async def left(self, *, at_once: bool) -> Plan:
        """Account for what the helper did and did not tell of; return what is left to do.

        Of a run that ends, or is to be done `at_once`, what is not soon known is not attempted: a
        lake that does not answer keeps nobody.
        """
        with suppress(StoppedError):
            if not at_once:
                return await self._job.stop.interruptible(self._look())
        with suppress(TimeoutError):
            async with asyncio.timeout(_PARTING_S):
                return await self._look()
        return Plan((), (), ())

    async def recover(self) -> None:
        """Take parts of this run that came into the lake after the helper was lost."""
        _, own = await look(self._store, self._paths, self._job.tally.run_id)
        for part in untold(own, self._job.tally):
            self._job.tally.recovered(*part)

    async def _look(self) -> Plan:
        tally = self._job.tally
        paths = tally.open(self._paths)
        share, plan = await account_for(self._store, paths, tally)
        tally.add(share, paths)
        return plan

    async def _outcome(self, channel: Channel) -> Outcome | None:
        with suppress(TimeoutError):
            while (said := await self._hear(channel)) is not None:
                match said:
                    case Outcome():
                        self._heard(said.word)
                        return said
                    case Refused() if self._limiter is not None:
                        self._limiter.refused_elsewhere(said.paused_s)
                    case Word():
                        self._heard(said)
        return None

    async def _hear(self, channel: Channel) -> Any:
        async with asyncio.timeout(_SILENCE_S):
            return await channel.hear()

    def _take(self, outcome: Outcome | None) -> None:
        job, tally = self._job, self._job.tally
        if outcome is not None:
            tally.add(outcome.tally, self._paths)
            if outcome.error is not None:
                job.stop.request(error=RunError(outcome.error))
        else:
            for word in self._words():
                tally.sent(word.http, word.bytes)
            if not (job.stop.requested() or self._ended):
                reason = "the second process was lost, for want of memory perhaps; this one goes on"
                log.warning("helper.lost", reason=reason)
        self._word = None
        job.under_way = UnderWay()

    def _heard(self, word: Word) -> None:
        self._word = word
        self._job.under_way = word.done
        forward.log_again(word.logs)

    def _words(self) -> list[Word]:
        return [] if self._word is None else [self._word]
