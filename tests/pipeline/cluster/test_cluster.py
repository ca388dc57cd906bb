"""`--dask-scheduler`: runs on an external Dask cluster."""

import json
import signal
import subprocess
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

import pytest

import etl
from etl import __version__
from etl.emulator import Dataset, Fault
from etl.pipeline.cluster import run as client
from tests.conftest import COMMAND, Runner, Serve, environment
from tests.e2e.test_endings import assert_lake_is_sound, wait_until
from tests.lakes import assert_lake_holds
from tests.pipeline.cluster.conftest import DaskCluster, end_cluster, start, start_cluster
from tests.pipeline.test_library import settings_for

START = datetime(2022, 6, 1, tzinfo=UTC)
DAY = Dataset.generate(6, START, START.replace(hour=14), rows_per_file=20)
WINDOW = ("--from", "2022-06-01", "--to", "2022-06-03")


def test_workers_share_the_limits_of_one_run(
    run: Runner, serve: Serve, dask_cluster: DaskCluster
) -> None:
    """The server sees no more requests in flight and per second than one process would send.

    In any series of requests, the limiters allow one request more per worker than the rate.
    """
    emulator = serve(DAY, latency_s=0.05)
    where = ("--dask-scheduler", dask_cluster.address)
    ended = run(emulator, *WINDOW, *where, "--concurrency", "3", AHT_ETL_FETCH__RATE="40")
    assert (0, len(DAY.files)) == (ended.code, ended.report["files"]["loaded"]), ended.err
    assert_lake_holds(run.lake, DAY)
    assert emulator.most_at_once <= 3
    assert 3 == ended.report["http"]["concurrency"]
    assert 40 == ended.report["http"]["rate"]
    times = sorted(request.at_s for request in emulator.requests if request.endpoint == "file")
    assert len(DAY.files) == len(times)
    late = 0.1  # a delayed request arrives closer to the next one
    for first, last in combinations(range(len(times)), 2):
        assert last - first <= 40 * (times[last] - times[first] + late) + 2


def test_a_worker_that_joins_late_and_one_that_leaves(
    run: Runner, serve: Serve, tmp_path: Path
) -> None:
    """Tasks wait for workers. If a worker is killed, others get its tasks."""
    cluster = start_cluster(tmp_path)
    try:
        emulator = serve(DAY, latency_s=0.05)
        where = ("--dask-scheduler", cluster.address, "--dask-workers", "2")
        process = run.start(emulator, *WINDOW, *where, AHT_ETL_FETCH__CONCURRENCY="4")
        wait_until(lambda: emulator.count("file", 200) >= 20)
        cluster.workers.kill()  # the nannies, which end with their workers
        cluster.workers.wait()
        wait_until(lambda: b"Remove worker" in (tmp_path / "scheduler.log").read_bytes())
        cluster.workers = start(tmp_path, "worker", cluster.address, "--nthreads", "2")
        ended = run.end(process)
    finally:
        end_cluster(cluster)
    assert (0, len(DAY.files)) == (ended.code, ended.report["files"]["loaded"]), ended.err
    assert_lake_holds(run.lake, DAY)
    assert {str(part.relative_to(run.lake)) for part in run.lake.rglob("*.parquet")} == {
        part["path"] for part in ended.report["parts"]
    }


