"""A coarse copy in each kind of object store: every row once, whatever happens."""

import json
import signal
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiohttp import web

from tests.conftest import COMMAND, environment
from tests.copies import check_report, files_of, sources
from tests.parts import directory, rows_of, write_part
from tests.storage.conftest import Bucket
from tests.storage.proxy import CONFLICT, SLOW_DOWN, Fault, puts


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Write a lake of three days, to be put into a bucket."""
    root = tmp_path / "lake"
    for day in (1, 2, 3):
        for number in range(4):
            files = [(f"{number}-{n}", 2 + 5 * n) for n in range(2)]
            write_part(root, directory(number, day=day), files)
    return root


def put(bucket: Bucket, lake: Path, parts: list[Path] | None = None) -> None:
    """Put a lake, or some of its parts, into the bucket."""
    for part in parts or sorted(lake.rglob("part-*.parquet")):
        name = f"{bucket.prefix}/{part.relative_to(lake)}"
        obstore.put(bucket.client, name, part.read_bytes())


def copy_of(bucket: Bucket) -> Bucket:
    """Return the copy's place, in the same bucket."""
    copy = Bucket(bucket.proxy, bucket.kind, bucket.name, bucket.options, "some/copy")
    copy.env["AHT_ETL_COMPACT__URI"] = copy.uri
    return copy


