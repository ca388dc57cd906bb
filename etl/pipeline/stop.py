"""Being told to end: what waits for the network ends at once, what is downloaded may finish."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from etl.model.errors import RunError

T = TypeVar("T")

# What work that is told to end at once may still take.
_AT_ONCE_S: Final = 1.0


class StoppedError(Exception):
    """The run was told to end; what raises this was not done."""


class Stop:
    """Set once, by a signal (with its number) or by an error that ends the run.

    A request to end `at_once` comes on top: then nothing more is committed.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.error: RunError | None = None
        self.at_once = False
        self._interruptible: set[asyncio.Future[Any]] = set()
        self._on_request: list[Callable[[], None]] = []

    def requested(self) -> bool:
        """Whether the run should end."""
        return self.signal is not None or self.error is not None

    def request(
        self, *, signal: int | None = None, error: RunError | None = None, at_once: bool = False
    ) -> None:
        """Tell the run to end; the first error and the first signal count.

        A signal also counts after an error, but not the other way round.
        """
        known = self.signal is not None or (signal is None and self.error is not None)
        if known and (self.at_once or not at_once):
            return
        self.at_once = at_once
        if not known:
            self.signal, self.error = signal, self.error or error
        for future in list(self._interruptible):
            future.cancel()
        for callback in self._on_request:
            callback()

    def on_request(self, callback: Callable[[], None]) -> None:
        """Call back when the run is told to end, and again for `at_once`; now if it was told."""
        self._on_request.append(callback)
        if self.requested():
            callback()

    async def interruptible(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work, but drop it and raise StoppedError when the run is told to end."""
        if self.requested():
            work.close()
            raise StoppedError
        task = asyncio.ensure_future(work)
        self._interruptible.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if self.requested() and not (current and current.cancelling()):
                raise StoppedError from None
            raise
        finally:
            self._interruptible.discard(task)

    async def sleep(self, seconds: float) -> None:
        """Sleep, or raise StoppedError when the run is told to end, or was: for no time, too."""
        if seconds > 0:
            await self.interruptible(asyncio.sleep(seconds))
        elif self.requested():
            raise StoppedError


async def to_its_end(work: Coroutine[Any, Any, None], stop: Stop, grace_s: float) -> None:
    """Wait for work, but not for ever once it is told to end: what hangs is left as it is."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    left = loop.create_future()

    def limit() -> None:
        loop.call_later(_AT_ONCE_S if stop.at_once else grace_s, left.cancel)

    stop.on_request(limit)
    await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    elif stop.error is not None:
        raise stop.error
