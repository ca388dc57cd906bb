"""How memory is shared out, and that a run stays within it."""

import gzip
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.emulator import Dataset
from etl.pipeline import Memory
from tests.conftest import COMMAND, Serve, environment

MIB = 2**20
# Prints the most memory, in KiB, that the command in its arguments ever held.
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@given(st.integers(64 * MIB, 64 * 1024 * MIB), st.integers(1, 500))
def test_shares_are_within_the_budget(budget: int, workers: int) -> None:
    """Downloads, decoding and waiting rows take a quarter each at most."""
    memory = Memory.share_out(budget, workers)
    assert memory.download * workers <= max(budget // 4, 64 * 2**10 * workers)
    assert memory.decode * memory.decoders <= budget // 4
    assert memory.pending <= budget // 4
    assert 1 <= memory.decoders <= workers


@pytest.mark.parametrize("row", [b'{"segmentId":"a","sequence":1,"startReason":"b"}\n', b"\n"])
def test_a_file_that_unpacks_to_a_hundred_times_its_size(
    row: bytes, serve: Serve, tmp_path: Path
) -> None:
    """It streams: what it unpacks to is many times what the process ever held beyond its own."""
    text = row * (300 * MIB // len(row))
    hour = "/year=2022/month=6/day=1/hour=6/accountId=a1/{}.json.gz"
    small = gzip.compress(row)
    big = gzip.compress(text, 1)
    peaks = {}
    for name, content in (("small", small), ("big", big)):
        path = hour.format(name)
        (tmp_path / name).write_text(path)
        url = serve(Dataset.of({path: content})).base_url
        command = [
            *(COMMAND, "run", "--account", "a1", "--base-url", url),
            *("--paths", str(tmp_path / name), "--lake", str(tmp_path / f"{name}-lake")),
        ]
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *command],
            env=environment(AHT_ETL_LIMITS__MEMORY="64MiB"),
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        )
        peaks[name] = int(done.stdout.splitlines()[-1]) * 1024
    assert peaks["big"] - peaks["small"] < 2 * 64 * MIB
