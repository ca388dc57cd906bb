"""The package's log: events go to structlog as soon as somebody has configured it.

The command configures it (etl.cli.process.log). As a library the package is silent until its host
does: structlog's own default would print every event.
"""

from typing import Any, Final

import structlog


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
