"""One limiter for all requests: how many at once, how fast, and when not at all."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

# After a cut, what is allowed grows back by this share of itself a second: slowly enough that a
# server that said no is not asked the same again at once.
_GROWTH_PER_S: Final = 0.02


class Limiter:
    """Bounds the requests in flight and the requests a second, and pauses all of them together.

    Requests start in the order in which they asked. A refusal (429 or 503) halves how many may be
    in flight; it grows back slowly, and by time, not by answers: errors that come back fast do
    not speed it up. `rate` is a hard limit in requests a second, evenly spaced: the n-th request
    never starts before n - 1 intervals have passed, so nothing bursts.
    """

    def __init__(
        self,
        concurrency: int,
        rate: float | None,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._concurrency = concurrency
        self._interval_s = 1 / rate if rate else 0.0
        self._clock = clock
        self._sleep = sleep
        self._allowed = float(concurrency)
        self._cut_at = clock()
        self._opens_at = clock()
        self._in_flight = 0
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @property
    def allowed(self) -> int:
        """How many requests may be in flight now."""
        grown = self._allowed * (1 + _GROWTH_PER_S) ** (self._clock() - self._cut_at)
        return min(self._concurrency, int(grown))

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[float]:
        """Wait for a place, hold it, and give it back; yields when the request started."""
        async with self._turn:
            while True:
                await self._open()
                if self._in_flight < self.allowed:
                    break
                self._freed.clear()
                await self._freed.wait()
            now = self._pass()
            self._in_flight += 1
        try:
            yield now
        finally:
            self._in_flight -= 1
            self._freed.set()

    async def gate(self) -> float:
        """Wait out pauses and the rate, without a place: for whoever holds a place already."""
        await self._open()
        return self._pass()

    async def _open(self) -> None:
        while (wait_s := self._opens_at - self._clock()) > 0:
            await self._sleep(wait_s)

    def _pass(self) -> float:
        now = self._clock()
        # A timer that fires late may be made up for, by one interval at most.
        self._opens_at = max(self._opens_at, now - self._interval_s) + self._interval_s
        return now

    def refused(self, started_at: float) -> None:
        """Take a 429 or a 503 for a request that started then into account.

        Requests that were already under way at the last cut say nothing new.
        """
        if started_at >= self._cut_at:
            self._allowed = max(1.0, self.allowed / 2)
            self._cut_at = self._clock()

    def pause(self, seconds: float) -> None:
        """Let no request start for so long."""
        self._opens_at = max(self._opens_at, self._clock() + seconds)
