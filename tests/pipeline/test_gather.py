"""When an hour's part is committed, and that no file keeps an hour waiting for ever."""

import asyncio
import gzip
import io
from datetime import UTC, datetime
from pathlib import Path

import pytest

from etl.decode import Decoded, DecodeLimits, decode
from etl.lake.commit import PartitionState
from etl.model.paths import BreakdownPath
from etl.pipeline.gather import Sink, SourceFile
from etl.pipeline.plan import PartitionPlan, Plan
from etl.pipeline.tally import Tally
from etl.storage.local import LocalStore
from tests.decode.test_file import ROWS, lines

LIMITS = DecodeLimits(max_file_size=2**30, max_bad_row_ratio=0.5, spill_bytes=2**26)
GOOD = gzip.compress(lines(ROWS).encode())
FOLDER = "/year=2022/month=6/day=1/hour=1/accountId=a1"


class Bench:
    """A sink in front of a real lake that expects three files of an hour."""

    def __init__(self, folder: Path) -> None:
        store = LocalStore(folder)
        store.prepare()
        self.folder = folder
        self.tally = Tally("run", "a1", None, datetime(2022, 6, 1, tzinfo=UTC))
        self.sink = Sink(
            store, self.tally, compression="zstd", target_part_bytes=2**27, pending_bytes=2**27
        )
        paths = tuple(BreakdownPath.parse(f"{FOLDER}/{number}.json.gz") for number in range(3))
        self.plan = PartitionPlan(paths[0].partition, PartitionState(), (), paths)
        self.tally.planned(Plan((), (), (self.plan,)))
        self.sink.expect(self.plan)

    def decoded(self, number: int) -> Decoded:
        path = self.plan.to_load[number].text
        return decode(io.BytesIO(GOOD), path, LIMITS, scratch=self.folder)

    async def add(self, number: int) -> None:
        path = self.plan.to_load[number].text
        await self.sink.add(self.plan, SourceFile(path, self.decoded(number), 1))

    def parts(self) -> list[str]:
        return sorted(file.name for file in self.folder.rglob("part-*.parquet"))


async def test_an_hour_is_committed_when_its_last_file_is_there(tmp_path: Path) -> None:
    """Until then nothing of it is in the lake."""
    bench = Bench(tmp_path)
    await bench.add(0)
    await bench.add(1)
    assert [] == bench.parts()
    await bench.add(2)
    assert ["part-00000.parquet"] == bench.parts()


async def test_an_hour_does_not_wait_for_a_file_that_failed(tmp_path: Path) -> None:
    """The others are committed."""
    bench = Bench(tmp_path)
    await bench.add(0)
    await bench.sink.failed(bench.plan)
    await bench.add(2)
    assert ["part-00000.parquet"] == bench.parts()
    assert 2 == bench.tally.loaded


async def test_what_an_hour_has_is_committed_when_a_file_is_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a minute; what comes later makes a part of its own."""
    monkeypatch.setattr("etl.pipeline.gather._PATIENCE_S", 0.05)
    bench = Bench(tmp_path)
    async with asyncio.timeout(60), bench.sink.patient():
        await bench.add(0)
        await bench.add(1)
        while bench.tally.loaded < 2:  # noqa: ASYNC110 - the sink tells nobody
            await asyncio.sleep(0.01)
        assert ["part-00000.parquet"] == bench.parts()
        await bench.add(2)
    assert ["part-00000.parquet", "part-00001.parquet"] == bench.parts()
    assert 3 == bench.tally.loaded
