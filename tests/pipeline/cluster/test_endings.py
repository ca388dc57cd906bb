"""A run on a Dask cluster ends with the same lake and report as a local run, whatever happens."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from etl import run_async
from etl.emulator import Dataset, Fault
from tests.conftest import COMMAND, Runner, Serve, environment, keys_of
from tests.e2e.test_endings import assert_lake_is_sound, wait_until
from tests.lakes import assert_lake_holds, through_pyarrow
from tests.pipeline.cluster.conftest import (
    DaskCluster,
    end_cluster,
    start_cluster,
    worker_processes,
)
from tests.pipeline.cluster.test_cluster import DAY, START, WINDOW
from tests.pipeline.test_library import settings_for


def on(cluster: DaskCluster) -> tuple[str, ...]:
    return *WINDOW, "--dask-scheduler", cluster.address


def parts_in(lake: Path) -> list[str]:
    return sorted(str(part.relative_to(lake)) for part in lake.rglob("*.parquet"))


def test_the_same_as_a_local_run(run: Runner, serve: Serve, dask_cluster: DaskCluster) -> None:
    """Rows and totals are the same. Each log line is an event of this run.

    If all files are already in the lake, the run starts no cluster.
    """
    emulator = serve(DAY, auth="oauth2")
    local = run(emulator)
    rows = through_pyarrow(run.lake)
    run.lake = run.folder / "lake-2"
    ended = run(emulator, *on(dask_cluster), "--log-level", "debug")
    assert 0 == ended.code, ended.err
    assert rows == through_pyarrow(run.lake)
    assert_lake_holds(run.lake, DAY)
    assert list(local.report) == list(ended.report)
    for key in ("files", "rows", "newest_complete_hour", "window"):
        assert local.report[key] == ended.report[key]
    for key in ("downloaded", "decompressed"):
        assert local.report["bytes"][key] == ended.report["bytes"][key]
    assert parts_in(run.lake) == sorted(part["path"] for part in ended.report["parts"])
    # One token for each process, and one request for each file.
    assert emulator.count("file") == 2 * len(DAY.files)
    assert emulator.count("token") <= 2 + 2
    events = [json.loads(line) for line in ended.err.splitlines()]
    decoded = [event for event in events if event["event"] == "file.decoded"]
    assert len(DAY.files) == len(decoded)
    assert 2 == len({event["worker"] for event in decoded})
    assert {ended.report["run_id"]} == {event["run_id"] for event in events}
    secret = emulator.keys["client_secret"]
    assert secret not in ended.err + ended.out + json.dumps(ended.report)
    assert "Bearer" not in ended.err

    again = run(emulator, *on(dask_cluster))
    assert (0, 0) == (again.code, again.report["files"]["loaded"])
    assert len(DAY.files) == again.report["files"]["already_loaded"]


def test_from_the_archive(run: Runner, serve: Serve, dask_cluster: DaskCluster) -> None:
    """The workers also rebuild a lake without the vendor, row for row."""
    emulator = serve(DAY)
    raw = {"AHT_ETL_RAW__URI": str(run.folder / "raw")}
    assert 0 == run(emulator, *WINDOW, **raw).code
    rows = through_pyarrow(run.lake)
    asked = emulator.count("file")
    run.lake = run.folder / "lake-2"
    ended = run(emulator, *on(dask_cluster), "--from-archive", AHT_ETL_FETCH__RATE="5", **raw)
    assert (0, len(DAY.files)) == (ended.code, ended.report["files"]["loaded"]), ended.err
    assert rows == through_pyarrow(run.lake)
    assert (asked, 0) == (emulator.count("file"), ended.report["http"]["requests"])


def test_a_worker_is_killed(run: Runner, serve: Serve, own_cluster: DaskCluster) -> None:
    """Its committed files count once. Another worker loads the rest."""
    emulator = serve(DAY, latency_s=0.05)
    process = run.start(emulator, *on(own_cluster), "--concurrency", "4")
    # The worker has committed some partitions and is in the middle of its task.
    wait_until(lambda: len(parts_in(run.lake)) >= 4)
    os.kill(worker_processes(own_cluster)[0], signal.SIGKILL)
    ended = run.end(process)
    assert (0, len(DAY.files)) == (ended.code, ended.report["files"]["loaded"]), ended.err
    assert 0 == ended.report["files"]["already_loaded"]
    assert parts_in(run.lake) == sorted(part["path"] for part in ended.report["parts"])
    assert_lake_holds(run.lake, DAY)
    assert [] == [line for line in ended.err.splitlines() if not line.startswith("{")]


@pytest.fixture
def one_attempt(tmp_path: Path) -> Iterator[DaskCluster]:
    """Start a cluster that gives up a task when its worker dies."""
    cluster = start_cluster(tmp_path, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0")
    yield cluster
    end_cluster(cluster)


def test_a_task_whose_workers_all_die(run: Runner, serve: Serve, one_attempt: DaskCluster) -> None:
    """Dask gives it up. The other tasks continue, then the run fails. The report is exact."""
    # Both tasks hang on their first file, which leaves time to kill one of their workers.
    emulator = serve(DAY, faults=(Fault("file", "hang", times=2),))
    process = run.start(
        emulator,
        *(*on(one_attempt), "--concurrency", "2"),
        AHT_ETL_FETCH__TIMEOUT="5s",
    )
    wait_until(lambda: emulator.in_flight == 2)
    os.kill(worker_processes(one_attempt)[0], signal.SIGKILL)
    ended = run.end(process)
    files = ended.report["files"]
    assert (1, "failed", 0) == (ended.code, ended.report["status"], files["failed"]), ended.err
    assert "1 workers died over the" in ended.report["error"]
    assert files["loaded"] > files["not_attempted"] > 0
    assert parts_in(run.lake) == sorted(part["path"] for part in ended.report["parts"])
    assert (0, files["not_attempted"]) == (
        (again := run(emulator)).code,
        again.report["files"]["loaded"],
    )
    assert_lake_holds(run.lake, DAY)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal(
    run: Runner, serve: Serve, dask_cluster: DaskCluster, number: int, code: int
) -> None:
    """The workers commit their downloaded files, and the report is exact."""
    emulator = serve(DAY, latency_s=0.05)
    process = run.start(emulator, *on(dask_cluster), "--concurrency", "2")
    wait_until(lambda: emulator.count("file", 200) >= 20)
    process.send_signal(number)
    ended = run.end(process)
    files = ended.report["files"]
    assert (code, "interrupted", None) == (
        ended.code,
        ended.report["status"],
        ended.report["error"],
    ), ended.err
    assert files["loaded"] >= 18
    assert files["not_attempted"] > 0
    assert parts_in(run.lake) == sorted(part["path"] for part in ended.report["parts"])
    assert_lake_is_sound(run.lake, DAY)


def test_a_signal_while_workers_hang(run: Runner, serve: Serve, own_cluster: DaskCluster) -> None:
    """After the grace, the run does not wait for them. The report has the files in the lake."""
    emulator = serve(DAY, latency_s=0.05)
    process = run.start(
        emulator, *on(own_cluster), "--concurrency", "2", AHT_ETL_SHUTDOWN__GRACE="1s"
    )
    wait_until(lambda: len(parts_in(run.lake)) >= 2)
    workers = worker_processes(own_cluster)
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    there = parts_in(run.lake)
    process.send_signal(signal.SIGTERM)
    ended = run.end(process)
    assert (143, "interrupted") == (ended.code, ended.report["status"]), ended.err
    assert "shutdown.grace_over" in ended.err
    assert there == sorted(part["path"] for part in ended.report["parts"])
    assert ended.report["files"]["not_attempted"] > 0
    for worker in workers:
        os.kill(worker, signal.SIGCONT)


def test_the_client_is_killed(run: Runner, serve: Serve, dask_cluster: DaskCluster) -> None:
    """Its workers do no damage, and the next run continues."""
    emulator = serve(DAY, latency_s=0.05)
    process = run.start(emulator, *on(dask_cluster), "--concurrency", "2")
    wait_until(lambda: emulator.count("file", 200) >= 10)
    process.kill()
    process.communicate()
    assert 0 == run(emulator, *on(dask_cluster)).code
    assert_lake_holds(run.lake, DAY)


async def test_from_a_notebook(serve: Serve, dask_cluster: DaskCluster, tmp_path: Path) -> None:
    """An event loop is already running. Events use the host's log configuration."""
    data = Dataset.generate(3, START, START.replace(hour=6), rows_per_file=20)
    emulator = serve(data)
    engine = {"kind": "dask", "scheduler": dask_cluster.address}
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
        report = await run_async(settings_for(emulator, tmp_path / "lake", engine=engine))
    assert ("ok", len(data.files)) == (report.status, report.files.loaded), report.error
    assert_lake_holds(tmp_path / "lake", data)
    committed = [event for event in logs if event["event"] == "part.committed"]
    assert len(report.parts) == len(committed)
    assert {report.run_id} == {event["run_id"] for event in committed}


