"""The package's log: events go to structlog as soon as somebody has configured it.

The command configures it (etl.cli.process.log). As a library the package is silent until its host
does: structlog's own default would print every event.
"""

import logging
from typing import Any, Final

import structlog
from structlog.typing import EventDict, ExcInfo, WrappedLogger

from etl.model.printable import one_line


class Events:
    """Passes events on, by the methods that a logger of structlog has."""

    def debug(self, event: str, **fields: Any) -> None:
        """Pass on what helps to find a defect."""
        self.log("debug", event, **fields)

    def info(self, event: str, **fields: Any) -> None:
        """Pass on what happened."""
        self.log("info", event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Pass on what somebody may have to look at."""
        self.log("warning", event, **fields)

    def error(self, event: str, **fields: Any) -> None:
        """Pass on what somebody has to look at."""
        self.log("error", event, **fields)

    def log(self, level: str, event: str, **fields: Any) -> None:
        """Pass on an event of a level by its name."""
        if structlog.is_configured():
            getattr(structlog.get_logger(), level)(event, **fields)


log: Final = Events()


def _one_line(exc_info: ExcInfo) -> str:
    return one_line(f"{exc_info[0].__name__}: {exc_info[1]}")


def name_error(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Put an error into one line, `error`; tracebacks are for level debug."""
    event = structlog.processors.ExceptionRenderer(_one_line)(logger, method, event)
    if "exception" in event:
        event["error"] = event.pop("exception")
    return event


class Forward(logging.Handler):
    """Passes the warnings of other libraries on as one event each."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record's message."""
        structlog.get_logger().warning(
            "library.message",
            logger=record.name,
            message=record.getMessage(),
            exc_info=record.exc_info,
        )
