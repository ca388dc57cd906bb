"""Decoded files are gathered by partition, encoded outside the event loop, committed as parts."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from etl.config.sections import Compression
from etl.decode.file import Decoded
from etl.lake.commit import Committed, commit
from etl.lake.layout import write_bad_rows
from etl.lake.part import PartBuilder
from etl.lake.receipts import Receipt
from etl.model.errors import FailureKind, RunError
from etl.model.machine import resource_shortage
from etl.pipeline.plan import PartitionPlan
from etl.pipeline.state import Outcomes
from etl.pipeline.stop import Stop
from etl.storage.store import StagedFile, Store, StoreError, StoreUnusableError

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


class Sink:
    """Accepts each file of a plan once, decoded or failed, and commits complete partitions.

    Rows that wait for the last file of their partition stay in memory, up to `pending_bytes` for
    all partitions together; beyond that the largest are encoded to disk. So a partition that waits
    never holds the memory that the file it waits for needs.
    """

    def __init__(
        self,
        store: Store,
        outcomes: Outcomes,
        run_id: str,
        *,
        compression: Compression,
        target_part_bytes: int,
        pending_bytes: int,
    ) -> None:
        self._store = store
        self._outcomes = outcomes
        self._run_id = run_id
        self._compression = compression
        self._target_part_bytes = target_part_bytes
        self._pending_bytes = pending_bytes
        self._gathering: dict[str, _Gathering] = {}

    @asynccontextmanager
    async def opened(self, stop: Stop) -> AsyncIterator[None]:
        """Commit the gathered files at the end of the block, or discard them on an error.

        Within the block, files that wait for another file of their partition for a minute are
        committed without it. An error that ends the run becomes a request to `stop`.
        """
        watch = asyncio.ensure_future(self._watch_over(stop))
        try:
            try:
                yield
            finally:
                watch.cancel()
                await asyncio.wait({watch})
            if not watch.cancelled():
                watch.result()
            await self._commit_all()
        finally:
            for gathering in self._gathering.values():
                gathering.builder.close()
            self._gathering.clear()

    async def add(self, plan: PartitionPlan, decoded: Decoded, attempts: int) -> None:
        """Accept a file, decoded after this many attempts, and close it."""
        gathering = self._gathering_of(plan)
        async with gathering.lock:
            gathering.attempts[decoded.path] = attempts
            try:
                in_memory = not decoded.spilled
                has_room = gathering.builder.has_room(decoded.in_memory_bytes)
                if decoded.quarantined or not (in_memory and has_room):
                    await asyncio.to_thread(self._add, gathering, decoded)
                else:
                    self._add(gathering, decoded)
            except StoreUnusableError:
                raise
            except StoreError as error:
                self._outcomes.failed(decoded.path, FailureKind.LAKE, str(error), attempts)
            except OSError as error:
                self._give_up(gathering, gathering.builder, error, decoded.path)
            except BaseException:
                self._renew(gathering)
                raise
            gathering.last_added_s = asyncio.get_running_loop().time()
            if gathering.builder.size_guess >= self._target_part_bytes:
                await self._commit(gathering)
        await self._settle(gathering)
        await self._relieve()

    async def failed(self, plan: PartitionPlan) -> None:
        """Accept that a file of the partition failed: it no longer waits for this file."""
        await self._settle(self._gathering_of(plan))

    def _gathering_of(self, plan: PartitionPlan) -> _Gathering:
        directory = plan.partition.directory
        if directory not in self._gathering:
            gathering = _Gathering(plan, self._new_builder(), len(plan.to_load))
            self._gathering[directory] = gathering
        return self._gathering[directory]

    def _add(self, gathering: _Gathering, decoded: Decoded) -> None:
        """Add a file to the part. Blocking, unless it has no bad rows and there is room.

        Raises StoreError where the lake refuses the bad rows, which concerns this file alone, and
        OSError.
        """
        receipt = Receipt(
            decoded.path, decoded.rows, decoded.quarantined, decoded.bytes, decoded.sha256
        )
        with decoded:
            bad_rows = decoded.bad_rows()
            if bad_rows is not None:
                # Before the part: a receipt never counts bad rows that are nowhere.
                write_bad_rows(self._store, decoded.path, bad_rows)
            gathering.builder.add(receipt, decoded.batches())

    async def _watch_over(self, stop: Stop) -> None:
        try:
            await self._commit_overdue()
        except Exception as error:
            reason = str(error) if isinstance(error, RunError) else resource_shortage(error)
            if reason is None:
                raise
            stop.request(error=RunError(reason))

    async def _commit_overdue(self) -> None:
        now_s = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(_PATIENCE_S / 12)
            for gathering in list(self._gathering.values()):
                if gathering.builder.sources and now_s() > gathering.last_added_s + _PATIENCE_S:
                    async with gathering.lock:
                        await self._commit(gathering)

    async def _commit_all(self) -> None:
        """Commit everything, in partitions that are not complete too."""
        for gathering in list(self._gathering.values()):
            async with gathering.lock:
                await self._commit(gathering)

    async def _settle(self, gathering: _Gathering) -> None:
        gathering.waiting_for -= 1
        if gathering.waiting_for == 0:
            async with gathering.lock:
                await self._commit(gathering)
            del self._gathering[gathering.plan.partition.directory]

    async def _relieve(self) -> None:
        while sum(g.builder.pending_bytes for g in self._gathering.values()) > self._pending_bytes:
            largest = max(self._gathering.values(), key=lambda g: g.builder.pending_bytes)
            async with largest.lock:
                try:
                    await asyncio.to_thread(largest.builder.flush)
                except (StoreError, OSError) as error:
                    self._give_up(largest, largest.builder, error)
                except BaseException:
                    self._renew(largest)
                    raise

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
            return commit(self._store, directory, state, encoded, self._new_builder)

        try:
            result = await asyncio.to_thread(finish_and_commit)
        except (StoreError, OSError) as error:
            self._give_up(gathering, builder, error)
            return
        except BaseException:
            builder.close()
            raise
        self._outcomes.committed(directory, result)

    def _give_up(
        self, gathering: _Gathering, builder: PartBuilder, error: Exception, *more: str
    ) -> None:
        """Fail the files that the partition had gathered, and continue with the others.

        Raises RunError where every other file would meet the same error: the machine lacks
        something, or the store's credentials have expired.
        """
        reason = str(error) if isinstance(error, StoreUnusableError) else resource_shortage(error)
        if builder is gathering.builder:
            self._renew(gathering)
        builder.close()
        if reason is not None:
            raise RunError(reason) from error
        directory = gathering.plan.partition.directory
        if isinstance(error, OSError):
            error = StoreError.of("writing to", self._store.staged_in or directory, error)
        paths = dict.fromkeys([*(source.path for source in builder.sources), *more])
        loaded = gathering.plan.state.loaded.intersection(paths)
        attempts = {path: gathering.attempts.get(path, 0) for path in paths if path not in loaded}
        self._outcomes.part_failed(directory, attempts, loaded, str(error).splitlines()[0])

    def _renew(self, gathering: _Gathering) -> None:
        """Start an empty part: the old one may hold a file's receipt without all of its rows."""
        gathering.builder.close()
        gathering.builder = self._new_builder()

    def _new_builder(self) -> PartBuilder:
        stage: Callable[[], StagedFile] = self._store.stage
        return PartBuilder(stage, self._compression, self._run_id)


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
