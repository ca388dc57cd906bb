"""Few threads, few descriptors, little memory: lived with, or named in one line."""

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

#: A user that runs nothing else: RLIMIT_NPROC counts all threads of a user, and not root's.
_NOBODY = "48913"


def limited(run: Runner, emulator: Emulator, *prefix: str, **env: str) -> Ended:
    """Run behind a command that limits it."""
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
    """Return the command that lets another user start so many threads; skip where it cannot."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv: root itself has no such limit")
    run.folder.chmod(0o777)
    # What is root's can still be read: Python may lie in its home.
    capabilities = ("--inh-caps", "+dac_override", "--ambient-caps", "+dac_override")
    limit = ("prlimit", f"--nproc={threads}:{threads}")
    return ["setpriv", "--reuid", _NOBODY, "--clear-groups", *capabilities, *limit]


@pytest.mark.parametrize("threads", [7, 10, 14])
def test_a_run_makes_do_with_the_threads_it_gets(run: Runner, serve: Serve, threads: int) -> None:
    """As many as there are; some are left for libraries."""
    ended = limited(run, serve(DATA), *as_nobody(run, threads))
    assert 0 == ended.code, ended.err
    assert_lake_holds(run.lake, DATA)


def test_no_thread_at_all_is_named(run: Runner, serve: Serve) -> None:
    """Exit 1, with the limits that may be the reason."""
    ended = limited(run, serve(DATA), *as_nobody(run, 1))
    assert (1, "failed") == (ended.code, ended.report["status"])
    assert "no thread can be started: raise" in ended.report["error"]
    assert "pids.max" in ended.err.splitlines()[-1]


def test_few_descriptors_are_named(run: Runner, serve: Serve) -> None:
    """Exit 1 with the limit, without retries: each file would meet it."""
    ended = limited(run, serve(DATA), "prlimit", "--nofile=14:14")
    assert (1, "failed") == (ended.code, ended.report["status"])
    assert "this process may open 14 (ulimit -n)" in ended.report["error"]
    assert ended.report["files"]["not_attempted"] > 0
    assert 0 == ended.report["http"]["retries"]
    assert "api.base_url" not in ended.err


@pytest.mark.parametrize(
    "broken",
    [
        "from etl.decode.decoded import Decoded as broken; name = 'finish'",
        "from etl.lake.part import PartBuilder as broken; name = 'finish'",
        "from etl.lake import commit as broken; name = 'read_states'",
    ],
)
def test_too_little_memory_is_named(run: Runner, serve: Serve, tmp_path: Path, broken: str) -> None:
    """Wherever it runs out: exit 1, no file is blamed, the rest is not attempted."""
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
