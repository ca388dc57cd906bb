"""Logs on standard error: readable on a terminal, one JSON object a line elsewhere.

Set up by the command line only; as a library the package logs through structlog as its host has
configured it.
"""

import importlib
import logging
import sys
from typing import Any, Literal

if not {"rich", "structlog"} & sys.modules.keys():
    # It would import rich, a fifteenth of a run's start, to draw tracebacks; none is drawn here.
    sys.modules["rich"] = None  # type: ignore[assignment]
    importlib.import_module("structlog")
    del sys.modules["rich"]

import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from etl import termination
from etl.printable import one_line
from etl.redact import Redactor

LogFormat = Literal["auto", "console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


def configure(log_format: LogFormat, level: LogLevel, redactor: Redactor) -> None:
    """Send all logs, other libraries' warnings too, to standard error, without secrets."""
    as_json = is_json(log_format)
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )

    def hide_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {key: redactor.tree(value) for key, value in event.items()}

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if level == "debug" else name_error,
            hide_secrets,
            *(() if as_json else (_make_printable,)),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=_StandardErrorFactory(),
        cache_logger_on_first_use=False,
    )
    logging.captureWarnings(True)
    logging.basicConfig(handlers=[Forward()], level=logging.WARNING, force=True)


def _make_printable(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Make foreign text safe for a terminal. The console shows other values by their `repr`."""
    return {
        key: one_line(value) if isinstance(value, str) and key != "exception" else value
        for key, value in event.items()
    }


def _one_line(exc_info: ExcInfo) -> str:
    return " ".join(f"{exc_info[0].__name__}: {exc_info[1]}".split())


def name_error(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Put an error into one line, `error`; tracebacks are for level debug."""
    event = structlog.processors.ExceptionRenderer(_one_line)(logger, method, event)
    if "exception" in event:
        event["error"] = event.pop("exception")
    return event


def is_json(log_format: LogFormat) -> bool:
    """Tell whether this format means JSON here."""
    return log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())


def complain(line: str, event: str, log_format: LogFormat) -> None:
    """Say in one line why the command ends: on standard error, and to Kubernetes."""
    line = one_line(line)
    termination.leave(line)
    if is_json(log_format):
        structlog.get_logger().error(event, reason=line)
    else:
        sys.stderr.write(f"aht-etl: {line}\n")


class _StandardErrorFactory:
    """Makes loggers that look standard error up anew: a live display may have taken it over."""

    def __call__(self, *_: Any) -> structlog.WriteLogger:
        return structlog.WriteLogger(sys.stderr)


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
