"""What the API lists and the lake lacks: the plan of a run that is not carried out."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from etl.api.client import connect
from etl.api.listing import Listing
from etl.api.throttle import Limiter
from etl.api.transport import HttpCounts, Transport
from etl.lake.commit import read_state
from etl.lake.store import LocalStore
from etl.plan import PartitionPlan, Plan, Shard, make_plan
from etl.settings import Settings
from etl.times import Window


@dataclass(frozen=True, slots=True)
class Against:
    """A listing of a window, and what of it a run would load now."""

    account: str
    window: Window
    listing: Listing
    plan: Plan

    @property
    def loaded(self) -> int:
        """How many listed files the lake holds."""
        return sum(len(partition.already_loaded) for partition in self.plan.partitions)

    @property
    def missing(self) -> int:
        """How many listed files no readable part of the lake holds."""
        return sum(len(partition.to_load) for partition in self.plan.partitions)

    @property
    def lacking(self) -> tuple[PartitionPlan, ...]:
        """The hours that lack files, oldest first."""
        return tuple(partition for partition in self.plan.partitions if partition.to_load)


async def ask(
    settings: Settings,
    account: str,
    window: Window,
    store: LocalStore,
    on_token: Callable[[str], None],
) -> Against:
    """List the window and subtract what the lake holds; nothing is fetched.

    `on_token` hears of every access token. Raises RunError where the listing cannot be had.
    """
    loop = asyncio.get_running_loop()
    limiter = Limiter(settings.fetch.concurrency, settings.fetch.rate, loop.time)
    async with Transport(
        limiter, settings.retry, settings.fetch.timeout, HttpCounts(), asyncio.sleep
    ) as transport:
        client = await connect(transport, settings, account, loop.time, on_token)
        listing = await client.list(list(window.cut(settings.api.request_window)))
    plan = await make_plan(
        listing.entries, settings.fetch.skip, Shard(), partial(read_state, store)
    )
    return Against(account, window, listing, plan)
