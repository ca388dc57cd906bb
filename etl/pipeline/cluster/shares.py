"""Shares of a plan: cutting them, their limits, and what client and workers say about them.

No `repr` of a message shows a secret.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from etl.api.transport import Traffic
from etl.config.sections import FetchSettings
from etl.config.settings import Redactor, Settings
from etl.lake.commit import read_states
from etl.lake.layout import PartWritten
from etl.lake.receipts import PartReceipts
from etl.pipeline.job import Job, Shard
from etl.pipeline.plan import PartitionPlan, Plan, make_plan
from etl.pipeline.state import Limits, Outcomes
from etl.storage.places import is_remote
from etl.storage.store import Store

# A share is one of this many parts of what is left for each slot. The first shares are large; the
# last ones are small, so that all slots end at about the same time.
_OF_WHAT_IS_LEFT: Final = 4
# A share is never smaller than one of this many parts of a slot's even share of the whole,
_LEAST: Final = 16
# and never larger than some seconds of work, because a stop request waits for it.
_MOST_FILES: Final = 2000
# Workers stop this long before the grace is over, so that the client receives their outcomes.
_HEARD_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Order:
    """A task: files of a job to load. `key` is Dask's name for it.

    `version` is that of the client's package, `level` the least level that the client logs. The
    job's settings have this task's own limits.
    """

    key: str
    version: str
    job: Job
    paths: tuple[str, ...]
    level: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an attempt of a task is, and its events since the last message.

    `outcomes` has all that is in an attempt's last message, and only counts before. `limits` are
    None until requests are sent. `error` says why the attempt failed.
    """

    key: str
    attempt: str
    worker: str
    outcomes: Outcomes
    traffic: Traffic
    limits: Limits | None
    events: tuple[dict[str, Any], ...]
    error: str | None = None


def cut(partitions: Sequence[PartitionPlan], slots: int) -> Iterator[list[str]]:
    """Yield the paths to load in shares of whole partitions, in the order of the plan."""
    left = sum(len(partition.to_load) for partition in partitions)
    least = -(-left // (_LEAST * slots))
    share: list[str] = []
    for partition in partitions:
        share += (path.text for path in partition.to_load)
        wanted = max(least, -(-left // (_OF_WHAT_IS_LEFT * slots)))
        if len(share) >= min(wanted, _MOST_FILES):
            left -= len(share)
            yield share
            share = []
    if share:
        yield share


def share_out(fetch: FetchSettings, slots: int) -> list[FetchSettings]:
    """Return the limits of each of `slots` tasks at once; together they are those of the run.

    There are `fetch.concurrency` slots at most.
    """
    each, more = divmod(fetch.concurrency, slots)
    rate = fetch.rate / slots if fetch.rate else None
    return [
        fetch.model_copy(update={"concurrency": each + (slot < more), "rate": rate})
        for slot in range(slots)
    ]


def portable(job: Job) -> Job:
    """Return the job for another process: with plain settings that have absolute paths."""
    settings = job.settings
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
    there = plain.model_copy(update=changed)
    return replace(job, settings=there, saved_listing=None, redactor=Redactor())


def _anywhere(uri: str) -> str:
    return uri if is_remote(uri) else str(Path(uri).absolute())


async def plan_again(store: Store, paths: Iterable[str], run_id: str, outcomes: Outcomes) -> Plan:
    """Plan the paths of whole partitions again.

    This run's own parts in them that `outcomes` lacks are counted there: their files are loaded
    already in the plan, and no other process reports them.
    """
    counted = {part.path for part in outcomes.parts}
    own: list[tuple[PartWritten, int]] = []

    def seen(name: str, receipts: PartReceipts) -> None:
        if receipts.run == run_id and name not in counted:
            sources = receipts.sources
            rows = sum(source.rows for source in sources)
            bad_rows = sum(source.quarantined for source in sources)
            own.append((PartWritten(name, rows, store.stat(name).bytes, len(sources)), bad_rows))

    plan = await make_plan(paths, (), Shard(), partial(read_states, store, on_part=seen))
    for part, bad_rows in own:
        outcomes.recovered(part, bad_rows)
    return plan
