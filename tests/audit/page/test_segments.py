"""Counting distinct segments: exact for a day's usual number, near enough beyond."""

import pytest

from etl.audit.page.segments import Segments


def counted(*numbers: int) -> Segments:
    segments = Segments()
    segments.add([f"account:1:conversation:{number}" for number in numbers])
    return segments


def test_each_is_counted_once() -> None:
    """However often it comes, and in how many parts; none is none."""
    whole = counted(*range(100), *range(100))
    whole.add([None])
    whole.merge(counted(*range(50, 120)))
    assert whole.count == 120


def test_more_than_are_kept() -> None:
    """The count stays within a few per cent, whichever of the two has more, and memory is held."""
    numbers = range(600_000)
    large, small = counted(*numbers), counted(*range(599_000, 601_000))
    for one, other in ((large, small), (small, large)):
        merged = Segments()
        merged.merge(one)
        merged.merge(other)
        assert merged.count == pytest.approx(601_000, rel=0.03)
        assert len(merged.hashes) <= 2 * 2**16
