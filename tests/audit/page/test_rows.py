"""Handle times by reason and distinct segments: close to the truth for any rows."""

from collections.abc import Sequence

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.audit.page.rows import COLUMNS, NO_REASON, OTHER, Durations, Segments

_SCHEMA = pa.schema([(name, pa.string()) for name in COLUMNS[:2]] + [(COLUMNS[2], pa.int64())])
Rows = Sequence[tuple[str | None, str | None, int | None]]


def counted(rows: Rows) -> Durations:
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    durations = Durations()
    durations.add(pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA))
    return durations


@given(st.lists(st.integers(1, 10**9), min_size=1), st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.9]))
def test_a_quantile_is_right_within_five_percent(millis: list[int], share: float) -> None:
    """A quantile of the histogram is within 5 % of the true one."""
    found = counted([("a", "b", value) for value in millis]).by_start["a"].quantile_ms(share)
    rank = next(n for n in range(1, len(millis) + 1) if n >= share * len(millis))
    truth = sorted(millis)[rank - 1]
    assert truth == pytest.approx(found, rel=0.05)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.integers(-9, 10**6))))
def test_parts_merge_into_the_whole(rows: list[tuple[str, str, int]]) -> None:
    """Counting in pieces and merging gives the same as counting at once."""
    whole, merged = counted(rows), Durations()
    for piece in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
        merged.merge(counted(piece))
    for mine, theirs in ((whole.by_start, merged.by_start), (whole.by_end, merged.by_end)):
        assert {name: found.bins for name, found in mine.items()} == {
            name: found.bins for name, found in theirs.items()
        }
    assert whole.total_ms == pytest.approx(merged.total_ms)


def test_what_is_missing_or_absurd_is_counted_too() -> None:
    """Rows without a time or a reason, times of zero, and sums that do not fit an int64."""
    found = counted([(None, "x", 5), ("a", "x", None), ("a", "x", -3), ("a", "x", 0)])
    assert found.without == 1
    assert found.by_start[NO_REASON].rows == 1
    assert found.by_start["a"].quantile_ms(0.9) == 0
    huge = counted([("a", "x", 2**63 - 1)] * 3)
    assert huge.total_ms == pytest.approx(3 * 2.0**63)


def test_reasons_without_number_take_bounded_memory() -> None:
    """From the hundredth on, new reasons are counted together."""
    found = counted([(f"reason {number}", "x", 1000) for number in range(500)])
    assert len(found.by_start) == 101
    assert found.by_start[OTHER].rows == 400


def segments_of(*numbers: int) -> Segments:
    segments = Segments()
    segments.add([f"account:1:conversation:{number}" for number in numbers])
    return segments


def test_each_is_counted_once() -> None:
    """However often it occurs, and in how many parts; None is not counted."""
    whole = segments_of(*range(100), *range(100))
    whole.add([None])
    whole.merge(segments_of(*range(50, 120)))
    assert whole.count == 120


def test_more_than_are_kept() -> None:
    """The count stays within a few per cent in bounded memory, whichever of the two has more."""
    numbers = range(600_000)
    large, small = segments_of(*numbers), segments_of(*range(599_000, 601_000))
    for one, other in ((large, small), (small, large)):
        merged = Segments()
        merged.merge(one)
        merged.merge(other)
        assert merged.count == pytest.approx(601_000, rel=0.03)
        assert len(merged.hashes) <= 2 * 2**16
