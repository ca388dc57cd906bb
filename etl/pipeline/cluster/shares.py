"""Shares of a plan: cutting them, their limits, and their outcomes by the lake's receipts."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

from etl.config.sections import FetchSettings
from etl.config.settings import Settings
from etl.lake.commit import PartWritten, read_states
from etl.lake.receipts import PartReceipts
from etl.pipeline.outcomes import Outcomes
from etl.pipeline.plan import PartitionPlan, Plan, Shard, make_plan
from etl.storage.places import is_remote
from etl.storage.store import Store

# A share is one of this many parts of what is left for each place. The first shares are large; the
# last ones are small, so that all places end at about the same time.
_OF_WHAT_IS_LEFT: Final = 4
# A share is never smaller than one of this many parts of a place's even share of the whole,
_LEAST: Final = 16
# and never larger than some seconds of work, because a stop request waits for it.
_MOST_FILES: Final = 2000
# Workers stop this long before the grace is over, so that the client receives their outcomes.
_HEARD_S: Final = 1.0


def cut(partitions: Sequence[PartitionPlan], places: int) -> Iterator[list[str]]:
    """Yield the paths to load in shares of whole partitions, in the order of the plan."""
    left = sum(len(partition.to_load) for partition in partitions)
    least = -(-left // (_LEAST * places))
    share: list[str] = []
    for partition in partitions:
        share += (path.text for path in partition.to_load)
        wanted = max(least, -(-left // (_OF_WHAT_IS_LEFT * places)))
        if len(share) >= min(wanted, _MOST_FILES):
            left -= len(share)
            yield share
            share = []
    if share:
        yield share


def share_out(fetch: FetchSettings, places: int) -> list[FetchSettings]:
    """Return the limits of each of `places` tasks at once; together they are those of the run.

    There are `fetch.concurrency` places at most.
    """
    each, more = divmod(fetch.concurrency, places)
    rate = fetch.rate / places if fetch.rate else None
    return [
        fetch.model_copy(update={"concurrency": each + (place < more), "rate": rate})
        for place in range(places)
    ]


def portable(settings: Settings) -> Settings:
    """Return the settings for another process: the plain class, with absolute paths."""
    plain = Settings.model_construct(
        **{name: getattr(settings, name) for name in Settings.model_fields}
    )
    grace = settings.shutdown.grace
    grace -= min(timedelta(seconds=_HEARD_S), grace / 4)
    changed = {
        "lake": settings.lake.model_copy(update={"uri": _anywhere(settings.lake.uri)}),
        "raw": settings.raw.model_copy(
            update={"uri": settings.raw.uri and _anywhere(settings.raw.uri)}
        ),
        "shutdown": settings.shutdown.model_copy(update={"grace": grace}),
    }
    return plain.model_copy(update=changed)


def _anywhere(uri: str) -> str:
    return uri if is_remote(uri) else str(Path(uri).absolute())


@dataclass(frozen=True, slots=True)
class OwnPart:
    """A part that this run committed, the files in it, and how many bad rows they had."""

    part: PartWritten
    paths: tuple[str, ...]
    bad_rows: int


async def plan_again(store: Store, paths: Iterable[str], run_id: str) -> tuple[Plan, list[OwnPart]]:
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


async def outcomes_by_receipts(
    store: Store, paths: Sequence[str], run_id: str, counted: Sequence[PartWritten]
) -> Outcomes:
    """Return the outcomes of a share whose process did not report, by the lake's receipts.

    `counted` are the parts that the run's outcomes have already.
    """
    plan, own = await plan_again(store, paths, run_id)
    outcomes = Outcomes()
    outcomes.expect(plan)
    recover((each for each in own if set(each.paths).issubset(paths)), outcomes, counted)
    return outcomes
