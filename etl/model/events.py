"""The package's log: events go to structlog after the command or the library's host configured it.

Before that the package is silent, because structlog prints every event by default.
"""

from functools import partialmethod
from typing import Any, Final

import structlog
from structlog.typing import EventDict, ExcInfo, WrappedLogger

from etl.model.text import one_line


class Events:
    """Passes events on to structlog; it has the methods of structlog's loggers."""

    def log(self, level: str, event: str, **fields: Any) -> None:
        """Log an event, unless nobody has configured structlog."""
        if structlog.is_configured():
            getattr(structlog.get_logger(), level)(event, **fields)

    debug = partialmethod(log, "debug")
    info = partialmethod(log, "info")
    warning = partialmethod(log, "warning")
    error = partialmethod(log, "error")


log: Final = Events()


def name_error(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Replace an error's traceback by one line, `error`: a processor of structlog."""

    def one_error(exc_info: ExcInfo) -> str:
        return one_line(f"{exc_info[0].__name__}: {exc_info[1]}")

    event = structlog.processors.ExceptionRenderer(one_error)(logger, method, event)
    if "exception" in event:
        event["error"] = event.pop("exception")
    return event
