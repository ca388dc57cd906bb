"""Fetch, decode and commit what a plan says: a bounded pool of workers in front of the sink."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from etl.api.errors import UnauthorizedError
from etl.api.responses import Body
from etl.api.retry import Attempts
from etl.archive.reader import archive_error
from etl.archive.writer import ArchiveWriter, Download
from etl.config.sections import LimitSettings
from etl.config.settings import open_archive
from etl.decode.file import Decoded, DecodeLimits, decode
from etl.decode.kernel import Scanner
from etl.lake.layout import write_bad_rows
from etl.model.errors import FailureKind, FileError, RunError
from etl.model.machine import cores, resource_shortage
from etl.model.paths import BreakdownPath
from etl.model.text import log
from etl.pipeline.gather import Sink
from etl.pipeline.job import Job
from etl.pipeline.plan import PartitionPlan
from etl.pipeline.source import Source
from etl.pipeline.state import Outcomes, RunState
from etl.pipeline.stop import Stop, deadline
from etl.storage.disk import CANNOT_WRITE, scratch_error, scratch_folder
from etl.storage.store import Store, StoreError, StoreUnusableError

# More workers than requests in flight: these wait for a retry, or finish their file.
_MORE_WORKERS: Final = 48
# Files that may be downloaded and not in a part yet, while others are being downloaded or written.
_UNFINISHED: Final = 8
# A smaller file is decoded in the event loop: in threads W1 takes 1.3 times as long (tests/bench).
_IN_LOOP_BYTES: Final = 2**15
# If it unpacks to more than this it goes to a thread after all, so that the loop does not wait.
_IN_LOOP_TEXT_BYTES: Final = 2**18
_KIB: Final = 2**10
_MIB: Final = 2**20
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
    downloads = min(settings.fetch.concurrency + _UNFINISHED + store.readers, files)
    memory = Memory.share_out(settings.limits.memory, downloads)
    sink = Sink(
        store,
        outcomes,
        job.run_id,
        compression=settings.lake.compression,
        target_part_bytes=settings.lake.target_part_size,
        pending_bytes=memory.pending,
    )
    decoder = Decoder(settings.limits, memory)
    loader = _Loader(
        job,
        outcomes,
        stop,
        source,
        asyncio.Semaphore(downloads),
        decoder,
        archive,
        store,
        sink,
        memory.download,
    )
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


@dataclass(frozen=True, slots=True)
class Memory:
    """How `limits.memory` is shared out, in bytes.

    Every share is fixed, and data beyond it goes to disk. So nobody waits for memory while holding
    some, and nothing can deadlock. A quarter each is for downloaded files, for files being decoded
    and for rows that wait for their partition; a quarter is left for encoding.
    """

    download: int
    decode: int
    pending: int
    decoders: int

    @classmethod
    def share_out(cls, budget: int, downloads: int) -> Self:
        """Share out the budget among this many downloaded files, and one decoder a core."""
        decoders = max(1, min(cores(), downloads, budget // (32 * _MIB)))
        return cls(
            download=max(64 * _KIB, min(4 * _MIB, budget // 4 // downloads)),
            decode=max(_MIB, min(64 * _MIB, budget // 4 // decoders)),
            pending=budget // 4,
            decoders=decoders,
        )


class Decoder:
    """Decodes files: small ones in the event loop, others in threads."""

    def __init__(self, limits: LimitSettings, memory: Memory) -> None:
        self._limits = DecodeLimits(
            limits.max_file_size, limits.max_bad_row_ratio, spill_bytes=memory.decode
        )
        self._slots = asyncio.Semaphore(memory.decoders)
        self._scanners: list[Scanner] = []  # free ones, to be used again

    def slot(self, body: Body) -> AbstractAsyncContextManager[None]:
        """Return a context to hold from before a file is decoded until its rows are in a part.

        It limits the number of files that are large when downloaded, so their rows take bounded
        memory. A small file that unpacks to more is limited only while it is decoded.
        """
        return nullcontext() if _is_small(body) else self._slots

    async def decode(self, path: str, body: Body) -> Decoded:
        """Decode a file. Raises FileError; RunError where the machine lacks something."""
        if not _is_small(body):
            return await asyncio.to_thread(self._decode, path, body, self._limits)
        most = min(self._limits.max_file_size, _IN_LOOP_TEXT_BYTES)
        try:
            return self._decode(path, body, replace(self._limits, max_file_size=most))
        except FileError as error:
            if error.kind is not FailureKind.TOO_LARGE:
                raise
        async with self._slots:
            return await asyncio.to_thread(self._decode, path, body, self._limits)

    def _decode(self, path: str, body: Body, limits: DecodeLimits) -> Decoded:
        try:
            scanner = self._scanners.pop()
        except IndexError:
            scanner = Scanner()
        try:
            return decode(
                body.stream,
                path,
                limits,
                scratch=Path(scratch_folder()),
                declared_gzip=body.declared_gzip,
                scanner=scanner,
            )
        except FileError:
            raise
        except Exception as error:
            raise self._explained(error, path, body) from error
        finally:
            self._scanners.append(scanner)

    def _explained(self, error: Exception, path: str, body: Body) -> FileError | RunError:
        """Return the error to report where the file itself is not the cause."""
        if (reason := resource_shortage(error)) is not None:
            return RunError(reason)
        if isinstance(error, StoreError):  # an archived file, read while it is decoded
            return archive_error(error)
        if isinstance(error, OSError):
            archived = body.release is not None and error.errno not in CANNOT_WRITE
            return archive_error(error) if archived else scratch_error(error)
        # The boundary of a work item: an unexpected file must not end the run.
        log.debug("file.undecodable", path=path, exc_info=error)
        return FileError(
            FailureKind.MALFORMED,
            f"cannot be decoded: {type(error).__name__}; please report it, with what "
            "--log-level debug shows",
        )


def _is_small(body: Body) -> bool:
    return body.size <= _IN_LOOP_BYTES and body.in_memory


@dataclass(frozen=True, slots=True)
class _Loader:
    """The workers of one load, and what they share.

    A file holds one of `downloads` from its request until it is in a part, because it takes up to
    `memory_bytes`. A file that waits for a retry holds none.
    """

    job: Job
    outcomes: Outcomes
    stop: Stop
    source: Source
    downloads: asyncio.Semaphore
    decoder: Decoder
    archive: ArchiveWriter | None
    lake: Store
    sink: Sink
    memory_bytes: int

    async def work(self, queue: Iterator[tuple[PartitionPlan, BreakdownPath]]) -> None:
        """Load one file after another until there are none, or until a stop request."""
        with self.stop.at_error():
            for partition, path in queue:
                if self.stop.requested():
                    return
                try:
                    await self._load_file(partition, path)
                except FileError as error:
                    if resource_shortage(error) is not None:
                        raise
                    self.outcomes.failed(path.text, error.kind, error.message, error.attempts)
                    if isinstance(error, UnauthorizedError):
                        reason = f"authentication was refused in mid-run: {error.message}"
                        self.stop.request(error=RunError(reason))
                    await self.sink.failed(partition)

    async def _load_file(self, partition: PartitionPlan, path: BreakdownPath) -> None:
        """Load a file. Raises FileError, and an error that ends the run."""
        async for attempt in self.source.attempts(path):
            with attempt:  # a file that proves damaged when it is decoded is requested again
                async with self.downloads:
                    await self._try(partition, path, attempt)

    async def _try(self, partition: PartitionPlan, path: BreakdownPath, attempt: Attempts) -> None:
        download = self.source.download(
            path,
            self.memory_bytes,
            self.job.settings.limits.max_file_size,
            new_connection=attempt.new_connection,
        )
        with await self.stop.interruptible(download) as body:
            async with self.decoder.slot(body):
                with await self._decode(path, body, last=attempt.last) as decoded:
                    # A part refers to the archive and to bad rows: they come first.
                    is_new = await self._keep(Download(path.text, body, decoded))
                    if self.job.archive_only:
                        self.outcomes.decoded(decoded.decompressed)
                        self.outcomes.kept(path.text, by_another_run=not is_new)
                    else:
                        self.outcomes.decoded(decoded.decompressed, decoded.repaired)
                        await self._quarantine(decoded)
                        await self.sink.add(partition, decoded, attempt.number)

    async def _decode(self, path: BreakdownPath, body: Body, *, last: bool) -> Decoded:
        """Decode a file. Raises FileError.

        A file that cannot be decoded is kept in the archive, unless it is requested again.
        """
        try:
            decoded = await self.decoder.decode(path.text, body)
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
        return self.archive is None or await self.archive.add(file)

    async def _quarantine(self, decoded: Decoded) -> None:
        """Write the bad rows. Raises FileError if the lake refuses them: others may succeed."""
        if (bad_rows := decoded.bad_rows()) is None:
            return
        try:
            await asyncio.to_thread(write_bad_rows, self.lake, decoded.path, bad_rows)
        except StoreUnusableError:
            raise
        except StoreError as error:
            raise FileError(FailureKind.LAKE, str(error)) from error
