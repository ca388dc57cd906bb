"""Shares of a plan: cutting them, their limits, and what client and workers say about them.

No `repr` of a message shows a secret. Events of a worker's process are collected for the client,
which logs them: the operator does not see the standard error of a worker on another machine.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog
from structlog.typing import EventDict, WrappedLogger

from etl.api.transport import Traffic
from etl.config.redact import Redactor
from etl.config.sections import FetchSettings
from etl.config.settings import Settings
from etl.lake.commit import PartWritten, read_states
from etl.lake.receipts import PartReceipts
from etl.model.events import log, name_error
from etl.pipeline.outcomes import Outcomes
from etl.pipeline.plan import PartitionPlan, Plan, Shard, make_plan
from etl.pipeline.state import Elsewhere, Limits
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
# The oldest are dropped beyond this; the client takes them at least once a second.
_MOST_EVENTS: Final = 10_000


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


@dataclass(frozen=True, slots=True)
class Order:
    """A task: files to load. `key` is Dask's name for it.

    `version` is that of the client's package, `level` the least level that the client logs.
    `settings` have this task's own limits.
    """

    key: str
    version: str
    run_id: str
    settings: Settings
    paths: tuple[str, ...]
    level: int
    from_archive: bool = False


@dataclass(frozen=True, slots=True)
class StopRequest:
    """A request to stop: by a signal, or because of an error elsewhere."""

    signal: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an attempt of a task is, and its events since the last message."""

    key: str
    attempt: str
    worker: str
    done: Elsewhere
    traffic: Traffic
    decompressed_bytes: int
    in_flight: int
    allowed: int
    rate: float
    paused_s: float
    logs: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a task: the outcomes of its files, and why it failed, or None."""

    progress: Progress
    outcomes: Outcomes
    error: str | None


class SummedLimits:
    """The limits of several processes together."""

    def __init__(self, each: Callable[[], Sequence[Limits]]) -> None:
        self._each = each

    @property
    def allowed(self) -> int:
        """How many requests may be in flight now."""
        return sum(limits.allowed for limits in self._each())

    @property
    def rate(self) -> float:
        """How many requests a second may start now; infinity if no limit is known."""
        return sum(limits.rate for limits in self._each())

    @property
    def in_flight(self) -> int:
        """How many requests hold a place."""
        return sum(limits.in_flight for limits in self._each())

    @property
    def paused_s(self) -> float:
        """How long no request may start anywhere; 0 if one may."""
        return max((limits.paused_s for limits in self._each()), default=0.0)


@dataclass(slots=True)
class EventLog:
    """Events of `level` or above, without secrets, until the client takes them."""

    level: int = logging.WARNING
    redactor: Redactor = field(default_factory=Redactor)
    _events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_MOST_EVENTS))

    def add(self, method: str, event: dict[str, Any]) -> None:
        """Keep an event that was logged by a method such as `info` or `warning`."""
        if logging.getLevelNamesMapping()[method.upper()] >= self.level:
            self._events.append({"level": method, **self.redactor.tree(event)})

    def take(self) -> tuple[dict[str, Any], ...]:
        """Return the events since the last call."""
        return tuple(self._events.popleft() for _ in range(len(self._events)))


#: Where the events of the running task go; events outside a task are dropped.
TASK: Final[ContextVar[EventLog]] = ContextVar("aht_etl_task")


def collect() -> None:
    """Collect this process's events from now on, unless structlog is configured already."""
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[_collect],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        cache_logger_on_first_use=False,
    )


def _collect(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    events = TASK.get(None)
    if events is None:
        raise structlog.DropEvent
    if events.level <= logging.DEBUG:
        event = structlog.processors.format_exc_info(logger, method, event)
    else:
        event = name_error(logger, method, event)
    events.add(method, dict(event))
    raise structlog.DropEvent


def least_level() -> int:
    """Return the least level that this process logs, by its configuration of structlog."""
    if not structlog.is_configured():
        return logging.CRITICAL
    logger = structlog.get_logger().bind()
    try:
        return int(logger.get_effective_level())
    except AttributeError:
        return logging.INFO


def log_again(events: Iterable[dict[str, Any]], **more: str) -> None:
    """Log a worker's events here, with more fields that name the worker."""
    for event in events:
        fields = {key: value for key, value in event.items() if key not in {"level", "event"}}
        log.log(event["level"], event["event"], **{**fields, **more})
