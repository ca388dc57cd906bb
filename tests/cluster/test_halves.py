"""A load of many files by two processes: the lake and the report of one, whatever happens."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from etl.api.auth import Token
from etl.api.client import Found
from etl.emulator import Dataset, Emulator, Fault
from tests.cluster.test_local import is_gone, parts_in
from tests.conftest import Runner, Serve, environment, keys_of
from tests.e2e.test_endings import assert_lake_is_sound, wait_until
from tests.lakes import assert_lake_holds, receipts, through_pyarrow

START = datetime(2022, 6, 1, tzinfo=UTC)
MANY = Dataset.generate(
    7, START, datetime(2022, 6, 2, tzinfo=UTC), rows_per_file=10, files_per_hour=12
)
# The helper's are the second, the fourth and so on.
HOURS = [f"/year=2022/month=6/day=1/hour={hour}/accountId=le79344075" for hour in range(24)]
WINDOW = ("--from", "2022-06-01", "--to", "2022-06-03")


def helpers_of(process: int) -> list[int]:
    """Return the processes that a run has forked."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(child) for child in children.split()]


def test_the_same_as_one_process(run: Runner, serve: Serve) -> None:
    """Row for row, and the report's sums; one request a file, one token, one event of each kind."""
    emulator = serve(MANY, auth="oauth2", latency_s=0.01)
    alone = run(emulator, AHT_ETL_ENGINE__PROCESSES="1")
    rows = through_pyarrow(run.lake)
    run.lake = run.folder / "lake-2"
    emulator.requests.clear()
    emulator.most_at_once = 0
    arguments = (*WINDOW, "--log-level", "debug")
    ended = run(emulator, *arguments, "--concurrency", "3")
    assert 0 == ended.code, ended.err
    assert rows == through_pyarrow(run.lake)
    assert_lake_holds(run.lake, MANY)
    for key in ("files", "rows", "newest_complete_hour", "window"):
        assert alone.report[key] == ended.report[key]
    for key in ("downloaded", "decompressed"):
        assert alone.report["bytes"][key] == ended.report["bytes"][key]
    assert alone.report["http"]["requests"] == ended.report["http"]["requests"]
    assert parts_in(run.lake) == sorted(part["path"] for part in ended.report["parts"])
    assert dict.fromkeys(MANY.files, 1) == emulator.file_requests()
    assert (1, 3) == (emulator.count("token"), ended.report["http"]["concurrency"])
    assert 2 <= emulator.most_at_once <= 3
    events = [json.loads(line) for line in ended.err.splitlines()]
    counts = Counter(event["event"] for event in events)
    assert (1, len(MANY.files)) == (counts["helper.began"], counts["file.decoded"])
    assert counts["part.committed"] == len(ended.report["parts"])
    assert {ended.report["run_id"]} == {event["run_id"] for event in events}
    secret = emulator.keys["client_secret"]
    assert secret not in ended.err + ended.out + json.dumps(ended.report)
    assert "Bearer" not in ended.err

    again = run(emulator, *arguments)
    assert (0, len(MANY.files)) == (again.code, again.report["files"]["already_loaded"])
    assert "helper.began" not in again.err


def test_with_an_archive_and_from_it(run: Runner, serve: Serve) -> None:
    """Both processes keep what they load, and read it again."""
    emulator = serve(MANY)
    raw = {"AHT_ETL_RAW__URI": str(run.folder / "raw")}
    assert 0 == run(emulator, **raw).code
    rows = through_pyarrow(run.lake)
    kept = {
        f"/{file.relative_to(run.folder / 'raw')}" for file in run.folder.glob("raw/year=*/**/*.gz")
    }
    assert set(MANY.files) == kept
    run.lake = run.folder / "lake-2"
    asked = len(emulator.requests)
    arguments = (*WINDOW, "--log-level", "debug")
    ended = run(emulator, *arguments, "--from-archive", **raw)
    assert (0, len(MANY.files)) == (ended.code, ended.report["files"]["loaded"]), ended.err
    assert "helper.began" in ended.err
    assert rows == through_pyarrow(run.lake)
    assert (asked, 0) == (len(emulator.requests), ended.report["http"]["requests"])


def test_the_helper_is_killed(run: Runner, serve: Serve) -> None:
    """What it had committed counts once, what it had not the first process loads."""
    emulator = serve(MANY, latency_s=0.02)
    process = run.start(emulator, *WINDOW, "--concurrency", "4")
    wait_until(lambda: len(parts_in(run.lake)) >= 4)
    [helper] = helpers_of(process.pid)
    os.kill(helper, signal.SIGKILL)
    ended = run.end(process)
    assert (0, len(MANY.files)) == (ended.code, ended.report["files"]["loaded"]), ended.err
    assert parts_in(run.lake) == sorted(part["path"] for part in ended.report["parts"])
    assert_lake_holds(run.lake, MANY)
    assert 1 == ended.err.count("helper.lost")


