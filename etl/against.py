"""What the API lists and the lake lacks: the plan of a run that is not carried out."""

from dataclasses import dataclass

from etl import pipeline
from etl.api.listing import Listing
from etl.job import Job
from etl.plan import PartitionPlan, Plan
from etl.times import Window


@dataclass(frozen=True, slots=True)
class Against:
    """A listing of a window, and what of it a run would load now."""

    account: str
    window: Window
    listing: Listing
    plan: Plan

    @property
    def loaded(self) -> int:
        """How many listed files the lake holds."""
        return sum(len(partition.already_loaded) for partition in self.plan.partitions)

    @property
    def missing(self) -> int:
        """How many listed files no readable part of the lake holds."""
        return sum(len(partition.to_load) for partition in self.plan.partitions)

    @property
    def lacking(self) -> tuple[PartitionPlan, ...]:
        """The hours that lack files, oldest first."""
        return tuple(partition for partition in self.plan.partitions if partition.to_load)


async def ask(job: Job) -> Against:
    """List the job's window and subtract what the lake holds; nothing is fetched.

    Raises RunError where the listing cannot be had, or the lake not be read.
    """
    assert job.window is not None  # noqa: S101 - nobody compares with a saved listing
    await pipeline.plan(job)
    return Against(job.account, job.window, job.tally.listing, job.tally.plan)
