"""Keeping a coarse copy of a lake, in which a partition is a day and account, for long scans.

The copy is a lake of its own: a source file is in the copy if and only if one of its parts has the
receipt, parts get the next number by conditional create, and nothing is replaced or deleted. So
copiers may be killed, repeated, run at the same time, and run while loads continue; readers of the
copy see each row once at any moment.
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
from etl.lake.commit import PartitionState, PartWritten, commit, read_state
from etl.lake.layout import Damage, Layout, Selection, day_of, read_layout
from etl.lake.part import PartBuilder
from etl.lake.receipts import Receipt, UnreadablePartError, read_receipts
from etl.lake.rows import add_source, source_rows
from etl.model.errors import RunError
from etl.model.events import log
from etl.model.machine import cores
from etl.model.paths import BreakdownPath, InvalidPathError, Partition
from etl.storage.store import Store, StoredFile, StoreError

# The most that a thread needs: a batch that was read, a row group that waits, one being encoded.
_BYTES_A_THREAD: Final = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Day:
    """A partition of the copy, and the lake's parts of that day in the order of their hours."""

    partition: Partition
    parts: tuple[StoredFile, ...]
    damage: Damage | None


@dataclass(slots=True)
class Copied:
    """What was copied so far; threads change it while they hold `lock`.

    `files_listed = files_already_loaded + files_loaded + files_failed + files_not_attempted`, at
    any moment. Files of a day whose receipts were not read yet are not counted.
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
    parts: list[PartWritten] = field(default_factory=list)
    failures: list[Damage] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def files_not_attempted(self) -> int:
        """The number of files without an outcome."""
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

    Copying calls `stopped` before each part of the lake. After it returns True, nothing more is
    started, and a part that is being built is discarded.
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

        A day that overlaps the selection is copied whole. Raises RunError if the lake or the copy
        cannot be used at all; failures of single days are in `so_far`.
        """
        layout = self._open()
        days = [day for day in days_of(layout) if selection.includes(day.partition)]
        settled = [day for day in days if day.partition.end <= settled_before]
        so_far.days_not_settled = len(days) - len(settled)
        for damage in layout.damaged_folders:
            so_far.fail(damage)
        threads = max(cores(), self.lake.readers, self.copy.readers)
        threads = max(1, min(threads, self.memory_bytes // _BYTES_A_THREAD))

        def bind() -> None:
            structlog.contextvars.bind_contextvars(run_id=self.run_id)

        with ThreadPoolExecutor(threads, "aht-etl-copy", bind) as pool:
            list(pool.map(lambda day: _DayCopy(self, day, so_far).run(), settled))

    def _open(self) -> Layout:
        """Return the lake's layout, and make sure that the copy can be written to."""
        try:
            layout = read_layout(self.lake)
        except StoreError as error:
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
        except StoreError as error:
            raise RunError(f"{error}; check compact.uri (--to)") from error
        self.copy.clean_up()
        return layout

    def new_builder(self) -> PartBuilder:
        """Return the builder of a part of the copy."""
        return PartBuilder(self.copy.stage, self.compression, self.run_id, with_hour=True)


def days_of(layout: Layout) -> Iterator[Day]:
    """Yield the days of a lake, oldest first."""
    hours = sorted({*layout.parts, *layout.unlistable}, key=lambda hour: (day_of(hour), hour))
    for day, group in groupby(hours, key=day_of):
        partitions = list(group)
        damages = [layout.unlistable[each] for each in partitions if each in layout.unlistable]
        parts = (file for each in partitions for file in layout.parts.get(each, ()))
        yield Day(day, tuple(parts), damages[0] if damages else None)


class _StoppedError(Exception):
    """The copier was asked to stop."""


class _DamagedError(Exception):
    """A part of the lake cannot be copied, so its day is left out."""

    def __init__(self, damage: Damage) -> None:
        super().__init__(damage.message)
        self.damage = damage


class _DayCopy:
    """Copies one day, in one thread."""

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
        """Copy the sources that the copy lacks, and count the outcome in `so_far`."""
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
            damage = Damage(self._folder, str(StoreError.of("writing to", place, error)))
        except StoreError as error:
            damage = Damage(self._folder, str(error))
        else:
            with self._so_far.lock:
                self._so_far.days_copied += self._loaded > 0
                self._so_far.days_already_copied += self._loaded == 0
        self._count()
        if damage is not None:
            self._so_far.fail(damage, len(self._known - self._state.loaded))

    def _count(self) -> None:
        """Update the counts of files; those in the copy that are not ours were there already."""
        already_loaded = len(self._known & self._state.loaded) - self._loaded
        with self._so_far.lock:
            self._so_far.files_listed += len(self._known) - self._listed
            self._so_far.files_already_loaded += already_loaded - self._already_loaded
        self._listed, self._already_loaded = len(self._known), already_loaded

    def _read_receipts(self) -> list[tuple[StoredFile, tuple[Receipt, ...]]]:
        """Read the day's receipts in the lake, then those in the copy.

        A damaged part raises an error only after all others are read, so that the day's files are
        known.
        """
        damage = self._day.damage
        found = []
        for file in self._day.parts:
            self._check_stopped()
            try:
                with self._copier.lake.open(file.name) as stream:
                    sources = read_receipts(stream).sources
                _check_places(file, sources)
            except FileNotFoundError:
                continue  # an operator deleted it
            except StoreError as error:
                damage = damage or _damage(file, error)
                continue
            found.append((file, sources))
            self._known.update(source.path for source in sources)
        self._state = read_state(self._copier.copy, self._folder)
        if self._state.damage is not None:
            damage = damage or Damage(self._folder, self._state.damage)
        if damage is not None:
            raise _DamagedError(damage)
        return found

    def _check_stopped(self) -> None:
        if self._copier.stopped():
            raise _StoppedError

    def _write(self, parts: list[tuple[StoredFile, tuple[Receipt, ...]]]) -> None:
        """Write the missing sources, a row group an hour, and commit them as parts."""
        builder = self._copier.new_builder()
        taken: set[str] = set()  # a source that the lake holds twice is copied once
        try:
            for file, sources in parts:
                self._check_stopped()
                if all(source.path in self._state.loaded | taken for source in sources):
                    continue
                try:
                    with self._copier.lake.open(file.name) as stream:
                        for source, rows in source_rows(stream, file.bytes, sources):
                            if source.path in self._state.loaded or source.path in taken:
                                continue
                            taken.add(source.path)
                            add_source(builder, source, rows)
                            if builder.size_guess >= self._copier.target_part_bytes:
                                self._commit(builder)
                                builder = self._copier.new_builder()
                except (UnreadablePartError, FileNotFoundError) as error:
                    raise _DamagedError(_damage(file, error)) from None
            if builder.sources:
                self._commit(builder)
        finally:
            builder.close()

    def _commit(self, builder: PartBuilder) -> None:
        encoded, new_builder = builder.finish(), self._copier.new_builder
        try:
            result = commit(self._copier.copy, self._folder, self._state, encoded, new_builder)
        except UnreadablePartError as error:  # of the copy, not of the lake
            raise StoreError(str(error)) from None
        result.log(self._folder)
        part, so_far = result.written, self._so_far
        if part is None or result.encoded is None:
            return
        self._loaded += part.sources
        with so_far.lock:
            so_far.files_loaded += part.sources
            so_far.rows += part.rows
            so_far.quarantined += sum(source.quarantined for source in result.encoded.sources)
            so_far.parts.append(part)


def _check_places(file: StoredFile, sources: tuple[Receipt, ...]) -> None:
    """Raise UnreadablePartError if a source does not belong to the hour of its part's folder."""
    folder = file.name.rpartition("/")[0]
    for source in sources:
        try:
            home = BreakdownPath.parse(source.path).partition.directory
        except InvalidPathError:
            home = None
        if home != folder:
            raise UnreadablePartError(f"in the wrong folder: it holds {source.path}")


def _damage(file: StoredFile, error: Exception) -> Damage:
    message = str(error)
    if isinstance(error, FileNotFoundError):
        message = f"{file.name} was deleted meanwhile; run again"
    elif isinstance(error, UnreadablePartError):
        message = (
            f"{file.name} is {error}; its day is left out until it is repaired or deleted: aht-etl "
            "verify says more"
        )
    return Damage(file.name, message)
