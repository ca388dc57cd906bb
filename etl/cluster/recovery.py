"""What the lake says of a share: what is left to do, and what an attempt before this one did."""

from collections.abc import Iterable, Sequence
from functools import partial

from etl.lake.commit import read_states
from etl.lake.receipts import PartReceipts, Receipt
from etl.lake.store import Store
from etl.plan import Plan, Shard, make_plan

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
