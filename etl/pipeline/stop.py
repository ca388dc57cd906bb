"""Stop requests: requests in flight end at once, files that are downloaded may be committed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any, Final, TypeVar

from etl.model.errors import RunError
from etl.model.machine import resource_shortage
from etl.model.text import log

T = TypeVar("T")

# How long work may still take after a request to stop at once.
_AT_ONCE_S: Final = 1.0


class StoppedError(Exception):
    """The run was asked to stop; the work that raises this was not done."""


class Stop:
    """A request to stop, made once: by a signal (its number) or by an error that ends the run.

    A second request may be to stop `at_once`: then nothing more is committed.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.error: RunError | None = None
        self.at_once = False
        self._interruptible: set[asyncio.Future[Any]] = set()
        self._on_request: list[Callable[[], None]] = []

    def requested(self) -> bool:
        """Whether the run should stop."""
        return self.signal is not None or self.error is not None

    def request(
        self, *, signal: int | None = None, error: RunError | None = None, at_once: bool = False
    ) -> None:
        """Ask the run to stop; the first error and the first signal count.

        A signal counts after an error too, but not the other way round.
        """
        known = self.signal is not None or (signal is None and self.error is not None)
        if known and (self.at_once or not at_once):
            return
        self.at_once = at_once
        if not known:
            self.signal, self.error = signal, self.error or error
        for future in list(self._interruptible):
            future.cancel()
        for callback in list(self._on_request):
            callback()

    def on_request(self, callback: Callable[[], None]) -> None:
        """Call back at a request, and again at one to stop `at_once`; now if there was one."""
        self._on_request.append(callback)
        if self.requested():
            callback()

    def forget(self, callback: Callable[[], None]) -> None:
        """Do not call back any more."""
        self._on_request.remove(callback)

    async def interruptible(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work, but cancel it and raise StoppedError at a stop request."""
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
        """Sleep; raise StoppedError at a stop request, also if one was made before."""
        if seconds > 0:
            await self.interruptible(asyncio.sleep(seconds))
        elif self.requested():
            raise StoppedError

    @contextmanager
    def at_error(self) -> Iterator[None]:
        """Make an error in the block that ends the run a request to stop, and end the block.

        These are a RunError, and what the machine lacks: the other files would meet the same error.
        """
        try:
            yield
        except StoppedError:
            pass
        except RunError as error:
            self.request(error=error)
        except Exception as error:
            if (reason := resource_shortage(error)) is None:
                raise
            self.request(error=RunError(reason))


async def within_grace(work: Coroutine[Any, Any, None], stop: Stop, grace_s: float) -> None:
    """Wait for work, but after a stop request only `grace_s` longer: work that hangs is left."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    left = loop.create_future()

    def limit() -> None:
        loop.call_later(_AT_ONCE_S if stop.at_once else grace_s, left.cancel)

    stop.on_request(limit)
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task})
        raise
    if task.done():
        task.result()
    elif stop.error is not None:
        raise stop.error


@asynccontextmanager
async def deadline(stop: Stop, grace: timedelta) -> AsyncIterator[None]:
    """After a stop request, end the block when the grace is over, or at once if so requested."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as limit:

            def begin() -> None:
                if stop.at_once:
                    limit.reschedule(loop.time())
                elif limit.when() is None:
                    limit.reschedule(loop.time() + grace.total_seconds())

            stop.on_request(begin)
            try:
                yield
            finally:
                stop.forget(begin)
    except TimeoutError:
        if not limit.expired():
            raise
        reason = "what was not committed is left to the next run"
        log.warning("shutdown.grace_over", reason=reason)
