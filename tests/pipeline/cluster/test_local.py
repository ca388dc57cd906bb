"""`--engine dask` on this machine: the same lake and the same report, whatever happens."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import structlog
from aiohttp import ClientSession
from structlog.testing import capture_logs

from etl import run_async
from etl.config.sections import EngineSettings
from etl.emulator import Dataset, Fault
from etl.pipeline.cluster.connection import connected
from tests.conftest import Runner, Serve, environment, keys_of
from tests.e2e.test_endings import assert_lake_is_sound, wait_until
from tests.lakes import assert_lake_holds, through_pyarrow
from tests.pipeline.cluster.test_cluster import DAY, START, WINDOW
from tests.pipeline.test_library import settings_for

ENGINE = (*WINDOW, "--engine", "dask", "--dask-workers", "2")


def workers_of(client: int) -> list[int]:
    """Return the processes of Dask's workers that a client has started."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int(folder.joinpath("stat").read_text().rpartition(")")[2].split()[1])
                command = folder.joinpath("cmdline").read_bytes()
            except (OSError, IndexError):
                continue
            if parent == client and b"spawn_main" in command:
                found.append(int(folder.name))
    return found


def is_gone(process: int) -> bool:
    try:
        return ") Z" in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return True


def parts_in(lake: Path) -> list[str]:
    return sorted(str(part.relative_to(lake)) for part in lake.rglob("*.parquet"))


def test_the_same_as_a_local_run(run: Runner, serve: Serve) -> None:
    """Row for row, and the report's sums; each line of the log is an event of this run.

    What is in the lake already starts no cluster.
    """
    emulator = serve(DAY, auth="oauth2")
    local = run(emulator)
    rows = through_pyarrow(run.lake)
    run.lake = run.folder / "lake-2"
    ended = run(emulator, *ENGINE, "--log-level", "debug")
    assert 0 == ended.code, ended.err
    assert rows == through_pyarrow(run.lake)
    assert_lake_holds(run.lake, DAY)
    assert list(local.report) == list(ended.report)
    for key in ("files", "rows", "newest_complete_hour", "window"):
        assert local.report[key] == ended.report[key]
    for key in ("downloaded", "decompressed"):
        assert local.report["bytes"][key] == ended.report["bytes"][key]
    assert parts_in(run.lake) == sorted(part["path"] for part in ended.report["parts"])
    # A token for each process, and one file request for each file.
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

    again = run(emulator, *ENGINE)
    assert (0, 0) == (again.code, again.report["files"]["loaded"])
    assert len(DAY.files) == again.report["files"]["already_loaded"]


def test_from_the_archive(run: Runner, serve: Serve) -> None:
    """A lake is rebuilt without the vendor, row for row, by the workers too."""
    emulator = serve(DAY)
    raw = {"AHT_ETL_RAW__URI": str(run.folder / "raw")}
    assert 0 == run(emulator, *WINDOW, **raw).code
    rows = through_pyarrow(run.lake)
    asked = emulator.count("file")
    run.lake = run.folder / "lake-2"
    ended = run(emulator, *ENGINE, "--from-archive", AHT_ETL_FETCH__RATE="5", **raw)
    assert (0, len(DAY.files)) == (ended.code, ended.report["files"]["loaded"]), ended.err
    assert rows == through_pyarrow(run.lake)
    assert (asked, 0) == (emulator.count("file"), ended.report["http"]["requests"])


def test_a_worker_is_killed(run: Runner, serve: Serve) -> None:
    """What it had committed counts once, what it had not is loaded by another."""
    emulator = serve(DAY, latency_s=0.05)
    process = run.start(emulator, *ENGINE, "--concurrency", "4")
    # Some of its partitions are committed and it is in the middle of its task.
    wait_until(lambda: len(parts_in(run.lake)) >= 4)
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    ended = run.end(process)
    assert (0, len(DAY.files)) == (ended.code, ended.report["files"]["loaded"]), ended.err
    assert 0 == ended.report["files"]["already_loaded"]
    assert parts_in(run.lake) == sorted(part["path"] for part in ended.report["parts"])
    assert_lake_holds(run.lake, DAY)
    assert [] == [line for line in ended.err.splitlines() if not line.startswith("{")]


def test_a_task_whose_workers_all_die(run: Runner, serve: Serve) -> None:
    """It is given up: the others go on, then the run fails, and the report is exact."""
    # Both tasks hang over their first file, for as long as it takes to kill one of their workers.
    emulator = serve(DAY, faults=(Fault("file", "hang", times=2),))
    process = run.start(
        emulator,
        *(*ENGINE, "--concurrency", "2"),
        AHT_ETL_FETCH__TIMEOUT="5s",
        DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0",
    )
    wait_until(lambda: emulator.in_flight == 2)
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
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


@pytest.mark.parametrize("after_s", [0.8, 2.0])
def test_a_signal_while_workers_start(run: Runner, serve: Serve, after_s: float) -> None:
    """It ends the run, whatever is starting, and leaves no process."""
    emulator = serve(DAY, latency_s=0.05)
    process = run.start(emulator, *ENGINE)
    wait_until(lambda: emulator.count("listing") > 0)
    time.sleep(after_s)  # into the middle of whatever comes next
    workers = workers_of(process.pid)
    process.send_signal(signal.SIGTERM)
    ended = run.end(process)
    assert (143, "interrupted") == (ended.code, ended.report["status"]), ended.err
    assert [] == [line for line in ended.err.splitlines() if not line.startswith("{")]
    wait_until(lambda: all(is_gone(worker) for worker in workers))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal(run: Runner, serve: Serve, number: int, code: int) -> None:
    """What was downloaded is committed, the report is exact, and no process is left.

    The terminal's Ctrl-C goes to the workers as well.
    """
    emulator = serve(DAY, latency_s=0.05)
    process = run.start(emulator, *ENGINE, "--concurrency", "2")
    wait_until(lambda: emulator.count("file", 200) >= 20)
    workers = workers_of(process.pid)
    for each in [process.pid, *(workers if number == signal.SIGINT else [])]:
        os.kill(each, number)
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
    assert 2 == len(workers)
    wait_until(lambda: all(is_gone(worker) for worker in workers))


