"""Work on many items in threads: in order, bounded, and over at the first error."""

from time import sleep

import pytest

from etl.audit.verify import in_order


def test_results_come_in_the_order_of_the_items() -> None:
    """At most `ahead` items a thread are started before their results are taken."""
    started: list[int] = []

    def work(item: int) -> int:
        started.append(item)
        return item * item

    found = in_order(work, range(100), threads=3, ahead=2)
    assert next(found) == (0, 0)
    assert len(started) <= 6
    assert list(found) == [(n, n * n) for n in range(1, 100)]


def test_an_error_ends_the_work() -> None:
    """Items that wait behind it never start."""
    started: list[int] = []

    def work(item: int) -> None:
        started.append(item)
        if item == 0:
            raise ValueError("broken")
        sleep(0.2)  # the error is raised meanwhile

    with pytest.raises(ValueError, match="broken"):
        list(in_order(work, range(100), threads=1, ahead=50))
    assert len(started) <= 2
