"""Stop requests."""

import asyncio
import errno
import gc
import weakref
from datetime import timedelta

import pytest

from etl.model.errors import RunError
from etl.pipeline.stop import Stop, StoppedError, deadline


async def test_waiting_ends_at_once() -> None:
    """A stop request cancels interruptible work at once."""
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


async def test_nothing_starts_after_the_request() -> None:
    """After a stop request, no new work starts."""
    stop = Stop()
    stop.request(error=RunError("no"))
    with pytest.raises(StoppedError):
        await stop.sleep(1000)


async def test_the_first_reason_counts() -> None:
    """The first error and the first signal count. A signal after an error still limits the time."""
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


async def test_a_cancellation_from_outside_is_no_stop_request() -> None:
    """It raises CancelledError and not StoppedError."""
    stop = Stop()
    task = asyncio.ensure_future(stop.sleep(1000))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_callback_added_after_the_request_runs_at_once() -> None:
    """No callback misses the request."""
    stop = Stop()
    stop.request(signal=2)
    heard: list[int] = []
    stop.on_request(lambda: heard.append(1))
    assert heard == [1]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RunError("no"), "no"),
        (OSError(errno.EMFILE, "x"), "too many open files"),
        (StoppedError(), "None"),
    ],
)
def test_an_error_that_ends_the_run_becomes_a_request(error: Exception, reason: str) -> None:
    """What the machine lacks is such an error; a request that was made before stays as it is."""

    def fail() -> None:
        raise error

    stop = Stop()
    with stop.at_error():
        fail()
    assert str(stop.error).startswith(reason)


def test_a_defect_is_no_request() -> None:
    """It goes on to the outermost boundary, which says where its trace is."""
    stop = Stop()
    with pytest.raises(ZeroDivisionError), stop.at_error():
        raise ZeroDivisionError
    assert not stop.requested()


async def test_work_that_has_ended_is_forgotten() -> None:
    """On a cluster one stop request is for all tasks of a run, and outlives them."""
    stop = Stop()

    async def work() -> None:
        async with deadline(stop, timedelta(seconds=1)):
            pass

    task = asyncio.create_task(work())
    await task
    ended = weakref.ref(task)
    del task
    await asyncio.sleep(0)  # the loop has it until then
    gc.collect()
    assert ended() is None
