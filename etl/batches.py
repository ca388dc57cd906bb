"""Between the workers and the sink: downloaded files are decoded batch by batch, off the loop.

What decoding costs for each call is paid once a batch, so files wait for each other: until all of
their partition that are still to come are there, until they are large enough, or until too many
workers wait. What need not wait any more is decoded together, of several partitions too. None waits
for memory, and none for a file that cannot come while it waits.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from etl.api.body import NO_ROOM, Body, scratch_error, scratch_folder
from etl.archive import Archive, Download, Kept, refused
from etl.decode import DecodeLimits
from etl.errors import FailureKind, FileError, RunError
from etl.events import log
from etl.lake.store import LakeError
from etl.landing import Landing
from etl.machine import lack
from etl.paths import BreakdownPath
from etl.plan import PartitionPlan
from etl.report import Bytes
from etl.sink import Sink, SourceFile
from etl.stop import Stop

if TYPE_CHECKING:
    from etl.decode import Decoded, Scanner

# A batch is large enough, as it came: some megabytes of text.
_BATCH_BYTES: Final = 2**19
# What is wrong with a file itself: it is the same file tomorrow.
_OF_THE_FILE: Final = {
    FailureKind.TRUNCATED,
    FailureKind.CORRUPT,
    FailureKind.MALFORMED,
    FailureKind.TOO_LARGE,
}


@dataclass(slots=True, eq=False)
class _Waiting:
    """A downloaded file, and the worker that waits for what becomes of it."""

    group: "_Group"
    path: BreakdownPath
    body: Body
    attempt: int
    last: bool
    done: asyncio.Future[None]


@dataclass(slots=True, eq=False)
class _Group:
    """A partition's files that are downloaded, and how many are still to come, these included."""

    plan: PartitionPlan
    to_come: int
    waiting: list[_Waiting] = field(default_factory=list)
    bytes: int = 0

    def take(self) -> list[_Waiting]:
        """Take what waits, as far as it goes into a batch: large files are shared out."""
        sizes = accumulate(waiting.body.size for waiting in self.waiting)
        count = max(1, sum(size <= _BATCH_BYTES for size in sizes))
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        self.bytes -= sum(waiting.body.size for waiting in taken)
        return taken


