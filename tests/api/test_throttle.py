"""The limiter, on a clock that only moves when somebody sleeps."""

import asyncio
from collections.abc import Awaitable

import pytest

from etl.api.throttle import Limiter


class FakeTime:
    """A clock whose sleepers wake in order, as soon as nothing else can run."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now + seconds, future))
        await future

    async def drive(self, *work: Awaitable[object]) -> None:
        """Run the work to its end, moving the clock from sleeper to sleeper."""
        task = asyncio.gather(*work)
        while not task.done():
            for _ in range(50):
                await asyncio.sleep(0)
            if not task.done() and self._sleepers:
                self._sleepers.sort(key=lambda item: item[0])
                self.now, future = self._sleepers.pop(0)
                if not future.done():
                    future.set_result(None)
        await task


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


async def request(limiter: Limiter, time: FakeTime, seconds: float, seen: list[float]) -> None:
    async with limiter.slot():
        seen.append(time.now)
        await time.sleep(seconds)


async def test_never_more_than_allowed(time: FakeTime) -> None:
    """However many ask, only `concurrency` are in flight."""
    limiter = Limiter(3, None, time.clock, time.sleep)
    in_flight, most = 0, 0

    async def one() -> None:
        nonlocal in_flight, most
        async with limiter.slot():
            in_flight += 1
            most = max(most, in_flight)
            await time.sleep(1)
            in_flight -= 1

    await time.drive(*(one() for _ in range(20)))
    assert most == 3


async def test_rate_is_even_and_exact(time: FakeTime) -> None:
    """The n-th request starts n - 1 intervals after the first, never sooner."""
    limiter = Limiter(100, 10, time.clock, time.sleep)
    seen: list[float] = []
    await time.drive(*(request(limiter, time, 0.01, seen) for _ in range(50)))
    assert seen == pytest.approx([1000 + n / 10 for n in range(50)])


async def test_a_pause_holds_everybody(time: FakeTime) -> None:
    """After a pause nobody starts before it is over, whoever asked for it."""
    limiter = Limiter(4, None, time.clock, time.sleep)
    seen: list[float] = []

    async def refused() -> None:
        async with limiter.slot() as started_at:
            limiter.refused(started_at)
            limiter.pause(7)

    await time.drive(refused(), *(request(limiter, time, 0.1, seen) for _ in range(8)))
    assert min(seen) >= 1007


async def test_refusals_halve_once_a_round(time: FakeTime) -> None:
    """Requests of one round that are all refused cut once, not each."""
    limiter = Limiter(16, None, time.clock, time.sleep)
    started: list[float] = []

    async def one() -> None:
        async with limiter.slot() as started_at:
            started.append(started_at)
            await time.sleep(0.5)
            limiter.refused(started_at)

    await time.drive(*(one() for _ in range(16)))
    assert limiter.allowed == 8


async def test_recovery_takes_time_not_answers(time: FakeTime) -> None:
    """What is allowed grows with the clock alone, slowly, back to the start."""
    limiter = Limiter(16, None, time.clock, time.sleep)
    limiter.refused(time.now)
    assert limiter.allowed == 8
    time.now += 10
    assert 8 <= limiter.allowed <= 10
    time.now += 600
    assert limiter.allowed == 16


async def test_a_cancelled_waiter_holds_nobody_up(time: FakeTime) -> None:
    """Who gives up waiting leaves the place to the next."""
    limiter = Limiter(1, None, time.clock, time.sleep)
    seen: list[float] = []
    first = asyncio.ensure_future(request(limiter, time, 1, seen))
    second = asyncio.ensure_future(request(limiter, time, 1, seen))
    third = asyncio.ensure_future(request(limiter, time, 1, seen))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second.cancel()
    await time.drive(first, third)
    assert len(seen) == 2
