"""Copiers are killed, run in parallel and get signals, while readers read the growing copy."""

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tests.conftest import environment
from tests.copies import (
    HIVE,
    arguments,
    assert_equal,
    check_report,
    compact,
    copy_here,
    files_of,
    sources,
)
from tests.parts import directory, write_part


def lake_of(root: Path, days: int, parts: int) -> None:
    """Write a lake with this number of days and of parts per day; a part has one or two files."""
    for day in range(1, days + 1):
        for number in range(parts):
            files = [(f"{number}-{n}", 3 + (7 * number + n) % 40) for n in range(1 + number % 2)]
            write_part(root, directory(number % 24, day=day), files)


@pytest.mark.parametrize("first", range(4))
def test_killed_between_any_two_effects(tmp_path: Path, first: int) -> None:
    """Readers see complete files, each once. The next call copies the rest."""
    lake = tmp_path / "lake"
    lake_of(lake, 2, 2)
    at = first + 1
    while True:
        copy = tmp_path / f"copy-{at}"
        command = [sys.executable, "-m", "tests.e2e.killed", str(at)]
        done = subprocess.run(
            [*command, *arguments(lake, copy, "--settle", "0s")[1:]],
            env=environment(),
            capture_output=True,
            check=False,
        )
        if copy.exists():
            assert sources(copy) <= sources(lake)
            for part in copy.rglob("*.parquet"):
                pq.read_table(part)
        if done.returncode == 0:
            break
        assert -signal.SIGKILL == done.returncode, done.stderr
        copy_here(lake, copy)
        assert_equal(lake, copy)
        at += 4
    assert at > 10


def by_duckdb(copy: Path) -> Counter[str]:
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        glob = f"{copy}/year=*/**/*.parquet"
        if not connection.sql(f"SELECT 1 FROM glob('{glob}') LIMIT 1").fetchall():
            return Counter()  # an empty glob is an error to read_parquet
        found = connection.sql(
            f"SELECT sourcePath, count(*) FROM read_parquet('{glob}', hive_partitioning = true, "
            "hive_types = {'accountId': VARCHAR}) GROUP BY ALL"
        ).fetchall()
    return Counter(dict(found))


def by_pyarrow(copy: Path) -> Counter[str]:
    if not copy.exists():
        return Counter()
    hive = ds.partitioning(HIVE, flavor="hive")
    data = ds.dataset(copy, format="parquet", partitioning=hive)
    if not data.files:
        return Counter()
    return Counter(map(str, data.to_table(columns=["sourcePath"])["sourcePath"].to_pylist()))


class Reading(threading.Thread):
    """Reads the copy in a loop and compares the rows with the expected ones."""

    def __init__(self, look: Callable[[Path], "Counter[str]"], copy: Path) -> None:
        super().__init__()
        self._look, self._copy = look, copy
        #: Rows of each file that the copy may have. A file is added before it is in the lake.
        self.truth: dict[str, int] = {}
        self.ended = threading.Event()
        self.wrong: list[Any] = []
        self.looks = 0

    def run(self) -> None:
        seen: set[str] = set()
        while not self.ended.is_set() and not self.wrong:
            try:
                found = self._look(self._copy)
            except Exception as error:  # noqa: BLE001 - the test fails with it
                self.wrong.append(error)
                return
            self.wrong += [each for each in found.items() if self.truth.get(each[0]) != each[1]]
            self.wrong += [("vanished", path) for path in seen - found.keys()]
            seen |= found.keys()
            self.looks += 1


def test_three_copiers_are_killed_while_the_copy_is_read_and_grows(
    tmp_path: Path, kills: int
) -> None:
    """No reader sees a row twice, sees a file without some of its rows, or loses a row later."""
    lake, copy = tmp_path / "lake", tmp_path / "copy"
    lake_of(lake, 4, 30)
    readers = [Reading(look, copy) for look in (by_duckdb, by_pyarrow)]
    for reader in readers:
        reader.truth.update(files_of(lake))
        reader.start()
    chance = random.Random(7)
    command = arguments(lake, copy, "--settle", "0s", "--log-level", "error")
    running: list[subprocess.Popen[bytes]] = []
    killed = late = 0
    try:
        while killed < kills:
            while len(running) < 3:
                # Small parts mean many commits, so kills hit between them.
                env = environment(AHT_ETL_LAKE__TARGET_PART_SIZE="4kB")
                running.append(subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL))
            time.sleep(chance.uniform(0.3, 1.2))
            late += 1
            folder = directory(chance.randrange(24), day=chance.randint(1, 6))
            for reader in readers:
                reader.truth[f"/{folder}/late-{late}.json.gz"] = late % 30
            write_part(lake, folder, [(f"late-{late}", late % 30)])
            victim = running.pop(chance.randrange(3))
            victim.kill()
            code = victim.wait()
            assert code in {0, -signal.SIGKILL}
            killed += code == -signal.SIGKILL
        for process in running:
            assert 0 == process.wait(timeout=60)
        assert 0 == compact(lake, copy).code
    finally:
        for process in running:
            process.kill()
            process.wait()
        for reader in readers:
            reader.ended.set()
            reader.join()
    assert [[], []] == [reader.wrong[:3] for reader in readers]
    assert min(reader.looks for reader in readers) > 3
    assert_equal(lake, copy)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_with_a_report(tmp_path: Path, number: signal.Signals) -> None:
    """Committed parts stay, no staged file is left, and the next call copies the rest."""
    lake, copy, report = tmp_path / "lake", tmp_path / "copy", tmp_path / "report.json"
    lake_of(lake, 3, 40)
    command = arguments(lake, copy, "--settle", "0s", "--report", str(report))
    # Each file makes a part, so there are 180 commits. The signal comes after the first.
    process = subprocess.Popen(
        command,
        env=environment(AHT_ETL_LAKE__TARGET_PART_SIZE="1B"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    next(line for line in process.stderr if json.loads(line)["event"] == "part.committed")
    process.send_signal(number)
    process.communicate(timeout=60)
    said = json.loads(report.read_text())
    assert (128 + number, "interrupted") == (process.returncode, said["status"])
    check_report(said, process.returncode)
    assert said["days"]["not_attempted"] > 0
    assert len(said["parts"]) == len(list(copy.rglob("part-*.parquet")))
    assert [] == list((copy / "_staging").iterdir())
    assert 0 == compact(lake, copy).code
    assert_equal(lake, copy)