def test_a_helper_that_says_nothing_any_more(run: Runner, serve: Serve) -> None:
    """It is taken for lost after a while, and ended."""
    emulator = serve(MANY, latency_s=0.02)
    [_, *arguments] = run.arguments(emulator, *WINDOW, "--concurrency", "4", report="report.json")
    code = "from etl.cluster import halves; halves._SILENCE_S = 1; from etl.cli import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    process = subprocess.Popen(command, env=environment(**keys_of(emulator)), cwd=run.folder)
    wait_until(lambda: len(parts_in(run.lake)) >= 4)
    [helper] = helpers_of(process.pid)
    os.kill(helper, signal.SIGSTOP)
    assert 0 == process.wait(60)
    assert is_gone(helper)
    assert_lake_holds(run.lake, MANY)


def test_where_children_are_not_waited_for(run: Runner, serve: Serve) -> None:
    """Whoever starts the command may have SIGCHLD ignored."""
    emulator = serve(MANY)
    arguments = run.arguments(emulator, *WINDOW, report="report.json")
    command = ["bash", "-c", "trap '' CHLD; exec \"$@\"", "bash", *arguments]
    done = subprocess.run(
        command,
        env=environment(**keys_of(emulator)),
        cwd=run.folder,
        check=False,
        capture_output=True,
    )
    assert 0 == done.returncode, done.stderr
    assert b"Traceback" not in done.stderr
    assert_lake_holds(run.lake, MANY)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal(run: Runner, serve: Serve, number: int, code: int) -> None:
    """What was downloaded is committed, the report is exact, and no process is left.

    The terminal's Ctrl-C goes to both.
    """
    emulator = serve(MANY, latency_s=0.05)
    process = run.start(emulator, *WINDOW, "--concurrency", "2")
    wait_until(lambda: emulator.count("file", 200) >= 20)
    [helper] = helpers_of(process.pid)
    for each in [process.pid, *([helper] if number == signal.SIGINT else [])]:
        os.kill(each, number)
    ended = run.end(process)
    files = ended.report["files"]
    assert (code, "interrupted") == (ended.code, ended.report["status"]), ended.err
    assert files["loaded"] >= 18
    assert files["not_attempted"] > 0
    assert parts_in(run.lake) == sorted(part["path"] for part in ended.report["parts"])
    assert_lake_is_sound(run.lake, MANY)
    assert is_gone(helper)
    assert "helper.lost" not in ended.err


def test_a_signal_while_the_helper_hangs(run: Runner, serve: Serve) -> None:
    """When the grace is over it is not waited for; what the lake has is in the report."""
    emulator = serve(MANY, latency_s=0.05)
    arguments = (*WINDOW, "--concurrency", "2")
    process = run.start(emulator, *arguments, AHT_ETL_SHUTDOWN__GRACE="1s")
    wait_until(lambda: len(parts_in(run.lake)) >= 2)
    [helper] = helpers_of(process.pid)
    os.kill(helper, signal.SIGSTOP)
    process.send_signal(signal.SIGTERM)
    ended = run.end(process)
    assert (143, "interrupted") == (ended.code, ended.report["status"]), ended.err
    assert parts_in(run.lake) == sorted(part["path"] for part in ended.report["parts"])
    assert ended.report["files"]["not_attempted"] > 0
    assert 1 == ended.err.count("shutdown.grace_over")
    assert is_gone(helper)


def test_the_first_process_is_killed(run: Runner, serve: Serve) -> None:
    """The helper ends with it; the next run goes on."""
    emulator = serve(MANY, latency_s=0.05)
    process = run.start(emulator, *WINDOW, "--concurrency", "2")
    wait_until(lambda: emulator.count("file", 200) >= 20)
    [helper] = helpers_of(process.pid)
    process.kill()
    process.communicate()
    wait_until(lambda: is_gone(helper))
    assert_lake_is_sound(run.lake, MANY)
    there = len(list(receipts(run.lake)))
    ended = run(emulator)
    files = ended.report["files"]
    assert (0, there) == (ended.code, files["already_loaded"]), ended.err
    assert_lake_holds(run.lake, MANY)


@pytest.mark.parametrize("half", [0, 1])
def test_a_refusal_is_obeyed_by_both(run: Runner, serve: Serve, half: int) -> None:
    """After a 429, whichever process met it, one goes on, and none asks before the time is over."""
    of_hour = sorted(path for path in MANY.files if path.startswith(f"{HOURS[half]}/"))
    refusal = Fault("file", "status", of_hour[0], status=429, headers={"Retry-After": "2"})
    emulator = serve(MANY, latency_s=0.05, faults=(refusal,))
    ended = run(emulator, *WINDOW, "--concurrency", "4")
    assert (0, len(MANY.files)) == (ended.code, ended.report["files"]["loaded"]), ended.err
    assert_lake_holds(run.lake, MANY)
    [refused_at] = [r.at_s for r in emulator.requests if r.status == 429]
    # What was on its way is no new request: an answer takes 50 ms.
    begun = [r.at_s for r in emulator.requests if refused_at + 0.3 < r.at_s < refused_at + 1.9]
    assert [] == begun
    assert 1 == ended.report["http"]["throttled"]
    assert 4 == emulator.most_at_once


