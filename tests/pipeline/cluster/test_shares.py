"""How a plan is divided into shares, and the limits among the tasks that run at once."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from etl.config.sections import FetchSettings
from etl.lake.layout import PartitionState
from etl.model.paths import BreakdownPath
from etl.pipeline.cluster.shares import cut, share_out
from etl.pipeline.plan import PartitionPlan

START = datetime(2022, 6, 1, tzinfo=UTC)


def plan_of(sizes: list[int]) -> list[PartitionPlan]:
    """Return one partition per hour, with these numbers of files to load."""
    plans = []
    for hour, size in enumerate(sizes):
        at = START + timedelta(hours=hour)
        folder = f"/year={at.year}/month={at.month}/day={at.day}/hour={at.hour}/accountId=a1"
        paths = tuple(BreakdownPath.parse(f"{folder}/{n}.json.gz") for n in range(size))
        plans.append(PartitionPlan(paths[0].partition, PartitionState(), (), paths))
    return plans


@given(st.lists(st.integers(1, 60), min_size=1, max_size=60), st.integers(1, 9))
def test_shares_keep_the_order_of_the_plan(sizes: list[int], places: int) -> None:
    """Each path occurs once, oldest first. No partition is in two shares."""
    plans = plan_of(sizes)
    shares = list(cut(plans, places))
    assert [p.text for plan in plans for p in plan.to_load] == [p for s in shares for p in s]
    folders = [{path.rpartition("/")[0] for path in share} for share in shares]
    assert sum(map(len, folders)) == len(plans)


def test_each_worker_gets_several_shares_but_not_many() -> None:
    """The first shares are large and the last small. No share has many more than 2,000 files."""
    sizes = [len(share) for share in cut(plan_of([12] * 168), 2)]
    assert 10 <= len(sizes) <= 32
    assert sizes[0] == max(sizes)
    assert sizes[-1] * 10 <= sum(sizes)
    assert 2000 <= max(len(share) for share in cut(plan_of([100] * 720), 2)) < 2100


def test_few_large_hours_are_a_share_each() -> None:
    """Sizes are unknown, so no hour waits for another while a worker is free."""
    assert [1] * 24 == [len(share) for share in cut(plan_of([1] * 24), 8)]


@given(st.integers(1, 500), st.integers(1, 64), st.floats(0.1, 1000))
def test_the_limits_of_all_workers_add_up_to_the_limit_of_the_run(
    concurrency: int, places: int, rate: float
) -> None:
    """The sum never exceeds the limit, and each worker gets some of it."""
    places = min(places, concurrency)
    shares = share_out(FetchSettings(concurrency=concurrency, rate=rate), places)
    assert concurrency == sum(share.concurrency for share in shares)
    assert min(share.concurrency for share in shares) >= 1
    assert abs(sum(share.rate or 0 for share in shares) - rate) < 1e-6 * rate
    assert {None} == {each.rate for each in share_out(FetchSettings(concurrency=64), places)}
