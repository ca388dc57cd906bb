"""A task in a worker process finds the files of an earlier attempt and counts them once."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from etl import __version__
from etl.config.settings import Redactor
from etl.emulator import Dataset, Emulator, Fault
from etl.pipeline.cluster.shares import Order
from etl.pipeline.cluster.worker import RunPlugin, exchange
from etl.pipeline.job import Job
from tests.conftest import Serve
from tests.e2e.test_endings import wait_until
from tests.lakes import assert_lake_holds
from tests.pipeline.test_library import settings_for

DATA = Dataset.generate(
    9, datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 6, 1, 8, tzinfo=UTC), rows_per_file=20
)
PATHS = tuple(DATA.files)
FOLDERS = sorted({path.rpartition("/")[0] for path in PATHS})


DASK_WORKER: Any = None  # the plugin does not use it


@pytest.fixture
async def worker() -> AsyncIterator[RunPlugin]:
    """Use this process as a worker process."""
    plugin = RunPlugin()
    plugin.setup(DASK_WORKER)
    yield plugin
    await plugin.teardown(DASK_WORKER)
    structlog.reset_defaults()


def order_for(
    emulator: Emulator, lake: Path, paths: tuple[str, ...] = PATHS, run_id: str = "run"
) -> Order:
    settings = settings_for(emulator, lake)
    job = Job(settings, None, datetime.now(UTC), Redactor(), run_id=run_id)
    return Order("key", __version__, job, paths, 20)


def sizes_in(lake: Path) -> dict[str, int]:
    return {str(part.relative_to(lake)): part.stat().st_size for part in lake.rglob("*.parquet")}


@pytest.mark.parametrize("of", ["this run", "another"])
async def test_files_that_are_already_in_the_lake(
    worker: RunPlugin, serve: Serve, tmp_path: Path, of: str
) -> None:
    """Files of this run count as loaded, with their parts. Files of another are already loaded."""
    emulator = serve(DATA)
    half = tuple(path for path in PATHS if path.rpartition("/")[0] in FOLDERS[:4])
    first = await worker.load(order_for(emulator, tmp_path, half, of), "w")
    again = await worker.load(order_for(emulator, tmp_path, run_id="this run"), "w")
    outcomes = again.outcomes
    assert_lake_holds(tmp_path, DATA)
    assert len(PATHS) == emulator.count("file")
    assert (None, 0) == (again.error, len(outcomes.unresolved()))
    parts = {part.path for part in outcomes.parts}
    if of == "this run":
        assert (len(PATHS), 0) == (outcomes.loaded, outcomes.already_loaded)
        assert {part.path for part in first.outcomes.parts} < parts
        assert len(FOLDERS) == len(parts) == len(outcomes.parts)
        assert sizes_in(tmp_path) == {part.path: part.bytes for part in outcomes.parts}
    else:
        assert (len(PATHS) - len(half), len(half)) == (outcomes.loaded, outcomes.already_loaded)
        assert parts.isdisjoint(part.path for part in first.outcomes.parts)
    assert sum(part.rows for part in outcomes.parts) == outcomes.rows


async def test_two_attempts_at_once(worker: RunPlugin, serve: Serve, tmp_path: Path) -> None:
    """Dask repeats a task that still runs. Both attempts report all files of the run."""
    emulator = serve(DATA, latency_s=0.02)
    tasks = [
        asyncio.ensure_future(worker.load(order_for(emulator, tmp_path), "w")) for _ in range(2)
    ]
    ended = [await task for task in asyncio.as_completed(tasks)]
    assert_lake_holds(tmp_path, DATA)
    last = ended[-1].outcomes
    assert (len(PATHS), 0, 0) == (last.loaded, last.already_loaded, len(last.unresolved()))
    assert len(last.parts) == len({part.path for part in last.parts})
    assert sum(part.sources for part in last.parts) == len(PATHS)


async def test_a_stop_request_ends_a_task(worker: RunPlugin, serve: Serve, tmp_path: Path) -> None:
    """The task stops its requests and reports the files that are left."""
    emulator = serve(DATA, faults=(Fault("file", "hang", times=None),))
    task = asyncio.ensure_future(worker.load(order_for(emulator, tmp_path), "w"))
    await asyncio.to_thread(wait_until, lambda: emulator.in_flight > 0)
    dask_worker: Any = SimpleNamespace(plugins={"run": worker})
    (progress,) = exchange("run", 15, None, dask_worker)
    assert ("key", "w", 0) == (progress.key, progress.worker, progress.outcomes.loaded)
    ended = await task
    assert (len(PATHS), None) == (len(ended.outcomes.unresolved()), ended.error)
    assert [] == exchange("run", 15, None, dask_worker)


async def test_connections_are_kept_for_the_next_task(
    worker: RunPlugin, serve: Serve, tmp_path: Path
) -> None:
    """The repr of the order that a worker gets shows no secret."""
    emulator = serve(DATA, auth="oauth2")
    keys = emulator.keys
    for number, folder in enumerate(FOLDERS):
        paths = tuple(path for path in PATHS if path.startswith(f"{folder}/"))
        order = replace(order_for(emulator, tmp_path, paths), key=str(number))
        assert not any(secret in repr(order) for secret in keys.values())
        assert (await worker.load(order, "w")).error is None
    assert (1, 1) == (emulator.count("token"), emulator.count("domain"))
    assert_lake_holds(tmp_path, DATA)


async def test_connections_that_no_task_needs_are_closed(
    worker: RunPlugin, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that was killed cannot say that its run has ended; a later task opens new ones."""
    monkeypatch.setattr("etl.pipeline.cluster.worker._MOST_IDLE_S", 0.1, raising=False)
    emulator = serve(DATA, auth="oauth2")
    for number, folder in enumerate(FOLDERS[:2], 1):
        paths = tuple(path for path in PATHS if path.startswith(f"{folder}/"))
        assert (await worker.load(order_for(emulator, tmp_path, paths), "w")).error is None
        await asyncio.sleep(0.3)
        assert (number, number) == (emulator.count("token"), emulator.count("domain"))
