"""The plan of a run: the listed files that the lake lacks, by partition, oldest first."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from etl.lake.layout import PartitionState
from etl.model.paths import BreakdownPath, InvalidPathError, Partition, is_skipped
from etl.pipeline.job import Shard

# Partitions whose receipts one thread reads before it hands back.
_READ_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True)
class InvalidPath:
    """A listed entry that is no path of the API and is never requested, and why."""

    path: str
    message: str


@dataclass(frozen=True, slots=True)
class PartitionPlan:
    """One partition's files: those that are loaded, and those that are not."""

    partition: Partition
    state: PartitionState
    already_loaded: tuple[BreakdownPath, ...]
    to_load: tuple[BreakdownPath, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Every listed path of this share, each in exactly one place."""

    invalid: tuple[InvalidPath, ...]
    skipped: tuple[BreakdownPath, ...]
    partitions: tuple[PartitionPlan, ...]

    @property
    def listed(self) -> int:
        """How many distinct paths were listed."""
        return len(self.invalid) + len(self.skipped) + self.already_loaded + self.to_load

    @property
    def already_loaded(self) -> int:
        """How many of them have a receipt."""
        return sum(len(partition.already_loaded) for partition in self.partitions)

    @property
    def to_load(self) -> int:
        """How many of them have none, those of damaged partitions among them."""
        return sum(len(partition.to_load) for partition in self.partitions)

    def other_accounts(self, account: str) -> tuple[str, ...]:
        """Return the accounts of listed files that are not the one asked for, if one was."""
        if not account:
            return ()
        found = {partition.partition.account for partition in self.partitions}
        return tuple(sorted(found - {account}))


async def make_plan(
    entries: Iterable[str],
    skip: Sequence[str],
    shard: Shard,
    read_states: Callable[[Sequence[str]], Sequence[PartitionState]],
) -> Plan:
    """Parse and sort the listed entries and subtract what the lake holds.

    `entries` are distinct; `skip` holds paths or glob patterns; `read_states` reads partitions'
    receipts by their directories, in threads. Nothing is fetched and nothing written.
    """
    invalid: list[InvalidPath] = []
    skipped: list[BreakdownPath] = []
    by_directory: dict[str, list[BreakdownPath]] = {}
    for entry in entries:
        try:
            path = BreakdownPath.parse(entry)
        except InvalidPathError as error:
            if shard.holds(entry):
                invalid.append(InvalidPath(entry, str(error)))
            continue
        if not shard.holds(path.partition.directory):
            continue
        if is_skipped(skip, entry):
            skipped.append(path)
        else:
            by_directory.setdefault(path.partition.directory, []).append(path)

    def split(partitions: Sequence[Partition]) -> list[PartitionPlan]:
        plans = []
        states = read_states([partition.directory for partition in partitions])
        for partition, state in zip(partitions, states, strict=True):
            files = by_directory[partition.directory]
            plans.append(
                PartitionPlan(
                    partition,
                    state,
                    tuple(path for path in files if path.text in state.loaded),
                    tuple(path for path in files if path.text not in state.loaded),
                )
            )
        return plans

    oldest_first = sorted(files[0].partition for files in by_directory.values())
    groups = await asyncio.gather(
        *(
            asyncio.to_thread(split, oldest_first[start : start + _READ_AT_ONCE])
            for start in range(0, len(oldest_first), _READ_AT_ONCE)
        )
    )
    return Plan(tuple(invalid), tuple(skipped), tuple(plan for group in groups for plan in group))