def start(bucket: Bucket, *more: str, **env: str) -> subprocess.Popen[str]:
    copy = copy_of(bucket)
    return subprocess.Popen(
        [COMMAND, "compact", "--lake", bucket.uri, "--settle", "0s", "--json", *more],
        env=environment(**copy.env, **env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    out, err = process.communicate(timeout=90)
    assert out, err
    report = json.loads(out)
    check_report(report, process.returncode)
    return process.returncode, report


def millis(at: datetime) -> int:
    return round(1000 * at.timestamp())


def assert_equal(lake: Path, bucket: Bucket) -> None:
    """Compare the copy's rows and receipts with those of the lake on the disk."""
    copy = copy_of(bucket)
    rows = []
    for name in copy.parts():
        for row in pq.read_table(pa.BufferReader(copy.read(name))).to_pylist():
            path, hour = str(row["sourcePath"]), row.pop("hour")
            assert f"/hour={hour}/" in path
            rows.append(
                json.dumps(row, sort_keys=True, default=lambda at: round(1000 * at.timestamp()))
            )
    truth = [row for path, count in files_of(lake) for row in rows_of(path, count)]
    assert sorted(json.dumps(row, sort_keys=True) for row in truth) == sorted(rows)
    assert sorted(json.loads(each)["path"] for each in sources(lake)) == copy.receipts()


def run_json(bucket: Bucket, command: str, *flags: str) -> tuple[int, Any]:
    env = environment(**copy_of(bucket).env, AHT_ETL_COMPACT__SETTLE="0s")
    done = subprocess.run(
        [COMMAND, command, "--json", *flags], env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_every_row_once_and_then_nothing_to_do(bucket: Bucket, lake: Path) -> None:
    """Late files go into another part; `status` and `verify` read the copy."""
    put(bucket, lake)
    code, report = end(start(bucket))
    assert (0, 3, 24) == (code, len(report["parts"]), report["files"]["loaded"])
    assert_equal(lake, bucket)
    put(bucket, lake, [write_part(lake, directory(9), [("late", 3)])])
    code, report = end(start(bucket))
    assert (0, 1) == (code, report["files"]["loaded"])
    assert report["parts"][0]["path"].endswith("/part-00001.parquet")
    assert_equal(lake, bucket)
    code, report = end(start(bucket))
    assert (0, [], 25) == (code, report["parts"], report["files"]["already_loaded"])
    code, verified = run_json(bucket, "verify", "--lake", bucket.uri, "--copy")
    assert (0, True, 4) == (code, verified["ok"], verified["parts"])
    code, status = run_json(bucket, "status", "--lake", copy_of(bucket).uri)
    assert (0, 25, 4) == (code, status["files"], status["parts"])


def test_three_copiers_at_once(bucket: Bucket, lake: Path) -> None:
    """Exactly one of them copies each file."""
    put(bucket, lake)
    copiers = [start(bucket, AHT_ETL_LAKE__TARGET_PART_SIZE="1B") for _ in range(3)]
    ended = [end(copier) for copier in copiers]
    assert [0, 0, 0] == [code for code, _ in ended]
    assert 24 == sum(report["files"]["loaded"] for _, report in ended)
    assert_equal(lake, bucket)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(puts, 3, lose_answer=True),
        Fault(puts, 3, break_body=True),
        Fault(puts, 2, answer=CONFLICT),
        Fault(lambda request: request.method == "GET", 3, cut_answer=True),
        Fault(lambda request: request.method == "GET", 2, answer=SLOW_DOWN),
    ],
    ids=["lost answer", "broken", "conflict", "cut answer", "slow down"],
)
def test_passing_faults_are_survived(s3: Bucket, lake: Path, fault: Fault) -> None:
    put(s3, lake)
    s3.proxy.faults.append(Fault(**{name: getattr(fault, name) for name in Fault.__slots__}))
    assert 0 == end(start(s3))[0]
    assert_equal(lake, s3)


def at_request(
    bucket: Bucket, concerns: Callable[[web.Request], bool], number: int, then: Callable[[], None]
) -> None:
    """Do something when request `number` of a kind comes, before it is passed on."""
    left = number

    def count(request: web.Request) -> None:
        nonlocal left
        if concerns(request):
            left -= 1
            if left == 0:
                then()

    bucket.proxy.on_request = count


@pytest.mark.parametrize("number", [1, 3, 5])
def test_killed_around_a_put(s3: Bucket, lake: Path, number: int) -> None:
    """Killed when the store has a part's bytes but has not answered: the part may exist or not."""
    put(s3, lake)
    process: list[subprocess.Popen[str]] = []
    at_request(s3, puts, number, lambda: process[0].send_signal(signal.SIGKILL))
    process.append(start(s3, AHT_ETL_LAKE__TARGET_PART_SIZE="1B"))
    process[0].communicate(timeout=60)
    assert -signal.SIGKILL == process[0].returncode
    assert len(copy_of(s3).receipts()) < 24
    assert 0 == end(start(s3))[0]
    assert_equal(lake, s3)


def test_a_signal_ends_it_with_a_report(s3: Bucket, lake: Path) -> None:
    """The put in flight may finish, no other starts, and the next call copies the rest."""
    put(s3, lake)
    process: list[subprocess.Popen[str]] = []
    at_request(s3, puts, 2, lambda: process[0].send_signal(signal.SIGTERM))
    process.append(start(s3, AHT_ETL_LAKE__TARGET_PART_SIZE="1B"))
    code, report = end(process[0])
    assert (143, "interrupted") == (code, report["status"])
    assert len(report["parts"]) == len(copy_of(s3).parts())
    assert report["days"]["not_attempted"] > 0
    assert 0 == end(start(s3))[0]
    assert_equal(lake, s3)


def test_from_a_folder_into_a_bucket(s3: Bucket, lake: Path) -> None:
    """The copy has its own options, and its keys are not shown."""
    env = {
        "AHT_ETL_COMPACT__URI": f"s3://{s3.name}/some/copy",
        "AHT_ETL_COMPACT__OPTIONS": json.dumps(s3.options),
    }
    done = subprocess.run(
        [COMMAND, "compact", "--lake", str(lake), "--settle", "0s", "--log-level", "debug"],
        env=environment(**env),
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    assert_equal(lake, s3)
    for secret in ("AKIAINVENTED", "invented-secret-of-a-test"):
        assert secret not in done.stdout + done.stderr
