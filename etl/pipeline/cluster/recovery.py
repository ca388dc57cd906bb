"""What a run's own parts in the lake tell of a share whose process did not report."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from etl.lake.commit import PartWritten, read_states
from etl.lake.receipts import PartReceipts
from etl.pipeline.outcomes import Outcomes
from etl.pipeline.plan import Plan, Shard, make_plan
from etl.storage.store import Store


@dataclass(frozen=True, slots=True)
class OwnPart:
    """A part that this run committed, the files in it, and how many bad rows they had."""

    part: PartWritten
    paths: tuple[str, ...]
    bad_rows: int


async def look(store: Store, paths: Iterable[str], run_id: str) -> tuple[Plan, list[OwnPart]]:
    """Plan the paths of whole partitions again; return the plan, and this run's own parts.

    In the plan, the files of those parts are loaded already.
    """
    own: list[OwnPart] = []

    def seen(name: str, receipts: PartReceipts) -> None:
        if receipts.run == run_id:
            sources = receipts.sources
            rows = sum(source.rows for source in sources)
            part = PartWritten(name, rows, store.stat(name).bytes, len(sources))
            bad_rows = sum(source.quarantined for source in sources)
            own.append(OwnPart(part, tuple(source.path for source in sources), bad_rows))

    plan = await make_plan(paths, (), Shard(), partial(read_states, store, on_part=seen))
    return plan, own


def recover(own: Iterable[OwnPart], outcomes: Outcomes, counted: Iterable[PartWritten]) -> None:
    """Count a run's own parts that are not `counted`: they were counted as another run's."""
    names = {part.path for part in counted}
    for each in own:
        if each.part.path not in names:
            outcomes.recovered(each.part, each.bad_rows)


async def account_for(
    store: Store, paths: Sequence[str], run_id: str, counted: Sequence[PartWritten]
) -> Outcomes:
    """Return the outcomes of a share whose process did not report, by the lake's receipts.

    `counted` are the parts that the run's outcomes have already.
    """
    plan, own = await look(store, paths, run_id)
    outcomes = Outcomes()
    outcomes.expect(plan)
    recover((each for each in own if set(each.paths).issubset(paths)), outcomes, counted)
    return outcomes
