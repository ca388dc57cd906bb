"""The report of a plan: what a run would do, in numbers, and about how long it would take."""

import asyncio
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, Final

import structlog

from etl.config.settings import open_lake
from etl.lake.layout import is_part
from etl.lake.receipts import PartReceipts, read_receipts
from etl.model.paths import Partition
from etl.model.text import as_json
from etl.model.times import Window
from etl.pipeline.job import Job
from etl.pipeline.plan import InvalidPath
from etl.pipeline.run import plan as make
from etl.storage.store import Store, StoredFile, StoreError

# The parts of the newest hours that are read: some days of a busy account.
_SAMPLED_PARTS: Final = 96
# A shorter span between a run's first and last part says nothing about its speed.
_SPAN_LEAST_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """What it takes to load the files of a plan; None where nothing is known.

    `bytes` (of gzip) and `rows` are the mean of the `sampled_files` times the files to load.
    `seconds` is by the speed of the newest run, and never less than `fetch.rate` allows.
    """

    sampled_files: int = 0
    bytes: int | None = None
    rows: int | None = None
    seconds: int | None = None


@dataclass(frozen=True, slots=True)
class PlannedPartition:
    """One directory of the lake, with the numbers of its listed files.

    `damage` says why a run cannot write there: its files to load fail with kind `lake` until you
    repair or delete the part that it names.
    """

    partition: Partition
    already_loaded: int
    to_load: int
    damage: str | None = None

    @property
    def hour(self) -> datetime:
        """Its start."""
        return self.partition.hour

    @property
    def listed(self) -> int:
        """How many files of it were listed, without those that are skipped."""
        return self.already_loaded + self.to_load


@dataclass(frozen=True, slots=True)
class PlanReport:
    """What a run would do now: every listed path of this share in exactly one place.

    `listed = already_loaded + to_load + invalid + skipped`. A file of a damaged partition has no
    receipt, so it is `to_load`, although a run fails it. `window` is None for listed paths,
    `account` for an archive's files of all accounts. `archive` is set for a run that fills the
    archive and no lake.
    """

    account: str | None
    window: Window | None
    lake: str
    archive: str | None
    partitions: Sequence[PlannedPartition]
    invalid_paths: Sequence[InvalidPath]
    skipped_paths: Sequence[str]
    partial_windows: Sequence[Window]
    unanswered_windows: Sequence[Window]
    estimate: Estimate

    @property
    def listed(self) -> int:
        """How many distinct paths were listed."""
        return self.already_loaded + self.to_load + self.invalid + self.skipped

    @property
    def already_loaded(self) -> int:
        """How many of them the lake holds."""
        return sum(partition.already_loaded for partition in self.partitions)

    @property
    def to_load(self) -> int:
        """How many of them a run would try to load."""
        return sum(partition.to_load for partition in self.partitions)

    @property
    def invalid(self) -> int:
        """How many of them are no paths of the API."""
        return len(self.invalid_paths)

    @property
    def skipped(self) -> int:
        """How many of them `fetch.skip` names."""
        return len(self.skipped_paths)

    @property
    def damaged(self) -> list[PlannedPartition]:
        """The partitions in which nothing can be written."""
        return [partition for partition in self.partitions if partition.damage]

    @property
    def blocked(self) -> int:
        """How many of the files to load would fail because their partition is damaged."""
        return sum(partition.to_load for partition in self.damaged)

    def as_json(self) -> dict[str, Any]:
        """Return what `plan --json` shows; times are RFC 3339 in UTC."""
        counts = ("listed", "already_loaded", "to_load")
        of_partition = ("partition", "hour", *counts, "damage")
        return {
            **as_json(self, "account", "window", "lake", "archive"),
            "files": as_json(self, *counts, "invalid", "skipped"),
            "partitions": [as_json(partition, *of_partition) for partition in self.partitions],
            **as_json(self, "invalid_paths", "skipped_paths"),
            **as_json(self, "partial_windows", "unanswered_windows", "estimate"),
        }


