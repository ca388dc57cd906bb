"""The standard streams as they come: closed, full, or a pipe that nobody reads any more."""

import io
import json
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime


class _Unfailing(io.TextIOWrapper):
    """Text that is lost where it cannot be written."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def guard() -> None:
    """Make sure that there are streams, and that what cannot be logged does not end the job."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: PTH123, SIM115 - for the life of the process
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    else:
        sys.stderr = _Unfailing(
            sys.stderr.buffer, sys.stderr.encoding, "backslashreplace", line_buffering=True
        )


def last_line(line: str, event: str) -> None:
    """Write why the process ends now, past all buffers: a signal may come in the middle of a write.

    One JSON object where standard error is no terminal, as the log there.
    """
    with suppress(OSError):
        if os.isatty(2):
            text = f"\naht-etl: {line}\n"  # behind the ^C that the terminal shows
        else:
            now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
            fields = {"reason": line, "event": event, "level": "error", "timestamp": now}
            text = f"{json.dumps(fields)}\n"
        os.write(2, text.encode())


def settle() -> None:
    """Flush standard output; what it does not take is dropped.

    Python would try again when the process ends, and end it with a code of its own.
    """
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
