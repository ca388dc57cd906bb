"""Where decoded files end: gathered by partition, encoded off the loop, committed as parts."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from etl.config.sections import Compression
from etl.lake.commit import Committed, commit
from etl.lake.part import PartBuilder
from etl.lake.quarantine import write_bad_rows
from etl.lake.receipts import Receipt, UnreadablePartError
from etl.model.errors import FailureKind, RunError
from etl.model.events import log
from etl.model.machine import resource_shortage
from etl.pipeline.plan import PartitionPlan
from etl.pipeline.stop import Stop
from etl.pipeline.tally import Tally
from etl.storage.store import LakeError, LakeUnusableError, StagedFile, Store

if TYPE_CHECKING:
    from etl.decode.decoded import Decoded

# How long the files of an hour that are there wait for one that is not.
_PATIENCE_S: Final = 60.0
# How long commits that have begun may take when the time to end is over.
_LAST_COMMITS_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a plan, decoded after so many attempts.

    `kept_before` if the archive had it already, from another run, when it came.
    """

    path: str
    decoded: "Decoded"
    attempts: int
    kept_before: bool = False


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
    """Takes each file of a plan once, decoded or failed, and commits a partition when it is whole.

    Rows that wait for their partition's last file are held in memory up to `pending_bytes` for
    all partitions together; beyond that the largest are encoded to disk, so a partition that
    waits never holds the memory that the file it waits for needs.
    """

    def __init__(
        self,
        store: Store,
        tally: Tally,
        *,
        compression: Compression,
        target_part_bytes: int,
        pending_bytes: int,
    ) -> None:
        self._store = store
        self._tally = tally
        self._compression = compression
        self._target_part_bytes = target_part_bytes
        self._pending_bytes = pending_bytes
        self._gathering: dict[str, _Gathering] = {}

    def expect(self, plan: PartitionPlan) -> None:
        """Prepare for a partition's files, before the first of them."""
        self._gathering[plan.partition.directory] = _Gathering(
            plan, self._new_builder(), len(plan.to_load)
        )

    async def add(self, plan: PartitionPlan, file: SourceFile) -> None:
        """Take a file and close it. If the lake refuses it, it fails."""
        gathering = self._gathering[plan.partition.directory]
        async with gathering.lock:
            gathering.attempts[file.path] = file.attempts
            self._tally.rows_repaired += file.decoded.repaired
            try:
                if file.decoded.quarantined or not gathering.builder.has_room(file.decoded):
                    await asyncio.to_thread(self._take, gathering, file)
                else:
                    self._take(gathering, file)
            except LakeUnusableError:
                raise
            except LakeError as error:
                self._tally.failed([file.path], FailureKind.LAKE, str(error), file.attempts)
                log.warning("file.failed", path=file.path, kind="lake", reason=str(error))
            except OSError as error:
                self._give_up(gathering, gathering.builder, error, file.path)
            except BaseException:
                self._renew(gathering)
                raise
            gathering.last_added_s = asyncio.get_running_loop().time()
            if gathering.builder.size_guess >= self._target_part_bytes:
                await self._commit(gathering)
        await self._settle(gathering)
        await self._relieve()

    def _take(self, gathering: _Gathering, file: SourceFile) -> None:
        """Build a file into the part. Blocking, unless it has no bad rows and there is room.

        Raises LakeError where the lake refuses the bad rows, which concerns this file alone, and
        OSError.
        """
        decoded = file.decoded
        receipt = Receipt(
            file.path, decoded.rows, decoded.quarantined, decoded.bytes, decoded.sha256
        )
        with decoded:
            bad_rows = decoded.bad_rows()
            if bad_rows is not None:
                # Before the part that vouches for them: a receipt never counts bad rows that are
                # nowhere.
                write_bad_rows(self._store, file.path, bad_rows)
            gathering.builder.add(receipt, decoded.batches())

    @asynccontextmanager
    async def patient(self, stop: Stop) -> AsyncIterator[None]:
        """Within the block, commit what an hour has when a file keeps it waiting for a minute.

        What ends the run is requested of `stop`.
        """

        async def watch_over() -> None:
            try:
                await self._commit_overdue()
            except Exception as error:
                reason = str(error) if isinstance(error, RunError) else resource_shortage(error)
                if reason is None:
                    raise
                stop.request(error=RunError(reason))

        watch = asyncio.ensure_future(watch_over())
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.wait({watch})
        if not watch.cancelled():
            watch.result()

    async def _commit_overdue(self) -> None:
        now_s = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(_PATIENCE_S / 12)
            for gathering in list(self._gathering.values()):
                if gathering.builder.sources and now_s() > gathering.last_added_s + _PATIENCE_S:
                    async with gathering.lock:
                        await self._commit(gathering)

    async def failed(self, plan: PartitionPlan) -> None:
        """Take note that a file of the partition will not come."""
        await self._settle(self._gathering[plan.partition.directory])

    async def close(self) -> None:
        """Commit all that was gathered, in partitions that are not whole too."""
        for gathering in list(self._gathering.values()):
            async with gathering.lock:
                await self._commit(gathering)
        self._gathering.clear()

    def discard(self) -> None:
        """Throw away all that was not committed."""
        for gathering in self._gathering.values():
            gathering.builder.close()
        self._gathering.clear()

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
                except (LakeError, OSError) as error:
                    self._give_up(largest, largest.builder, error)
                except BaseException:
                    self._renew(largest)
                    raise

    async def _commit(self, gathering: _Gathering) -> None:
        if gathering.builder.sources:
            await _to_its_end(self._commit_now(gathering))

    async def _commit_now(self, gathering: _Gathering) -> None:
        # Taken out first: when the waiting for this commit is cancelled, nobody may commit or
        # discard the same rows again.
        builder, gathering.builder = gathering.builder, self._new_builder()
        directory, state = gathering.plan.partition.directory, gathering.plan.state

        def finish_and_commit() -> Committed:
            encoded = builder.finish()
            return commit(self._store, directory, state, encoded, self._new_builder)

        try:
            result = await asyncio.to_thread(finish_and_commit)
        except (LakeError, UnreadablePartError, OSError) as error:
            self._give_up(gathering, builder, error)
            return
        except BaseException:
            builder.close()
            raise
        self._tally.committed(result)
        log.info(
            "part.committed" if result.name else "part.superseded",
            partition=directory,
            part=result.name,
            rows=result.encoded.rows if result.encoded else 0,
            sources=len(result.encoded.sources) if result.encoded else 0,
            brought_by_others=len(result.brought_by_others),
        )

    def _give_up(
        self, gathering: _Gathering, builder: PartBuilder, error: Exception, *more: str
    ) -> None:
        """Fail all that the partition had gathered, and go on with what is still to come.

        Raises RunError where each other file would meet the same: the machine lacks something, or
        the store's credentials have ended.
        """
        reason = str(error) if isinstance(error, LakeUnusableError) else resource_shortage(error)
        if builder is gathering.builder:
            self._renew(gathering)
        builder.close()
        if reason is not None:
            raise RunError(reason) from error
        directory = gathering.plan.partition.directory
        if isinstance(error, OSError):
            error = LakeError.of("writing to", self._store.staged_in or directory, error)
        reason = str(error).splitlines()[0]
        paths = list(dict.fromkeys([*(s.path for s in builder.sources), *more]))
        brought = gathering.plan.state.loaded.intersection(paths)
        self._tally.committed(Committed(None, None, brought_by_others=frozenset(brought)))
        for path in paths:
            if path in brought:
                continue
            self._tally.failed([path], FailureKind.LAKE, reason, gathering.attempts.get(path, 0))
        log.error(
            "part.failed",
            partition=directory,
            files=len(paths),
            reason=reason,
        )

    def _renew(self, gathering: _Gathering) -> None:
        """Throw away what was gathered: it may lack rows that it has a receipt for."""
        gathering.builder.close()
        gathering.builder = self._new_builder()

    def _new_builder(self) -> PartBuilder:
        stage: Callable[[], StagedFile] = self._store.stage
        return PartBuilder(stage, self._compression, self._tally.run_id)


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Wait for work that cannot be called back, for a while also when the waiting is cancelled.

    A commit that has begun will happen; the report should know how it ended. An object store may
    not answer for long: then the report knows nothing of it, and the next run does.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=_LAST_COMMITS_S)
        raise
