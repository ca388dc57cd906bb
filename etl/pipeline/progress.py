"""How far the run is, and a log event every 30 seconds that says so."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from etl.model.events import log
from etl.pipeline.job import Job

Phase = Literal["listing", "loading", "stopping"]

EVENT_EVERY_S: Final = 30.0
# The first event, too, is to know the speed.
_SAMPLE_EVERY_S: Final = 1.0
# Speed is that of the last half minute: a pause shows, one slow answer does not.
_SPEED_SPAN_S: Final = 30.0
_SPEED_LEAST_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Facts:
    """How far a run is; the fields of the event `run.progress`.

    `done` of the `to_load` files have their outcome; they are counted when their part is committed.
    Speeds and `seconds_left` are None as long as there is nothing to judge by, `rate_limit` where
    no limit of the server is known. `throttled` counts the 429s, `paused_seconds` is how long
    nothing is sent now because of one.
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
    """Looks at a job now and then and tells how far it is and how fast it goes."""

    def __init__(self, job: Job, clock: Callable[[], float]) -> None:
        self._job = job
        self._clock = clock
        self._samples: deque[tuple[float, int, int]] = deque()

    def read(self) -> Facts:
        """Return the facts of this moment; the speeds are those between calls."""
        tally, limiter, stop = self._job.tally, self._job.limiter, self._job.stop
        elsewhere = self._job.under_way
        brought = tally.already_loaded + elsewhere.brought_by_others - tally.plan.already_loaded
        loaded, failed = tally.loaded + elsewhere.loaded, len(tally.failures) + elsewhere.failed
        done = loaded + failed + brought
        to_load = tally.plan.to_load
        downloaded = tally.bytes.downloaded + elsewhere.downloaded_bytes
        phase: Phase = "loading" if to_load else "listing"
        # What is waited for before the first file is not the files' speed.
        speeds = self._speeds(done, downloaded) if downloaded or done else None
        files_s, bytes_s = speeds or (None, None)
        left_s = (to_load - done) / files_s if files_s else None
        rate = limiter.rate if limiter else math.inf
        return Facts(
            phase="stopping" if stop.requested() else phase,
            listed=tally.plan.listed or len(tally.listing.entries),
            already_loaded=tally.already_loaded + elsewhere.brought_by_others,
            to_load=to_load,
            done=done,
            loaded=loaded,
            failed=failed,
            rows=tally.rows_loaded + elsewhere.rows,
            downloaded_bytes=downloaded,
            files_per_second=_rounded(files_s),
            bytes_per_second=_rounded(bytes_s),
            in_flight=limiter.in_flight if limiter else 0,
            concurrency=limiter.allowed if limiter else self._job.settings.fetch.concurrency,
            rate_limit=round(rate, 1) if math.isfinite(rate) else None,
            throttled=tally.http.throttled + elsewhere.throttled,
            paused_seconds=round(limiter.paused_s if limiter else 0.0, 1),
            seconds_left=_rounded(left_s),
        )

    def _speeds(self, done: int, downloaded: int) -> tuple[float, float] | None:
        now = self._clock()
        samples = self._samples
        samples.append((now, done, downloaded))
        # One sample at or before the span's begin stays: the span is never shorter than that.
        while len(samples) > 2 and samples[1][0] <= now - _SPEED_SPAN_S:
            samples.popleft()
        then, done_then, downloaded_then = samples[0]
        if now - then < _SPEED_LEAST_S:
            return None
        return (done - done_then) / (now - then), (downloaded - downloaded_then) / (now - then)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


@asynccontextmanager
async def logged(job: Job, event_every_s: float = EVENT_EVERY_S) -> AsyncIterator[None]:
    """Log the job's progress while the block runs."""
    meter = Meter(job, asyncio.get_running_loop().time)
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
