"""Fetch, decode and commit what a plan says: a bounded pool of workers in front of the sink."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from etl.api.body import Body
from etl.api.client import Client
from etl.api.retry import Unauthorized
from etl.archive import Archive
from etl.batches import Batches
from etl.decode import DecodeLimits
from etl.errors import FailureKind, FileError, RunError
from etl.job import Job
from etl.lake.store import LakeError, Store
from etl.landing import Landing
from etl.machine import cores, lack
from etl.paths import BreakdownPath
from etl.plan import PartitionPlan, Plan
from etl.replay import Replay
from etl.report import Tally
from etl.sink import Sink
from etl.stop import Stop, StoppedError
from etl.stores import open_archive

log = structlog.stdlib.get_logger()

# Files that may wait for others of their partition, to be decoded together.
_MOST_WAITING: Final = 48
# Batches that may wait for an archive's disk, before they are committed, while others are decoded.
_KEEPING: Final = 2
_KIB: Final = 2**10
_MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Memory:
    """How `limits.memory` is shared out, in bytes.

    Every share is fixed, and what does not fit goes to disk: nobody ever waits for memory while
    holding some, so there is nothing to lock up over. A quarter each for downloads, for files
    being decoded and for rows that wait for their partition; an eighth for downloaded files that
    wait to be decoded, and an eighth is left for encoding.
    """

    download: int
    held: int
    decode: int
    pending: int
    decoders: int

    @classmethod
    def share_out(cls, budget: int, workers: int) -> "Memory":
        """Share out the budget among this many workers, and one decoder a core."""
        decoders = max(1, min(cores(), workers, budget // (32 * _MIB)))
        return cls(
            download=max(64 * _KIB, min(4 * _MIB, budget // 4 // workers)),
            held=budget // 8,
            decode=max(_MIB, min(64 * _MIB, budget // 4 // decoders)),
            pending=budget // 4,
            decoders=decoders,
        )


async def load(plan: Plan, job: Job, client: Client | Replay, store: Store) -> None:
    """Fetch, decode and commit what the plan says, partition by partition, oldest first.

    `store` is the lake's; nothing is written to it in a job that fills the archive only.
    """
    settings, tally, stop = job.settings, job.tally, job.stop
    todo = _loadable(plan, tally)
    if not todo:
        return
    if not job.archive_only:
        await stop.interruptible(_prepare("lake.uri", store, store.prepare))
    archive, committing = None, store.readers
    if (raw := open_archive(settings)) is not None and not job.from_archive:
        archive = Archive(raw, settings.limits.max_file_size)
        await stop.interruptible(_prepare("raw.uri", raw, archive.prepare))
        committing += max(_KEEPING, raw.readers)
    files = sum(len(partition.to_load) for partition in todo)
    in_flight = min(settings.fetch.concurrency, files)
    # More workers than requests in flight: some wait for their file to be decoded with others.
    workers = min(in_flight + _MOST_WAITING, files)
    memory = Memory.share_out(settings.limits.memory, in_flight)
    sink: Sink | Landing = Landing(tally)
    if not job.archive_only:
        sink = Sink(
            store,
            tally,
            compression=settings.lake.compression,
            target_part_bytes=settings.lake.target_part_size,
            pending_bytes=memory.pending,
        )
    limits = DecodeLimits(
        max_file_size=settings.limits.max_file_size,
        max_bad_row_ratio=settings.limits.max_bad_row_ratio,
        spill_bytes=memory.decode,
    )
    batches = Batches(
        sink,
        archive,
        limits,
        tally.bytes,
        stop,
        places=memory.decoders,
        committing=committing,
        most_waiting=max(1, workers - in_flight),
        held_bytes=memory.held,
    )
    loader = _Loader(job, client, sink, batches, memory.download)
    queue = _produce(todo, sink, batches)
    try:
        async with deadline(stop, settings.shutdown.grace):
            async with batches, asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(loader.work(queue))
            await sink.close()
    finally:
        sink.discard()


def _loadable(plan: Plan, tally: Tally) -> list[PartitionPlan]:
    """Return what there is to load; files of damaged partitions have failed already."""
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
    return [partition for partition in todo if not partition.state.damage]


async def _prepare(key: str, store: Store, prepare: Callable[[], None]) -> None:
    try:
        await asyncio.to_thread(prepare)
    except LakeError as error:
        raise RunError(f"{error}; check {key}, {store.advice}") from error


def _produce(
    todo: list[PartitionPlan], sink: Sink | Landing, batches: Batches
) -> Iterator[tuple[PartitionPlan, BreakdownPath]]:
    """Yield the files to load, partition by partition: the workers pull, so nothing piles up."""
    for partition in todo:
        sink.expect(partition)
        batches.expect(partition)
        for path in partition.to_load:
            yield partition, path


@asynccontextmanager
async def deadline(stop: Stop, grace: timedelta) -> AsyncIterator[None]:
    """Once the run is told to end, end the block when the grace is over, or at once if told so."""
    loop = asyncio.get_running_loop()
    running = True
    try:
        async with asyncio.timeout(None) as limit:

            def begin() -> None:
                if not running:
                    return
                if stop.at_once:
                    limit.reschedule(loop.time())
                elif limit.when() is None:
                    limit.reschedule(loop.time() + grace.total_seconds())

            stop.on_request(begin)
            try:
                yield
            finally:
                running = False
    except TimeoutError:
        if not limit.expired():
            raise
        reason = "what was not committed is left to the next run"
        log.warning("shutdown.grace_over", reason=reason)


class _Loader:
    """What the workers of one load share."""

    def __init__(
        self,
        job: Job,
        client: Client | Replay,
        sink: Sink | Landing,
        batches: Batches,
        memory_bytes: int,
    ) -> None:
        self._job = job
        self._client = client
        self._sink = sink
        self._batches = batches
        self._memory_bytes = memory_bytes

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
            except Exception as error:
                if (lacking := lack(error)) is not None:
                    # Not the file's fault: the others would meet it too.
                    self._job.stop.request(error=RunError(lacking))
                    return
                if not isinstance(error, FileError):
                    raise
                await self._fail(partition, path, error)

    async def _fail(self, partition: PartitionPlan, path: BreakdownPath, error: FileError) -> None:
        """Set a file aside; a 401 ends the run."""
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
        self._batches.will_not_come(partition)
        await self._sink.failed(partition)

    async def _load_one(self, partition: PartitionPlan, path: BreakdownPath) -> None:
        stop, tally = self._job.stop, self._job.tally
        async for attempt in self._client.attempts(path):
            with attempt:
                body = await stop.interruptible(self._download(path))
                tally.bytes.downloaded += body.size
                # Decoding is inside the attempt: half a gzip stream or a damaged one is asked
                # for again.
                number, last = attempt.number, attempt.last
                await self._batches.load(partition, path, body, number, last=last)

    async def _download(self, path: BreakdownPath) -> Body:
        await self._batches.room()
        most_bytes = self._job.settings.limits.max_file_size
        return await self._client.download(path, self._memory_bytes, most_bytes)
