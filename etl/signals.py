"""SIGINT and SIGTERM: the first ends the job, the second the process."""

import asyncio
import os
import signal
from collections.abc import Coroutine
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from etl import termination

if TYPE_CHECKING:
    from etl.stop import Stop

T = TypeVar("T")

HANDLED: Final = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Tells the job to end at the first signal, ends the process at the second.

    Without a job to report on, it ends at the first.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self._deferred = False
        self._stop: Stop | None = None

    def __call__(self, number: int, _frame: FrameType | None = None) -> None:
        """Handle a signal: 128 + its number is the exit code (README, "Exit codes")."""
        if self.first is not None or not self._deferred:
            again = "again " if self.first is not None else ""
            termination.leave(f"interrupted: {signal.Signals(number).name} {again}before the end")
            os._exit(128 + number)
        self.first = number
        if self._stop is not None:
            self._stop.request(signal=number)

    def defer(self) -> None:
        """From now on a job is being prepared that will report: keep the first signal for it."""
        self._deferred = True

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, in a loop that a signal wakes; the second ends the process.

        The first goes to whoever handles signals now. Without the loop's own handlers one that
        comes just before it waits is heard when something else wakes it.
        """
        before: dict[int, Any] = {number: signal.getsignal(number) for number in HANDLED}
        came = False

        def hear(number: int) -> None:
            nonlocal came
            came = True
            before[number](number, None)

        async def heard() -> T:
            loop = asyncio.get_running_loop()
            for number in HANDLED:
                loop.add_signal_handler(number, hear, number)
            try:
                return await work
            finally:
                for number in HANDLED:
                    loop.remove_signal_handler(number)
                    signal.signal(number, self if came else before[number])

        return asyncio.run(heard())

    def hand_to(self, stop: "Stop", loop: asyncio.AbstractEventLoop) -> None:
        """From now on tell the job itself, inside its loop."""
        self._stop = stop
        for number in HANDLED:
            loop.add_signal_handler(number, self, number)
        if self.first is not None:
            stop.request(signal=self.first)

    def take_back(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on the loop does not run: hear of signals without it.

        The first lets the report be written all the same, the second ends the process.
        """
        for number in HANDLED:
            loop.remove_signal_handler(number)
            signal.signal(number, self)


SIGNALS: Final = Signals()
