"""What leaves the program: log events, JSON, one safe line of text, sizes and durations.

Events go to structlog after the command or the library's host configured it. Before that the
package is silent, because structlog prints every event by default.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from functools import partialmethod
from typing import Any, Final

import structlog
from structlog.typing import EventDict, ExcInfo, WrappedLogger

from etl.model.paths import Partition
from etl.model.times import rfc3339

# The ends of a window, and of a gap.
_KEYS: Final = {"start": "from", "end": "to"}


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


def as_json(value: Any, *names: str) -> Any:
    """Return what `json.dumps` writes of a value: a dataclass is an object of its fields.

    With `names`, it is an object of these attributes. Times are RFC 3339 in UTC, and a partition is
    its directory in the lake.
    """
    form = value
    if names:
        form = {_KEYS.get(name, name): as_json(getattr(value, name)) for name in names}
    elif isinstance(value, datetime):
        form = rfc3339(value)
    elif isinstance(value, Partition):
        form = value.directory
    elif isinstance(value, Enum):
        form = value.value
    elif isinstance(value, Mapping):
        form = {key: as_json(item) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        form = [as_json(item) for item in value]
    elif is_dataclass(value):
        form = as_json(value, *(field.name for field in fields(value)))
    return form


def one_line(text: str) -> str:
    """Return the text as one line of printable characters.

    One space replaces each run of white space and unprintable characters (str.isprintable: control
    characters, bidirectional controls, half surrogate pairs).
    """
    shown = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(shown.split())


def size(count: int) -> str:
    """Return a number of bytes for people, in powers of 1000."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def duration(seconds: float) -> str:
    """Return a duration for people: 45 s, 12 min, 3 h 05 min, 2 d 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02} min"
    return f"{hours // 24} d {hours % 24} h"


def plural(count: int, one: str, several: str | None = None) -> str:
    """Return a number with its noun: `1 file`, `2 files`."""
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"
