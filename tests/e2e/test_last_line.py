"""With every exit code except 0, the last line on standard error says why and what to do."""

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from etl.emulator import Dataset, Fault
from tests.conftest import COMMAND, Runner, Serve, environment
from tests.e2e.test_endings import DATA, ended_by, wait_until
from tests.pods import last_line, reason
from tests.terminal import on_terminal

HOUR = "/year=2022/month=6/day=1/hour=1/accountId=le79344075/sequences.{}.json.gz"
MIXED = Dataset.of(
    {
        HOUR.format(1): gzip.compress(b'{"segmentId": "a"}\n'),
        HOUR.format(2): gzip.compress(b'{"segmentId": "b"}\n')[:-4],
        HOUR.format(3): b"no gzip",
        HOUR.format(4): gzip.compress(b"{}\n{}\n"),
        HOUR.format(5): b"neither",
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
        (("run",), 2, "wrong usage: account: is missing; set --account"),
        (("plan", "--from", "2022"), 2, "a date without its hyphens? write 2022-01-01"),
        (("check",), 2, "account: is missing; set --account"),
        (("status", "--lookback", "7"), 2, "write a number with s, m, h or d"),
        (("verify", "--config", "none.yaml"), 2, "--config none.yaml: cannot be read"),
        (("config", "show", "--concurrency", "0"), 2, "must be a whole number, 1 or more"),
        (("demo", "--lake", "ftp://a"), 2, "lake.uri: write a folder"),
        (("emulator", "--fault", "x"), 2, "--fault x: write ENDPOINT"),
        (("run", "--acount", "1"), 2, "No such option: --acount"),
        (("run", "--log-level", "loud"), 2, "Invalid value for '--log-level'"),
        (("rum",), 2, "No such command 'rum'. Did you mean 'run'?"),
        (("run", *NOWHERE), 1, "connection refused; check api.base_url"),
        (("plan", *NOWHERE), 1, "connection refused; check api.base_url"),
        (("check", *NOWHERE), 1, "Not ready for a run: fix"),
        (("check", *NOWHERE, "--lake", "/proc"), 1, "Not ready for a run: fix connection, l"),
        (("status", "--lake", "/dev/null"), 1, "error: "),
        (("verify", "--lake", "/dev/null"), 1, "error: "),
        (("demo", "--lake", "/dev/null/a"), 1, "error: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_the_last_line_on_standard_error_says_why(
    arguments: tuple[str, ...], code: int, said: str, tmp_path: Path
) -> None:
    """It is JSON like the log; on a terminal it is text.

    In a pod it is also the last line of the log, which has standard output too.
    """
    env = environment(**NO_RETRY)
    done = subprocess.run(
        [COMMAND, *arguments],
        env=env,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    last = last_line(done.stdout)
    assert (code, True) == (done.returncode, said in reason(done.stdout)), done.stdout
    assert last.startswith("{")
    if code == 1:
        seen = on_terminal([COMMAND, *arguments], env, tmp_path, columns=1000)
        shown = [line for line in seen.lines if line.strip()]
        assert said in shown[-1]
        assert shown[-1].startswith("aht-etl: ")


NO_COMMAND = "wrong usage: a command is missing; for example aht-etl demo"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", NO_COMMAND),
        ("config", NO_COMMAND),
        ("ddl", "wrong usage: Missing option '--engine'. Choose from: athena, "),
        (
            "run --nope",
            "wrong usage: No such option: --nope (Possible options: --to); see aht-etl ",
        ),
        ("run extra", "wrong usage: Got unexpected extra argument(s) (extra); see aht-etl run "),
        ("run --progress maybe", "wrong usage: Invalid value for '--progress': "),
        ("run --from", "wrong usage: Option '--from' requires an argument; see aht-etl run --help"),
        ("config show --from", "requires an argument; see aht-etl config show --help"),
        ("nope", "wrong usage: No such command 'nope'; see aht-etl --help"),
        ("config nope", "wrong usage: No such command 'nope'; see aht-etl config --help"),
        ("--nope run", "wrong usage: No such option: --nope; see aht-etl --help"),
        ("emulator --port x", "wrong usage: Invalid value for '--port': "),
    ],
)
def test_arguments_that_cannot_be_parsed(arguments: str, said: str, tmp_path: Path) -> None:
    """All of standard error is one line; on a terminal the help comes before it if none are given.

    `--log-format` counts although the other arguments are wrong.
    """
    env = environment()

    def err(*more: str) -> list[str]:
        command = [COMMAND, *arguments.split(), *more]
        done = subprocess.run(
            command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (2, "") == (done.returncode, done.stdout)
        return done.stderr.strip().splitlines()

    (line,) = err()
    found = json.loads(line)
    assert ("usage.wrong", "error") == (found["event"], found["level"])
    assert said in found["reason"]
    assert found["reason"].endswith(("--help", "aht-etl demo"))
    seen = on_terminal([COMMAND, *arguments.split()], env, tmp_path, columns=1000)
    shown = [line for line in seen.lines if line.strip()]
    assert (2, f"aht-etl: {found['reason']}") == (seen.code, shown[-1])
    assert (said == NO_COMMAND) == any("Usage: aht-etl" in line for line in shown)
    if said != NO_COMMAND and not arguments.endswith("--from"):
        assert [f"aht-etl: {found['reason']}"] == err("--log-format", "console")
        command = [COMMAND, *arguments.split(), "--log-format=json"]
        seen = on_terminal(command, env, tmp_path, columns=1000)
        assert found["reason"] == json.loads("".join(seen.lines))["reason"]


def test_an_unknown_variable_is_named(tmp_path: Path) -> None:
    """The exit code is 2, as for other wrong usage."""
    env = environment(AHT_ETL_FETCH__RAT="1")
    done = subprocess.run(
        [COMMAND, "run"], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert 2 == done.returncode
    assert reason(done.stderr).startswith("wrong usage: environment variable AHT_ETL_FETCH__RAT: ")


def test_a_partial_run_says_why_in_its_last_line(serve: Serve, run: Runner, tmp_path: Path) -> None:
    """With exit code 3, it has the number and kinds of failures, the first one, what comes next."""
    emulator = serve(MIXED)
    ended = run(emulator, *WINDOW)
    said = json.loads(last_line(ended.err))
    assert (3, "run.partial") == (ended.code, said["event"])
    assert said["reason"].startswith(
        "partial: 4 of 5 files failed: corrupt 2, malformed 1, truncated 1; the next run tries "
        f"them again; the first: {HOUR[: HOUR.index('{')]}"
    )
    arguments = run.arguments(emulator, *WINDOW, report=str(tmp_path / "r.json"))
    seen = on_terminal(arguments, environment(), tmp_path, columns=1000)
    shown = [line for line in seen.lines if line.strip()]
    assert (3, True) == (seen.code, shown[-1].startswith("aht-etl: partial: 4 of 5 files failed"))


def test_a_listing_that_was_refused(serve: Serve, run: Runner) -> None:
    """The server's answer repeats a secret; the line does not."""
    emulator = serve(DATA, auth="oauth1")
    secret = emulator.keys["consumer_secret"]
    body = f'{{"message": "not with {secret}"}}'.encode()
    fault = Fault("listing", "status", status=403, times=None, body=body)
    emulator.options = type(emulator.options)(auth="oauth1", oldest=None, faults=(fault,))
    ended = run(emulator)
    said = reason(ended.err)
    assert 1 == ended.code
    assert said.startswith("error: listing 2022-06-01T00:00:00Z")
    assert "403" in said
    assert secret not in ended.err


def test_findings_are_counted(serve: Serve, run: Runner) -> None:
    """`verify` says how many findings there are, and the first one."""
    run(serve(DATA))
    for part in list(run.lake.rglob("*.parquet"))[:2]:
        part.write_bytes(b"no part")
    done = subprocess.run(
        [COMMAND, "verify", "--lake", str(run.lake)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert 3 == done.returncode
    assert reason(done.stderr).startswith("2 findings in 3 parts; the first: unreadable")


def test_entries_that_are_no_paths_are_not_tried_again(serve: Serve, run: Runner) -> None:
    """The line says what the next run tries again, and which entries no run ever requests."""
    hostile = "/year=2022\x1b]0;title\x07/\r\nhour=1"
    paths = json.dumps({"files": [hostile, HOUR.format(3)]})
    ended = run.end(run.start(serve(MIXED), "--paths", "-"), paths)
    assert 3 == ended.code
    assert reason(ended.err).startswith(
        "partial: 1 of 2 files failed: corrupt 1; the next run tries them again; 1 of 2 listed "
        "entries are no paths of the API and are never requested; the first: "
    )
    ended = run.end(run.start(serve(MIXED), "--paths", "-"), json.dumps({"files": [hostile]}))
    assert 3 == ended.code
    said = reason(ended.err)
    assert said.startswith("partial: 1 of 1 listed entries are no paths")
    assert "/year=2022 ]0;title / hour=1" in said
    assert said.isprintable()


def test_a_signal_is_named(serve: Serve, run: Runner) -> None:
    """The line says how many files were loaded and how many are left."""
    emulator = serve(DATA, latency_s=0.05)
    process = run.start(emulator)
    wait_until(lambda: emulator.count("file") >= 3)
    process.terminate()
    ended = run.end(process)
    files = ended.report["files"]
    assert 143 == ended.code
    assert reason(ended.err) == (
        f"interrupted: SIGTERM; {files['loaded']} files loaded, "
        f"{files['not_attempted']} left to the next run"
    )


def test_a_second_signal_is_named(serve: Serve, run: Runner) -> None:
    """The run does not wait for its report, which here goes into a pipe that nobody reads."""
    pipe = run.folder / "pipe"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        run.arguments(serve(DATA), report=str(pipe)),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: len(list(run.lake.rglob("*.parquet"))) == 3)
    wait_until(lambda: not list((run.lake / "_staging").iterdir()))
    wait_until(lambda: ended_by(process, signal.SIGTERM))
    _, err = process.communicate()
    assert 143 == process.returncode
    assert reason(err).startswith("interrupted: SIGTERM again before the end; ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_a_signal_ends_says_so(number: signal.Signals, tmp_path: Path) -> None:
    """This also holds for commands that run no job, such as the emulator."""
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
    said = json.loads(last_line(err))
    assert (128 + number, "command.interrupted") == (process.returncode, said["event"])
    assert said["reason"].startswith(f"interrupted: {number.name} before the end; ")


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    """The line also names the flag that chooses another port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(
            [sys.executable, "-m", "etl", "emulator", "--port", str(taken.getsockname()[1])],
            env=environment(),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert 1 == done.returncode
    assert "Address already in use; try --port" in reason(done.stderr)


def test_a_command_that_crashes(tmp_path: Path) -> None:
    """It shows only the error's class; the text may hold a secret. A file has the traceback."""
    code = "import etl.cli; etl.cli.app = lambda **_: {}['hush-hush']; etl.cli.main()"
    ended = subprocess.run(
        [Path(COMMAND).with_name("python"), "-c", code],
        env=environment(TMPDIR=str(tmp_path)),
        capture_output=True,
        check=False,
        text=True,
    )
    [trace] = tmp_path.glob("aht-etl-trace-*.txt")
    said = reason(ended.stderr)
    assert 1 == ended.returncode
    assert said.startswith("error: unexpected KeyError: this is a defect of aht-etl: please report")
    assert f"in {trace}; until it is fixed, run again" in said
    assert "in main" in trace.read_text()
    assert "hush-hush" not in trace.read_text() + ended.stderr
    assert 0o600 == trace.stat().st_mode & 0o777


def test_a_run_that_crashes(serve: Serve, run: Runner, tmp_path: Path) -> None:
    """The last line names the file with the traceback. Neither holds a secret."""
    emulator = serve(DATA, auth="oauth1")
    secret = emulator.keys["consumer_secret"]
    folder = tmp_path / "broken"
    folder.mkdir()
    folder.joinpath("sitecustomize.py").write_text(
        "from etl.lake import commit\n"
        f"def broken(*_, **__): raise ZeroDivisionError('{secret}')\n"
        "commit.read_states = broken\n"
    )
    ended = run(emulator, TMPDIR=str(tmp_path), PYTHONPATH=str(folder))
    [trace] = tmp_path.glob("aht-etl-trace-*.txt")
    said = reason(ended.err)
    assert 1 == ended.code
    assert "unexpected ZeroDivisionError: ***; this is a defect of aht-etl: please report" in said
    assert f"in {trace};" in said
    assert secret not in trace.read_text() + ended.err
    assert "Traceback" in trace.read_text()
