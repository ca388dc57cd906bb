"""Keeping a coarse copy of a lake: a day and account a partition, for those who scan months.

The copy is a ledger of its own, on the lake's protocol: a source file is in the copy if and only if
one of the copy's parts has its receipt, parts get the next number by conditional create, and
nothing is ever replaced or deleted. So copiers may be killed, repeated, run side by side, and run
while loads go on; readers of the copy see each row once at any moment.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Final

import structlog

from etl.config.sections import Compression
from etl.lake.commit import Committed, PartitionState, commit, read_state
from etl.lake.layout import Damage, Layout, Selection, day_of, read_layout
from etl.lake.part import PartBuilder
from etl.lake.receipts import Receipt, UnreadablePartError, read_receipts
from etl.lake.rows import source_rows
from etl.model.dataset import DECODED_SCHEMA, SizedBatch
from etl.model.errors import RunError
from etl.model.events import log
from etl.model.machine import cores
from etl.model.paths import BreakdownPath, InvalidPathError, Partition
from etl.storage.store import LakeError, Store, StoredFile

# What a thread holds at most: a batch that was read, a row group that waits and one being encoded.
_BYTES_A_THREAD: Final = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Day:
    """A partition of the copy, and what the lake has of that day, in the order of its hours."""

    partition: Partition
    parts: tuple[StoredFile, ...]
    damage: Damage | None


@dataclass(frozen=True, slots=True)
class CopiedPart:
    """A part that this copier has put into the copy."""

    path: str
    rows: int
    bytes: int
    sources: int


@dataclass(slots=True)
class Copied:
    """What has come of it so far; threads change it while they hold `lock`.

    `files_listed = files_already_loaded + files_loaded + files_failed + files_not_attempted`, at
    any moment. Of a day that was not looked at no file is counted.
    """

    days_copied: int = 0
    days_already_copied: int = 0
    days_failed: int = 0
    days_not_settled: int = 0
    days_not_attempted: int = 0
    files_listed: int = 0
    files_already_loaded: int = 0
    files_loaded: int = 0
    files_failed: int = 0
    rows: int = 0
    quarantined: int = 0
    parts: list[CopiedPart] = field(default_factory=list)
    failures: list[Damage] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def files_not_attempted(self) -> int:
        """How many files have no outcome."""
        done = self.files_already_loaded + self.files_loaded + self.files_failed
        return self.files_listed - done

    def fail(self, damage: Damage, files: int = 0) -> None:
        """Count a day, or a folder above days, that could not be copied."""
        log.error("day.failed", path=damage.name, reason=damage.message)
        with self.lock:
            self.days_failed += 1
            self.files_failed += files
            self.failures.append(damage)


@dataclass(frozen=True, slots=True)
class Copier:
    """Copies from a lake to its coarse copy.

    `stopped` is asked between two of the lake's parts. Once it says so nothing more is begun, and
    a part that is being built is thrown away.
    """

    lake: Store
    copy: Store
    compression: Compression
    target_part_bytes: int
    memory_bytes: int
    run_id: str
    stopped: Callable[[], bool]

    def run(self, selection: Selection, settled_before: datetime, so_far: Copied) -> None:
        """Copy each selected day that was over by `settled_before`. Blocking.

        A day that overlaps the selection is copied whole. Raises RunError where one of the two
        places cannot be used at all; what goes wrong with one day is in `so_far`.
        """
        layout = self._open()
        days = [day for day in days_of(layout) if selection.includes(day.partition)]
        settled = [day for day in days if day.partition.end <= settled_before]
        so_far.days_not_settled = len(days) - len(settled)
        for damage in layout.damaged_folders:
            so_far.fail(damage)
        threads = max(cores(), self.lake.readers, self.copy.readers)
        threads = max(1, min(threads, self.memory_bytes // _BYTES_A_THREAD))

        def begin() -> None:
            structlog.contextvars.bind_contextvars(run_id=self.run_id)

        with ThreadPoolExecutor(threads, "aht-etl-copy", begin) as pool:
            list(pool.map(lambda day: _CopyOfDay(self, day, so_far).run(), settled))

    def _open(self) -> Layout:
        """Return what the lake holds; make sure that the copy can be written to."""
        try:
            layout = read_layout(self.lake)
        except LakeError as error:
            raise RunError(f"{error}; check lake.uri") from error
        if layout.is_copy:
            raise RunError(f"{self.lake.place} is a coarse copy and no lake; check lake.uri")
        try:
            there = read_layout(self.copy)
            if there.parts and not there.is_copy:
                raise RunError(
                    f"{self.copy.place} is a lake and no coarse copy: a copy needs a place of its "
                    "own; check compact.uri (--to)"
                )
            self.copy.prepare()
        except LakeError as error:
            raise RunError(f"{error}; check compact.uri (--to)") from error
        self.copy.clean_up()
        return layout

    def new_builder(self) -> PartBuilder:
        """Begin a part of the copy."""
        return PartBuilder(self.copy.stage, self.compression, self.run_id, with_hour=True)


def days_of(layout: Layout) -> Iterator[Day]:
    """Yield the days of a lake, oldest first."""
    hours = sorted({*layout.parts, *layout.unlistable})
    for day, group in groupby(sorted(hours, key=day_of), key=day_of):
        partitions = list(group)
        shut = [layout.unlistable[each] for each in partitions if each in layout.unlistable]
        parts = (file for each in partitions for file in layout.parts.get(each, ()))
        yield Day(day, tuple(parts), shut[0] if shut else None)


class _StoppedError(Exception):
    """The copier was told to end."""


class _DamagedError(Exception):
    """A part of the lake cannot be copied, so its day is left out."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.damage = Damage(name, reason)


