"""Messages between the client and its workers: tasks, their progress and outcomes, events.

No `repr` of them shows a secret. Events of a worker's process are collected for the client, which
logs them: the operator does not see the standard error of a worker on another machine.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from structlog.typing import EventDict, WrappedLogger

from etl.api.transport import Traffic
from etl.config.settings import Settings
from etl.model.events import log, name_error
from etl.model.text import Redactor
from etl.pipeline.outcomes import Outcomes
from etl.pipeline.state import Elsewhere, Limits

# The oldest are dropped beyond this; the client takes them at least once a second.
_MOST_EVENTS: Final = 10_000


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
