"""The limiter of all requests: how many in flight, how many a second, and pauses.

A server may limit the requests in flight, the requests a second, or both; a 429 does not say
which. So the limiter looks for both limits: it has none until the first refusal, then learns from
the requests that were accepted before it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

# The rate is measured over the last second before a refusal.
_MEASURED_S: Final = 1.0
# How many requests are remembered: some seconds of a fast server, over a minute of a slow one.
_REMEMBERED: Final = 4096
# A margin: the server's second is not exactly ours.
_BELOW_MEASURED: Final = 0.97
# How fast a limit grows, as a share of itself a second. Each further refusal costs a pause, so it
# divides the growth by four. Without refusals the growth doubles every ten seconds, so that the
# limiter notices when a server lifts its limit.
_GROWTH: Final = 1.0
_GROWTH_LEAST: Final = 0.001
_GROWTH_BACKED_OFF: Final = 0.25
_GROWTH_DOUBLES_S: Final = 10.0
# A measured limit this much below the last one is a new limit: it grows faster again.
_NEW_LIMIT_SHARE: Final = 0.7
_GROWTH_OF_NEW_LIMIT: Final = 0.25
_RATE_NO_LIMIT: Final = 10_000.0
# A single 503 may be about one request; from this share of requests on, the server is overloaded.
_OVERLOADED_SHARE: Final = 0.1
# A request ends at the server a little before it ends here. So, as counted here, the server may
# accept this share of requests beyond its limit of requests in flight. (Without it, the highest
# number alone decided: a server with 3 at once and 20 a second got 15 a second.)
_BEYOND_SHARE: Final = 0.02


class _EstimatedLimit:
    """A limit of the server, as it is known; it grows with time, not with each answer."""

    def __init__(self) -> None:
        self._value = float("inf")
        self._growth = _GROWTH
        self._since = 0.0

    def at(self, now: float) -> float:
        """Return the limit to use now."""
        seconds = max(0.0, now - self._since)
        if self._value == float("inf") or not seconds:
            return self._value
        # The growth itself doubles; this is close to its mean over the time.
        growth = self._growth * 2 ** min(20.0, seconds / 2 / _GROWTH_DOUBLES_S)
        return float(self._value * (1 + min(growth, _GROWTH)) ** min(seconds, 600.0))

    def measured(self, value: float, now: float) -> None:
        """Continue from this value; grow more slowly than before if there was one."""
        if value < _NEW_LIMIT_SHARE * self._value < float("inf"):
            self._growth = max(_GROWTH_OF_NEW_LIMIT, self._growth)
        elif self._value < float("inf"):
            self._growth = max(_GROWTH_LEAST, self._growth * _GROWTH_BACKED_OFF)
        self._value, self._since = value, now

    def lowered(self, value: float, now: float) -> None:
        """Continue from this value and grow back fast: the other limit was the reason."""
        self._growth = max(_GROWTH_OF_NEW_LIMIT, self._growth)
        self._value, self._since = value, now


@dataclass(slots=True, eq=False)
class Slot:
    """A request in flight: when it started, how many were in flight then, if it was refused."""

    started_at: float
    in_flight: int
    refused: bool = False
    throttled: bool = False


class Limiter:
    """Limits the requests in flight and the requests a second, and pauses all together.

    Requests start in the order in which they came. After the first refusal (429 or 503), they
    never start in bursts. `rate` is a hard limit in requests a second, evenly spaced: the n-th
    request never starts before n - 1 intervals have passed. The rate that the limiter finds is
    never below `rate_least`.
    """

    def __init__(
        self,
        concurrency: int,
        rate: float | None,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        rate_least: float = 1.0,
    ) -> None:
        #: How many requests are in flight.
        self.in_flight = 0
        self._rate_least = rate_least
        self._concurrency = concurrency
        self._rate = rate or float("inf")
        self._clock = clock
        self._sleep = sleep
        self._in_flight_limit = _EstimatedLimit()
        self._rate_limit = _EstimatedLimit()
        self._recent: deque[Slot] = deque(maxlen=_REMEMBERED)
        self._refused: list[Slot] = []
        self._last_refused_at = self._learned_at = self._paused_until = clock()
        self._next_start_at = clock()
        self._queue = asyncio.Lock()
        self._starting = asyncio.Lock()
        self._freed = asyncio.Event()

    @property
    def allowed(self) -> int:
        """How many requests may be in flight now."""
        return int(max(1.0, min(self._concurrency, self._in_flight_limit.at(self._clock()))))

    @property
    def rate(self) -> float:
        """How many requests a second may start now; infinity if no limit is known."""
        found = self._rate_limit.at(self._clock())
        return min(self._rate, found if found < _RATE_NO_LIMIT else float("inf"))

    @property
    def paused_s(self) -> float:
        """How long no request may start because the server asked to wait; 0 if it did not."""
        return max(0.0, self._paused_until - self._clock())

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[Slot]:
        """Wait until a request may start; it is in flight until the block ends."""
        async with self._queue:
            while (slot := await self._try()) is None:
                self._freed.clear()
                await self._freed.wait()
        try:
            yield slot
        finally:
            self.in_flight -= 1
            self._freed.set()

    async def wait_to_start(self) -> Slot:
        """Wait for the rate and for pauses only: for a request on behalf of one in flight."""
        async with self._starting:
            await self._wait_for_start()
            return self._new_slot()

    async def _try(self) -> Slot | None:
        async with self._starting:
            await self._wait_for_start()
            if self.in_flight >= self.allowed:
                return None
            self.in_flight += 1
            return self._new_slot()

    async def _wait_for_start(self) -> None:
        while (wait_s := self._next_start_at - self._clock()) > 0:
            await self._sleep(wait_s)
        if self._refused:
            self._learn()

    def _new_slot(self) -> Slot:
        now = self._clock()
        interval_s = 1 / self.rate
        # If the timer fired late, the next start may be earlier, by one interval at most.
        self._next_start_at = max(self._next_start_at, now - interval_s) + interval_s
        slot = Slot(now, self.in_flight)
        self._recent.append(slot)
        return slot

    def refused(self, slot: Slot, *, throttled: bool) -> None:
        """Record a 429 (`throttled`) or a 503.

        A request that was already in flight at the last refusal shows nothing new.
        """
        slot.refused, slot.throttled = True, throttled
        if slot.started_at >= self._last_refused_at or self._refused:
            self._refused.append(slot)
            self._last_refused_at = self._clock()

    def pause(self, seconds: float) -> None:
        """Start no request for this long."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)
        self._next_start_at = max(self._next_start_at, self._paused_until)

    def _learn(self) -> None:
        """Find the limits from the refusals; by the end of the pause most responses are here."""
        now = self._clock()
        refused, self._refused = self._refused, []
        since, self._learned_at = self._learned_at, now
        first = min(slot.started_at for slot in refused)
        measured = [s for s in self._recent if first - _MEASURED_S < s.started_at <= first]
        accepted = [slot for slot in measured if not slot.refused]
        few = len(accepted) > (1 - _OVERLOADED_SHARE) * len(measured)
        if few and not any(slot.throttled for slot in refused):
            return
        # At least half of the requests sent: a server may refuse for other reasons than the rate.
        rate = max(_BELOW_MEASURED * len(accepted), len(measured) / 2) / _MEASURED_S
        rate = max(self._rate_least, rate)
        least_refused = min(slot.in_flight for slot in refused)
        # How many requests were in flight when a request started that was accepted.
        fine = [s.in_flight for s in self._recent if not s.refused and s.started_at >= since]
        beyond = sum(in_flight >= least_refused for in_flight in fine)
        if fine and beyond <= _BEYOND_SHARE * len(fine):
            # Almost all of them had fewer in flight: the limit is that of requests in flight.
            self._in_flight_limit.measured(min(max(fine), least_refused - 1), now)
            self._rate_limit.lowered(rate, now)
        else:
            self._rate_limit.measured(rate, now)
