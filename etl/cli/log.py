"""Logs on standard error: readable on a terminal, elsewhere one JSON object per line.

Only the command line configures them. As a library, the package logs through structlog as its host
has configured it.
"""

import logging
import re
import sys
from typing import Final, Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from etl.config.settings import Redactor
from etl.model.text import name_error, one_line

LogFormat = Literal["auto", "console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

# One cause may log these events hundreds of times. On a terminal only the first of each cause is
# shown; the summary has the counts, and the report has all of them.
_OF_MANY: Final = {
    "file.failed", "part.failed", "partition.damaged", "path.invalid", "request.retry",
}  # fmt: skip
# What differs between two failures of one cause: paths, hours, counts, addresses.
_DETAIL: Final = re.compile(r"\S*\d\S*")


def configure(log_format: LogFormat, level: LogLevel | None, redactor: Redactor) -> None:
    """Send all logs to standard error without secrets, also the warnings of other libraries.

    If `level` is None it is `warning` on a terminal and `info` elsewhere.
    """
    as_json = is_json(log_format)
    if level is None:
        level = "warning" if sys.stderr.isatty() and not as_json else "info"

    def hide_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {key: redactor.tree(value) for key, value in event.items()}

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if level == "debug" else name_error,
            hide_secrets,
            *([structlog.processors.JSONRenderer()] if as_json else _for_people(level)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        # The present standard error: a live display may have replaced it.
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.captureWarnings(True)
    logging.basicConfig(handlers=[_LibraryMessages()], level=logging.WARNING, force=True)


def _for_people(level: LogLevel) -> list[Processor]:
    """Return the processors that make an event a readable line; `debug` leaves none out."""
    seen: set[tuple[str, str, str]] = set()

    def drop_repeated(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        if event["event"] in _OF_MANY:
            cause = (event["event"], event.get("kind", ""), cause_of(str(event.get("reason"))))
            if cause in seen:
                raise structlog.DropEvent
            seen.add(cause)
        return event

    renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    return [*([] if level == "debug" else [drop_repeated]), _make_printable, renderer]


def _make_printable(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Make foreign text safe for a terminal. The console shows other values by their `repr`.

    The run's id is left out, because a terminal shows one run at a time.
    """
    return {
        key: one_line(value) if isinstance(value, str) and key != "exception" else value
        for key, value in event.items()
        if key != "run_id"
    }


def cause_of(message: str) -> str:
    """Return a message without what differs from file to file: the words with a digit."""
    return _DETAIL.sub("#", message)


def is_json(log_format: LogFormat) -> bool:
    """Return whether this format means JSON here."""
    return log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())


def complain(line: str, event: str, log_format: LogFormat) -> None:
    """Write why the command ends, and what to do, as the last line on standard error.

    Every exit code but 0 has such a line. Kubernetes shows it as the pod's message.
    """
    line = one_line(line)
    if is_json(log_format):
        structlog.get_logger().error(event, reason=line)
    else:
        sys.stderr.write(f"aht-etl: {line}\n")


class _LibraryMessages(logging.Handler):
    """Logs other libraries' messages and warnings as events."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().warning(
            "library.message",
            logger=record.name,
            message=record.getMessage(),
            exc_info=record.exc_info,
        )
