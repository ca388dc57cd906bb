"""Statistics of the rows of parts: handle times by reason, and distinct segments.

Both need bounded memory for any rows, and can be merged part by part.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from etl.lake.receipts import first_line
from etl.model.text import one_line
from etl.storage.store import Store, StoreError

COLUMNS: Final = ("startReason", "endReason", "handleTimeMillis")
NO_REASON: Final = "(no reason)"
OTHER: Final = "(other reasons)"
_SEGMENT: Final = "segmentId"
#: Reasons are text from files, in any number. Those after the first hundred are counted together.
_REASONS_MAX: Final = 100
# Logarithmic bins: a quantile is right within 5 %.
_BINS_PER_DOUBLING: Final = 8
# The bin of handle times of zero and less.
_NOT_POSITIVE: Final = -1
_BATCH_ROWS: Final = 65_536
# A count keeps at least this many hashes, unless there are fewer segments.
_KEPT: Final = 2**16
_LOWEST: Final = -(2**63)
_HASHES: Final = 2**64


def counted_as(reason: str, known: Collection[str]) -> str:
    """Return the reason itself, or OTHER for a new one where a hundred are known."""
    return reason if reason in known or len(known) < _REASONS_MAX else OTHER


@dataclass(slots=True)
class Distribution:
    """The handle times of one reason: the number of rows in each bin, and their sum."""

    bins: Counter[int] = field(default_factory=Counter)
    total_ms: float = 0.0

    @property
    def rows(self) -> int:
        """The number of rows that have a handle time."""
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
    """Handle times by start reason and by end reason."""

    by_start: dict[str, Distribution] = field(default_factory=dict)
    by_end: dict[str, Distribution] = field(default_factory=dict)
    without: int = 0  # rows without a handle time

    @property
    def total_ms(self) -> float:
        """The sum of all handle times."""
        return sum(distribution.total_ms for distribution in self.by_start.values())

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the rows of a batch with `COLUMNS`."""
        self.without += batch["handleTimeMillis"].null_count
        table = pa.Table.from_batches([batch])
        table = table.filter(pc.is_valid(table["handleTimeMillis"]))
        # As floats: a sum of what files may hold does not fit an int64.
        millis = table["handleTimeMillis"].cast(pa.float64(), safe=False)
        bins = _bins(millis)
        for name, by_reason in (("startReason", self.by_start), ("endReason", self.by_end)):
            _count(by_reason, table[name], bins, millis)

    def merge(self, other: "Durations") -> None:
        """Add the rows of another count."""
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
    return by_reason.setdefault(counted_as(reason, by_reason), Distribution())


def _middle_ms(number: int) -> float:
    if number == _NOT_POSITIVE:
        return 0.0
    return math.exp2((number + 0.5) / _BINS_PER_DOUBLING)


@dataclass(slots=True)
class Segments:
    """Distinct segments: exact up to 131,072 of them, above that within about 1 %.

    It keeps the hashes below `limit`, and lowers the limit when there are too many. The limit says
    which share of all segments the kept ones are. Hashes differ from process to process.
    """

    hashes: set[int] = field(default_factory=set)
    limit: int = -_LOWEST

    @property
    def count(self) -> int:
        """The number of distinct segments."""
        return round(len(self.hashes) * _HASHES / (self.limit - _LOWEST))

    def add(self, names: Iterable[str | None]) -> None:
        """Count these names, but not None."""
        self.merge(Segments({hash(name) for name in names if name is not None}))

    def merge(self, other: "Segments") -> None:
        """Add the segments of another count."""
        self.hashes |= other.hashes
        if min(self.limit, other.limit) < -_LOWEST:
            self._lower(min(self.limit, other.limit))
        if len(self.hashes) > 2 * _KEPT:
            self._lower(sorted(self.hashes)[_KEPT])

    def _lower(self, limit: int) -> None:
        self.limit = limit
        self.hashes = {value for value in self.hashes if value < limit}


@dataclass(slots=True)
class PartRows:
    """The rows of one part; none of them if `damage` says, in one line, why it cannot be read.

    `version` is that of the program that wrote the part.
    """

    version: str = ""
    durations: Durations = field(default_factory=Durations)
    segments: Segments = field(default_factory=Segments)
    damage: str | None = None


def read_rows(store: Store, name: str) -> PartRows | None:
    """Read the rows of a part in bounded memory; None if it is gone. Blocking, raises nothing."""
    found = PartRows()
    try:
        with store.open(name) as stream, pq.ParquetFile(stream) as file:
            version = (file.metadata.metadata or {}).get(b"aht_etl.version", b"")
            found.version = one_line(version.decode("utf-8", "replace"))
            # One row group after another: a reader of all holds on to what it has read.
            for group in range(file.num_row_groups):
                # One thread: parts are read in parallel already.
                for batch in file.iter_batches(
                    _BATCH_ROWS, [group], [*COLUMNS, _SEGMENT], use_threads=False
                ):
                    found.durations.add(batch)
                    names: Any = pc.unique(batch[_SEGMENT])
                    found.segments.add(names.to_pylist())
    except FileNotFoundError:
        return None
    except (pa.ArrowException, StoreError, OSError, KeyError, ValueError) as error:
        damage = f"its rows cannot be read: {first_line(error)}"
        return PartRows(found.version, damage=damage)
    return found
