"""The standard streams: they may be closed, full, or a pipe that nobody reads any more."""

import io
import json
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime


class _Unfailing(io.TextIOWrapper):
    """A text stream that drops what it cannot write."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def guard() -> None:
    """Open missing streams, and let no job end because a log line cannot be written."""
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
    """Write why the process ends now, as a log event if standard error is not a terminal.

    It bypasses all buffers, because a signal may come in the middle of a write.
    """
    with suppress(OSError):
        if os.isatty(2):
            text = f"\naht-etl: {line}\n"  # after the ^C that the terminal shows
        else:
            now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
            fields = {"reason": line, "event": event, "level": "error", "timestamp": now}
            text = f"{json.dumps(fields)}\n"
        os.write(2, text.encode())


def settle() -> None:
    """Flush standard output, and drop what cannot be written.

    Otherwise Python tries again at exit, and changes the exit code.
    """
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
