"""Measure how `--engine dask` scales: `python -m tests.bench.scaling`; --write puts it into a page.

It compares one worker with two. Each has its own core and one thread. The cluster runs before the
measurement starts, so the start of processes does not count. It needs the extras `bench` and
`dask`, and nginx like the other measurements.
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Final

from tests.bench.__main__ import _machine
from tests.bench.compare import LATENCY_MS, our_command
from tests.bench.measure import Spread, run
from tests.bench.pages import PERFORMANCE, put
from tests.bench.server import serve
from tests.bench.workload import W1, W2, Workload, make

_DASK: Final = str(Path(sys.executable).with_name("dask"))
#: Name, workload, milliseconds before each answer, requests in flight per worker.
_TESTS: Final = (
    (f"many small files, {LATENCY_MS} ms before each answer", W1, LATENCY_MS, 4),
    ("few large files, bound by the processor", replace(W2, files=48, hours=48), 0, 4),
)


def main() -> None:
    """Run the measurement with the given flags."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scaling", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter of the files")
    parser.add_argument("--runs", type=int, default=5, help="turns that count (default 5)")
    parser.add_argument("--data", type=Path, help="where files are kept for the next time")
    parser.add_argument("--write", action="store_true", help="into the page performance")
    arguments = parser.parse_args()
    folder = arguments.data or Path(tempfile.gettempdir(), "aht-etl-bench")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        "| | one worker, s | two workers, s | speed-up | no Dask, one process on all cores, s |",
        "|---|---|---|---|---|",
    ]
    for name, workload, pause_ms, each in _TESTS:
        scaled = workload.at_scale(0.25) if arguments.quick else workload
        one, two, local = _measure(folder, scaled, pause_ms, each, arguments.runs)
        speed_up = Spread.of([a / b for a, b in zip(one, two, strict=True)])
        rows.append(
            f"| {name} | {Spread.of(one)} | {Spread.of(two)} | {speed_up} | {Spread.of(local)} |"
        )
    text = f"{_machine()[:-1]}, distributed {version('distributed')}.\n\n" + "\n".join(rows) + "\n"
    print(text)
    if arguments.write:
        put(PERFORMANCE, "dask", text)


def _measure(
    folder: Path, workload: Workload, pause_ms: int, each: int, runs: int
) -> tuple[list[float], list[float], list[float]]:
    """Return the seconds of runs in turns: with one worker, with two, without Dask."""
    data = make(workload, folder / f"{workload.name}-{workload.files}")
    seconds: dict[int, list[float]] = {1: [], 2: [], 0: []}
    with serve(data, pause_ms) as base, _cluster(1) as first, _cluster(2) as second:
        for turn in range(runs + 1):
            for workers, address in ((1, first), (2, second), (0, None)):
                more = ["--concurrency", str(each * (workers or 2))]
                if address is not None:
                    more += ["--dask-scheduler", address]
                took = _seconds(base, workload, folder, more)
                if turn:  # in the first one, the workers import their modules
                    seconds[workers].append(took)
                print(f"{workload.name}, {workers} workers: {took:.2f}", file=sys.stderr)
    return seconds[1], seconds[2], seconds[0]


def _seconds(base: str, workload: Workload, folder: Path, more: list[str]) -> float:
    """Run, and return the duration in its report, which does not include imports."""
    lake, report = folder / "lake", folder / "report.json"
    shutil.rmtree(lake, ignore_errors=True)
    command = our_command(base, workload, lake, *more, "--report", str(report))
    run(command, log=folder / "log")
    found = json.loads(report.read_text())
    assert workload.rows == found["rows"]["loaded"]
    return float(found["duration_seconds"])


@contextlib.contextmanager
def _cluster(workers: int) -> Iterator[str]:
    """Run a scheduler and this number of workers, each on its own core; yield the address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    host, _, port = address.partition(":")
    cores = sorted(os.sched_getaffinity(0))
    worker = [_DASK, "worker", address, "--nthreads", "1", "--no-dashboard"]
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:

        def start(command: list[str]) -> None:
            process = subprocess.Popen(command, cwd=scratch, stderr=log, stdout=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)

        file = Path(scratch, "log")
        log = stack.enter_context(file.open("wb"))
        start([_DASK, "scheduler", "--host", host, "--port", port, "--no-dashboard"])
        for core in range(workers):
            start(["taskset", "-c", str(cores[core % len(cores)]), *worker])
        while file.read_bytes().count(b"Register worker") < workers:
            time.sleep(0.1)
        yield f"tcp://{address}"


if __name__ == "__main__":
    main()
