"""Whatever ends with another code than 0 says why and what to do in its last line."""

import gzip
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from etl.emulator import Dataset
from tests.conftest import COMMAND, Runner, Serve, environment
from tests.terminal import on_terminal

DATA = Dataset.of(
    {
        f"/year=2022/month=6/day=1/hour={hour}/accountId=le79344075/a.json.gz": content
        for hour, content in ((1, gzip.compress(b'{"segmentId":"a"}')), (2, b"no gzip"))
    }
)
WINDOW = ("--from", "2022-06-01", "--to", "2022-06-02")
NOWHERE = ("--account", "a1", "--base-url", "http://127.0.0.1:9", *WINDOW)
NO_RETRY = {"AHT_ETL_RETRY__SERVER_DELAYS": "[]"}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "a command is missing; for example aht-etl demo"),
        (("config",), 2, "a command is missing; for example aht-etl demo"),
        (("run",), 2, "account: is missing; set --account"),
        (("plan", "--from", "2022"), 2, "a date without its hyphens? write 2022-01-01"),
        (("check",), 2, "account: is missing; set --account"),
        (("status", "--lookback", "7"), 2, "write a number with s, m, h or d"),
        (("verify", "--config", "none.yaml"), 2, "--config none.yaml: cannot be read"),
        (("config", "show", "--concurrency", "0"), 2, "must be a whole number, 1 or more"),
        (("demo", "--lake", "ftp://a"), 2, "lake.uri: write a folder"),
        (("emulator", "--fault", "x"), 2, "--fault x: write ENDPOINT"),
        (("run", "--acount", "1"), 2, "No such option: --acount"),
        (("rum",), 2, "No such command 'rum'. Did you mean 'run'?"),
        (("run", *NOWHERE), 1, "connection refused; check api.base_url"),
        (("plan", *NOWHERE), 1, "connection refused; check api.base_url"),
        (("check", *NOWHERE), 1, "Not ready for a run: fix"),
        (("status", "--lake", "/dev/null"), 1, "error: "),
        (("verify", "--lake", "/dev/null"), 1, "error: "),
        (("demo", "--lake", "/dev/null/a"), 1, "error: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_the_last_line_on_standard_error_says_why(
    arguments: tuple[str, ...], code: int, said: str, tmp_path: Path
) -> None:
    """A JSON object as the log, except where a flag or a command is none; text on a terminal."""
    env = environment(**NO_RETRY)
    done = subprocess.run(
        [COMMAND, *arguments], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    last = done.stderr.splitlines()[-1]
    reason = json.loads(last)["reason"] if last.startswith("{") else last
    assert (code, True) == (done.returncode, said in reason), done.stderr
    assert last.startswith("{") or reason.startswith("Error: No such")
    if code == 1:
        seen = on_terminal([COMMAND, *arguments], env, tmp_path, columns=1000)
        shown = [line for line in seen.lines if line.strip()]
        assert said in shown[-1]
        assert shown[-1].startswith("aht-etl: ")


def test_a_partial_run_says_why_in_its_last_line(serve: Serve, run: Runner, tmp_path: Path) -> None:
    """Exit code 3: how many files, of which kind, what the next run does; `verify` alike."""
    emulator = serve(DATA)
    ended = run(emulator, *WINDOW)
    said = json.loads(ended.err.splitlines()[-1])
    assert (3, "run.partial") == (ended.code, said["event"])
    assert said["reason"].startswith(
        "partial: 1 of 2 files failed: corrupt 1; the next run tries them again; the first: /year"
    )
    arguments = run.arguments(emulator, *WINDOW, report=str(tmp_path / "r.json"))
    seen = on_terminal(arguments, environment(), tmp_path, columns=1000)
    shown = [line for line in seen.lines if line.strip()]
    assert (3, True) == (seen.code, shown[-1].startswith("aht-etl: partial: 1 of 2 files failed"))
    next(run.lake.rglob("*.parquet")).write_bytes(b"no part")
    done = subprocess.run(
        [COMMAND, "verify", "--lake", str(run.lake)],
        env=environment(),
        capture_output=True,
        check=False,
    )
    assert 3 == done.returncode
    assert "unreadable" in json.loads(done.stderr.splitlines()[-1])["reason"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_a_signal_ends_says_so(number: signal.Signals, tmp_path: Path) -> None:
    """Also one without a job: the emulator."""
    process = subprocess.Popen(
        [COMMAND, "emulator", "--port", "0", "--files-per-hour", "0"],
        env=environment(),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    said = json.loads(err.splitlines()[-1])
    assert (128 + number, "command.interrupted") == (process.returncode, said["event"])
    assert said["reason"].startswith(f"interrupted: {number.name} before the end; ")


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    """With the flag that chooses another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(
            [sys.executable, "-m", "etl", "emulator", "--port", str(taken.getsockname()[1])],
            env=environment(),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    last = done.stderr.splitlines()[-1]
    assert (1, True) == (done.returncode, "Address already in use; try --port" in last)
