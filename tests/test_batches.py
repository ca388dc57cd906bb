"""Which downloaded files are decoded together, and that none waits for ever."""

import asyncio
import gzip
import io
from datetime import UTC, datetime
from pathlib import Path

import pytest

from etl.api.body import Body
from etl.batches import Batches
from etl.decode import DecodeLimits
from etl.errors import FailureKind, FileError, RunError
from etl.lake.commit import PartitionState
from etl.lake.local import LocalStore
from etl.paths import BreakdownPath
from etl.plan import PartitionPlan, Plan
from etl.report import Tally
from etl.sink import Sink
from etl.stop import Stop
from tests.decode.test_file import ROWS, lines

LIMITS = DecodeLimits(max_file_size=2**30, max_bad_row_ratio=0.5, spill_bytes=2**26)
GOOD = gzip.compress(lines(ROWS).encode())


class Bench:
    """Batches in front of a real lake, two hours of three files each expected."""

    def __init__(self, folder: Path, *, most_waiting: int = 100, held_bytes: int = 2**26) -> None:
        store = LocalStore(folder)
        store.prepare()
        now = datetime(2022, 6, 1, tzinfo=UTC)
        self.tally = Tally("run", "a1", None, now)
        self.stop = Stop()
        self.sink = Sink(
            store, self.tally, compression="zstd", target_part_bytes=2**27, pending_bytes=2**27
        )
        self.batches = Batches(
            self.sink,
            None,
            LIMITS,
            self.tally.bytes,
            self.stop,
            places=2,
            committing=1,
            most_waiting=most_waiting,
            held_bytes=held_bytes,
        )
        self.plans = [self._plan(hour) for hour in (1, 2)]
        self.tally.planned(Plan((), (), tuple(self.plans)))
        for plan in self.plans:
            self.sink.expect(plan)
            self.batches.expect(plan)

    def _plan(self, hour: int) -> PartitionPlan:
        folder = f"/year=2022/month=6/day=1/hour={hour}/accountId=a1"
        paths = tuple(BreakdownPath.parse(f"{folder}/{n}.json.gz") for n in range(3))
        return PartitionPlan(paths[0].partition, PartitionState(), (), paths)

    def arrives(self, hour: int, number: int, body: bytes = GOOD) -> "asyncio.Task[None]":
        """Let a file arrive; the task ends when it is loaded."""
        plan = self.plans[hour]
        arrived = Body(len(body), len(body), io.BytesIO(body), declared_gzip=False)
        return asyncio.ensure_future(
            self.batches.load(plan, plan.to_load[number], arrived, attempt=1)
        )

    async def waits(self, *files: "asyncio.Task[None]") -> bool:
        """Tell whether none of these is decoded, although all could be."""
        for _ in range(20):
            await asyncio.sleep(0)
        return self.tally.bytes.decompressed == 0 and not any(file.done() for file in files)


async def test_an_hour_is_decoded_when_its_last_file_is_there(tmp_path: Path) -> None:
    """One hour's files make one part; those of another go on waiting."""
    bench = Bench(tmp_path)
    async with bench.batches:
        first = [bench.arrives(0, 0), bench.arrives(0, 1)]
        other = bench.arrives(1, 0)
        assert await bench.waits(*first, other)
        await asyncio.gather(*first, bench.arrives(0, 2))
        assert (1, 3) == (len(bench.tally.parts), bench.tally.loaded)
        assert not other.done()
        other.cancel()
    bench.sink.discard()


async def test_an_hour_whose_last_file_fails_does_not_wait_for_it(tmp_path: Path) -> None:
    """What will not come is not waited for, be it never downloaded or damaged for good."""
    bench = Bench(tmp_path)
    async with bench.batches:
        files = [bench.arrives(0, 0), bench.arrives(0, 1, GOOD[:-5])]
        assert await bench.waits(*files)
        bench.tally.failed([bench.plans[0].to_load[2].text], FailureKind.NOT_FOUND, "404")
        bench.batches.will_not_come(bench.plans[0])
        await bench.sink.failed(bench.plans[0])
        await files[0]
        with pytest.raises(FileError) as caught:
            await files[1]
        assert caught.value.kind is FailureKind.TRUNCATED
        bench.tally.failed([bench.plans[0].to_load[1].text], FailureKind.TRUNCATED, "cut")
        bench.batches.will_not_come(bench.plans[0])
        await bench.sink.failed(bench.plans[0])
        assert (1, 1) == (len(bench.tally.parts), bench.tally.loaded)
    bench.sink.discard()


@pytest.mark.parametrize("limit", [{"most_waiting": 2}, {"held_bytes": 2 * len(GOOD)}])
async def test_when_too_many_wait_some_are_decoded(tmp_path: Path, limit: dict[str, int]) -> None:
    """Neither workers nor memory are used up by files that wait for others."""
    bench = Bench(tmp_path, **limit)
    async with bench.batches:
        await asyncio.gather(bench.arrives(0, 0), bench.arrives(0, 1))
        await bench.batches.room()
        assert 0 < bench.tally.bytes.decompressed
        assert [] == bench.tally.parts
        await bench.sink.close()
        assert 2 == bench.tally.loaded


async def test_a_run_that_is_told_to_end_decodes_what_waits(tmp_path: Path) -> None:
    """What was downloaded by then is committed."""
    bench = Bench(tmp_path)
    async with bench.batches:
        files = [bench.arrives(0, 0), bench.arrives(1, 0)]
        assert await bench.waits(*files)
        bench.stop.request(error=RunError("over"))
        await asyncio.gather(*files)
        await bench.sink.close()
        assert (2, 2) == (len(bench.tally.parts), bench.tally.loaded)
