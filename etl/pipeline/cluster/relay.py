"""Events of a worker's process are collected for the client, which logs them as its own.

The operator does not see the standard error of a worker on another machine.
"""

import logging
from collections import deque
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from structlog.typing import EventDict, WrappedLogger

from etl.config.redact import Redactor
from etl.model.events import log as host_log
from etl.model.events import name_error

# The oldest are dropped beyond this; the client takes them at least once a second.
_MOST_EVENTS: Final = 10_000


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
    log = TASK.get(None)
    if log is None:
        raise structlog.DropEvent
    if log.level <= logging.DEBUG:
        event = structlog.processors.format_exc_info(logger, method, event)
    else:
        event = name_error(logger, method, event)
    log.add(method, dict(event))
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
        host_log.log(event["level"], event["event"], **{**fields, **more})
