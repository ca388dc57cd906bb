"""A task in a worker process finds the files of an earlier attempt and counts them once."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog

from etl import __version__
from etl.emulator import Dataset, Emulator, Fault
from etl.pipeline.cluster.shares import Order, StopRequest
from etl.pipeline.cluster.worker import Worker
from tests.conftest import Serve
from tests.e2e.test_endings import wait_until
from tests.lakes import assert_lake_holds
from tests.pipeline.test_library import settings_for

DATA = Dataset.generate(
    9, datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 6, 1, 8, tzinfo=UTC), rows_per_file=20
)
PATHS = tuple(DATA.files)
FOLDERS = sorted({path.rpartition("/")[0] for path in PATHS})


@pytest.fixture
def worker() -> Iterator[Worker]:
    """Use this process as a worker process."""
    worker = Worker()
    yield worker
    loop = worker._loop
    assert loop is not None
    for run_id in ("run", "this run", "another"):
        asyncio.run_coroutine_threadsafe(worker._leave(run_id), loop).result()
    asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    wait_until(lambda: not loop.is_running())
    loop.close()
    structlog.reset_defaults()


def order_for(
    emulator: Emulator, lake: Path, paths: tuple[str, ...] = PATHS, run_id: str = "run"
) -> Order:
    settings = settings_for(emulator, lake)
    return Order("key", __version__, run_id, settings, paths, 20)


@pytest.mark.parametrize("of", ["this run", "another"])
def test_files_that_are_already_in_the_lake(
    worker: Worker, serve: Serve, tmp_path: Path, of: str
) -> None:
    """Files of this run count as loaded, with their parts. Files of another are already loaded."""
    emulator = serve(DATA)
    half = tuple(path for path in PATHS if path.rpartition("/")[0] in FOLDERS[:4])
    first = worker.do(order_for(emulator, tmp_path, half, of), "w")
    again = worker.do(order_for(emulator, tmp_path, run_id="this run"), "w")
    outcomes = again.outcomes
    assert_lake_holds(tmp_path, DATA)
    assert len(PATHS) == emulator.count("file")
    assert (None, 0) == (again.error, len(outcomes.unresolved()))
    parts = {part.path for part in outcomes.parts}
    if of == "this run":
        assert (len(PATHS), 0) == (outcomes.loaded, outcomes.already_loaded)
        assert {part.path for part in first.outcomes.parts} < parts
        assert len(FOLDERS) == len(parts) == len(outcomes.parts)
        there = {str(file.relative_to(tmp_path)): file for file in tmp_path.rglob("*.parquet")}
        assert {name: file.stat().st_size for name, file in there.items()} == {
            part.path: part.bytes for part in outcomes.parts
        }
    else:
        assert (len(PATHS) - len(half), len(half)) == (outcomes.loaded, outcomes.already_loaded)
        assert parts.isdisjoint(part.path for part in first.outcomes.parts)
    assert sum(part.rows for part in outcomes.parts) == outcomes.rows


def test_two_attempts_at_once(worker: Worker, serve: Serve, tmp_path: Path) -> None:
    """Dask repeats a task that still runs. Both attempts report all files of the run."""
    emulator = serve(DATA, latency_s=0.02)
    outcomes = []

    def attempt() -> None:
        outcomes.append(worker.do(order_for(emulator, tmp_path), "w"))

    threads = [threading.Thread(target=attempt) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_lake_holds(tmp_path, DATA)
    last = outcomes[-1].outcomes
    assert (len(PATHS), 0, 0) == (last.loaded, last.already_loaded, len(last.unresolved()))
    assert len(last.parts) == len({part.path for part in last.parts})
    assert sum(part.sources for part in last.parts) == len(PATHS)


def test_a_stop_request_ends_a_task(worker: Worker, serve: Serve, tmp_path: Path) -> None:
    """The task stops its requests and reports the files that are left."""
    emulator = serve(DATA, faults=(Fault("file", "hang", times=None),))
    outcomes = []
    order = order_for(emulator, tmp_path)
    thread = threading.Thread(target=lambda: outcomes.append(worker.do(order, "w")))
    thread.start()
    wait_until(lambda: emulator.in_flight > 0)
    assert [] == worker.progress("another", StopRequest(15, ""))
    (progress,) = worker.progress("run", StopRequest(15, ""))
    thread.join()
    assert ("key", "w", 0) == (progress.key, progress.worker, progress.done.loaded)
    assert (len(PATHS), None) == (len(outcomes[0].outcomes.unresolved()), outcomes[0].error)


def test_connections_are_kept_for_the_next_task(
    worker: Worker, serve: Serve, tmp_path: Path
) -> None:
    """The repr of the order that a worker gets shows no secret."""
    emulator = serve(DATA, auth="oauth2")
    keys = emulator.keys
    settings = settings_for(emulator, tmp_path)
    for number, folder in enumerate(FOLDERS):
        paths = tuple(path for path in PATHS if path.startswith(f"{folder}/"))
        order = Order(str(number), __version__, "run", settings, paths, 20)
        assert not any(secret in repr(order) for secret in keys.values())
        assert worker.do(order, "w").error is None
    assert (1, 1) == (emulator.count("token"), emulator.count("domain"))
    assert_lake_holds(tmp_path, DATA)
