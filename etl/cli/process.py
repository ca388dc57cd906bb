"""The process: its standard streams, and the signals SIGINT, SIGTERM and SIGHUP."""

import io
import json
import os
import signal
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from types import FrameType
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:  # `--version` needs neither, and asyncio is a fifth of its start
    import asyncio

    from etl.pipeline.stop import Stop

# Wrappers such as `timeout` and npm deliver one signal twice: to the process and to its group. So a
# signal this soon after another one is the same request.
_SAME_REQUEST_S: Final = 2.0
# How long a job that ends at once may take to write its report.
_REPORT_S: Final = 3.0


def handled() -> tuple[signal.Signals, ...]:
    """Return the signals that end a command: under `nohup` SIGHUP is not one of them."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM, *(() if ignored else (signal.SIGHUP,)))


class Signals:
    """The handler of these signals.

    At the first signal it requests the job's stop, and at a later one a stop at once. It ends a
    command without a job at the first signal.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self._last_at = -_SAME_REQUEST_S
        self._deferred = False
        self._ending = False
        self._stop: Stop | None = None

    def __call__(self, number: int, _frame: FrameType | None = None) -> None:
        """Handle a signal. The exit code is 128 + the number of the first."""
        if self.repeated():
            return
        if self.first is None and self._deferred:
            self.first = number
            if self._stop is not None:
                self._stop.request(signal=number)
        elif self._stop is None or self._ending:
            self._leave(number)
        else:
            self._ending = True
            self._stop.request(signal=number, at_once=True)
            self._leave_soon(number)

    def repeated(self) -> bool:
        """Return whether a signal that comes now repeats the one before."""
        now = time.monotonic()
        if now - self._last_at < _SAME_REQUEST_S:
            return True
        self._last_at = now
        return False

    def _leave(self, number: int) -> None:
        again = "again " if self.first is not None else ""
        line = (
            f"interrupted: {signal.Signals(number).name} {again}before the end; what was committed "
            "stays, run the command again"
        )
        last_line(line, "command.interrupted")
        os._exit(128 + (self.first or number))

    def _leave_soon(self, number: int) -> None:
        """End the process if it hangs while it writes its report."""
        signal.signal(signal.SIGALRM, lambda *_: self._leave(number))
        signal.setitimer(signal.ITIMER_REAL, _REPORT_S)

    def defer(self) -> None:
        """Keep the first signal for the job that the command prepares: its report is due."""
        self._deferred = True

    def hand_to(self, stop: "Stop", loop: "asyncio.AbstractEventLoop") -> None:
        """Let signals request this stop, inside the loop."""
        self._stop = stop
        for number in handled():
            loop.add_signal_handler(number, self, number)
        if self.first is not None:
            stop.request(signal=self.first)

    def take_back(self, loop: "asyncio.AbstractEventLoop") -> None:
        """Handle signals directly, because the loop is busy or ends.

        A first signal does not stop the report. A later one leaves it a few seconds.
        """
        for number in handled():
            loop.remove_signal_handler(number)
            signal.signal(number, self)


SIGNALS: Final = Signals()


class _Unfailing(io.TextIOWrapper):
    """A text stream that drops what it cannot write."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def guard_streams() -> None:
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


def logs_json() -> bool:
    """Return whether the log is JSON, also if the other arguments cannot be parsed."""
    log_format = "auto"
    for argument, following in zip(sys.argv, [*sys.argv[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name == "--log-format":
            log_format = value if equals else following
    return log_format == "json" or (log_format != "console" and not os.isatty(2))


def last_line(line: str, event: str) -> None:
    """Write why the process ends now, as a log event if the log is JSON.

    It bypasses all buffers, because a signal may come in the middle of a write.
    """
    with suppress(OSError):
        if not logs_json():
            text = f"\naht-etl: {line}\n"  # after the ^C that the terminal shows
        else:
            now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
            fields = {"reason": line, "event": event, "level": "error", "timestamp": now}
            text = f"{json.dumps(fields)}\n"
        os.write(2, text.encode())


def settle_streams() -> None:
    """Flush standard output, and drop what cannot be written.

    Otherwise Python tries again at exit, and changes the exit code.
    """
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def leave(code: int) -> NoReturn:
    """End the process now, without the 0.2 s that tearing down the interpreter takes."""
    settle_streams()
    os._exit(code)
