"""A Dask cluster into an object store: the place that workers on many machines share."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Runner, Serve
from tests.e2e.test_endings import wait_until
from tests.pipeline.cluster.conftest import (
    DaskCluster,
    end_cluster,
    start_cluster,
    worker_processes,
)
from tests.storage.conftest import Bucket
from tests.storage.test_jobs import MORE, WINDOW


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DaskCluster]:
    started = start_cluster(tmp_path)
    yield started
    end_cluster(started)


def test_a_worker_is_killed(run: Runner, serve: Serve, s3: Bucket, cluster: DaskCluster) -> None:
    """Each row is in the lake once, parts of the killed worker count once; no key is shown."""
    emulator = serve(MORE, latency_s=0.05)
    flags = ["--lake", s3.uri, *WINDOW, "--dask-scheduler", cluster.address]
    flags += ["--concurrency", "4", "--log-level", "debug"]
    process = run.start(emulator, *flags, **s3.env)
    wait_until(lambda: len(s3.parts()) >= 4)
    os.kill(worker_processes(cluster)[0], signal.SIGKILL)
    ended = run.end(process)
    assert (0, len(MORE.files)) == (ended.code, ended.report["files"]["loaded"]), ended.err
    s3.assert_holds(MORE)
    claimed = sorted(f"{s3.prefix}/{part['path']}" for part in ended.report["parts"])
    assert s3.parts() == claimed
    said = ended.err + ended.out + str(ended.report)
    assert not any(secret in said for secret in s3.options.values() if "secret" in secret)
    assert s3.options["access_key_id"] not in said
