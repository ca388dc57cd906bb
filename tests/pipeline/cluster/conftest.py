"""A real Dask cluster: a scheduler and two workers, started with Dask's own command."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import environment
from tests.e2e.test_endings import wait_until

DASK = str(Path(sys.executable).with_name("dask"))


@dataclass
class DaskCluster:
    """The cluster's address and processes, and the folder in which they run and log."""

    address: str
    folder: Path
    scheduler: subprocess.Popen[bytes]
    workers: subprocess.Popen[bytes]


def start(folder: Path, name: str, *arguments: str, **env: str) -> subprocess.Popen[bytes]:
    with (folder / f"{name}.log").open("wb") as log:
        command = [DASK, name, *arguments, "--no-dashboard"]
        return subprocess.Popen(command, cwd=folder, env=environment(**env), stdout=log, stderr=log)


def start_cluster(folder: Path, **env: str) -> DaskCluster:
    """Start a cluster on a free loopback port; return when both workers are registered."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    scheduler = start(folder, "scheduler", "--host", "127.0.0.1", "--port", str(port), **env)
    workers = start(folder, "worker", address, "--nworkers", "2", "--nthreads", "1")
    log = folder / "scheduler.log"
    wait_until(lambda: log.read_bytes().count(b"Register worker") == 2)
    return DaskCluster(address, folder, scheduler, workers)


def end_cluster(cluster: DaskCluster) -> None:
    for process in (cluster.workers, cluster.scheduler):
        process.terminate()
        process.wait()


def worker_processes(cluster: DaskCluster) -> list[int]:
    """Return the processes that load files: the children of Dask's nannies."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int(folder.joinpath("stat").read_text().rpartition(")")[2].split()[1])
                command = folder.joinpath("cmdline").read_bytes()
            except (OSError, IndexError):
                continue
            if parent == cluster.workers.pid and b"spawn_main" in command:
                found.append(int(folder.name))
    return found


@pytest.fixture
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """Start a cluster for one test, which may kill its processes."""
    cluster = start_cluster(tmp_path_factory.mktemp("dask"))
    yield cluster
    end_cluster(cluster)


@pytest.fixture(scope="module")
def dask_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """Start a cluster for several tests."""
    cluster = start_cluster(tmp_path_factory.mktemp("dask"))
    yield cluster
    end_cluster(cluster)
