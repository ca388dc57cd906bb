"""With few threads, few descriptors or little memory, a run works or says in one line why not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from etl.emulator import Emulator
from tests.conftest import Ended, Runner, Serve, environment
from tests.e2e.test_endings import DATA
from tests.lakes import assert_lake_holds

#: A user without other processes: RLIMIT_NPROC counts all threads of a user, except root's.
_NOBODY = "48913"


def limited(run: Runner, emulator: Emulator, *prefix: str, **env: str) -> Ended:
    """Run the job through a command that limits it."""
    arguments = run.arguments(emulator, report="report.json")[1:]
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "etl", *arguments],
        env=environment(TMPDIR=str(run.folder), **env),
        cwd=run.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    report = json.loads((run.folder / "report.json").read_text())
    assert report["files"]["listed"] == sum(
        count for key, count in report["files"].items() if key != "listed"
    )
    return Ended(done.returncode, done.stdout, done.stderr, report)


def as_nobody(run: Runner, threads: int) -> list[str]:
    """Return a command that runs as another user with this thread limit; skip without root."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv: root itself has no such limit")
    run.folder.chmod(0o777)
    # Root's files stay readable, because Python may be in root's home.
    capabilities = ("--inh-caps", "+dac_override", "--ambient-caps", "+dac_override")
    limit = ("prlimit", f"--nproc={threads}:{threads}")
    return ["setpriv", "--reuid", _NOBODY, "--clear-groups", *capabilities, *limit]


@pytest.mark.parametrize("threads", [7, 10, 14])
def test_a_run_works_with_few_threads(run: Runner, serve: Serve, threads: int) -> None:
    """It uses the available threads and leaves some for libraries."""
    ended = limited(run, serve(DATA), *as_nobody(run, threads))
    assert 0 == ended.code, ended.err
    assert_lake_holds(run.lake, DATA)


def test_a_run_without_a_thread_says_why(run: Runner, serve: Serve) -> None:
    """The exit code is 1, and the message names the limits that may be the reason."""
    ended = limited(run, serve(DATA), *as_nobody(run, 1))
    assert (1, "failed") == (ended.code, ended.report["status"])
    assert "no thread can be started: raise" in ended.report["error"]
    assert "pids.max" in ended.err.splitlines()[-1]


def test_a_run_with_few_descriptors_says_why(run: Runner, serve: Serve) -> None:
    """Exit code 1, a message with the limit, and no retry, because every file would fail."""
    ended = limited(run, serve(DATA), "prlimit", "--nofile=14:14")
    assert (1, "failed") == (ended.code, ended.report["status"])
    assert "this process may open 14 (ulimit -n)" in ended.report["error"]
    assert ended.report["files"]["not_attempted"] > 0
    assert 0 == ended.report["http"]["retries"]
    assert "api.base_url" not in ended.err


@pytest.mark.parametrize(
    "broken",
    [
        "from etl.decode.file import Decoded as broken; name = 'finish'",
        "from etl.lake.part import PartBuilder as broken; name = 'finish'",
        "from etl.lake import commit as broken; name = 'read_states'",
    ],
)
def test_out_of_memory_says_why(run: Runner, serve: Serve, tmp_path: Path, broken: str) -> None:
    """Wherever memory runs out: exit code 1, no file fails, and the rest is not attempted."""
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        f"def short(*_, **__): raise MemoryError\n{broken}\nsetattr(broken, name, short)\n"
    )
    ended = limited(run, serve(DATA), PYTHONPATH=str(folder), AHT_ETL_SHUTDOWN__GRACE="1s")
    assert (1, "failed", 0) == (ended.code, ended.report["status"], ended.report["files"]["failed"])
    assert ended.report["error"].startswith("there is no memory left: ")
    assert "limits.memory" in ended.err.splitlines()[-1]
    assert "defect" not in ended.err