NOT_INSTALLED = "import sys; sys.modules['distributed'] = None; from etl.cli import main; main()"


def test_without_the_extra(serve: Serve, tmp_path: Path) -> None:
    """It is wrong usage. The message says what to install, and nothing is sent."""
    emulator = serve(DAY)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            NOT_INSTALLED,
            "run",
            "--account",
            "a1",
            "--dask-scheduler",
            "tcp://127.0.0.1:9",
        ],
        env=environment(**keys_of(emulator), AHT_ETL_API__BASE_URL=emulator.base_url),
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert 2 == done.returncode
    assert "pip install 'aht-etl[dask]'" in done.stderr
    assert 0 == len(emulator.requests)


def test_a_local_run_does_not_import_dask() -> None:
    """It imports neither Dask nor this program's modules for it."""
    code = "import sys, etl.pipeline.library, etl.cli.run; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    names = done.stdout.split()
    assert [] == [n for n in names if n.startswith(("dask", "distributed", "etl.pipeline.cluster"))]


def test_without_a_scheduler(serve: Serve, tmp_path: Path) -> None:
    """It is wrong usage. One line says how to start a scheduler, and nothing is sent."""
    emulator = serve(DAY)
    done = subprocess.run(
        [COMMAND, "run", "--account", "a1", "--engine", "dask"],
        env=environment(**keys_of(emulator), AHT_ETL_API__BASE_URL=emulator.base_url),
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert 2 == done.returncode
    assert "engine.scheduler: is missing" in done.stderr
    assert "dask scheduler" in done.stderr
    assert 0 == len(emulator.requests)


@pytest.mark.parametrize("flag", [("--dask-workers", "3"), ("--dask-scheduler", "tls://dask:8786")])
def test_a_flag_of_dask_selects_the_engine(flag: tuple[str, str], tmp_path: Path) -> None:
    """The flag is never ignored silently. Only `--engine local` wins over it."""
    for more, code in (((), 2), (("--engine", "local"), 1)):
        done = subprocess.run(
            [*(sys.executable, "-c", NOT_INSTALLED), "run", "--account", "a1", *flag, *more],
            env=environment(AHT_ETL_API__BASE_URL="http://127.0.0.1:9"),
            cwd=tmp_path,
            check=False,
            capture_output=True,
        )
        assert code == done.returncode, done.stderr
