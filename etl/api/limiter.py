"""One limiter for all requests: how many at once, how fast, and when not at all.

A server may limit the requests in flight, the requests a second, or both, and says no more than
429. So both are sought: unlimited until the first refusal, then by what was accepted before it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

# The rate is that of the last second before a refusal, less a little for the server's clock.
_MEASURED_S: Final = 1.0
# Requests that are remembered: some seconds of a fast server's, a minute and more of others'.
_REMEMBERED: Final = 4096
_UNDER: Final = 0.97
# How fast a limit that was found is probed: as a share of itself a second, a quarter of that after
# each further refusal, so that a refusal, which costs a second's pause, becomes rare; and more
# again the longer there is none, so that a limit that was lifted is noticed.
_GROWTH: Final = 1.0
_GROWTH_LEAST: Final = 0.001
_GROWTH_BACKED_OFF: Final = 0.25
_GROWTH_DOUBLES_S: Final = 10.0
# A value that is much lower than the last one is another limit: it is probed with more courage.
_ANOTHER: Final = 0.7
_GROWTH_ANEW: Final = 0.25
_RATE_NO_LIMIT: Final = 10_000.0
# A 503 may be one request's misfortune; a server that is overloaded says it to this many.
_OVERLOADED_SHARE: Final = 0.1
# A place is free at the server a little before it is here: so many may be accepted beyond a limit
# of requests in flight, as it looks from here. (Any number of them, judged by the highest place
# alone, took 20 a second for 3 at once and left it at 15.)
_BEYOND_SHARE: Final = 0.02


class _Probed:
    """A limit of the server, as far as it is known: grows by time, never by answers."""

    def __init__(self) -> None:
        self._value = float("inf")
        self._growth = _GROWTH
        self._since = 0.0

    def at(self, now: float) -> float:
        """Return the limit as it may be tried now."""
        seconds = max(0.0, now - self._since)
        if self._value == float("inf") or not seconds:
            return self._value
        # The growth itself doubles now and then: its mean over the time, close enough.
        growth = self._growth * 2 ** min(20.0, seconds / 2 / _GROWTH_DOUBLES_S)
        return float(self._value * (1 + min(growth, _GROWTH)) ** min(seconds, 600.0))

    def found(self, value: float, now: float) -> None:
        """Go on from this value, more slowly than before if there was one before."""
        if value < _ANOTHER * self._value < float("inf"):
            self._growth = max(_GROWTH_ANEW, self._growth)
        elif self._value < float("inf"):
            self._growth = max(_GROWTH_LEAST, self._growth * _GROWTH_BACKED_OFF)
        self._value, self._since = value, now

    def lowered(self, value: float, now: float) -> None:
        """Go on from this value, and soon back to where it was: it is not the limit."""
        self._growth = max(_GROWTH_ANEW, self._growth)
        self._value, self._since = value, now


@dataclass(slots=True, eq=False)
class Slot:
    """A request's place: when it started, as which of those in flight, and how it was refused."""

    started_at: float
    place: int
    refused: bool = False
    throttled: bool = False


class Limiter:
    """Bounds the requests in flight and the requests a second, and pauses all of them together.

    Requests start in the order in which they asked, and never several at the same instant once a
    server has refused one (429 or 503). `rate` is a hard limit in requests a second, evenly
    spaced: the n-th request never starts before n - 1 intervals have passed. What is found never
    falls below `rate_least`.
    """

    def __init__(
        self,
        concurrency: int,
        rate: float | None,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rate_least: float = 1.0,
    ) -> None:
        self._rate_least = rate_least
        self._concurrency = concurrency
        self._rate = rate or float("inf")
        self._clock = clock
        self._sleep = sleep
        self._in_flight_found = _Probed()
        self._rate_found = _Probed()
        self._recent: deque[Slot] = deque(maxlen=_REMEMBERED)
        self._refused: list[Slot] = []
        self._cut_at = clock()
        self._learned_at = clock()
        self._opens_at = clock()
        self._paused_until = clock()
        self._in_flight = 0
        self._turn = asyncio.Lock()
        self._start = asyncio.Lock()
        self._freed = asyncio.Event()

    @property
    def allowed(self) -> int:
        """How many requests may be in flight now."""
        return int(max(1.0, min(self._concurrency, self._in_flight_found.at(self._clock()))))

    @property
    def rate(self) -> float:
        """How many requests a second may start now; infinity if no limit is known."""
        found = self._rate_found.at(self._clock())
        return min(self._rate, found if found < _RATE_NO_LIMIT else float("inf"))

    @property
    def in_flight(self) -> int:
        """How many requests hold a place."""
        return self._in_flight

    @property
    def paused_s(self) -> float:
        """How long no request may start because the server asked to wait; 0 if it did not."""
        return max(0.0, self._paused_until - self._clock())

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[Slot]:
        """Wait for a place, hold it, and give it back."""
        async with self._turn:
            while (slot := await self._try()) is None:
                self._freed.clear()
                await self._freed.wait()
        try:
            yield slot
        finally:
            self._in_flight -= 1
            self._freed.set()

    async def wait_to_start(self) -> Slot:
        """Wait as the rate and pauses ask, without a place: for a caller that has one already."""
        async with self._start:
            await self._open()
            return self._pass()

    async def _try(self) -> Slot | None:
        async with self._start:
            await self._open()
            if self._in_flight >= self.allowed:
                return None
            self._in_flight += 1
            return self._pass()

    async def _open(self) -> None:
        while (wait_s := self._opens_at - self._clock()) > 0:
            await self._sleep(wait_s)
        if self._refused:
            self._learn()

    def _pass(self) -> Slot:
        now = self._clock()
        interval_s = 1 / self.rate
        # A timer that fires late may be made up for, by one interval at most.
        self._opens_at = max(self._opens_at, now - interval_s) + interval_s
        slot = Slot(now, self._in_flight)
        self._recent.append(slot)
        return slot

    def refused(self, slot: Slot, *, throttled: bool) -> None:
        """Take a 429 (`throttled`) or a 503 into account.

        Requests that were already under way at the last refusal say nothing new.
        """
        slot.refused, slot.throttled = True, throttled
        if slot.started_at >= self._cut_at or self._refused:
            self._refused.append(slot)
            self._cut_at = self._clock()

    def pause(self, seconds: float) -> None:
        """Let no request start for so long."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)
        self._opens_at = max(self._opens_at, self._paused_until)

    def _learn(self) -> None:
        """Learn from the round that was refused, now that most of its answers are there."""
        now = self._clock()
        refused, self._refused = self._refused, []
        since, self._learned_at = self._learned_at, now
        first = min(slot.started_at for slot in refused)
        measured = [s for s in self._recent if first - _MEASURED_S < s.started_at <= first]
        accepted = [slot for slot in measured if not slot.refused]
        few = len(accepted) > (1 - _OVERLOADED_SHARE) * len(measured)
        if few and not any(slot.throttled for slot in refused):
            return
        # Half of what was offered at least: a server may refuse for other reasons than the rate.
        rate = max(_UNDER * len(accepted), len(measured) / 2) / _MEASURED_S
        rate = max(self._rate_least, rate)
        least_refused = min(slot.place for slot in refused)
        places = [s.place for s in self._recent if not s.refused and s.started_at >= since]
        beyond = sum(place >= least_refused for place in places)
        if places and beyond <= _BEYOND_SHARE * len(places):
            # Almost all that were accepted had fewer beside them: it is the requests in flight.
            self._in_flight_found.found(min(max(places), least_refused - 1), now)
            self._rate_found.lowered(rate, now)
        else:
            self._rate_found.found(rate, now)
