"""A plan is the listed files without those in the lake."""

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from etl.lake.layout import PartitionState
from etl.pipeline.job import Shard
from etl.pipeline.plan import Plan, make_plan

HOUR = "/year=2022/month={}/day=1/hour={}/accountId=a1/{}.json.gz"
A, B, C = HOUR.format(6, 1, "a"), HOUR.format(6, 1, "b"), HOUR.format(6, 2, "c")
OLD = HOUR.format(5, 23, "old")


async def plan(
    entries: list[str],
    *,
    skip: tuple[str, ...] = (),
    shard: Shard | None = None,
    loaded: tuple[str, ...] = (),
) -> Plan:
    def read_states(directories: Sequence[str]) -> list[PartitionState]:
        return [
            PartitionState({path for path in loaded if path.startswith(f"/{directory}/")})
            for directory in directories
        ]

    return await make_plan(entries, skip, shard or Shard(), read_states)


async def test_partitions_are_oldest_first_without_loaded_files() -> None:
    """The order is by time, not by name or by the listing."""
    made = await plan([C, A, OLD, B], loaded=(A,))
    assert [((), (OLD,)), ((A,), (B,)), ((), (C,))] == [
        (tuple(p.text for p in part.already_loaded), tuple(p.text for p in part.to_load))
        for part in made.partitions
    ]
    assert made.listed == 4


async def test_text_that_is_no_path_is_invalid_with_a_reason() -> None:
    """A path must match the documented pattern and name an hour that exists."""
    bad = [A + "\n", A.replace("2022", "٢٠٢٢"), HOUR.format(13, 1, "a"), "/../x", ""]
    made = await plan([*bad, A])
    assert bad == [invalid.path for invalid in made.invalid]
    assert "names no hour that exists" == made.invalid[2].message
    assert (1, 6) == (len(made.partitions), made.listed)


async def test_skip_accepts_paths_and_patterns() -> None:
    """A path matches literally, even if it is also a pattern."""
    made = await plan([A, B, C], skip=(A, "*/hour=2/*"))
    assert [A, C] == [path.text for path in made.skipped]
    (partition,) = made.partitions
    assert [B] == [path.text for path in partition.to_load]


async def test_each_spelling_is_its_own_partition() -> None:
    """The directories are those of the source path, letter for letter."""
    made = await plan([A, A.replace("month=6", "month=06")])
    assert ["year=2022/month=06/day=1/hour=1/accountId=a1", A[1:].rpartition("/")[0]] == [
        part.partition.directory for part in made.partitions
    ]


HOURS = st.builds(HOUR.format, st.integers(0, 14), st.integers(0, 30), st.sampled_from("abc"))


@given(st.sets(HOURS | st.text(max_size=9)), st.integers(1, 7))
async def test_shards_are_disjoint_and_complete(entries: set[str], count: int) -> None:
    """Each entry, valid or not, is in exactly one share. A partition is never divided."""
    shares = [await plan(sorted(entries), shard=Shard(i, count)) for i in range(count)]
    assert len(entries) == sum(share.listed for share in shares)
    found = Counter(invalid.path for share in shares for invalid in share.invalid)
    found.update(p.text for s in shares for part in s.partitions for p in part.to_load)
    assert dict.fromkeys(entries, 1) == dict(found)
    directories = [part.partition.directory for share in shares for part in share.partitions]
    assert len(directories) == len(set(directories))


async def test_a_share_never_changes() -> None:
    """The hash is stable, so a backfill on another machine has the same shares."""
    paths = [HOUR.format(6, hour, "a") for hour in range(24)]
    shares = [await plan(paths, shard=Shard(i, 3)) for i in range(3)]
    hours = [[p.partition.hour.hour for p in share.partitions] for share in shares]
    assert [
        [1, 2, 11, 14, 15, 18],
        [3, 6, 7, 9, 10, 20, 21],
        [0, 4, 5, 8, 12, 13, 16, 17, 19, 22, 23],
    ] == hours
