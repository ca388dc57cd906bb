"""Why it ended, where `kubectl describe pod` looks: one line for every end but success."""

import gzip
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from etl import termination
from etl.emulator import Dataset, Fault
from etl.termination import VARIABLE
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
            "Not ready for a run: mend tls, l",
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
    assert (3, "2 findings in 3 parts; the first: unreadable: ") == (code, said[:46])


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
    assert (143, "interrupted: SIGTERM again before the end") == (
        process.returncode,
        file.read_text(),
    )


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


def test_what_nobody_foresaw(file: Path) -> None:
    """The kind of error alone: its text may hold anything."""
    code = "import etl.cli; etl.cli.app = lambda: {}['hush-hush']; etl.cli.main()"
    ended = subprocess.run(
        [Path(COMMAND).with_name("python"), "-c", code],
        env=environment(**{VARIABLE: str(file)}),
        capture_output=True,
        check=False,
    )
    assert (1, "error: unexpected KeyError; the log has more") == (
        ended.returncode,
        file.read_text(),
    )
