"""Decoded files are gathered by partition, encoded outside the event loop, committed as parts."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from etl.config.sections import Compression
from etl.decode.file import Decoded
from etl.lake.commit import Committed, commit
from etl.lake.part import PartBuilder
from etl.lake.receipts import Receipt
from etl.model.errors import RunError
from etl.model.machine import resource_shortage
from etl.pipeline.plan import PartitionPlan
from etl.pipeline.state import Outcomes
from etl.pipeline.stop import Stop
from etl.storage.store import Store, StoreError

# How long the files of an hour wait for another one.
_PATIENCE_S: Final = 60.0
# How long commits that have started may still take when the grace is over.
_LAST_COMMITS_S: Final = 5.0


@dataclass(slots=True)
class _Gathering:
    """One partition's part in the making."""

    plan: PartitionPlan
    builder: PartBuilder
    waiting_for: int
    attempts: dict[str, int] = field(default_factory=dict)
    last_added_s: float = 0.0  # by the loop's clock
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True, eq=False)
class Sink:
    """Accepts each file of a plan once, decoded or failed, and commits complete partitions.

    Rows that wait for the last file of their partition stay in memory, up to `pending_bytes` for
    all partitions together; beyond that the largest are encoded to disk. So a partition that waits
    never holds the memory that the file it waits for needs.
    """

    store: Store
    outcomes: Outcomes
    run_id: str
    compression: Compression
    target_part_bytes: int
    pending_bytes: int
    _gathering: dict[str, _Gathering] = field(default_factory=dict)

    @asynccontextmanager
    async def opened(self, stop: Stop) -> AsyncIterator[None]:
        """Commit the gathered files at the end of the block, or discard them on an error.

        Within the block, files that wait for another file of their partition for a minute are
        committed without it. An error that ends the run becomes a request to `stop`.
        """
        try:
            async with asyncio.TaskGroup() as group:
                overdue = group.create_task(self._commit_overdue(stop))
                yield
                overdue.cancel()
            for gathering in list(self._gathering.values()):
                async with gathering.lock:
                    await self._commit(gathering)
        finally:
            for gathering in self._gathering.values():
                gathering.builder.close()
            self._gathering.clear()

    async def add(self, plan: PartitionPlan, decoded: Decoded, attempts: int) -> None:
        """Accept a file, decoded after this many attempts, and free its memory."""
        gathering = self._gathering_of(plan)
        receipt = Receipt(
            decoded.path, decoded.rows, decoded.quarantined, decoded.bytes, decoded.sha256
        )
        async with gathering.lock:
            builder = gathering.builder
            gathering.attempts[decoded.path] = attempts
            with self._failing_the_part(gathering, builder):
                if not decoded.spilled and builder.has_room(decoded.in_memory_bytes):
                    builder.add(receipt, decoded.batches())
                else:
                    await asyncio.to_thread(builder.add, receipt, decoded.batches())
            decoded.close()
            gathering.last_added_s = asyncio.get_running_loop().time()
            if gathering.builder.size_guess >= self.target_part_bytes:
                await self._commit(gathering)
        await self._one_file_done(gathering)
        await self._relieve()

    async def failed(self, plan: PartitionPlan) -> None:
        """Accept that a file of the partition failed: it no longer waits for this file."""
        await self._one_file_done(self._gathering_of(plan))

    def _gathering_of(self, plan: PartitionPlan) -> _Gathering:
        directory = plan.partition.directory
        if directory not in self._gathering:
            gathering = _Gathering(plan, self._new_builder(), len(plan.to_load))
            self._gathering[directory] = gathering
        return self._gathering[directory]

    async def _one_file_done(self, gathering: _Gathering) -> None:
        gathering.waiting_for -= 1
        if gathering.waiting_for == 0:
            async with gathering.lock:
                await self._commit(gathering)
            del self._gathering[gathering.plan.partition.directory]

    async def _relieve(self) -> None:
        while sum(g.builder.pending_bytes for g in self._gathering.values()) > self.pending_bytes:
            largest = max(self._gathering.values(), key=lambda g: g.builder.pending_bytes)
            async with largest.lock:
                builder = largest.builder
                with self._failing_the_part(largest, builder):
                    await asyncio.to_thread(builder.flush)

    async def _commit_overdue(self, stop: Stop) -> None:
        now_s = asyncio.get_running_loop().time
        with stop.at_error():
            while True:
                await asyncio.sleep(_PATIENCE_S / 12)
                for gathering in list(self._gathering.values()):
                    if gathering.builder.sources and now_s() > gathering.last_added_s + _PATIENCE_S:
                        async with gathering.lock:
                            await self._commit(gathering)

    async def _commit(self, gathering: _Gathering) -> None:
        if gathering.builder.sources:
            await _wait_even_if_cancelled(self._commit_now(gathering))

    async def _commit_now(self, gathering: _Gathering) -> None:
        # Taken out first: if the wait for this commit is cancelled, nobody may commit or discard
        # the same rows again.
        builder, gathering.builder = gathering.builder, self._new_builder()
        directory, state = gathering.plan.partition.directory, gathering.plan.state

        def finish_and_commit() -> Committed:
            encoded = builder.finish()
            return commit(self.store, directory, state, encoded, self._new_builder)

        with self._failing_the_part(gathering, builder):
            result = await asyncio.to_thread(finish_and_commit)
            self.outcomes.committed(directory, result)

    @contextmanager
    def _failing_the_part(self, gathering: _Gathering, builder: PartBuilder) -> Iterator[None]:
        """On any error in the block, discard the part: it may hold a receipt without all rows.

        If the store or the disk refuses, this fails the part's files and ends the block, and the
        caller continues with other files. Raises RunError where every other file would meet the
        same error: the machine lacks something, or the store's credentials have expired.
        """
        try:
            yield
        except BaseException as error:
            builder.close()
            if builder is gathering.builder:
                gathering.builder = self._new_builder()
            if isinstance(error, RunError) or not isinstance(error, (StoreError, OSError)):
                raise
            if (reason := resource_shortage(error)) is not None:
                raise RunError(reason) from error
            directory = gathering.plan.partition.directory
            if isinstance(error, OSError):
                error = StoreError.of("writing to", self.store.staged_in or directory, error)
            paths = [source.path for source in builder.sources]
            loaded = gathering.plan.state.loaded.intersection(paths)
            attempts = {path: gathering.attempts[path] for path in paths if path not in loaded}
            self.outcomes.part_failed(directory, attempts, loaded, str(error).splitlines()[0])

    def _new_builder(self) -> PartBuilder:
        return PartBuilder(self.store.stage, self.compression, self.run_id)


async def _wait_even_if_cancelled(work: Coroutine[Any, Any, None]) -> None:
    """Wait for work that cannot be cancelled, for a while also when this wait is cancelled.

    A commit that has started will happen, and the report should count it. If an object store does
    not answer in time, the report does not count it, and the next run finds it.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=_LAST_COMMITS_S)
        raise
