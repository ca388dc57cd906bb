"""The report of a plan: what a run would do, in numbers."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from etl.config.settings import open_lake
from etl.model.document import as_json
from etl.model.paths import Partition
from etl.model.times import Window
from etl.pipeline.estimate import Estimate, estimate
from etl.pipeline.job import Job
from etl.pipeline.plan import InvalidPath
from etl.pipeline.run import plan as make


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
