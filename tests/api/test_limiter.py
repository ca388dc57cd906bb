"""The limiter, with a clock that moves only while all tasks sleep."""

import asyncio
import random
from collections.abc import Awaitable

import pytest

from etl.api.limiter import Limiter


class FakeTime:
    """A clock that wakes its sleepers in order when no other task can run."""

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
        """Run the work to its end; move the clock to the next sleeper each time."""
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
    """At most `concurrency` requests are in flight."""
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
    """No request starts before the end of a pause, and then they do not start all at once."""
    limiter = Limiter(4, None, time.clock, time.sleep)
    seen: list[float] = []

    async def refused() -> None:
        async with limiter.slot() as slot:
            limiter.refused(slot, throttled=True)
            limiter.pause(7)

    await time.drive(refused(), *(request(limiter, time, 0.1, seen) for _ in range(8)))
    assert min(seen) >= 1007
    assert len(set(seen)) == 8


class Server:
    """Accepts a number of requests a second (a few at once), or in flight; refuses the others."""

    def __init__(self, time: FakeTime, rate: float | None, most: int | None, takes_s: float):
        self.answers: list[tuple[float, bool]] = []
        self._time, self._rate, self._most, self._takes_s = time, rate, most, takes_s
        self._ready_at = 0.0
        self._in_flight = 0
        self._random = random.Random(1)

    async def accepts(self) -> bool:
        now = self._time.now
        self._in_flight += 1
        accepted = self._most is None or self._in_flight <= self._most
        if self._rate is not None:
            ready_at = max(self._ready_at, now)
            accepted = accepted and ready_at - now <= 0.1
            self._ready_at = ready_at + accepted / self._rate
        self.answers.append((now, accepted))
        await self._time.sleep(self._takes_s * self._random.uniform(0.5, 1.5) if accepted else 0.01)
        self._in_flight -= 1
        return accepted


async def settled(limiter: Limiter, time: FakeTime, server: Server) -> tuple[float, float]:
    """Send for a minute; return accepted requests a second and the share of 429s, late in it."""

    async def worker() -> None:
        while time.now < 1060:
            async with limiter.slot() as slot:
                if not await server.accepts():
                    limiter.refused(slot, throttled=True)
                    limiter.pause(1)

    await time.drive(*(worker() for _ in range(16)))
    late = [accepted for at, accepted in server.answers if 1030 <= at < 1060]
    return sum(late) / 30, 1 - sum(late) / len(late)


@pytest.mark.parametrize(
    ("rate", "most", "takes_s", "possible"),
    [
        (50, None, 0.002, 50),
        (50, None, 0.1, 50),
        (20, None, 0.2, 20),
        (5, None, 0.05, 5),
        (None, 4, 0.1, 40),
        (None, 1, 0.05, 20),
        (50, 8, 0.1, 50),
    ],
)
async def test_a_limit_is_found_and_kept_just_under(
    rate: float | None, most: int | None, takes_s: float, possible: float, time: FakeTime
) -> None:
    """Nine tenths of the limit are used, with few 429s, for each kind of limit and for both."""
    limiter = Limiter(16, None, time.clock, time.sleep)
    accepted, refused = await settled(limiter, time, Server(time, rate, most, takes_s))
    assert accepted >= 0.9 * possible
    assert refused <= 0.05
    assert most is None or limiter.allowed <= most + 1 or rate is not None


async def test_no_limit_is_invented(time: FakeTime) -> None:
    """A server that refuses nothing gets requests as fast as it responds."""
    limiter = Limiter(16, None, time.clock, time.sleep)
    accepted, _ = await settled(limiter, time, Server(time, None, None, 0.5))
    assert accepted == pytest.approx(16 / 0.5, rel=0.05)
    assert (16, float("inf")) == (limiter.allowed, limiter.rate)


async def test_fast_errors_do_not_speed_it_up(time: FakeTime) -> None:
    """A server that refuses everything quickly gets fewer requests over time, not more."""
    limiter = Limiter(16, None, time.clock, time.sleep)
    server = Server(time, None, 0, 0)
    await settled(limiter, time, server)
    early = [at for at, _ in server.answers if at < 1010]
    late = [at for at, _ in server.answers if 1050 <= at < 1060]
    assert len(late) <= 10 < 16 <= len(early)


async def test_refusals_that_take_their_time(time: FakeTime) -> None:
    """The limit is found although the server refuses slowly."""
    limiter = Limiter(16, None, time.clock, time.sleep)
    answers: list[tuple[float, bool]] = []

    async def worker() -> None:
        while time.now < 1120:
            async with limiter.slot() as slot:
                started = time.now
                accepted = not any(started - at < 0.5 for at, good in answers if good)
                answers.append((started, accepted))
                await time.sleep(3)
                if not accepted:
                    limiter.refused(slot, throttled=True)
                    limiter.pause(1)

    await time.drive(*(worker() for _ in range(16)))
    late = [accepted for at, accepted in answers if at >= 1060]
    assert sum(late) / 60 > 1
    assert sum(late) / len(late) > 0.7


async def test_one_refusal_among_slow_requests(time: FakeTime) -> None:
    """It does not reduce the requests in flight to one."""
    limiter = Limiter(16, None, time.clock, time.sleep)

    async def worker(index: int) -> None:
        async with limiter.slot() as slot:
            await time.sleep(10)
            if index == 12:
                limiter.refused(slot, throttled=True)

    await time.drive(*(worker(index) for index in range(16)))
    await time.drive(worker(0))
    assert limiter.allowed == 16


async def test_single_503s_are_no_overload(time: FakeTime) -> None:
    """One 503 in a hundred does not lower the rate; every second one does."""
    limiter = Limiter(16, None, time.clock, time.sleep)

    async def ask(every: int) -> None:
        for index in range(1, 201):
            async with limiter.slot() as slot:
                await time.sleep(0.01)
                if index % every == 0:
                    limiter.refused(slot, throttled=False)

    for every in (100, 2):
        await time.drive(ask(every))
        assert (limiter.rate < float("inf")) == (every == 2)


async def test_a_limit_that_is_lifted_is_noticed(time: FakeTime) -> None:
    """The limiter forgets a limit with time."""
    limiter = Limiter(16, None, time.clock, time.sleep)
    await settled(limiter, time, Server(time, 10, None, 0.1))
    assert limiter.rate < 12
    time.now += 3600
    assert limiter.rate == float("inf")


async def test_a_cancelled_waiter_holds_nobody_up(time: FakeTime) -> None:
    """The next waiter gets its place."""
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
