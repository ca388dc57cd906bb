"""Cores by affinity and quota, and what to set if the machine runs out of something."""

import errno
import os
from pathlib import Path

import pytest

from etl.model.errors import RunError
from etl.model.machine import cores, resource_shortage
from etl.storage.store import StoreError


def written(root: Path, files: dict[str, str]) -> Path:
    """Write files below a root that replaces the machine's."""
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


V2 = "sys/fs/cgroup"
V1 = "sys/fs/cgroup/cpu,cpuacct"
ONE_V1 = {"cpu.cfs_quota_us": "100000\n", "cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 64),
        ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "max 100000\n"}, 64),
        ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "150000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "20000 100000\n"}, 1),
        # The lowest quota of the group and of those above it.
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                f"{V2}/a/b/cpu.max": "max 100000\n",
                f"{V2}/a/cpu.max": "300000 100000\n",
            },
            3,
        ),
        # In a container the path may be the host's, which does not exist there.
        ({"proc/self/cgroup": "0::/kubepods/pod1\n", f"{V2}/cpu.max": "200000 100000\n"}, 2),
        (
            {
                "proc/self/cgroup": "7:pids:/x\n4:cpu,cpuacct:/docker/1\n1:name=systemd:/x\n",
                **{f"{V1}/{name}": text for name, text in ONE_V1.items()},
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/a\n0::/\n",
                "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "nonsense\n"}, 64),
    ],
)
def test_a_quota_counts_as_fewer_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
) -> None:
    """A pod with one CPU on a node with 64 cores must not run 64 decoders."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert expected == cores(written(tmp_path, files))


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (MemoryError(), "limits.memory"),
        (OSError(errno.ENOMEM, "no memory"), "memory.max"),
        (OSError(errno.EMFILE, "too many"), "ulimit -n"),
        (OSError(errno.ENFILE, "too many"), "fs.file-max"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (Exception("Unknown error: Failed to launch worker thread: Resource"), "pids.max"),
        (caused(StoreError("writing a: b"), OSError(errno.EMFILE, "too many")), "ulimit -n"),
    ],
)
def test_a_shortage_names_the_limit_and_what_to_set(error: Exception, named: str) -> None:
    """For threads, files and memory, whichever library reports it."""
    said = resource_shortage(error)
    assert said is not None
    assert named in said


def test_other_errors_are_no_shortage() -> None:
    """Neither our own errors nor the operating system's."""
    for error in (RunError("no"), OSError(errno.ENOSPC, "full"), None):
        assert resource_shortage(error) is None