class _CopyOfDay:
    """One day's work, in one thread."""

    def __init__(self, copier: Copier, day: Day, so_far: Copied) -> None:
        self._copier = copier
        self._day = day
        self._so_far = so_far
        self._folder = day.partition.directory
        self._state = PartitionState()
        self._known: set[str] = set()
        self._listed = 0
        self._already_loaded = 0
        self._loaded = 0

    def run(self) -> None:
        """Copy what the copy lacks of the day; what becomes of it is in `so_far`."""
        damage = None
        try:
            parts = self._read_receipts()
            self._count()
            if not self._known <= self._state.loaded:
                self._write(parts)
        except _StoppedError:
            with self._so_far.lock:
                self._so_far.days_not_attempted += 1
        except _DamagedError as error:
            damage = error.damage
        except OSError as error:
            place = self._copier.copy.staged_in or self._folder
            damage = Damage(self._folder, str(LakeError.of("writing to", place, error)))
        except LakeError as error:
            damage = Damage(self._folder, str(error))
        else:
            with self._so_far.lock:
                self._so_far.days_copied += self._loaded > 0
                self._so_far.days_already_copied += self._loaded == 0
        self._count()
        if damage is not None:
            self._so_far.fail(damage, len(self._known - self._state.loaded))

    def _count(self) -> None:
        """Count the day's files as they are now; what is there and not ours was there already."""
        already_loaded = len(self._known & self._state.loaded) - self._loaded
        with self._so_far.lock:
            self._so_far.files_listed += len(self._known) - self._listed
            self._so_far.files_already_loaded += already_loaded - self._already_loaded
        self._listed, self._already_loaded = len(self._known), already_loaded

    def _read_receipts(self) -> list[tuple[StoredFile, tuple[Receipt, ...]]]:
        """Read what the lake holds of the day, then what the copy holds of it.

        All receipts are read before a damaged part ends it, so that the day's files are known.
        """
        damage = self._day.damage
        found = []
        for file in self._day.parts:
            if self._copier.stopped():
                raise _StoppedError
            try:
                with self._copier.lake.open(file.name) as stream:
                    sources = read_receipts(stream).sources
                _check_places(file, sources)
            except FileNotFoundError:
                continue  # an operator deleted it
            except (UnreadablePartError, LakeError) as error:
                damage = damage or Damage(file.name, _reason(file, error))
                continue
            found.append((file, sources))
            self._known.update(source.path for source in sources)
        self._state = read_state(self._copier.copy, self._folder)
        if self._state.damage is not None:
            damage = damage or Damage(self._folder, self._state.damage)
        if damage is not None:
            raise _DamagedError(damage.name, damage.message)
        return found

    def _write(self, parts: list[tuple[StoredFile, tuple[Receipt, ...]]]) -> None:
        """Write what the copy lacks, a row group an hour, and commit it, in parts of the target."""
        builder = self._copier.new_builder()
        taken: set[str] = set()  # whatever the lake holds twice, the copy does not
        try:
            for file, sources in parts:
                if self._copier.stopped():
                    raise _StoppedError
                if all(source.path in self._state.loaded | taken for source in sources):
                    continue
                try:
                    with self._copier.lake.open(file.name) as stream:
                        for source, rows in source_rows(stream, file.bytes, sources):
                            if source.path in self._state.loaded or source.path in taken:
                                continue
                            taken.add(source.path)
                            decoded = (batch.select(DECODED_SCHEMA.names) for batch in rows)
                            builder.add(source, map(SizedBatch.of, decoded))
                            if builder.size_guess >= self._copier.target_part_bytes:
                                self._commit(builder)
                                builder = self._copier.new_builder()
                except (UnreadablePartError, FileNotFoundError) as error:
                    raise _DamagedError(file.name, _reason(file, error)) from None
            if builder.sources:
                self._commit(builder)
        finally:
            builder.close()

    def _commit(self, builder: PartBuilder) -> None:
        new_builder = self._copier.new_builder
        part = builder.finish()
        try:
            result = commit(self._copier.copy, self._folder, self._state, part, new_builder)
        except UnreadablePartError as error:  # of the copy, not of the lake
            raise LakeError(str(error)) from None
        self._take(result)

    def _take(self, result: Committed) -> None:
        part, so_far = result.encoded, self._so_far
        log.info(
            "part.committed" if part else "part.superseded",
            partition=self._folder,
            part=result.name,
            rows=part.rows if part else 0,
            sources=len(part.sources) if part else 0,
            brought_by_others=len(result.brought_by_others),
        )
        if part is None:
            return
        self._loaded += len(part.sources)
        with so_far.lock:
            so_far.files_loaded += len(part.sources)
            so_far.rows += part.rows
            so_far.quarantined += sum(source.quarantined for source in part.sources)
            copied = CopiedPart(str(result.name), part.rows, part.bytes, len(part.sources))
            so_far.parts.append(copied)


def _check_places(file: StoredFile, sources: tuple[Receipt, ...]) -> None:
    """Raise UnreadablePartError where a source is not one of the hour that its part lies in."""
    folder = file.name.rpartition("/")[0]
    for source in sources:
        try:
            home = BreakdownPath.parse(source.path).partition.directory
        except InvalidPathError:
            home = None
        if home != folder:
            raise UnreadablePartError(f"in the wrong folder: it holds {source.path}")


def _reason(file: StoredFile, error: Exception) -> str:
    if isinstance(error, LakeError):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return f"{file.name} was deleted meanwhile; run again"
    return (
        f"{file.name} is {error}; its day is left out until it is repaired or deleted: aht-etl "
        "verify says more"
    )
