"""When the part of an hour is committed, and that no file delays an hour without end."""

import asyncio
import gzip
import io
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from etl.decode.file import Decoded, DecodeLimits, decode
from etl.lake.layout import PartitionState
from etl.lake.part import Encoder
from etl.model.paths import BreakdownPath
from etl.pipeline.gather import Sink
from etl.pipeline.plan import PartitionPlan, Plan
from etl.pipeline.state import Outcomes
from etl.pipeline.stop import Stop
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
        self.outcomes = Outcomes()
        self.sink = Sink(
            store,
            self.outcomes,
            "run",
            compression="zstd",
            target_part_bytes=2**27,
            pending_bytes=2**27,
        )
        paths = tuple(BreakdownPath.parse(f"{FOLDER}/{number}.json.gz") for number in range(3))
        self.plan = PartitionPlan(paths[0].partition, PartitionState(), (), paths)
        self.outcomes.expect(Plan((), (), (self.plan,)))

    def decoded(self, number: int) -> Decoded:
        path = self.plan.to_load[number].text
        return decode(io.BytesIO(GOOD), path, LIMITS, scratch=self.folder)

    async def add(self, number: int) -> None:
        await self.sink.add(self.plan, self.decoded(number), 1)

    async def commit_all(self) -> None:
        async with self.sink.opened(Stop()):
            pass

    def parts(self) -> list[str]:
        return sorted(file.name for file in self.folder.rglob("part-*.parquet"))


async def test_an_hour_is_committed_after_its_last_file(tmp_path: Path) -> None:
    """Before that, the lake has no part of this hour."""
    bench = Bench(tmp_path)
    await bench.add(0)
    await bench.add(1)
    assert [] == bench.parts()
    await bench.add(2)
    assert ["part-00000.parquet"] == bench.parts()


async def test_an_hour_does_not_wait_for_a_file_that_failed(tmp_path: Path) -> None:
    """Its other files are committed."""
    bench = Bench(tmp_path)
    await bench.add(0)
    await bench.sink.failed(bench.plan)
    await bench.add(2)
    assert ["part-00000.parquet"] == bench.parts()
    assert 2 == bench.outcomes.loaded


async def test_an_hour_is_committed_without_a_late_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit comes after a minute. A later file makes another part."""
    monkeypatch.setattr("etl.pipeline.gather._PATIENCE_S", 0.05)
    bench = Bench(tmp_path)
    async with asyncio.timeout(60), bench.sink.opened(Stop()):
        await bench.add(0)
        await bench.add(1)
        while bench.outcomes.loaded < 2:  # noqa: ASYNC110 - the sink has no event to wait for
            await asyncio.sleep(0.01)
        assert ["part-00000.parquet"] == bench.parts()
        await bench.add(2)
    assert ["part-00000.parquet", "part-00001.parquet"] == bench.parts()
    assert 3 == bench.outcomes.loaded


async def test_a_part_that_may_lack_rows_is_never_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This also holds when a run is out of memory and commits its last parts."""
    encode, calls = Encoder.write, []

    def write(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise pa.ArrowMemoryError("malloc failed")
        encode(*arguments)

    monkeypatch.setattr(Encoder, "write", write)
    bench = Bench(tmp_path)
    await bench.add(0)
    bench.sink.pending_bytes = 0
    with pytest.raises(MemoryError):
        await bench.add(1)
    await bench.commit_all()
    assert ([], 3) == (bench.parts(), len(bench.outcomes.unresolved()))


async def test_a_commit_in_progress_is_not_started_again_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run may stop waiting for the commit before the store answers."""
    monkeypatch.setattr("etl.pipeline.gather._LAST_COMMITS_S", 0.01)
    bench = Bench(tmp_path)
    begun, answer, create = threading.Event(), threading.Event(), LocalStore.create

    def slow(*arguments: Any) -> None:
        begun.set()
        answer.wait(60)
        create(*arguments)

    monkeypatch.setattr(LocalStore, "create", slow)
    await bench.add(0)
    await bench.add(1)
    waiting = asyncio.ensure_future(bench.add(2))
    await asyncio.to_thread(begun.wait, 60)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await bench.commit_all()
    answer.set()
    while bench.outcomes.loaded < 3:  # noqa: ASYNC110 - the sink has no event to wait for
        await asyncio.sleep(0.01)
    assert ["part-00000.parquet"] == bench.parts()
