"""SIGINT, SIGTERM and SIGHUP: the first ends the job, a later one ends it at once."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from etl.cli.process import streams

if TYPE_CHECKING:
    from etl.pipeline.stop import Stop

T = TypeVar("T")

#: Wrappers such as `timeout` and npm deliver one signal twice: to the process and to its group.
#: So a signal that comes this soon after another one is the same request.
SAME_REQUEST_S: Final = 2.0
# What a job that ends at once may still take to write its report.
_LAST_S: Final = 3.0


def handled() -> tuple[signal.Signals, ...]:
    """Return the signals that end a command; SIGHUP is not among them under `nohup`."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM, *(() if ignored else (signal.SIGHUP,)))


class Signals:
    """Tells the job to end at the first signal, and to end at once at a later one.

    A command without a job to report on ends at the first.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.first: int | None = None
        self._clock = clock
        self._heard_at = -SAME_REQUEST_S
        self._deferred = False
        self._ending = False
        self._stop: Stop | None = None

    def __call__(self, number: int, _frame: FrameType | None = None) -> None:
        """Handle a signal: 128 + its number is the exit code (operations.md, "Exit codes")."""
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
        """Tell whether a signal that comes now is the one before it once more."""
        now = self._clock()
        if now - self._heard_at < SAME_REQUEST_S:
            return True
        self._heard_at = now
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
        """Leave the process when the time for its report is over: something in it hangs."""
        signal.signal(signal.SIGALRM, lambda *_: self._leave(number))
        signal.setitimer(signal.ITIMER_REAL, _LAST_S)

    def defer(self) -> None:
        """From now on a job is being prepared that will report: keep the first signal for it."""
        self._deferred = True

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, in a loop that a signal wakes.

        A signal goes to whoever handles signals now. Without the loop's own handlers one that
        comes just before it waits is heard when something else wakes it.
        """
        before: dict[int, Any] = {number: signal.getsignal(number) for number in handled()}
        came = False

        def hear(number: int) -> None:
            nonlocal came
            came = True
            before[number](number, None)

        async def heard() -> T:
            loop = asyncio.get_running_loop()
            for number in before:
                loop.add_signal_handler(number, hear, number)
            try:
                return await work
            finally:
                for number, handler in before.items():
                    loop.remove_signal_handler(number)
                    signal.signal(number, self if came else handler)

        return asyncio.run(heard())

    def hand_to(self, stop: "Stop", loop: asyncio.AbstractEventLoop) -> None:
        """From now on tell the job itself, inside its loop."""
        self._stop = stop
        for number in handled():
            loop.add_signal_handler(number, self, number)
        if self.first is not None:
            stop.request(signal=self.first)

    def take_back(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on the loop does not run: hear of signals without it.

        The first lets the report be written all the same. A later one gives it a moment.
        """
        for number in handled():
            loop.remove_signal_handler(number)
            signal.signal(number, self)


SIGNALS: Final = Signals()
