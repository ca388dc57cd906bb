"""Killed, overlapping and interrupted runs: the lake is always correct, and runs can continue."""

import gzip
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest

from etl.emulator import Dataset, Emulator, Fault
from tests.conftest import COMMAND, Runner, Serve, check_report, environment, load
from tests.lakes import (
    assert_lake_holds,
    receipts,
    rows_of,
    through_duckdb,
    through_pyarrow,
)
from tests.programs import as_root

START = datetime(2022, 6, 1, tzinfo=UTC)
DATA = Dataset.generate(
    5, START, datetime(2022, 6, 1, 3, tzinfo=UTC), rows_per_file=20, files_per_hour=12
)
HOUR = "/year=2022/month=6/day=1/hour={}/accountId=le79344075/sequences.{}.json.gz"
SMALL = Dataset.of(
    {
        HOUR.format(hour, name): gzip.compress(content)
        for hour, name, content in (
            (1, "1", b'{"segmentId": "a"}\n{"sequence": 1}\n'),
            (1, "2", b'{"segmentId": "b"}\n'),
            (2, "1", b""),
        )
    }
)
DAY = Dataset.generate(6, START, datetime(2022, 6, 2, tzinfo=UTC), rows_per_file=20)


def assert_lake_is_sound(lake: Path, dataset: Dataset) -> None:
    """Check that the lake has complete files, each once, and that engines read nothing else."""
    if not list(lake.rglob("*.parquet")):
        return
    loaded = [source["path"] for source in receipts(lake)]
    assert len(loaded) == len(set(loaded))
    truth = rows_of(dataset.files[path] for path in loaded)
    assert truth == through_pyarrow(lake)
    assert truth == through_duckdb(lake)


def wait_until(happened: Callable[[], bool]) -> None:
    """Wait until the condition is true; fail after a minute."""
    ends_at = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < ends_at
        time.sleep(0.005)


