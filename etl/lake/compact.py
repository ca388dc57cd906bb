"""Keeping a coarse copy of a lake, in which a partition is a day and account, for long scans.

The copy is a lake of its own: a source file is in the copy if and only if one of its parts has the
receipt, parts get the next number by conditional create, and nothing is replaced or deleted. So
copiers may be killed, repeated, run at the same time, and run while loads continue; readers of the
copy see each row once at any moment.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Final, Literal

import structlog

from etl.config.sections import Compression
from etl.lake.commit import commit, read_state
from etl.lake.layout import (
    Damage,
    Layout,
    PartitionState,
    PartWritten,
    Selection,
    day_of,
    read_layout,
)
from etl.lake.part import PartBuilder, add_source
from etl.lake.receipts import Receipt, UnreadablePartError, read_receipts, source_rows
from etl.model.errors import RunError
from etl.model.machine import cores
from etl.model.paths import BreakdownPath, InvalidPathError, Partition
from etl.model.text import log
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
    """What was copied so far, a settled day each; `damaged_folders` are above days."""

    days: "list[DayCopy]" = field(default_factory=list)
    days_not_settled: int = 0
    damaged_folders: list[Damage] = field(default_factory=list)


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
        so_far.days = [DayCopy(self, day) for day in settled]
        so_far.days_not_settled = len(days) - len(settled)
        so_far.damaged_folders = list(layout.damaged_folders)
        for damage in layout.damaged_folders:
            _log(damage)
        threads = max(cores(), self.lake.readers, self.copy.readers)
        threads = max(1, min(threads, self.memory_bytes // _BYTES_A_THREAD))

        def bind() -> None:
            structlog.contextvars.bind_contextvars(run_id=self.run_id)

        with ThreadPoolExecutor(threads, "aht-etl-copy", bind) as pool:
            list(pool.map(DayCopy.run, so_far.days))

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


class DayCopy:
    """Copies one day, in one thread, and holds what became of it so far.

    `parts` were written by this call; a day that is "not_attempted" may have some. Read from
    another thread: `parts`, then `in_copy`, then `files`, so that none is less than one before it.
    """

    def __init__(self, copier: Copier, day: Day) -> None:
        self._copier = copier
        self._day = day
        self._folder = day.partition.directory
        self._in_copy = PartitionState()
        self._known: set[str] = set()
        #: The number of files that the lake holds, as far as its receipts are read.
        self.files = 0
        #: How many of them the copy holds.
        self.in_copy = 0
        self.parts: list[PartWritten] = []
        self.quarantined = 0
        self.damage: Damage | None = None
        self.outcome: Literal["copied", "already_copied", "failed", "not_attempted"]
        self.outcome = "not_attempted"

    def run(self) -> None:
        """Copy the sources that the copy lacks."""
        try:
            parts = self._read_receipts()
            self._count()
            if not self._known <= self._in_copy.loaded:
                self._write(parts)
            self.outcome = "copied" if self.parts else "already_copied"
        except _StoppedError:
            pass
        except _DamagedError as error:
            self._fail(error.damage)
        except OSError as error:
            place = self._copier.copy.staged_in or self._folder
            self._fail(Damage(self._folder, str(StoreError.of("writing to", place, error))))
        except StoreError as error:
            self._fail(Damage(self._folder, str(error)))
        finally:
            self._count()
            # Only the numbers stay: the paths of all days would be those of the whole lake.
            self._known, self._in_copy = set(), PartitionState()

    def _count(self) -> None:
        self.files = len(self._known)
        self.in_copy = len(self._known & self._in_copy.loaded)

    def _fail(self, damage: Damage) -> None:
        self._count()  # first: a report subtracts the numbers of days with a damage
        self.damage, self.outcome = damage, "failed"
        _log(damage)

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
        self._in_copy = read_state(self._copier.copy, self._folder)
        if self._in_copy.damage is not None:
            damage = damage or Damage(self._folder, self._in_copy.damage)
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
                if all(source.path in self._in_copy.loaded | taken for source in sources):
                    continue
                try:
                    with self._copier.lake.open(file.name) as stream:
                        for source, rows in source_rows(stream, file.bytes, sources):
                            if source.path in self._in_copy.loaded or source.path in taken:
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
            result = commit(self._copier.copy, self._folder, self._in_copy, encoded, new_builder)
        except UnreadablePartError as error:  # of the copy, not of the lake
            raise StoreError(str(error)) from None
        self._count()
        result.log(self._folder)
        self.quarantined += result.quarantined
        if result.part is not None:
            self.parts.append(result.part)


def _log(damage: Damage) -> None:
    log.error("day.failed", path=damage.name, reason=damage.message)


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
