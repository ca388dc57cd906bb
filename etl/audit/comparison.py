"""The files that the API lists for a window, compared with what the lake holds."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from etl.lake.layout import to_minute
from etl.model.paths import HOUR, Partition
from etl.model.times import Window

if TYPE_CHECKING:
    from etl.api.listing import Listing  # loads aiohttp, which status needs for --against alone


@dataclass(frozen=True, slots=True)
class ListedPartition:
    """The listed files of one partition. The lake has no receipt of the `missing` ones.

    `damage` says why the lake's parts of it cannot be read: then a run could not load the files.
    """

    partition: Partition
    listed: int
    missing: int
    damage: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A listing of a window against the lake.

    The `invalid` paths do not fit the API's pattern, and `fetch.skip` names the `skipped` ones.
    Neither are in `partitions`.
    """

    account: str
    window: Window
    listing: "Listing"
    partitions: tuple[ListedPartition, ...]
    invalid: int
    skipped: int

    @property
    def listed(self) -> int:
        """The number of distinct listed paths."""
        return self.invalid + self.skipped + sum(each.listed for each in self.partitions)

    @property
    def missing(self) -> int:
        """The number of listed files that the lake lacks."""
        return sum(each.missing for each in self.partitions)

    @property
    def loaded(self) -> int:
        """The number of listed files that the lake holds."""
        return sum(each.listed - each.missing for each in self.partitions)

    @property
    def lacking(self) -> tuple[ListedPartition, ...]:
        """The partitions that lack files, oldest first."""
        return tuple(each for each in self.partitions if each.missing)

    def answered(self, hour: datetime) -> bool:
        """Return whether the API listed all files of this hour, as far as it says."""
        end = hour + HOUR
        unsure = (*self.listing.partial_windows, *self.listing.unanswered)
        return (
            self.window.start <= hour
            and end <= self.window.end
            and not any(window.start < end and hour < window.end for window in unsure)
        )

    def remarks(self) -> Iterator[str]:
        """Yield remarks on the listing and advice, in sentences. Times are in UTC."""
        if self.invalid:
            yield f"{self.invalid:,} listed paths do not fit the API's pattern."
        if self.skipped:
            yield f"{self.skipped:,} listed files are left out by fetch.skip."
        for partial in self.listing.partial_windows:
            yield f"The vendor says that paths are missing in its own listing of {_span(partial)}."
        for unanswered in self.listing.unanswered:
            span = _span(unanswered)
            yield f"The API did not answer for {span}: what it lists there is unknown."
        damaged = [each for each in self.lacking if each.damage]
        blocked = sum(each.missing for each in damaged)
        if blocked:
            yield (
                f"{blocked:,} cannot be loaded until {len(damaged):,} damaged "
                f"{'part is' if len(damaged) == 1 else 'parts are'} restored from a backup, or "
                "deleted while no run is active."
            )
        if self.missing > blocked:
            rest = "the others" if blocked else "what is missing"
            yield f"aht-etl run over the same window loads {rest}."


def _span(window: Window) -> str:
    return f"{to_minute(window.start)} to {to_minute(window.end)} UTC"