def test_a_401_in_mid_run(run: Runner, serve: Serve, dask_cluster: DaskCluster) -> None:
    """It ends the run like a local one: all workers stop, and the rest is not attempted."""
    path = list(DAY.files)[len(DAY.files) // 3]
    emulator = serve(DAY, latency_s=0.02, faults=(Fault("file", "status", path, status=401),))
    ended = run(emulator, *WINDOW, "--dask-scheduler", dask_cluster.address, "--concurrency", "2")
    files = ended.report["files"]
    assert (1, "failed", 1) == (ended.code, ended.report["status"], files["failed"])
    assert "authentication was refused in mid-run" in ended.report["error"]
    assert files["loaded"] > 0
    assert files["not_attempted"] > 0
    assert_lake_is_sound(run.lake, DAY)
    assert {str(part.relative_to(run.lake)) for part in run.lake.rglob("*.parquet")} == {
        part["path"] for part in ended.report["parts"]
    }


def test_a_lake_that_refuses(run: Runner, serve: Serve, dask_cluster: DaskCluster) -> None:
    """One line says why."""
    run.lake.write_text("no folder")
    ended = run(serve(DAY), *WINDOW, "--dask-scheduler", dask_cluster.address)
    assert 1 == ended.code
    assert "lake.uri" in ended.report["error"]


def test_a_lake_that_workers_do_not_share(
    run: Runner, serve: Serve, dask_cluster: DaskCluster
) -> None:
    """The same name is another folder there. The run reports no file that it cannot see."""
    run.lake = Path("/proc/self/cwd/lake")
    ended = run(serve(DAY), *WINDOW, "--dask-scheduler", dask_cluster.address)
    assert (1, 0) == (ended.code, ended.report["files"]["loaded"])
    assert "is another folder on the worker" in ended.report["error"]
    assert (dask_cluster.folder / "lake").exists()


def test_another_version_on_the_cluster(
    serve: Serve, dask_cluster: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run reports it before it loads anything."""
    monkeypatch.setattr(client, "__version__", "9.9")
    emulator = serve(DAY)
    engine = {"kind": "dask", "scheduler": dask_cluster.address}
    report = etl.run(settings_for(emulator, tmp_path / "lake", engine=engine))
    assert "failed" == report.status
    said = f"the scheduler of the Dask cluster has aht-etl {__version__}, this is 9.9"
    assert said in str(report.error)
    assert 0 == emulator.count("file")


def test_no_scheduler(run: Runner, serve: Serve) -> None:
    """One line has the address and the key that sets it."""
    ended = run(
        serve(DAY),
        *WINDOW,
        *("--dask-scheduler", "tcp://127.0.0.1:9"),
        DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT="1s",
    )
    assert (1, len(DAY.files)) == (ended.code, ended.report["files"]["not_attempted"])
    assert "the Dask scheduler at tcp://127.0.0.1:9: no answer" in ended.report["error"]
    assert "check engine.scheduler" in ended.report["error"]


def test_the_scheduler_is_lost(run: Runner, serve: Serve, own_cluster: DaskCluster) -> None:
    """The run fails, the report has all files known to be loaded, and the next run continues."""
    emulator = serve(DAY, latency_s=0.05)
    process = run.start(
        emulator,
        *WINDOW,
        *("--dask-scheduler", own_cluster.address, "--concurrency", "2"),
        DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT="1s",
    )
    wait_until(lambda: emulator.count("file", 200) >= 20)
    own_cluster.scheduler.send_signal(signal.SIGKILL)
    ended = run.end(process)
    assert (1, "failed") == (ended.code, ended.report["status"])
    assert "the Dask scheduler at" in ended.report["error"]
    claimed = {part["path"] for part in ended.report["parts"]}
    assert claimed
    assert claimed <= {str(part.relative_to(run.lake)) for part in run.lake.rglob("*.parquet")}
    assert 0 == run(emulator).code
    assert_lake_holds(run.lake, DAY)


def test_check_reports_the_cluster(serve: Serve, dask_cluster: DaskCluster, tmp_path: Path) -> None:
    """It has the number of workers, or says that no scheduler answers."""
    emulator = serve(DAY)
    for address, outcome, said in (
        (dask_cluster.address, "ok", "2 workers, with this version"),
        ("tcp://127.0.0.1:9", "failed", "no answer"),
    ):
        command = [COMMAND, "check", "--account", "le79344075", *WINDOW, "--json"]
        done = subprocess.run(
            [*command, "--dask-scheduler", address, "--base-url", emulator.base_url],
            env=environment(DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT="1s"),
            cwd=tmp_path,
            check=False,
            capture_output=True,
            text=True,
        )
        check = json.loads(done.stdout)["checks"][-1]
        assert ("engine", outcome) == (check["name"], check["outcome"]), done.stdout
        assert said in check["message"]
        assert int(outcome != "ok") == done.returncode
