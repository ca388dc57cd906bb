"""The progress of a run, and a log event for it every 30 seconds."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from etl.model.text import log
from etl.pipeline.state import RunState
from etl.pipeline.stop import Stop

Phase = Literal["listing", "loading", "stopping"]

EVENT_EVERY_S: Final = 30.0
# Often enough that the first event has a speed.
_SAMPLE_EVERY_S: Final = 1.0
# Speed is that of the last half minute: it shows a pause, but not one slow answer.
_SPEED_SPAN_S: Final = 30.0
_SPEED_LEAST_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Facts:
    """The progress of a run: the fields of the event `run.progress`.

    `done` of the `to_load` files have an outcome: a file gets one when its part is committed.
    Speeds and `seconds_left` are None until they can be estimated, `rate_limit` where the server's
    limit is not known. `throttled` counts answers of 429; because of one, nothing is sent for
    `paused_seconds`.
    """

    phase: Phase
    listed: int
    already_loaded: int
    to_load: int
    done: int
    loaded: int
    failed: int
    rows: int
    downloaded_bytes: int
    files_per_second: float | None
    bytes_per_second: float | None
    in_flight: int
    concurrency: int
    rate_limit: float | None
    throttled: int
    paused_seconds: float
    seconds_left: float | None


class Meter:
    """Samples a run's state and computes its progress and speed."""

    def __init__(self, state: RunState, stop: Stop, clock: Callable[[], float]) -> None:
        self._state = state
        self._stop = stop
        self._clock = clock
        self._samples: deque[tuple[float, int, int]] = deque()

    def read(self) -> Facts:
        """Return the facts of this moment; the speeds are those between calls."""
        state, outcomes, elsewhere = self._state, self._state.outcomes, self._state.elsewhere
        more, traffic = elsewhere.outcomes, elsewhere.traffic
        limits, plan = state.limits, state.plan
        already_loaded = outcomes.already_loaded + more.already_loaded
        loaded = outcomes.loaded + more.loaded
        failed = outcomes.failed_files + more.failed_files
        done = loaded + failed + already_loaded - plan.already_loaded
        to_load = plan.to_load
        downloaded = state.traffic.downloaded_bytes + traffic.downloaded_bytes
        phase: Phase = "loading" if to_load else "listing"
        # The time before the first file says nothing about the speed of files.
        speeds = self._speeds(done, downloaded) if downloaded or done else None
        files_s, bytes_s = speeds or (None, None)
        left_s = (to_load - done) / files_s if files_s else None
        rate = limits.rate if limits else math.inf
        return Facts(
            phase="stopping" if self._stop.requested() else phase,
            listed=plan.listed or len(state.listing.entries),
            already_loaded=already_loaded,
            to_load=to_load,
            done=done,
            loaded=loaded,
            failed=failed,
            rows=outcomes.rows + more.rows,
            downloaded_bytes=downloaded,
            files_per_second=_rounded(files_s),
            bytes_per_second=_rounded(bytes_s),
            in_flight=limits.in_flight if limits else 0,
            concurrency=limits.allowed if limits else state.job.settings.fetch.concurrency,
            rate_limit=round(rate, 1) if math.isfinite(rate) else None,
            throttled=state.traffic.throttled + traffic.throttled,
            paused_seconds=round(limits.paused_s if limits else 0.0, 1),
            seconds_left=_rounded(left_s),
        )

    def _speeds(self, done: int, downloaded: int) -> tuple[float, float] | None:
        now = self._clock()
        samples = self._samples
        samples.append((now, done, downloaded))
        # Keep one sample from before the span, so that the span is never shorter.
        while len(samples) > 2 and samples[1][0] <= now - _SPEED_SPAN_S:
            samples.popleft()
        then, done_then, downloaded_then = samples[0]
        if now - then < _SPEED_LEAST_S:
            return None
        return (done - done_then) / (now - then), (downloaded - downloaded_then) / (now - then)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


@asynccontextmanager
async def logged(
    state: RunState, stop: Stop, event_every_s: float = EVENT_EVERY_S
) -> AsyncIterator[None]:
    """Log the run's progress while the block runs."""
    meter = Meter(state, stop, asyncio.get_running_loop().time)
    async with meanwhile(_events(meter, event_every_s)):
        yield


@asynccontextmanager
async def meanwhile(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do endless work while the block runs."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _events(meter: Meter, every_s: float) -> None:
    loop = asyncio.get_running_loop()
    due = loop.time() + every_s
    while True:
        await asyncio.sleep(min(_SAMPLE_EVERY_S, every_s))
        facts = meter.read()
        if loop.time() >= due:
            due += every_s
            log.info("run.progress", **asdict(facts))