class Batches:
    """Takes downloaded files, decodes them and gives them to the sink.

    As many batches are decoded at once as there are `places`, `committing` more are committed; no
    more than `most_waiting` files wait for others, and with those that are being decoded they hold
    `held_bytes` in memory or little more. `limits` are each place's.
    """

    def __init__(
        self,
        sink: Sink | Landing,
        archive: Archive | None,
        limits: DecodeLimits,
        moved: Bytes,
        stop: Stop,
        *,
        places: int,
        committing: int,
        most_waiting: int,
        held_bytes: int,
    ) -> None:
        self._sink = sink
        self._archive = archive
        self._limits = limits
        self._moved = moved
        self._stop = stop
        self._places = places
        self._tasks_at_most = places + committing
        self._most_waiting = most_waiting
        self._held_bytes = held_bytes
        self._waiting = 0
        self._decoding = 0
        self._held = 0
        self._room = asyncio.Event()
        self._room.set()
        self._groups: dict[str, _Group] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._scanners: list[Scanner] = []  # those that no thread uses
        stop.on_request(self._pump)

    def expect(self, plan: PartitionPlan) -> None:
        """Prepare for a partition's files, before the first of them."""
        self._groups[plan.partition.directory] = _Group(plan, len(plan.to_load))

    def will_not_come(self, plan: PartitionPlan) -> None:
        """Take note that the others of the partition need not wait for one of its files."""
        self._come(self._groups[plan.partition.directory], 1)

    async def room(self) -> None:
        """Wait until one more file may be downloaded: for the decoders, if they are behind."""
        await self._room.wait()

    async def load(
        self, plan: PartitionPlan, path: BreakdownPath, body: Body, attempt: int, *, last: bool
    ) -> None:
        """Decode a file and give it to the sink; `body` is closed then. Raises FileError.

        `last` if one that is damaged will not be asked for again.
        """
        group = self._groups[plan.partition.directory]
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(group, path, body, attempt, last, done)
        group.waiting.append(waiting)
        group.bytes += body.size
        self._waiting += 1
        self._hold(body.in_memory)
        self._pump()
        await waiting.done

    def _hold(self, size: int) -> None:
        self._held += size
        if self._held < self._held_bytes:
            self._room.set()
        else:
            self._room.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """End with nothing left: what still runs is waited for."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for group in self._groups.values():
            for waiting in group.waiting:
                waiting.body.close()

    def _come(self, group: _Group, files: int) -> None:
        group.to_come -= files
        if group.to_come == 0:
            del self._groups[group.plan.partition.directory]
        self._pump()

    def _pump(self) -> None:
        """Begin as many batches as there are free places and files that need not wait."""
        while (
            self._decoding < self._places
            and len(self._tasks) < self._tasks_at_most
            and (batch := self._next())
        ):
            self._waiting -= len(batch)
            self._decoding += 1
            task = asyncio.ensure_future(self._process(batch))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _next(self) -> list[_Waiting]:
        """Take the files of a batch; none if all may wait."""
        groups = [group for group in self._groups.values() if group.waiting]
        batch: list[_Waiting] = []
        size = 0
        for group in groups:
            if len(group.waiting) == group.to_come or group.bytes >= _BATCH_BYTES:
                if batch and size + group.bytes > _BATCH_BYTES:
                    break
                size += group.bytes
                batch += group.take()
        too_many = self._waiting >= self._most_waiting or not self._room.is_set()
        if not batch and groups and (too_many or self._stop.requested()):
            batch = max(groups, key=lambda group: group.bytes).take()
        return batch

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # the workers have it
        self._pump()

    async def _process(self, batch: list[_Waiting]) -> None:
        try:
            try:
                outcomes = await asyncio.to_thread(self._decode, batch)
            finally:
                # While this batch is committed, which is waiting for its store, another is decoded.
                self._decoding -= 1
            self._pump()
            kept_before: set[int] = set()
            if self._archive is not None:
                kept_before = await self._keep(self._archive, batch, outcomes)
            by_group: dict[_Group, list[SourceFile]] = {}
            for number, (waiting, outcome) in enumerate(zip(batch, outcomes, strict=True)):
                if isinstance(outcome, FileError):
                    _settle([waiting], outcome)
                    continue
                self._moved.decompressed += outcome.decompressed
                log.debug(
                    "file.decoded",
                    path=waiting.path.text,
                    rows=outcome.rows,
                    bad_rows=outcome.quarantined,
                )
                before = number in kept_before
                file = SourceFile(waiting.path.text, outcome, waiting.attempt, before)
                by_group.setdefault(waiting.group, []).append(file)
            for group, files in by_group.items():
                self._come(group, len(files))
            # Side by side: each may wait for its store.
            errors = await asyncio.gather(
                *(self._sink.add(group.plan, files) for group, files in by_group.items()),
                return_exceptions=True,
            )
            for error in errors:
                if error is not None:
                    raise error
        except BaseException as error:
            # Each worker hears of it: nobody else waits for this.
            _settle(batch, error)
            raise
        finally:
            for waiting in batch:
                waiting.body.close()
            self._hold(-sum(waiting.body.in_memory for waiting in batch))
        _settle(batch, None)

    def _decode(self, batch: Sequence[_Waiting]) -> "list[Decoded | FileError]":
        # Here, beside the first downloads and not before them: 0.1 s.
        from etl.decode import Scanner  # noqa: PLC0415

        try:
            scanner = self._scanners.pop()
        except IndexError:
            scanner = Scanner()
        try:
            return [self._outcome(waiting, scanner) for waiting in batch]
        finally:
            self._scanners.append(scanner)

    def _outcome(self, waiting: _Waiting, scanner: "Scanner") -> "Decoded | FileError":
        from etl.decode import decode  # noqa: PLC0415

        body, path = waiting.body, waiting.path.text
        try:
            return decode(
                body.stream,
                path,
                self._limits,
                scratch=Path(scratch_folder()),
                declared_gzip=body.declared_gzip,
                scanner=scanner,
            )
        except Exception as error:  # noqa: BLE001 - each file's error is its own
            return self._told(error, waiting)

    async def _keep(
        self, archive: Archive, batch: Sequence[_Waiting], outcomes: "list[Decoded | FileError]"
    ) -> set[int]:
        """Keep files in the archive, before the part that will vouch for them.

        What cannot be decoded is wanted most there, unless it is asked for again; nothing at all
        is no file. The outcome of a file that the archive refuses is its error then. Returns which
        were kept before, by another run.
        """
        wanted = [
            number
            for number, (waiting, outcome) in enumerate(zip(batch, outcomes, strict=True))
            if not isinstance(outcome, FileError)
            or (
                outcome.kind in _OF_THE_FILE
                and (waiting.last or not outcome.passing)
                and waiting.body.size
            )
        ]
        kept = await archive.keep(
            [Download(batch[n].path.text, batch[n].body, outcomes[n]) for n in wanted]
        )
        before = set()
        for number, how in zip(wanted, kept, strict=True):
            if how is Kept.BEFORE:
                before.add(number)
            elif isinstance(how, FileError):
                outcome = outcomes[number]
                if not isinstance(outcome, FileError):
                    outcome.close()
                outcomes[number] = how
        return before

    def _told(self, outcome: Exception, waiting: _Waiting) -> FileError:
        """Return an error as what is to be told of its file; RunError where the machine lacks."""
        if (reason := lack(outcome)) is not None:
            raise RunError(reason) from outcome
        if isinstance(outcome, FileError):
            return outcome
        if isinstance(outcome, LakeError):  # an archived file, read while it is decoded
            return refused(outcome)
        if isinstance(outcome, OSError):
            archived = waiting.body.release is not None and outcome.errno not in NO_ROOM
            return refused(outcome) if archived else scratch_error(outcome)
        # The boundary of a work item: one file that no decoder foresaw must not end the run.
        if not self._stop.requested():  # else its body may just have been closed
            log.debug("file.undecodable", path=waiting.path.text, exc_info=outcome)
        return FileError(
            FailureKind.MALFORMED,
            f"cannot be decoded: {type(outcome).__name__}; please report it, with what "
            "--log-level debug shows",
        )


def _settle(batch: Sequence[_Waiting], error: BaseException | None) -> None:
    for waiting in batch:
        if waiting.done.done():
            continue
        if error is None:
            waiting.done.set_result(None)
        elif isinstance(error, Exception):
            waiting.done.set_exception(error)
        else:
            waiting.done.cancel()