def test_a_signal_while_workers_hang(run: Runner, serve: Serve) -> None:
    """When the grace is over they are not waited for; what the lake has is in the report."""
    emulator = serve(DAY, latency_s=0.05)
    process = run.start(emulator, *ENGINE, "--concurrency", "2", AHT_ETL_SHUTDOWN__GRACE="1s")
    wait_until(lambda: len(parts_in(run.lake)) >= 2)
    workers = workers_of(process.pid)
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    there = parts_in(run.lake)
    process.send_signal(signal.SIGTERM)
    ended = run.end(process)
    assert (143, "interrupted") == (ended.code, ended.report["status"]), ended.err
    assert "shutdown.grace_over" in ended.err
    assert there == sorted(part["path"] for part in ended.report["parts"])
    assert ended.report["files"]["not_attempted"] > 0
    wait_until(lambda: all(is_gone(worker) for worker in workers))


def test_the_client_is_killed(run: Runner, serve: Serve) -> None:
    """Its workers end with it; the next run goes on."""
    emulator = serve(DAY, latency_s=0.05)
    process = run.start(emulator, *ENGINE, "--concurrency", "2")
    wait_until(lambda: emulator.count("file", 200) >= 10)
    workers = workers_of(process.pid)
    process.kill()
    process.communicate()
    assert 2 == len(workers)
    wait_until(lambda: all(is_gone(worker) for worker in workers))
    assert_lake_is_sound(run.lake, DAY)


async def test_from_a_notebook(serve: Serve, tmp_path: Path) -> None:
    """Where a loop runs already; events come through the host's own set-up."""
    data = Dataset.generate(3, START, START.replace(hour=6), rows_per_file=20)
    emulator = serve(data)
    engine = {"kind": "dask", "workers": 2}
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
        report = await run_async(settings_for(emulator, tmp_path / "lake", engine=engine))
    assert ("ok", len(data.files)) == (report.status, report.files.loaded), report.error
    assert_lake_holds(tmp_path / "lake", data)
    committed = [event for event in logs if event["event"] == "part.committed"]
    assert len(report.parts) == len(committed)
    assert {report.run_id} == {event["run_id"] for event in committed}


async def test_beside_another_cluster(serve: Serve, tmp_path: Path) -> None:
    """The port that Dask likes best is not asked for: a warning would fail this test."""
    emulator = serve(DAY)
    with socket.socket() as taken:
        with suppress(OSError):  # somebody else has it already
            taken.bind(("127.0.0.1", 8787))
            taken.listen()
        report = await run_async(
            settings_for(emulator, tmp_path / "lake", engine={"kind": "dask", "workers": 1})
        )
    assert ("ok", None) == (report.status, report.error)


async def test_nobody_reads_along() -> None:
    """Dask's scheduler has no page for whoever else is on this machine."""
    async with (
        connected(EngineSettings(kind="dask", workers=1), 1) as client,
        ClientSession() as web,
    ):
        assert client.cluster is not None
        server = client.cluster.scheduler.http_server
        for page in ("info/main/workers.html", "json/counts.json", "metrics", "health"):
            async with web.get(f"http://127.0.0.1:{server.port}/{page}") as answer:
                assert (404, "127.0.0.1") == (answer.status, server.address)


NOT_INSTALLED = "import sys; sys.modules['distributed'] = None; from etl.cli import main; main()"


def test_without_the_extra(serve: Serve, tmp_path: Path) -> None:
    """Wrong usage, with what to install; nothing was sent."""
    emulator = serve(DAY)
    done = subprocess.run(
        [sys.executable, "-c", NOT_INSTALLED, "run", "--account", "a1", "--engine", "dask"],
        env=environment(**keys_of(emulator), AHT_ETL_API__BASE_URL=emulator.base_url),
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert 2 == done.returncode
    assert "pip install 'aht-etl[dask]'" in done.stderr
    assert 0 == len(emulator.requests)


def test_a_local_run_imports_nothing_of_it() -> None:
    """Neither Dask nor what is for it."""
    code = "import sys, etl.pipeline.library, etl.cli.execution; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    names = done.stdout.split()
    assert [] == [n for n in names if n.startswith(("dask", "distributed", "etl.pipeline.cluster"))]


@pytest.mark.parametrize("flag", [("--dask-workers", "3"), ("--dask-scheduler", "tls://dask:8786")])
def test_a_flag_of_dask_asks_for_it(flag: tuple[str, str], tmp_path: Path) -> None:
    """It is never silently nothing; `--engine local` is stronger."""
    for more, code in (((), 2), (("--engine", "local"), 1)):
        done = subprocess.run(
            [*(sys.executable, "-c", NOT_INSTALLED), "run", "--account", "a1", *flag, *more],
            env=environment(AHT_ETL_API__BASE_URL="http://127.0.0.1:9"),
            cwd=tmp_path,
            check=False,
            capture_output=True,
        )
        assert code == done.returncode, done.stderr
