"""What the lake says of a share: what is left to do, and what an attempt before this one did."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import partial

from etl.lake.commit import read_states
from etl.lake.receipts import PartReceipts, Receipt
from etl.pipeline.plan import Plan, Shard, make_plan
from etl.pipeline.tally import Tally
from etl.storage.store import Store

#: A part's name in the lake, its receipts and its size in bytes.
OwnPart = tuple[str, Sequence[Receipt], int]


async def look(store: Store, paths: Iterable[str], run_id: str) -> tuple[Plan, list[OwnPart]]:
    """Plan whole partitions' paths anew; return the plan, and the parts that this run committed.

    The plan has the files of those parts as loaded already.
    """
    own: list[OwnPart] = []

    def seen(name: str, receipts: PartReceipts) -> None:
        if receipts.run == run_id:
            own.append((name, receipts.sources, store.stat(name).bytes))

    plan = await make_plan(paths, (), Shard(), partial(read_states, store, seen=seen))
    return plan, own


def untold(own: Iterable[OwnPart], tally: Tally) -> list[OwnPart]:
    """Return those of a run's parts that its tally does not have."""
    told = {part["path"] for part in tally.parts}
    return [part for part in own if part[0] not in told]


async def account_for(store: Store, paths: Sequence[str], tally: Tally) -> tuple[Tally, Plan]:
    """Account for a share whose process did not tell, by what the lake says of it now.

    Returns a tally of the share, to be added to the run's, and what is left to load of it.
    """
    share = Tally(tally.run_id, tally.account, None, datetime.now(UTC))
    plan, own = await look(store, paths, tally.run_id)
    share.planned(plan)
    for part in untold(own, tally):
        if {source.path for source in part[1]}.issubset(paths):
            share.recovered(*part)
    return share, plan
