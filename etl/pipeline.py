"""The job: list, plan, fetch, decode, commit. `run` reads top to bottom."""

import asyncio
import math
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import structlog

from etl.api.body import Body, scratch_error, scratch_folder
from etl.api.client import Client, connect
from etl.api.listing import Listing, read_listing
from etl.api.retry import Unauthorized
from etl.api.throttle import Limiter
from etl.api.transport import Transport
from etl.archive import Archive
from etl.decode import Decoded, DecodeLimits, decode
from etl.errors import FailureKind, FileError, RunError
from etl.lake.commit import read_state
from etl.lake.store import LakeError, LocalStore
from etl.paths import BreakdownPath
from etl.plan import PartitionPlan, Plan, Shard, make_plan
from etl.redact import Redactor
from etl.report import Tally
from etl.settings import Settings
from etl.sink import Sink
from etl.stop import Stop, StoppedError
from etl.times import Window

log = structlog.stdlib.get_logger()

# The vendor keeps a month (Actual Handle Time API, "Breakdown": `from`).
_KEPT_BY_VENDOR: Final = timedelta(days=31)
_THROTTLE_DELAY_LEAST_S: Final = 0.05
_KIB: Final = 2**10
_MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Memory:
    """How `limits.memory` is shared out, in bytes.

    Every share is fixed, and what does not fit goes to disk: nobody ever waits for memory while
    holding some, so there is nothing to lock up over. A quarter each for downloads, for files
    being decoded and for rows that wait for their partition; a quarter is left for encoding.
    """

    download: int
    decode: int
    pending: int
    decoders: int

    @classmethod
    def share_out(cls, budget: int, workers: int) -> "Memory":
        """Share out the budget among so many workers and as many decoders as there are cores."""
        decoders = max(1, min(len(os.sched_getaffinity(0)), workers, budget // (32 * _MIB)))
        return cls(
            download=max(64 * _KIB, min(8 * _MIB, budget // 4 // workers)),
            decode=max(_MIB, min(64 * _MIB, budget // 4 // decoders)),
            pending=budget // 4,
            decoders=decoders,
        )


@dataclass(slots=True)
class Job:
    """One run of the job: what to do it with, and what has come of it so far (`tally`).

    `now` is the clock by which a window is old. `saved_listing` takes the place of `window`.
    """

    settings: Settings
    account: str
    window: Window | None
    tally: Tally
    now: datetime
    saved_listing: BinaryIO | None = None
    shard: Shard = field(default_factory=Shard)
    stop: Stop = field(default_factory=Stop)
    redactor: Redactor = field(default_factory=Redactor)


async def run(job: Job) -> None:
    """Do the job; its outcome is in `job.tally`, whether this returns or raises.

    Returns early, with the rest not attempted, when `job.stop` is requested: what was downloaded
    by then is committed within `shutdown.grace`. Raises RunError when the job cannot do its work;
    what was downloaded before is committed then, too.
    """
    settings, tally, stop = job.settings, job.tally, job.stop
    store = LocalStore(Path(settings.lake.uri))
    loop = asyncio.get_running_loop()
    limiter = Limiter(
        settings.fetch.concurrency,
        settings.fetch.rate,
        loop.time,
        stop.sleep,
        # One request for each pause after a 429: what the vendor asks for is enough.
        rate_least=1 / max(settings.retry.throttle_delay, _THROTTLE_DELAY_LEAST_S),
    )
    try:
        await stop.interruptible(asyncio.to_thread(_open_lake, store))
        async with Transport(
            limiter, settings.retry, settings.fetch.timeout, tally.http, stop.sleep
        ) as transport:
            client = await stop.interruptible(
                connect(transport, settings, job.account, loop.time, job.redactor.add)
            )
            tally.listing = await stop.interruptible(_list(job, client))
            plan = await stop.interruptible(
                make_plan(
                    tally.listing.entries,
                    settings.fetch.skip,
                    job.shard,
                    partial(read_state, store),
                )
            )
            _say(plan)
            tally.planned(plan)
            await _load(plan, job, client, store)
    except StoppedError:
        pass
    finally:
        tally.http.concurrency = limiter.allowed
        tally.http.rate = round(limiter.rate, 1) if math.isfinite(limiter.rate) else None
    if stop.error is not None:
        raise stop.error


def _open_lake(store: LocalStore) -> None:
    try:
        store.check_readable()
    except LakeError as error:
        raise RunError(f"{error}; check lake.uri") from error
    store.clean_up()


async def _list(job: Job, client: Client) -> Listing:
    if job.saved_listing is not None:
        return await asyncio.to_thread(_read, job.saved_listing)
    window = job.window
    assert window is not None  # noqa: S101 - a job has a saved listing or a window
    if window.start < job.now - _KEPT_BY_VENDOR:
        log.warning("window.old", reason="the vendor keeps one month; it may refuse this window")
    listing = await client.list(list(window.cut(job.settings.api.request_window)))
    for partial_window in listing.partial_windows:
        log.warning(
            "listing.partial",
            **partial_window.as_json(),
            reason="the vendor says that paths are missing here; a later run will find them",
        )
    return listing


def _read(saved_listing: BinaryIO) -> Listing:
    try:
        with saved_listing:
            return read_listing(saved_listing.read().decode("utf-8", "replace"))
    except OSError as error:
        raise RunError(f"--paths: cannot be read: {error.strerror or error}") from error


def _say(plan: Plan) -> None:
    for invalid in plan.invalid[:100]:
        log.warning("path.invalid", path=invalid.text[:500], reason=invalid.reason)
    log.info(
        "plan.made",
        listed=plan.listed,
        already_loaded=sum(len(p.already_loaded) for p in plan.partitions),
        to_load=sum(len(p.to_load) for p in plan.partitions),
        invalid=len(plan.invalid),
        skipped=len(plan.skipped),
    )


async def _load(plan: Plan, job: Job, client: Client, store: LocalStore) -> None:
    """Fetch, decode and commit what the plan says, partition by partition, oldest first."""
    settings, tally, stop = job.settings, job.tally, job.stop
    todo = [partition for partition in plan.partitions if partition.to_load]
    for partition in todo:
        if partition.state.damage:
            paths = [path.text for path in partition.to_load]
            tally.failed(paths, FailureKind.LAKE, partition.state.damage)
            log.error(
                "partition.damaged",
                partition=partition.partition.directory,
                reason=partition.state.damage,
            )
    todo = [partition for partition in todo if not partition.state.damage]
    if not todo:
        return
    archive = None
    if settings.raw.uri is not None:
        archive = Archive(Path(settings.raw.uri), settings.limits.max_file_size)
    for key, place in (("lake.uri", store), ("raw.uri", archive)):
        try:
            if place is not None:
                await stop.interruptible(asyncio.to_thread(place.prepare))
        except LakeError as error:
            advice = f"check {key}, its permissions and its free space"
            raise RunError(f"{error}; {advice}") from error
    workers = min(settings.fetch.concurrency, sum(len(p.to_load) for p in todo))
    memory = Memory.share_out(settings.limits.memory, workers)
    sink = Sink(
        store,
        tally,
        compression=settings.lake.compression,
        target_part_bytes=settings.lake.target_part_size,
        pending_bytes=memory.pending,
    )
    loader = _Loader(job, client, sink, archive, memory)
    queue = _produce(todo, sink)
    try:
        async with _deadline(stop, settings.shutdown.grace):
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(loader.work(queue))
            await sink.close()
    except TimeoutError:
        log.warning("shutdown.grace_over", reason="what was not committed is left to the next run")
    finally:
        sink.discard()


def _produce(
    todo: list[PartitionPlan], sink: Sink
) -> Iterator[tuple[PartitionPlan, BreakdownPath]]:
    """Yield the files to load, partition by partition: the workers pull, so nothing piles up."""
    for partition in todo:
        sink.expect(partition)
        for path in partition.to_load:
            yield partition, path


@asynccontextmanager
async def _deadline(stop: Stop, grace: timedelta) -> AsyncIterator[None]:
    """Once a signal tells the run to end, raise TimeoutError when the grace is over."""
    loop = asyncio.get_running_loop()
    running = True
    async with asyncio.timeout(None) as limit:

        def begin() -> None:
            if running and stop.signal is not None:
                limit.reschedule(loop.time() + grace.total_seconds())

        stop.on_request(begin)
        try:
            yield
        finally:
            running = False


class _Loader:
    """What the workers of one load share."""

    def __init__(
        self, job: Job, client: Client, sink: Sink, archive: Archive | None, memory: Memory
    ) -> None:
        self._job = job
        self._client = client
        self._sink = sink
        self._archive = archive
        self._memory = memory
        self._decoders = asyncio.Semaphore(memory.decoders)
        limits = job.settings.limits
        self._limits = DecodeLimits(
            max_file_size=limits.max_file_size,
            max_bad_row_ratio=limits.max_bad_row_ratio,
            spill_bytes=memory.decode,
        )

    async def work(self, queue: Iterator[tuple[PartitionPlan, BreakdownPath]]) -> None:
        """Load one file after another until there are none, or until the run is told to end."""
        for partition, path in queue:
            if self._job.stop.requested():
                return
            try:
                await self._load_one(partition, path)
            except StoppedError:
                return
            except RunError as error:
                self._job.stop.request(error=error)
                return
            except FileError as error:
                self._job.tally.failed([path.text], error.kind, error.message, error.attempts)
                log.warning(
                    "file.failed",
                    path=path.text,
                    kind=error.kind.value,
                    reason=error.message,
                    attempts=error.attempts,
                )
                if isinstance(error, Unauthorized):
                    reason = f"authentication was refused in mid-run: {error.message}"
                    self._job.stop.request(error=RunError(reason))
                await self._sink.failed(partition)

    async def _load_one(self, partition: PartitionPlan, path: BreakdownPath) -> None:
        stop, settings = self._job.stop, self._job.settings
        async for attempt in self._client.attempts(path):
            with attempt:
                body = await stop.interruptible(
                    self._client.download(
                        path, self._memory.download, settings.limits.max_file_size
                    )
                )
                self._job.tally.bytes.downloaded += body.size
                # Decoding is inside the attempt: half a gzip stream or a damaged one is asked for
                # again. A decoder's place is kept until the rows are the sink's.
                with body:
                    async with self._decoders:
                        decoded = await asyncio.to_thread(self._decode, body, path)
                        self._job.tally.bytes.decompressed += decoded.decompressed
                        log.debug(
                            "file.decoded",
                            path=path.text,
                            rows=decoded.rows,
                            bad_rows=decoded.quarantined,
                            fast_blocks=decoded.fast_blocks,
                            patient_blocks=decoded.patient_blocks,
                        )
                        attempts = attempt.retry_state.attempt_number
                        await self._sink.add(partition, path.text, decoded, attempts)

    def _decode(self, body: Body, path: BreakdownPath) -> Decoded:
        """Decode a file and keep it in the archive, before the part that will vouch for it."""
        try:
            decoded = self._rows(body, path)
        except FileError as error:
            # What is asked for again is not the file; what is no rows is wanted most.
            if self._archive is not None and not error.passing:
                self._archive.keep(path.text, body.stream)
            raise
        if self._archive is not None:
            try:
                self._archive.keep(path.text, body.stream)
            except FileError:
                decoded.close()
                raise
        return decoded

    def _rows(self, body: Body, path: BreakdownPath) -> Decoded:
        try:
            return decode(
                body.stream,
                path.text,
                self._limits,
                scratch=Path(scratch_folder()),
                declared_gzip=body.declared_gzip,
            )
        except FileError:
            raise
        except OSError as error:
            raise scratch_error(error) from error
        except Exception as error:
            # The boundary of a work item: one file that no decoder foresaw must not end the run.
            if not self._job.stop.requested():  # else its body may just have been closed
                log.exception("file.undecodable", path=path.text)
            raise FileError(
                FailureKind.MALFORMED,
                f"cannot be decoded: {type(error).__name__}; please report it",
            ) from error
