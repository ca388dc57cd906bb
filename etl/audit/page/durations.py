"""Handle times by reason, as histograms that parts can be merged into: bounded, whatever is read.

Bins are logarithmic, eight to a doubling, so a quantile is right within 5 %.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from etl.model.printable import one_line

COLUMNS: Final = ("startReason", "endReason", "handleTimeMillis")
NO_REASON: Final = "(no reason)"
OTHER: Final = "(other reasons)"
_BINS_PER_DOUBLING: Final = 8
#: Handle times of zero and less.
_NOT_POSITIVE: Final = -1
#: More reasons than this are counted together: they are text from files, of any number.
_REASONS_MAX: Final = 100


@dataclass(slots=True)
class Distribution:
    """The handle times of one reason: how many rows in each bin, and their sum."""

    bins: Counter[int] = field(default_factory=Counter)
    total_ms: float = 0.0

    @property
    def rows(self) -> int:
        """How many rows have a handle time."""
        return self.bins.total()

    def quantile_ms(self, share: float) -> float:
        """Return the handle time that `share` of the rows do not exceed, within 5 %."""
        wanted = share * self.rows
        seen = 0
        for number, rows in sorted(self.bins.items()):
            seen += rows
            if seen >= wanted:
                return _middle_ms(number)
        return 0.0


@dataclass(slots=True)
class Durations:
    """Handle times by the reason that started and by the one that ended the unit."""

    by_start: dict[str, Distribution] = field(default_factory=dict)
    by_end: dict[str, Distribution] = field(default_factory=dict)
    without: int = 0  # rows without a handle time

    @property
    def total_ms(self) -> float:
        """The sum of all handle times."""
        return sum(distribution.total_ms for distribution in self.by_start.values())

    def add_batches(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Count the rows of batches with `COLUMNS`."""
        for batch in batches:
            self.without += batch["handleTimeMillis"].null_count
            table = pa.Table.from_batches([batch])
            table = table.filter(pc.is_valid(table["handleTimeMillis"]))
            # As floats: a sum of what files may hold does not fit an int64.
            millis = table["handleTimeMillis"].cast(pa.float64(), safe=False)
            bins = _bins(millis)
            for name, by_reason in (("startReason", self.by_start), ("endReason", self.by_end)):
                _count(by_reason, table[name], bins, millis)

    def merge(self, other: "Durations") -> None:
        """Add what was counted elsewhere."""
        self.without += other.without
        for mine, theirs in ((self.by_start, other.by_start), (self.by_end, other.by_end)):
            for reason, distribution in theirs.items():
                into = _of(mine, reason)
                into.bins.update(distribution.bins)
                into.total_ms += distribution.total_ms


def _bins(millis: Any) -> Any:
    positive = pc.max_element_wise(millis, 1.0)
    numbers = pc.floor(pc.multiply(pc.log2(positive), float(_BINS_PER_DOUBLING)))
    numbers = pc.if_else(pc.less(millis, pa.scalar(1.0)), float(_NOT_POSITIVE), numbers)
    return numbers.cast(pa.int32())


def _count(by_reason: dict[str, Distribution], reasons: Any, bins: Any, millis: Any) -> None:
    counted = (
        pa.table({"reason": reasons, "bin": bins, "millis": millis})
        .group_by(["reason", "bin"], use_threads=False)
        .aggregate([("millis", "count"), ("millis", "sum")])
    )
    for row in counted.to_pylist():
        distribution = _of(by_reason, one_line(row["reason"] or "") or NO_REASON)
        distribution.bins[row["bin"]] += row["millis_count"]
        distribution.total_ms += row["millis_sum"]


def _of(by_reason: dict[str, Distribution], reason: str) -> Distribution:
    if reason not in by_reason and len(by_reason) >= _REASONS_MAX:
        reason = OTHER
    return by_reason.setdefault(reason, Distribution())


def _middle_ms(number: int) -> float:
    if number == _NOT_POSITIVE:
        return 0.0
    return math.exp2((number + 0.5) / _BINS_PER_DOUBLING)
