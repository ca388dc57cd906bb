"""Fetch, decode and commit what a plan says: a bounded pool of workers in front of the sink."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Final

from etl.api.errors import UnauthorizedError
from etl.api.responses import Body
from etl.archive.writer import ArchiveWriter, Download
from etl.config.settings import open_archive
from etl.decode import DecodeLimits
from etl.decode.file import Decoded
from etl.model.errors import FailureKind, FileError, RunError
from etl.model.events import log
from etl.model.machine import resource_shortage
from etl.model.paths import BreakdownPath
from etl.pipeline.decoding import Decoder
from etl.pipeline.gather import Sink
from etl.pipeline.job import Job
from etl.pipeline.outcomes import Outcomes
from etl.pipeline.plan import PartitionPlan
from etl.pipeline.resources import Memory
from etl.pipeline.source import Source
from etl.pipeline.state import RunState
from etl.pipeline.stop import Stop, StoppedError
from etl.storage.store import Store, StoreError

# More workers than requests in flight: these wait for a retry, or finish their file.
_MORE_WORKERS: Final = 48
# Files that may be downloaded and not in a part yet, in addition to those being written.
_UNFINISHED: Final = 8
# Errors of the file itself: it will be the same file tomorrow.
_OF_THE_FILE: Final = {
    FailureKind.TRUNCATED,
    FailureKind.CORRUPT,
    FailureKind.MALFORMED,
    FailureKind.TOO_LARGE,
}


async def load(state: RunState, source: Source, store: Store, stop: Stop) -> None:
    """Fetch, decode and commit the files of the plan, partition by partition, oldest first.

    `store` is the lake's; nothing is written to it by a job that fills only the archive.
    """
    job, outcomes = state.job, state.outcomes
    settings = job.settings
    todo = _loadable(state)
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
    limits = DecodeLimits(
        max_file_size=settings.limits.max_file_size,
        max_bad_row_ratio=settings.limits.max_bad_row_ratio,
        spill_bytes=memory.decode,
    )
    sink = Sink(
        store,
        outcomes,
        job.run_id,
        compression=settings.lake.compression,
        target_part_bytes=settings.lake.target_part_size,
        pending_bytes=memory.pending,
    )
    decoder = Decoder(limits, stop, at_once=memory.decoders)
    loader = _Loader(job, outcomes, stop, source, room, decoder, archive, sink, memory.download)
    # The workers pull the next file when they are free: nothing piles up.
    queue = ((partition, path) for partition in todo for path in partition.to_load)
    async with (
        deadline(stop, settings.shutdown.grace),
        sink.opened(stop),
        asyncio.TaskGroup() as group,
    ):
        for _ in range(workers):
            group.create_task(loader.work(queue))


def _loadable(state: RunState) -> list[PartitionPlan]:
    """Return the partitions to load; the files of damaged ones fail."""
    todo = [partition for partition in state.plan.partitions if partition.to_load]
    for partition in todo:
        if partition.state.damage:
            state.outcomes.partition_damaged(partition)
    return [partition for partition in todo if not partition.state.damage]


async def _prepare(key: str, store: Store, prepare: Callable[[], None]) -> None:
    try:
        await asyncio.to_thread(prepare)
    except StoreError as error:
        raise RunError(f"{error}; check {key}, {store.advice}") from error


@asynccontextmanager
async def deadline(stop: Stop, grace: timedelta) -> AsyncIterator[None]:
    """After a stop request, end the block when the grace is over, or at once if so requested."""
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
    """Counts files that are downloaded and not in a part yet: at `most` no new download starts."""

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
    """The workers of one load, and what they share."""

    def __init__(
        self,
        job: Job,
        outcomes: Outcomes,
        stop: Stop,
        source: Source,
        room: _Room,
        decoder: Decoder,
        archive: ArchiveWriter | None,
        sink: Sink,
        memory_bytes: int,
    ) -> None:
        self._job = job
        self._outcomes = outcomes
        self._stop = stop
        self._source = source
        self._room = room
        self._decoder = decoder
        self._archive = archive
        self._sink = sink
        self._memory_bytes = memory_bytes

    async def work(self, queue: Iterator[tuple[PartitionPlan, BreakdownPath]]) -> None:
        """Load one file after another until there are none, or until a stop request."""
        for partition, path in queue:
            if self._stop.requested():
                return
            try:
                await self._load_or_fail(partition, path)
            except StoppedError:
                return
            except RunError as error:
                self._stop.request(error=error)
                return
            except Exception as error:
                # The machine lacks something: the other files would meet the same error.
                if (lacking := resource_shortage(error)) is None:
                    raise
                self._stop.request(error=RunError(lacking))
                return

    async def _load_or_fail(self, partition: PartitionPlan, path: BreakdownPath) -> None:
        """Load a file, or count it as failed. Raises an error that ends the run."""
        try:
            await self._load(partition, path)
        except FileError as error:
            if resource_shortage(error) is not None:
                raise
            self._outcomes.failed(path.text, error.kind, error.message, error.attempts)
            if isinstance(error, UnauthorizedError):
                reason = f"authentication was refused in mid-run: {error.message}"
                self._stop.request(error=RunError(reason))
            await self._sink.failed(partition)

    async def _load(self, partition: PartitionPlan, path: BreakdownPath) -> None:
        async for attempt in self._source.attempts(path):
            with (
                attempt,
                await self._stop.interruptible(self._download(path)) as body,
                self._room.taken(),
            ):
                async with self._decoder.slot(body):
                    # Inside the attempt: a damaged file is requested again.
                    decoded = await self._decode(path, body, last=attempt.last)
                    with _closed_on_error(decoded):
                        # In the archive before the part that refers to it.
                        is_new = await self._keep(Download(path.text, body, decoded))
                    if self._job.archive_only:
                        decoded.close()
                        self._outcomes.decoded(decoded.decompressed)
                        self._outcomes.kept(path.text, by_another_run=not is_new)
                    else:
                        self._outcomes.decoded(decoded.decompressed, decoded.repaired)
                        await self._sink.add(partition, decoded, attempt.number)

    async def _download(self, path: BreakdownPath) -> Body:
        await self._room.wait()
        max_bytes = self._job.settings.limits.max_file_size
        return await self._source.download(path, self._memory_bytes, max_bytes)

    async def _decode(self, path: BreakdownPath, body: Body, *, last: bool) -> Decoded:
        """Decode a file. Raises FileError.

        A file that cannot be decoded is kept in the archive, unless it is requested again.
        """
        try:
            decoded = await self._decoder.decode(path.text, body)
        except FileError as error:
            if error.kind in _OF_THE_FILE and (last or not error.retryable) and body.size:
                await self._keep(Download(path.text, body, error))
            raise
        log.debug("file.decoded", path=path.text, rows=decoded.rows, bad_rows=decoded.quarantined)
        return decoded

    async def _keep(self, file: Download) -> bool:
        """Keep a file in the archive, if there is one; return whether it is new there.

        Raises FileError if the archive refuses.
        """
        return self._archive is None or await self._archive.add(file)


@contextmanager
def _closed_on_error(decoded: Decoded) -> Iterator[None]:
    try:
        yield
    except BaseException:
        decoded.close()
        raise
