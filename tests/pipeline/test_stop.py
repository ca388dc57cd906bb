"""Being told to end."""

import asyncio

import pytest

from etl.model.errors import RunError
from etl.pipeline.stop import Stop, StoppedError


async def test_waiting_ends_at_once() -> None:
    """Interruptible work is dropped the moment the run is told to end."""
    stop = Stop()
    begun = asyncio.Event()

    async def forever() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(stop.interruptible(forever()))
    await begun.wait()
    stop.request(signal=15)
    with pytest.raises(StoppedError):
        await task


async def test_nothing_begins_after_the_request() -> None:
    """Once told to end, no more work is begun."""
    stop = Stop()
    stop.request(error=RunError("no"))
    with pytest.raises(StoppedError):
        await stop.sleep(1000)


async def test_the_first_reason_counts() -> None:
    """Of errors and of signals; a signal behind an error limits the time that is left."""
    stop = Stop()
    first = RunError("no")
    stop.request(error=first)
    stop.request(error=RunError("another"))
    stop.request(signal=15)
    stop.request(signal=2)
    assert (first, 15) == (stop.error, stop.signal)
    stop = Stop()
    stop.request(signal=2)
    stop.request(error=first)
    assert (None, 2) == (stop.error, stop.signal)


async def test_outer_cancellation_stays_cancellation() -> None:
    """Being cancelled from outside is not being told to end."""
    stop = Stop()
    task = asyncio.ensure_future(stop.sleep(1000))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_callbacks_hear_of_it_late_too() -> None:
    """Who asks after the request is told at once."""
    stop = Stop()
    stop.request(signal=2)
    heard: list[int] = []
    stop.on_request(lambda: heard.append(1))
    assert heard == [1]
