"""Fetch, decode and commit what a plan says: a bounded pool of workers in front of the sink."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from etl.api.client import Client
from etl.api.responses import Body
from etl.api.retry import UnauthorizedError
from etl.archive.reader import ArchiveReader
from etl.archive.writer import ArchiveWriter, Download
from etl.config.settings import open_archive
from etl.decode import DecodeLimits
from etl.model.errors import FailureKind, FileError, RunError
from etl.model.events import log
from etl.model.machine import cores, resource_shortage
from etl.model.paths import BreakdownPath
from etl.pipeline.archive_only import Landing
from etl.pipeline.decoding import Decoder
from etl.pipeline.gather import Sink, SourceFile
from etl.pipeline.job import Job
from etl.pipeline.plan import PartitionPlan, Plan
from etl.pipeline.stop import Stop, StoppedError
from etl.pipeline.tally import Tally
from etl.storage.store import LakeError, Store

# Workers besides those whose request is in flight: they wait for a retry, or finish their file.
_MORE_WORKERS: Final = 48
# Files that may be downloaded and not in a part yet, besides those that the store takes at once.
_UNFINISHED: Final = 8
# What is wrong with a file itself: it is the same file tomorrow.
_OF_THE_FILE: Final = {
    FailureKind.TRUNCATED,
    FailureKind.CORRUPT,
    FailureKind.MALFORMED,
    FailureKind.TOO_LARGE,
}
_KIB: Final = 2**10
_MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Memory:
    """How `limits.memory` is shared out, in bytes.

    Every share is fixed, and what does not fit goes to disk: nobody ever waits for memory while
    holding some, so there is nothing to lock up over. A quarter each for downloaded files, for
    files being decoded and for rows that wait for their partition; a quarter is left for encoding.
    """

    download: int
    decode: int
    pending: int
    decoders: int

    @classmethod
    def share_out(cls, budget: int, downloads: int) -> "Memory":
        """Share out the budget among this many downloaded files, and one decoder a core."""
        decoders = max(1, min(cores(), downloads, budget // (32 * _MIB)))
        return cls(
            download=max(64 * _KIB, min(4 * _MIB, budget // 4 // downloads)),
            decode=max(_MIB, min(64 * _MIB, budget // 4 // decoders)),
            pending=budget // 4,
            decoders=decoders,
        )


async def load(plan: Plan, job: Job, client: Client | ArchiveReader, store: Store) -> None:
    """Fetch, decode and commit what the plan says, partition by partition, oldest first.

    `store` is the lake's; nothing is written to it in a job that fills the archive only.
    """
    settings, tally, stop = job.settings, job.tally, job.stop
    todo = _loadable(plan, tally)
    if not todo:
        return
    if not job.archive_only:
        await stop.interruptible(_prepare("lake.uri", store, store.prepare))
    archive = None
    if (raw := open_archive(settings)) is not None and not job.from_archive:
        archive = ArchiveWriter(raw, settings.limits.max_file_size)
        await stop.interruptible(_prepare("raw.uri", raw, archive.prepare))
    files = sum(len(partition.to_load) for partition in todo)
    workers = min(settings.fetch.concurrency + _MORE_WORKERS, files)
    room = _Room(_UNFINISHED + store.readers)
    downloads = min(settings.fetch.concurrency + room.most, files)
    memory = Memory.share_out(settings.limits.memory, downloads)
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
    decoder = Decoder(limits, stop, at_once=memory.decoders)
    loader = _Loader(job, client, room, decoder, archive, sink, memory.download)
    queue = _produce(todo, sink)
    try:
        async with deadline(stop, settings.shutdown.grace):
            async with sink.patient(stop), asyncio.TaskGroup() as group:
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
    todo: list[PartitionPlan], sink: Sink | Landing
) -> Iterator[tuple[PartitionPlan, BreakdownPath]]:
    """Yield the files to load, partition by partition: the workers pull, so nothing piles up."""
    for partition in todo:
        sink.expect(partition)
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


class _Room:
    """Counts files that are downloaded and not in a part yet; `most` of them stop the downloads."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._count = 0
        self._free = asyncio.Event()
        self._free.set()

    async def wait(self) -> None:
        """Wait until one more file may be downloaded."""
        await self._free.wait()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Count a file within the block."""
        self._count += 1
        if self._count >= self.most:
            self._free.clear()
        try:
            yield
        finally:
            self._count -= 1
            if self._count < self.most:
                self._free.set()


class _Loader:
    """What the workers of one load share."""

    def __init__(
        self,
        job: Job,
        client: Client | ArchiveReader,
        room: _Room,
        decoder: Decoder,
        archive: ArchiveWriter | None,
        sink: Sink | Landing,
        memory_bytes: int,
    ) -> None:
        self._job = job
        self._client = client
        self._room = room
        self._decoder = decoder
        self._archive = archive
        self._sink = sink
        self._memory_bytes = memory_bytes

    async def work(self, queue: Iterator[tuple[PartitionPlan, BreakdownPath]]) -> None:
        """Load one file after another until there are none, or until the run is asked to stop."""
        for partition, path in queue:
            if self._job.stop.requested():
                return
            try:
                await self._load_or_fail(partition, path)
            except StoppedError:
                return
            except RunError as error:
                self._job.stop.request(error=error)
                return
            except Exception as error:
                # What the machine lacks is not the file's fault: the others would meet it too.
                if (lacking := resource_shortage(error)) is None:
                    raise
                self._job.stop.request(error=RunError(lacking))
                return

    async def _load_or_fail(self, partition: PartitionPlan, path: BreakdownPath) -> None:
        """Load a file or set it aside. Raises what ends the run, also where a commit meets it."""
        try:
            await self._load_one(partition, path)
        except FileError as error:
            if resource_shortage(error) is not None:
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
        if isinstance(error, UnauthorizedError):
            reason = f"authentication was refused in mid-run: {error.message}"
            self._job.stop.request(error=RunError(reason))
        await self._sink.failed(partition)

    async def _load_one(self, partition: PartitionPlan, path: BreakdownPath) -> None:
        stop, tally = self._job.stop, self._job.tally
        async for attempt in self._client.attempts(path):
            with (
                attempt,
                await stop.interruptible(self._download(path)) as body,
                self._room.taken(),
            ):
                tally.bytes.downloaded += body.size
                async with self._decoder.place(body):
                    # Inside the attempt: a damaged file is asked for again.
                    file = await self._decode(path, body, attempt.number, last=attempt.last)
                    tally.bytes.decompressed += file.decoded.decompressed
                    await self._sink.add(partition, file)

    async def _download(self, path: BreakdownPath) -> Body:
        await self._room.wait()
        most_bytes = self._job.settings.limits.max_file_size
        return await self._client.download(path, self._memory_bytes, most_bytes)

    async def _decode(
        self, path: BreakdownPath, body: Body, attempt: int, *, last: bool
    ) -> SourceFile:
        """Decode a file, and keep it in the archive before the part that will vouch for it.

        What cannot be decoded is wanted most there, unless it is asked for again. Raises
        FileError, also where the archive refuses.
        """
        try:
            decoded = await self._decoder.decode(path.text, body)
        except FileError as error:
            if error.kind in _OF_THE_FILE and (last or not error.retryable) and body.size:
                await self._keep(Download(path.text, body, error))
            raise
        log.debug("file.decoded", path=path.text, rows=decoded.rows, bad_rows=decoded.quarantined)
        try:
            kept_before = await self._keep(Download(path.text, body, decoded))
        except BaseException:
            decoded.close()
            raise
        return SourceFile(path.text, decoded, attempt, kept_before)

    async def _keep(self, file: Download) -> bool:
        """Keep a file, if there is an archive; tell whether another run had kept it before."""
        return self._archive is not None and not await self._archive.keep(file)