@pytest.mark.parametrize("half", [0, 1])
def test_keys_that_are_refused_in_mid_run(run: Runner, serve: Serve, half: int) -> None:
    """The run fails, whichever process is told."""
    of_hour = sorted(path for path in MANY.files if path.startswith(f"{HOURS[10 + half]}/"))
    refusal = Fault("file", "status", of_hour[3], times=None, status=401)
    emulator = serve(MANY, latency_s=0.02, faults=(refusal,))
    ended = run(emulator, *WINDOW, "--concurrency", "4")
    assert (1, "failed", 1) == (ended.code, ended.report["status"], ended.report["files"]["failed"])
    assert "authentication was refused in mid-run" in ended.report["error"]
    assert ended.report["files"]["not_attempted"] > 0
    assert parts_in(run.lake) == sorted(part["path"] for part in ended.report["parts"])
    assert_lake_is_sound(run.lake, MANY)


def test_files_that_fail(run: Runner, serve: Serve) -> None:
    """Each is told once, with its attempts, and the others are loaded."""
    broken = [max(path for path in MANY.files if path.startswith(f"{hour}/")) for hour in HOURS[:2]]
    faults = tuple(Fault("file", "half_gzip", path, times=None) for path in broken)
    emulator = serve(MANY, faults=faults)
    ended = run(emulator)
    assert (3, len(MANY.files) - 2) == (ended.code, ended.report["files"]["loaded"]), ended.err
    assert sorted(broken) == sorted(failure["path"] for failure in ended.report["failures"])
    assert {4} == {failure["attempts"] for failure in ended.report["failures"]}
    assert 2 == ended.err.count("file.failed")
    assert 6 == ended.report["http"]["retries"] == ended.err.count("request.retry")


def test_what_the_helper_has_tried_counts(run: Runner, serve: Serve) -> None:
    """A file that makes it leave, for its answers ask to wait, is tried as often as any other."""
    broken = min(path for path in MANY.files if path.startswith(f"{HOURS[1]}/"))
    wait = {"Retry-After": "1"}
    fault = Fault("file", "status", broken, status=503, headers=wait, times=None)
    emulator = serve(MANY, latency_s=0.01, faults=(fault,))
    ended = run(emulator)
    assert (3, len(MANY.files) - 1) == (ended.code, ended.report["files"]["loaded"]), ended.err
    [failure] = ended.report["failures"]
    assert (4, broken) == (failure["attempts"], failure["path"])
    assert {**dict.fromkeys(MANY.files, 1), broken: 4} == emulator.file_requests()
    assert 3 == ended.report["http"]["retries"] == ended.err.count("request.retry")


def strike(run: Runner, emulator: Emulator, rng: random.Random, kill: int) -> None:
    """Strike either process of a run in the middle of whatever it does; look what is left."""
    answers = emulator.count("file") + rng.randrange(1, 250)
    process = run.start(emulator, *WINDOW, "--concurrency", "6")
    wait_until(lambda: emulator.count("file") >= answers)
    time.sleep(rng.random() / 50)
    helpers = helpers_of(process.pid)
    target = helpers[0] if kill % 4 >= 2 and helpers else process.pid
    os.kill(target, signal.SIGTERM if kill % 4 == 0 else signal.SIGKILL)
    ended = run.end(process)
    wait_until(lambda: all(is_gone(helper) for helper in helpers))
    assert_lake_is_sound(run.lake, MANY)
    if ended.report:
        assert parts_in(run.lake) == sorted(part["path"] for part in ended.report["parts"])
    if target in helpers:
        assert 0 == ended.code, ended.err


@pytest.mark.timeout(1800)
def test_either_is_struck_at_random_moments(run: Runner, serve: Serve, kills: int) -> None:
    """The lake is sound, the report is what it holds, nobody is left; the next run completes it."""
    emulator = serve(MANY, latency_s=0.01)
    rng = random.Random(3)
    for kill in range(kills):
        strike(run, emulator, rng, kill)
        assert 0 == run(emulator, *WINDOW).code
        assert_lake_holds(run.lake, MANY)
        shutil.rmtree(run.lake)


def test_what_is_handed_over_shows_no_token() -> None:
    """Not in any text about it."""
    token = Token("eyJ.a-secret.token", 1.0)
    assert "secret" not in repr(Found("https://a", "https://b", token)) + repr(token) + str(token)
