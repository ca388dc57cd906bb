"""What the API lists and the lake lacks: the plan of a run that is not carried out."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from etl.api.listing import Listing
from etl.audit.gaps import HOUR
from etl.lake.layout import to_minute
from etl.model.times import Window
from etl.pipeline.plan import PartitionPlan, Plan


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
        return self.plan.already_loaded

    @property
    def missing(self) -> int:
        """How many listed files no readable part of the lake holds."""
        return self.plan.to_load

    @property
    def lacking(self) -> tuple[PartitionPlan, ...]:
        """The hours that lack files, oldest first."""
        return tuple(partition for partition in self.plan.partitions if partition.to_load)

    def answered(self, hour: datetime) -> bool:
        """Tell whether the API listed the whole of this hour, without saying that paths miss."""
        end = hour + HOUR
        unsure = (*self.listing.partial_windows, *self.listing.unanswered)
        return (
            self.window.start <= hour
            and end <= self.window.end
            and not any(window.start < end and hour < window.end for window in unsure)
        )

    def remarks(self) -> Iterator[str]:
        """Yield what people should know besides the counts, and what to do; a sentence or two each.

        Times are in UTC.
        """
        if self.plan.invalid:
            yield f"{len(self.plan.invalid):,} listed paths do not fit the API's pattern."
        if self.plan.skipped:
            yield f"{len(self.plan.skipped):,} listed files are left out by fetch.skip."
        for partial in self.listing.partial_windows:
            span = f"{to_minute(partial.start)} to {to_minute(partial.end)} UTC"
            yield f"The vendor says that paths are missing in its own listing of {span}."
        for unanswered in self.listing.unanswered:
            span = f"{to_minute(unanswered.start)} to {to_minute(unanswered.end)} UTC"
            yield f"The API did not answer for {span}: what it lists there is unknown."
        damaged = [lacking for lacking in self.lacking if lacking.state.damage]
        blocked = sum(len(lacking.to_load) for lacking in damaged)
        if blocked:
            yield (
                f"{blocked:,} cannot be loaded until {len(damaged):,} damaged "
                f"{'part is' if len(damaged) == 1 else 'parts are'} restored from a backup, or "
                "deleted while no run is active."
            )
        if self.missing > blocked:
            rest = "the others" if blocked else "what is missing"
            yield f"aht-etl run over the same window loads {rest}."
