"""Why it ended, where `kubectl describe pod` looks: one line for every end but success."""

import gzip
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from etl.emulator import Dataset, Fault
from etl.model import termination
from etl.model.termination import VARIABLE
from tests.conftest import COMMAND, Runner, Serve, environment
from tests.e2e.test_endings import DATA, ended_by, wait_until

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


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Make the empty file that a kubelet makes for each container."""
    file = tmp_path / "termination-log"
    file.touch()
    return file


def call(file: Path, *arguments: str, **env: str) -> tuple[int, str]:
    """Return exit code and what was left."""
    ended = subprocess.run(
        [COMMAND, *arguments],
        env=environment(**{VARIABLE: str(file), **env}),
        cwd=file.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
    )
    return ended.returncode, file.read_text()


def test_nothing_is_left_by_a_success(serve: Serve, run: Runner, file: Path) -> None:
    """An empty file is how a kubelet knows that there is nothing to tell."""
    assert 0 == run(serve(DATA), **{VARIABLE: str(file)}).code
    assert "" == file.read_text()


def test_files_that_failed_are_counted_by_kind(serve: Serve, run: Runner, file: Path) -> None:
    """How many of how many, why, and the first of them."""
    assert 3 == run(serve(MIXED), **{VARIABLE: str(file)}).code
    said = file.read_text()
    assert said.startswith(
        "partial: 4 of 5 files failed: corrupt 2, malformed 1, truncated 1; the next run tries "
        f"them again; the first: {HOUR[: HOUR.index('{')]}"
    )


def test_a_listing_that_was_refused(serve: Serve, run: Runner, file: Path) -> None:
    """The line of standard error, without a secret though the server shows what it was sent."""
    emulator = serve(DATA, auth="oauth1")
    secret = emulator.keys["consumer_secret"]
    body = f'{{"message": "not with {secret}"}}'.encode()
    fault = Fault("listing", "status", status=403, times=None, body=body)
    emulator.options = type(emulator.options)(auth="oauth1", oldest=None, faults=(fault,))
    assert 1 == run(emulator, **{VARIABLE: str(file)}).code
    said = file.read_text()
    assert said.startswith("error: listing 2022-06-01T00:00:00Z")
    assert "403" in said
    assert secret not in said


@pytest.mark.parametrize(
    ("arguments", "env", "code", "said"),
    [
        (("run",), {}, 2, "wrong usage: account: is missing"),
        (("run", "--acount", "1"), {}, 2, "wrong usage: No such option: --acount"),
        (("run", "--log-level", "loud"), {}, 2, "wrong usage: Invalid value for '--log-level'"),
        (("rum",), {}, 2, "wrong usage: No such command 'rum'"),
        (("run",), {"AHT_ETL_FETCH__RAT": "1"}, 2, "wrong usage: environment variable AHT_ETL_FE"),
        (("run", "--config", "missing.yaml"), {}, 2, "wrong usage: --config missing.yaml"),
        (("verify", "--lake", "/dev/null"), {}, 1, "error: "),
        (
            ("check", "--account", "1", "--base-url", "http://127.0.0.1:9", "--lake", "/proc"),
            {},
            1,
            "Not ready for a run: fix connection, l",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_other_ends(
    file: Path, arguments: tuple[str, ...], env: dict[str, str], code: int, said: str
) -> None:
    """Wrong usage, found by the program or by its command line; other commands."""
    ended, left = call(file, *arguments, **env)
    assert (code, said) == (ended, left[: len(said)])
    assert 1 == len(left.splitlines())


def test_findings_are_counted(serve: Serve, run: Runner, file: Path) -> None:
    """What `verify` found, in short."""
    run(serve(DATA))
    for part in list(run.lake.rglob("*.parquet"))[:2]:
        part.write_bytes(b"no part")
    code, said = call(file, "verify", "--lake", str(run.lake))
    assert (3, True) == (code, said.startswith("2 findings in 3 parts; the first: unreada"))


def test_a_signal_is_named(serve: Serve, run: Runner, file: Path) -> None:
    """With what was loaded and what is left."""
    emulator = serve(DATA, latency_s=0.05)
    process = run.start(emulator, **{VARIABLE: str(file)})
    wait_until(lambda: emulator.count("file") >= 3)
    process.terminate()
    ended = run.end(process)
    files = ended.report["files"]
    assert 143 == ended.code
    assert file.read_text() == (
        f"interrupted: SIGTERM; {files['loaded']} files loaded, "
        f"{files['not_attempted']} left to the next run"
    )


def test_a_second_signal_is_named(serve: Serve, run: Runner, file: Path) -> None:
    """Nobody waited for the report: here it goes into a pipe that nobody reads."""
    pipe = run.folder / "pipe"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        run.arguments(serve(DATA), report=str(pipe)),
        env=environment(**{VARIABLE: str(file)}),
        stdout=subprocess.PIPE,
    )
    wait_until(lambda: len(list(run.lake.rglob("*.parquet"))) == 3)
    wait_until(lambda: not list((run.lake / "_staging").iterdir()))
    wait_until(lambda: ended_by(process, signal.SIGTERM))
    process.communicate()
    assert 143 == process.returncode
    assert file.read_text().startswith("interrupted: SIGTERM again before the end; ")


@pytest.mark.parametrize(
    "make",
    [
        lambda file: None,
        lambda file: file.mkdir(),
        lambda file: file.symlink_to("elsewhere"),
    ],
    ids=["none", "a folder", "a link"],
)
def test_nothing_is_made_where_there_is_no_file(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    """Outside a container nothing appears, and the exit code is what it was."""
    (tmp_path / "elsewhere").touch()
    file = tmp_path / "log"
    make(file)
    before = sorted(tmp_path.iterdir())
    ended = subprocess.run(
        [COMMAND, "run"],
        env=environment(**{VARIABLE: str(file)}),
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert 2 == ended.returncode
    assert before == sorted(tmp_path.iterdir())
    assert b"" == (tmp_path / "elsewhere").read_bytes()


def test_the_line_is_as_long_as_a_kubelet_reads(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4096 bytes, whole characters; over what stood there."""
    monkeypatch.setenv(VARIABLE, str(file))
    termination.leave("€" * 2000)
    assert "€" * 1365 == file.read_text()
    termination.leave("short")
    assert "short" == file.read_text()