@pytest.mark.parametrize("first", [1, 2])
def test_killed_between_any_two_effects(run: Runner, serve: Serve, first: int) -> None:
    """After each kill, no row is in the lake twice, and the next run completes the lake."""
    emulator = serve(SMALL)
    for at in range(first, 100, 2):
        run.lake = run.folder / f"lake-{at}"
        arguments = run.arguments(emulator, report=str(run.folder / "report.json"))
        process = subprocess.run(
            [sys.executable, "-m", "tests.e2e.killed", str(at), *arguments[1:]],
            env=environment(AHT_ETL_FETCH__CONCURRENCY="2"),
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert_lake_is_sound(run.lake, SMALL)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, process.stderr
        load(emulator, run.lake)
        assert_lake_holds(run.lake, SMALL)
        assert not list((run.lake / "_staging").iterdir())
        assert len(list((run.lake / "_quarantine").rglob("*.ndjson"))) == 1
    # If there are fewer, the test no longer sees the effects.
    assert at > 25


@pytest.mark.timeout(1800)
def test_killed_at_random_moments(run: Runner, serve: Serve, kills: int) -> None:
    """After every kill the lake is correct. After every run that ends, it is complete."""
    emulator = serve(DAY, latency_s=0.005)
    rng = random.Random(4)
    for kill in range(kills):
        process = run.start(
            emulator, AHT_ETL_FETCH__CONCURRENCY="2", AHT_ETL_LAKE__TARGET_PART_SIZE="2kB"
        )
        answers = emulator.count("file") + rng.randrange(1, 12)
        wait_until(partial(_answered, emulator, answers, process))
        time.sleep(rng.random() / 50)  # to kill in the middle of the next step
        process.kill()
        process.communicate()
        assert_lake_is_sound(run.lake, DAY)
        if kill % 8 == 7:
            assert run(emulator).code == 0
            assert_lake_holds(run.lake, DAY)
            assert not list((run.lake / "_staging").iterdir())
            shutil.rmtree(run.lake)


@pytest.mark.parametrize("part_size", ["128MiB", "1kB"])
def test_three_runs_at_once(run: Runner, serve: Serve, part_size: str) -> None:
    """Each file is in the lake once, and each run reports only the files that it committed itself.

    This holds for one part per partition, and for many parts of each run.
    """
    emulator = serve(DAY, latency_s=0.01)
    processes = [
        run.start(
            emulator,
            AHT_ETL_LAKE__TARGET_PART_SIZE=part_size,
            AHT_ETL_FETCH__CONCURRENCY=concurrency,
        )
        for concurrency in ("1", "2", "16")
    ]
    ended = [run.end(process) for process in processes]
    assert [0, 0, 0] == [end.code for end in ended]
    assert len(DAY.files) == sum(end.report["files"]["loaded"] for end in ended)
    claimed = Counter(part["path"] for end in ended for part in end.report["parts"])
    there = {str(part.relative_to(run.lake)) for part in run.lake.rglob("*.parquet")}
    assert dict.fromkeys(there, 1) == dict(claimed)
    assert_lake_holds(run.lake, DAY)


@pytest.mark.timeout(1800)
def test_three_runs_at_once_of_which_two_are_killed(run: Runner, serve: Serve, kills: int) -> None:
    """Two are killed at random moments. Their leftovers do not disturb other runs."""
    emulator = serve(DAY, latency_s=0.01)
    rng = random.Random(9)
    for _ in range(kills // 3):
        processes = [run.start(emulator, AHT_ETL_LAKE__TARGET_PART_SIZE="2kB") for _ in range(3)]
        answers = emulator.count("file") + rng.randrange(3, 30)
        wait_until(partial(_answered, emulator, answers, processes[2]))
        for process in processes[:2]:
            process.kill()
            process.communicate()
        assert run.end(processes[2]).code == 0
        assert_lake_holds(run.lake, DAY)
        for part in sorted(run.lake.rglob("*.parquet"))[::2]:
            part.unlink()


def test_the_lake_reads_at_every_moment_of_a_run(run: Runner, serve: Serve) -> None:
    """An engine that reads while a run writes sees only complete files."""
    process = run.start(serve(DAY, latency_s=0.02), AHT_ETL_FETCH__CONCURRENCY="2")
    looks = 0
    while process.poll() is None:
        if list(run.lake.rglob("*.parquet")):
            through_pyarrow(run.lake)
            with duckdb.connect() as connection:
                connection.sql(f"SELECT count(*) FROM '{run.lake}/year=*/**/*.parquet'").fetchall()
            looks += 1
    assert run.end(process).code == 0
    assert looks > 0


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_the_run_after_it_commits_its_downloads(
    run: Runner, serve: Serve, number: int, code: int
) -> None:
    """The report agrees with the lake. The next run loads the rest and nothing twice."""
    emulator = serve(DAY, latency_s=0.02)
    process = run.start(emulator, AHT_ETL_FETCH__CONCURRENCY="2")
    wait_until(lambda: emulator.count("file", 200) >= 20)
    process.send_signal(number)
    ended = run.end(process)
    files = ended.report["files"]
    assert (code, "interrupted", None) == (
        ended.code,
        ended.report["status"],
        ended.report["error"],
    )
    assert files["loaded"] >= 18
    assert files["not_attempted"] > 0
    assert sorted(part["path"] for part in ended.report["parts"]) == sorted(
        str(part.relative_to(run.lake)) for part in run.lake.rglob("*.parquet")
    )
    assert_lake_is_sound(run.lake, DAY)
    again = run(emulator)
    assert (0, files["loaded"]) == (again.code, again.report["files"]["already_loaded"])
    assert_lake_holds(run.lake, DAY)


@pytest.mark.parametrize("where", ["listing", "file", "domain"])
def test_a_signal_while_the_server_hangs(run: Runner, serve: Serve, where: str) -> None:
    """Every wait for the network ends at once."""
    emulator = serve(DATA, faults=(Fault(where, "hang", times=None),))  # type: ignore[arg-type]
    process = run.start(emulator, AHT_ETL_API__DOMAIN_URL=emulator.base_url)
    if where == "domain":
        process.kill()
        process.communicate()
        arguments = run.arguments(emulator, report=f"{run.folder}/report-1.json")
        at = arguments.index("--base-url")
        del arguments[at : at + 2]
        process = subprocess.Popen(
            arguments,
            env=environment(AHT_ETL_API__DOMAIN_URL=emulator.base_url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    wait_until(lambda: emulator.in_flight > 0)
    process.send_signal(signal.SIGTERM)
    ended = run.end(process)
    assert (143, "interrupted") == (ended.code, ended.report["status"])


def test_a_signal_while_the_run_waits_for_paths(run: Runner, serve: Serve) -> None:
    """A run that waits for standard input ends at once, with an empty report."""
    process = run.start(serve(DATA), "--paths", "-")
    wait_until(lambda: _handles_sigterm(process))
    process.send_signal(signal.SIGTERM)
    ended = run.end(process)
    assert (143, "interrupted", 0) == (
        ended.code,
        ended.report["status"],
        ended.report["files"]["listed"],
    )


def test_a_signal_during_a_wait(run: Runner, serve: Serve) -> None:
    """The run does not wait for the end of a retry delay or a Retry-After."""
    faults = (
        Fault("file", "status", status=503, times=2),
        Fault("file", "status", status=429, headers={"Retry-After": "3600"}, times=None),
    )
    emulator = serve(DATA, faults=faults)
    process = run.start(emulator, AHT_ETL_RETRY__SERVER_DELAYS="[3600]")
    wait_until(lambda: emulator.count("file", 429) >= 1)
    process.send_signal(signal.SIGTERM)
    assert run.end(process).code == 143


def test_the_same_signal_twice_counts_once(run: Runner, serve: Serve) -> None:
    """A wrapper may signal both the process and its group. Downloaded files are committed."""
    emulator = serve(DAY, latency_s=0.02)
    process = run.start(emulator, AHT_ETL_FETCH__CONCURRENCY="2")
    wait_until(lambda: emulator.count("file", 200) >= 20)
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)  # without a pause, the kernel merges both into one
    ended = run.end(process)
    assert (143, "interrupted") == (ended.code, ended.report["status"])
    assert ended.report["files"]["loaded"] >= 18
    assert "shutdown.grace_over" not in ended.err
    assert_lake_is_sound(run.lake, DAY)


def test_a_later_signal_ends_at_once_with_a_report(run: Runner, serve: Serve) -> None:
    """It waits neither for the grace nor for a disk that hangs."""
    emulator = serve(SMALL)
    hangs = "import os, time; os.link = lambda *_, **__: time.sleep(300)"
    arguments = run.arguments(emulator, report=f"{run.folder}/report.json")[1:]
    process = subprocess.Popen(
        [sys.executable, "-c", f"{hangs}; from etl.cli import main; main()", *arguments],
        env=environment(AHT_ETL_SHUTDOWN__GRACE="300s"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: emulator.count("file", 200) == len(SMALL.files))
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: ended_by(process, signal.SIGTERM))
    ended = run.end(process)
    files = ended.report["files"]
    assert (143, "interrupted") == (ended.code, ended.report["status"])
    assert (0, len(SMALL.files)) == (files["loaded"], files["not_attempted"])


def test_an_error_that_ends_a_run_sets_the_same_deadline(run: Runner, serve: Serve) -> None:
    """A disk that hangs does not delay the end. The report says why the run failed."""
    emulator = serve(SMALL, faults=(Fault("file", "status", HOUR.format(2, "1"), status=401),))
    code = (
        "import os, time; os.link = lambda *_, **__: time.sleep(300)\n"
        "from etl.cli import main; main()"
    )
    arguments = run.arguments(emulator, report=f"{run.folder}/report.json")[1:]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment(AHT_ETL_SHUTDOWN__GRACE="1s"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    ended = run.end(process)
    assert (1, "failed") == (ended.code, ended.report["status"])
    assert "authentication was refused in mid-run" in ended.report["error"]


def test_a_signal_that_is_ignored_stays_ignored(run: Runner, serve: Serve) -> None:
    """Under `nohup`, a run continues when its terminal closes."""
    emulator = serve(DATA, latency_s=0.02)
    arguments = run.arguments(emulator, report=f"{run.folder}/report.json")
    process = subprocess.Popen(
        ["nohup", *arguments], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    wait_until(lambda: emulator.count("file", 200) >= 1)
    process.send_signal(signal.SIGHUP)
    process.communicate()
    assert 0 == process.returncode
    assert_lake_holds(run.lake, DATA)


def test_a_second_signal_ends_a_blocked_report(run: Runner, serve: Serve) -> None:
    """Signals also work while the run writes its report."""
    pipe = run.folder / "pipe"
    os.mkfifo(pipe)
    arguments = run.arguments(serve(SMALL), report=str(pipe))
    process = subprocess.Popen(arguments, env=environment(), stdout=subprocess.PIPE)
    wait_until(lambda: len(list(run.lake.rglob("*.parquet"))) == 2)
    wait_until(lambda: not list((run.lake / "_staging").iterdir()))
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: ended_by(process, signal.SIGTERM))
    process.communicate()
    assert 143 == process.returncode


def ended_by(process: subprocess.Popen[Any], number: int) -> bool:
    """Repeat a signal until the process ends."""
    process.send_signal(number)
    time.sleep(0.05)
    return process.poll() is not None


def test_a_temporary_folder_that_is_full(run: Runner, serve: Serve) -> None:
    """Files that fit into memory are loaded. Others fail alone, and the message says why."""
    big = {HOUR.format(1, "big"): gzip.compress(random.Random(1).randbytes(300_000), 0)}
    small = {path: file.content for path, file in SMALL.files.items() if "/hour=2/" in path}
    emulator = serve(Dataset.of({**small, **big}))
    done = subprocess.run(
        ["prlimit", "--fsize=100000", *run.arguments(emulator, report="-")],
        env=environment(AHT_ETL_LIMITS__MEMORY="1MB"),
        capture_output=True,
        check=False,
    )
    report = json.loads(done.stdout)
    (failure,) = report["failures"]
    assert (3, len(small), "lake") == (
        done.returncode,
        report["files"]["loaded"],
        failure["kind"],
    )
    assert "the temporary folder" in failure["message"]


def test_a_signal_during_the_start(run: Runner, serve: Serve) -> None:
    """From the start on, the process ends with the documented code."""
    emulator = serve(DATA, latency_s=0.1)
    for moment_s in (0, 0.05, 0.1, 0.2, 0.3, 0.4):
        process = run.start(emulator)
        time.sleep(moment_s)  # the outcome is the same at any moment
        process.send_signal(signal.SIGTERM)
        ended = run.end(process)
        # Before the program's own first line, only the kernel can handle the signal.
        assert (ended.code, ended.report.get("status")) in {
            (143, "interrupted"),
            (-signal.SIGTERM, None),
        }


def _handles_sigterm(process: subprocess.Popen[str]) -> bool:
    """Return whether Python's handler is set: SIGTERM's bit in the mask of caught signals."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (caught,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def _answered(emulator: Emulator, answers: int, process: subprocess.Popen[str]) -> bool:
    return emulator.count("file") >= answers or process.poll() is not None


def test_the_grace_runs_out(run: Runner, serve: Serve) -> None:
    """The next run loads what could not be committed in time. The exit code is the same."""
    emulator = serve(DAY, latency_s=0.02)
    process = run.start(emulator, AHT_ETL_SHUTDOWN__GRACE="0.001s", AHT_ETL_FETCH__CONCURRENCY="2")
    wait_until(lambda: emulator.count("file", 200) >= 10)
    process.send_signal(signal.SIGTERM)
    ended = run.end(process)
    assert ended.code == 143
    assert sum(part["sources"] for part in ended.report["parts"]) == len(receipts(run.lake))
    assert_lake_is_sound(run.lake, DAY)
    assert run(emulator).code == 0
    assert_lake_holds(run.lake, DAY)


def test_a_lake_that_cannot_be_written(run: Runner, serve: Serve) -> None:
    """If the folder cannot be made, the run ends with 1 and one line that names the folder."""
    run.folder.joinpath("file").write_text("")
    run.lake = run.folder / "file" / "lake"
    emulator = serve(DATA)
    ended = run(emulator)
    assert (1, "failed", 0) == (ended.code, ended.report["status"], emulator.count("file"))
    assert "lake.uri" in ended.report["error"]


def test_a_full_disk(run: Runner, serve: Serve) -> None:
    """The files of parts that do not fit fail with kind `lake`. Later runs load them."""
    emulator = serve(DAY)
    arguments = run.arguments(emulator, report="-")
    # No file may grow beyond 8 KiB. As on a full disk, some parts fit and others do not.
    done = subprocess.run(
        ["prlimit", "--fsize=8192", *arguments],
        env=environment(AHT_ETL_LAKE__COMPRESSION="none"),
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)
    check_report(report, 3)
    assert report["files"]["loaded"] > 0
    assert report["files"]["not_attempted"] == 0
    assert {"lake"} == {failure["kind"] for failure in report["failures"]}
    assert "File too large" in report["failures"][0]["message"]
    assert {1} == {failure["attempts"] for failure in report["failures"]}
    assert all(json.loads(line)["event"] for line in done.stderr.splitlines())
    assert_lake_is_sound(run.lake, DAY)
    assert not list((run.lake / "_staging").iterdir())
    assert run(emulator).code == 0
    assert_lake_holds(run.lake, DAY)


def test_bad_rows_that_cannot_be_kept(run: Runner, serve: Serve) -> None:
    """A file is not loaded if its bad rows cannot be written; they would be lost."""
    run.lake.mkdir()
    (run.lake / "_quarantine").write_text("in the way")
    emulator = serve(SMALL)
    ended = run(emulator)
    assert (3, {"lake"}) == (ended.code, {f["kind"] for f in ended.report["failures"]})
    assert [HOUR.format(1, 1)] == [failure["path"] for failure in ended.report["failures"]]
    (run.lake / "_quarantine").unlink()
    assert run(emulator).code == 0
    assert_lake_holds(run.lake, SMALL)


@pytest.mark.parametrize("given", [(), ("--lake", "other lake")])
def test_the_demo_says_what_to_do_next(given: tuple[str, ...], tmp_path: Path) -> None:
    """It ends with three commands, and each works as printed."""
    done = subprocess.run(
        [COMMAND, "demo", *given],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    *_, head, status, page, verify = done.stdout.splitlines()
    lake = shlex.quote(str(tmp_path / (given[1] if given else "demo-lake")))
    assert "Next:" == head
    assert status.endswith(f" status --lake {lake}")
    assert page.endswith(f" status --lake {lake} --html lake.html")
    assert verify.endswith(f" verify --lake {lake}")
    for line in (status, page, verify):
        _, *arguments = shlex.split(line)
        subprocess.run(
            [COMMAND, *arguments], env=environment(), cwd=tmp_path, capture_output=True, check=True
        )
    assert (tmp_path / "lake.html").exists()


@pytest.mark.parametrize(
    ("mounts", "place"),
    [
        ("mount --bind . . && mount -o remount,ro,bind .", "{temporary}"),
        ("mount -t tmpfs none /dev/shm && mount -o remount,ro,bind /", "/dev/shm"),
    ],
    ids=["a folder of others", "a read-only root"],
)
def test_the_demo_finds_a_place_to_write(mounts: str, place: str, tmp_path: Path) -> None:
    """As in a container, it uses the temporary folder or memory, and says where."""
    as_root()
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    work.mkdir()
    temporary.mkdir()
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f'{mounts} && cd "$PWD" && exec {COMMAND} demo'],
        env=environment(TMPDIR=str(temporary), PWD=str(work)),
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
    )
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip("this machine does not allow mounts")
    assert 0 == done.returncode, done.stderr
    folder = Path(place.format(temporary=temporary))
    assert f"The lake is in {folder / 'demo-lake'}\n" in done.stdout
    assert f" --html {folder / 'lake.html'}\n" in done.stdout
    assert [] == list(work.iterdir())


def test_commands_by_hand(tmp_path: Path) -> None:
    """`demo` loads two days, and nothing when repeated. `emulator` serves until a signal."""
    for loaded in (True, False):
        done = subprocess.run(
            [COMMAND, "demo", "--report", "report.json"],
            env=environment(AHT_ETL_AUTH__CLIENT_ID="must-not-be-read"),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        report = json.loads((tmp_path / "report.json").read_text())
        assert (report["files"]["loaded"] > 100) == loaded
        assert str(tmp_path / "demo-lake") in done.stdout
        query = done.stdout[done.stdout.index("SELECT") : done.stdout.index(";\n\nRun")]
        with duckdb.connect() as connection:
            days = connection.sql(query).fetchall()
        assert [1, 2] == [day[0] for day in days]
    process = subprocess.Popen(
        [COMMAND, "emulator", "--port", "0", "--auth", "oauth1", "--seed", "5"],
        env=environment(),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    shown = ""
    while "aht-etl run" not in shown:
        shown += process.stdout.readline()
    command = "\n".join(shown.splitlines()[2:])
    done = subprocess.run(
        ["sh", "-ec", command],
        env=environment(PATH=f"{Path(COMMAND).parent}:{os.environ['PATH']}"),
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    process.stdout.close()
