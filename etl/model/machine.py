"""This machine: its cores, what to set where something runs out, which addresses are its own."""

import errno
import ipaddress
import os
import resource
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

_NO_THREAD: Final = (
    "can't start new thread",  # Python
    "Failed to launch worker thread",  # Arrow
    "can't spawn worker thread",  # tokio, which obstore runs on
)


def cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use: its affinity, or its cgroup's quota if less.

    The quota is `cpu.max` (cgroup v2) or `cpu.cfs_quota_us` (v1) of the process's group and of
    those above it (Linux, Documentation/admin-guide/cgroup-v2.rst and scheduler/sched-bwc.rst).
    Part of a core counts as one. `root` is where /proc and /sys are.
    """
    shares = [-(-quota // period) for quota, period in _quotas(root)]
    return min([len(os.sched_getaffinity(0)), *shares])


def _quotas(root: Path) -> Iterator[tuple[int, int]]:
    """Yield each quota with its period, in microseconds."""
    for folder in _groups(root):
        quota = _words(folder / "cpu.max") or [
            *_words(folder / "cpu.cfs_quota_us"),
            *_words(folder / "cpu.cfs_period_us"),
        ]
        if len(quota) == 2 and all(word.isdigit() and int(word) for word in quota):
            yield int(quota[0]), int(quota[1])


def _groups(root: Path) -> Iterator[Path]:
    """Yield the folders of the process's cgroups for cpu, and of those above them.

    Inside a container the path may be the host's: then only the last folder, the root, is there.
    """
    mounted = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            mounts = [mounted]
        elif "cpu" in controllers.split(","):
            mounts = [mounted / controllers, mounted / "cpu"]
        else:
            continue
        inside = PurePosixPath(path.lstrip("/"))
        for mount in mounts:
            yield from (mount / folder for folder in (inside, *inside.parents))


def _words(file: Path) -> list[str]:
    return _text(file).split()


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, ValueError):
        return ""


def lack(error: BaseException | None) -> str | None:
    """Return which limit of the machine an error, or its cause, met, and what to set; else None."""
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if isinstance(error, MemoryError) or number == errno.ENOMEM:
            return (
                "there is no memory left: give the process or its container more (ulimit -v, "
                "memory.max), or lower limits.memory"
            )
        if number == errno.EMFILE:
            most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            return (
                f"too many open files: this process may open {most} (ulimit -n); raise that limit, "
                "or lower fetch.concurrency"
            )
        if number == errno.ENFILE:
            return "too many open files on this machine (fs.file-max): raise that limit"
        if any(text in str(error) for text in _NO_THREAD):
            return (
                "no thread can be started: raise the limit of the user (ulimit -u) or of the "
                "container (pids.max) to 64 or more, or give it more memory (ulimit -v, memory.max)"
            )
        error = error.__cause__
    return None


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address never leaves this machine."""
    host = host.rstrip(".").lower()
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
