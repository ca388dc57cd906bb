"""Measure one command as a process: wall time, processor time, peak memory."""

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

_LOOK_EVERY_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Sample:
    """The cost of one run of a command, with its child processes.

    `peak_bytes` is the most memory of all of them together (shared memory counts once), or the peak
    of a single process if that is more.
    """

    wall_s: float
    cpu_s: float
    peak_bytes: int


def run(command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> Sample:
    """Run a command to its end, with its output in `log`. Raises CalledProcessError."""
    with log.open("wb") as stream:
        begun = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
        )
        seen, ended = [0], threading.Event()
        watch = threading.Thread(target=_watch, args=(process.pid, seen, ended))
        watch.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - begun
        ended.set()
        watch.join()
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, log.read_bytes()[-4000:])
    return Sample(wall_s, usage.ru_utime + usage.ru_stime, max(usage.ru_maxrss * 1024, *seen))


def _watch(process: int, seen: list[int], ended: threading.Event) -> None:
    while not ended.wait(_LOOK_EVERY_S):
        seen.append(_memory_bytes(process))


def _memory_bytes(process: int) -> int:
    """Return the current memory of a process and its children, with shares of shared memory."""
    folder = Path(f"/proc/{process}")
    with suppress(OSError, StopIteration):
        lines = folder.joinpath("smaps_rollup").read_text().splitlines()
        own = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        children = folder.joinpath(f"task/{process}/children").read_text().split()
        return own + sum(_memory_bytes(int(child)) for child in children)
    return 0


@dataclass(frozen=True, slots=True)
class Spread:
    """The median, minimum and maximum of some figures."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> "Spread":
        """Summarise at least one figure."""
        return cls(median(figures), min(figures), max(figures))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f}-{self.most:.2f})"
