"""This machine: its cores, its limits and how to raise them, its own addresses."""

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
    """Return how many cores this process may use, by its affinity and its cgroup quota.

    The quota is the lowest `cpu.max` (cgroup v2) or `cpu.cfs_quota_us` (v1) of the process's group
    and of those above it. A part of a core counts as one. `root` holds /proc and /sys.
    """
    return min([len(os.sched_getaffinity(0)), *_quotas(root)])


def _quotas(root: Path) -> Iterator[int]:
    """Yield each quota in cores, rounded up."""
    for folder in _groups(root):
        v1 = (folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us")
        quota = (_text(folder / "cpu.max") or " ".join(map(_text, v1))).split()
        if len(quota) == 2 and all(word.isdigit() and int(word) for word in quota):
            yield -(-int(quota[0]) // int(quota[1]))


def _groups(root: Path) -> Iterator[Path]:
    """Yield the folders of the process's cgroups for cpu, and of those above them.

    Inside a container a path may be the host's: then only the last folder, the root, exists.
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


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, ValueError):
        return ""


def resource_shortage(error: BaseException | None) -> str | None:
    """Return what the machine ran out of and what to set; None if no cause is such a shortage."""
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
    """Return whether requests to a host name or address stay on this machine."""
    host = host.rstrip(".").lower()
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
