"""The whole job into each kind of object store: all rows, each once, whatever happens."""

import gzip
import json
import signal
import subprocess
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from etl.emulator import Dataset
from tests.conftest import COMMAND, Runner, Serve, environment
from tests.lakes import expected
from tests.stores.conftest import Bucket
from tests.stores.proxy import CONFLICT, SLOW_DOWN, Fault, puts

START, END = datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 6, 1, 6, tzinfo=UTC)
DATA = Dataset.generate(5, START, END, rows_per_file=40)
MORE = Dataset.generate(6, START, datetime(2022, 6, 2, tzinfo=UTC), rows_per_file=10)
WINDOW = ("--from", "2022-06-01", "--to", "2022-06-03")
BROKEN = "/year=2022/month=6/day=1/hour=6/accountId=le79344075/bad.json.gz"


def told(bucket: Bucket, command: str, *arguments: str) -> tuple[int, Any]:
    """Run another command over the lake; return its exit code and its JSON."""
    done = subprocess.run(
        [COMMAND, command, "--json", "--lake", bucket.uri, *arguments],
        env=environment(**bucket.env),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def into(bucket: Bucket) -> tuple[str, ...]:
    return ("--lake", bucket.uri, *WINDOW)


def test_every_row_once_and_then_nothing_to_do(run: Runner, serve: Serve, bucket: Bucket) -> None:
    """The lake is compared with the truth, row by row; every command reads it."""
    emulator = serve(DATA)
    ended = run(emulator, *into(bucket), **bucket.env)
    assert (0, len(DATA.files)) == (ended.code, ended.report["files"]["loaded"]), ended.err
    bucket.assert_holds(DATA)
    again = run(emulator, *into(bucket), **bucket.env)
    assert (0, len(DATA.files)) == (again.code, again.report["files"]["already_loaded"])
    rows = expected(DATA).total()
    code, verified = told(bucket, "verify")
    assert (0, True, rows) == (code, verified["ok"], verified["rows"])
    code, status = told(bucket, "status")
    assert (0, len(DATA.files), rows) == (code, status["files"], status["rows"])
    flags = ("--account", "le79344075", "--base-url", emulator.base_url, *WINDOW)
    code, plan = told(bucket, "plan", *flags)
    assert (0, 0) == (code, plan["files"]["to_load"])
    code, checked = told(bucket, "check", *flags)
    lake = next(check for check in checked["checks"] if check["name"] == "lake")
    assert lake["ok"], lake
    bucket.assert_holds(DATA)


def test_three_runs_at_once(run: Runner, serve: Serve, bucket: Bucket) -> None:
    """Each file ends in exactly one of them."""
    emulator = serve(DATA)
    runs = [run.start(emulator, *into(bucket), **bucket.env) for _ in range(3)]
    ended = [run.end(each) for each in runs]
    assert [0, 0, 0] == [each.code for each in ended]
    assert len(DATA.files) == sum(each.report["files"]["loaded"] for each in ended)
    bucket.assert_holds(DATA)


def test_killed_around_each_put(run: Runner, serve: Serve, s3: Bucket) -> None:
    """Killed when a part's bytes are at the store, before it answers: it may be there or not."""
    emulator = serve(MORE)
    for number in (1, 3, 6):
        left = number
        process = run.start(emulator, *into(s3), **s3.env)

        def kill(request: web.Request, process: subprocess.Popen[str] = process) -> None:
            nonlocal left
            if puts(request):
                left -= 1
                if left == 0:
                    process.send_signal(signal.SIGKILL)

        s3.proxy.on_request = kill
        process.communicate(timeout=60)
        assert -signal.SIGKILL == process.returncode
        s3.proxy.on_request = lambda _: None
        assert set(s3.receipts()) < set(MORE.files)
    ended = run(emulator, *into(s3), **s3.env)
    assert 0 == ended.code, ended.err
    s3.assert_holds(MORE)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(puts, 3, lose_answer=True),
        Fault(puts, 3, break_body=True),
        Fault(puts, 2, answer=CONFLICT),
        Fault(puts, 3, answer=SLOW_DOWN),
        Fault(puts, 2, answer=(500, "<Error><Code>InternalError</Code></Error>")),
        Fault(puts, 2, delay_s=1),
        Fault(lambda request: request.method == "GET", 3, lose_answer=True),
        Fault(lambda request: request.method == "GET", 2, answer=SLOW_DOWN),
    ],
    ids=["lost", "broken", "conflict", "slow_down", "error", "late", "lost_get", "slow_get"],
)
def test_what_passes_is_survived(run: Runner, serve: Serve, s3: Bucket, fault: Fault) -> None:
    """A lost answer is no other run's part; what stored nothing is tried again."""
    s3.proxy.faults.append(Fault(**{name: getattr(fault, name) for name in Fault.__slots__}))
    ended = run(serve(DATA), *into(s3), **s3.env)
    assert (0, len(DATA.files)) == (ended.code, ended.report["files"]["loaded"]), ended.err
    assert 0 == s3.proxy.faults[0].times
    s3.assert_holds(DATA)


def test_bad_rows_lie_beside_the_lake(run: Runner, serve: Serve, bucket: Bucket) -> None:
    """They are counted in the receipt, kept, and proved by `verify`."""
    lines = b'{"segmentId": "s1", "sequence": 1}\nnothing\n{"segmentId": "s2", "sequence": 2}\n'
    data = Dataset.of({BROKEN: gzip.compress(lines)})
    ended = run(serve(data), *into(bucket), **bucket.env)
    assert (0, 1) == (ended.code, ended.report["rows"]["quarantined"]), ended.err
    name = f"{bucket.prefix}/_quarantine{BROKEN.removesuffix('.json.gz')}.ndjson"
    kept = json.loads(bucket.read(name))
    assert (BROKEN, 1, "nothing") == (kept["sourcePath"], kept["row"], kept["raw"])
    bucket.assert_holds(data)
    assert 0 == told(bucket, "verify")[0]


def test_an_archive_in_a_store(run: Runner, serve: Serve, bucket: Bucket) -> None:
    """The lake's options hold for an archive of the same kind; `verify --deep` compares them."""
    raw = f"{bucket.kind}://{bucket.name}/raw"
    env = {**bucket.env, "AHT_ETL_RAW__URI": raw}
    ended = run(serve(DATA), *into(bucket), **env)
    assert 0 == ended.code, ended.err
    kept = [name for name in bucket.objects() if name.startswith("raw/year=")]
    assert sorted(f"raw{path}" for path in DATA.files) == kept
    assert all(bucket.read(f"raw{path}") == file.content for path, file in DATA.files.items())
    bucket.env = env
    code, verified = told(bucket, "verify", "--deep")
    assert (0, [], []) == (code, verified["findings"], verified["notes"])


def test_a_damaged_part_stops_its_partition_alone(run: Runner, serve: Serve, s3: Bucket) -> None:
    """Nothing is written there; the files of the others are loaded."""
    import obstore

    (first, *_) = sorted({path.rpartition("/")[0] for path in DATA.files})
    obstore.put(s3.client, f"{s3.prefix}{first}/part-00000.parquet", b"no parquet")
    ended = run(serve(DATA), *into(s3), **s3.env)
    lost = [path for path in DATA.files if path.startswith(f"{first}/")]
    assert (3, len(lost)) == (ended.code, ended.report["files"]["failed"])
    assert {"lake"} == {failure["kind"] for failure in ended.report["failures"]}