def test_it_is_one_line_of_printable_text(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a server or a listing put into it."""
    monkeypatch.setenv(VARIABLE, str(file))
    termination.leave("a\x1b[31mb\r\nc\x00d\u202ee\ud800f")
    assert "a [31mb c d e f" == file.read_text()


def test_entries_that_are_no_paths_are_not_tried_again(
    serve: Serve, run: Runner, file: Path
) -> None:
    """The line says what the next run tries again and what nobody will."""
    hostile = "/year=2022\x1b]0;title\x07/\r\nhour=1"
    paths = json.dumps({"files": [hostile, HOUR.format(3)]})
    env = {VARIABLE: str(file)}
    process = run.start(serve(MIXED), "--paths", "-", **env)
    assert 3 == run.end(process, paths).code
    said = file.read_text()
    assert said.startswith(
        "partial: 1 of 2 files failed: corrupt 1; the next run tries them again; 1 of 2 listed "
        "entries are no paths of the API and are never requested; the first: "
    )
    process = run.start(serve(MIXED), "--paths", "-", **env)
    assert 3 == run.end(process, json.dumps({"files": [hostile]})).code
    said = file.read_text()
    assert said.startswith("partial: 1 of 1 listed entries are no paths")
    assert "/year=2022 ]0;title / hour=1" in said
    assert said.isprintable()


def test_what_nobody_foresaw(file: Path) -> None:
    """The kind of error alone, its text may hold anything; the line names the file of the trace."""
    code = "import etl.cli; etl.cli.app = lambda: {}['hush-hush']; etl.cli.main()"
    ended = subprocess.run(
        [Path(COMMAND).with_name("python"), "-c", code],
        env=environment(**{VARIABLE: str(file), "TMPDIR": str(file.parent)}),
        capture_output=True,
        check=False,
        text=True,
    )
    [trace] = file.parent.glob("aht-etl-trace-*.txt")
    said = file.read_text()
    assert said.startswith("error: unexpected KeyError: this is a defect of aht-etl: please report")
    assert f"in {trace}; until it is fixed, run again" in said
    assert (1, said) == (ended.returncode, json.loads(ended.stderr)["reason"])
    assert "in main" in trace.read_text()
    assert "hush-hush" not in trace.read_text() + said + ended.stderr
    assert 0o600 == trace.stat().st_mode & 0o777


def test_a_run_that_meets_what_nobody_foresaw(serve: Serve, run: Runner, file: Path) -> None:
    """The last line says so and names the file of the trace, which has no secret."""
    emulator = serve(DATA, auth="oauth1")
    secret = emulator.keys["consumer_secret"]
    folder = file.parent / "broken"
    folder.mkdir()
    folder.joinpath("sitecustomize.py").write_text(
        "from etl.lake import commit\n"
        f"def broken(*_, **__): raise ZeroDivisionError('{secret}')\n"
        "commit.read_states = broken\n"
    )
    env = {VARIABLE: str(file), "TMPDIR": str(file.parent), "PYTHONPATH": str(folder)}
    ended = run(emulator, **env)
    [trace] = file.parent.glob("aht-etl-trace-*.txt")
    said = file.read_text()
    assert (1, said) == (ended.code, json.loads(ended.err.splitlines()[-1])["reason"])
    assert "unexpected ZeroDivisionError: ***; this is a defect of aht-etl: please report" in said
    assert f"in {trace};" in said
    assert secret not in said + trace.read_text() + ended.err
    assert "Traceback" in trace.read_text()
