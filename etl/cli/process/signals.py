"""SIGINT, SIGTERM and SIGHUP: the first stops the job, a later one ends the process."""

import os
import signal
import time
from types import FrameType
from typing import TYPE_CHECKING, Final

from etl.cli.process import streams

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
        streams.last_line(line, "command.interrupted")
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