async def plan_report(job: Job) -> PlanReport:
    """Plan a job and report on it. Raises RunError, which is not redacted yet."""
    settings = job.settings
    with structlog.contextvars.bound_contextvars(run_id=job.run_id):
        state = await make(job)
    plan = state.plan
    blocked = sum(len(part.to_load) for part in plan.partitions if part.state.damage)
    expected = await asyncio.to_thread(
        estimate,
        open_lake(settings),
        plan.to_load - blocked,
        None if job.from_archive else settings.fetch.rate,
    )
    return PlanReport(
        settings.account,
        job.window,
        settings.lake.uri,
        settings.raw.uri if job.archive_only else None,
        tuple(
            PlannedPartition(
                partition.partition,
                len(partition.already_loaded),
                len(partition.to_load),
                partition.state.damage,
            )
            for partition in plan.partitions
        ),
        tuple(InvalidPath(job.redactor.text(bad.path), bad.message) for bad in plan.invalid),
        tuple(path.text for path in plan.skipped),
        tuple(state.listing.partial_windows),
        tuple(state.listing.unanswered),
        expected,
    )


def estimate(store: Store, to_load: int, rate: float | None) -> Estimate:
    """Estimate by the newest hours in the lake. Blocking; it reads a few footers.

    Parts that cannot be read are left out. `rate` is `fetch.rate`, in requests a second.
    """
    sample = list(islice(_newest_parts(store), _SAMPLED_PARTS))
    with ThreadPoolExecutor(4 * store.readers) as pool:
        read = zip(sample, pool.map(partial(_receipts, store), sample), strict=True)
        parts = [(file.modified.timestamp(), found) for file, found in read if found is not None]
    times = [to_load / rate] if rate else []
    if (pace_s := _seconds_a_file(parts)) is not None:
        times.append(pace_s * to_load)
    seconds = round(max(times)) if times else None
    sources = [source for _, part in parts for source in part.sources]
    if not (count := len(sources)):
        return Estimate(seconds=seconds)
    return Estimate(
        sampled_files=count,
        bytes=sum(source.bytes for source in sources) * to_load // count,
        rows=sum(source.rows for source in sources) * to_load // count,
        seconds=seconds,
    )


def _seconds_a_file(parts: Sequence[tuple[float, PartReceipts]]) -> float | None:
    """Return the seconds a file of the newest run among these parts, if it wrote several."""
    in_order = sorted(parts, key=lambda part: part[0])
    its = [(at_s, part) for at_s, part in in_order if part.run == in_order[-1][1].run]
    # The first part's files were loaded before the span began.
    files = sum(len(part.sources) for _, part in its[1:])
    span_s = its[-1][0] - its[0][0] if its else 0
    return span_s / files if span_s >= _SPAN_LEAST_S and files else None


def _newest_parts(store: Store, folder: str = "", levels: int = 3) -> Iterator[StoredFile]:
    """Yield the files below a folder that are named like parts, the newest hour first.

    `levels` of folders (year, month, day) are entered one by one, so that old days are not listed.
    """
    if not levels:
        files = store.walk(lambda *_: None, folder)
        parts = [file for file in files if is_part(file.name.rpartition("/")[2])]
        yield from sorted(parts, key=lambda file: _numbers(file.name), reverse=True)
        return
    try:
        names = [name for name in store.names(folder) if "=" in name]
    except StoreError:
        return
    for name in sorted(names, key=_numbers, reverse=True):
        yield from _newest_parts(store, f"{folder}/{name}".lstrip("/"), levels - 1)


def _numbers(name: str) -> list[int]:
    return [int(digits) for digits in re.findall("[0-9]+", name)]


def _receipts(store: Store, file: StoredFile) -> PartReceipts | None:
    try:
        with store.open(file.name) as stream:
            return read_receipts(stream)
    except (StoreError, OSError):
        return None
