"""The whole job into each kind of object store: all rows, each once, whatever happens."""

import gzip
import json
import resource
import signal
import subprocess
from datetime import UTC, datetime
from typing import Any

import obstore
import pyarrow.dataset as ds
import pytest
from aiohttp import web
from pyarrow import fs

from etl.emulator import Dataset
from tests.conftest import COMMAND, Runner, Serve, environment, keys_of
from tests.lakes import HIVE, expected
from tests.storage.conftest import SECRETS, Bucket
from tests.storage.proxy import CONFLICT, SLOW_DOWN, Fault, puts

START, END = datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 6, 1, 6, tzinfo=UTC)
DATA = Dataset.generate(5, START, END, rows_per_file=40)
MORE = Dataset.generate(6, START, datetime(2022, 6, 2, tzinfo=UTC), rows_per_file=10)
WINDOW = ("--from", "2022-06-01", "--to", "2022-06-03")
CORRECTED = gzip.compress(b'{"segmentId": "a"}\n')
BROKEN = "/year=2022/month=6/day=1/hour=6/accountId=le79344075/bad.json.gz"


def run_json(bucket: Bucket, command: str, *arguments: str) -> tuple[int, Any]:
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


def lists(request: web.Request) -> bool:
    return "list-type" in request.query


def test_every_row_once_and_then_nothing_to_do(run: Runner, serve: Serve, bucket: Bucket) -> None:
    """The lake holds the dataset, row by row; every command reads it."""
    emulator = serve(DATA)
    ended = run(emulator, *into(bucket), **bucket.env)
    assert (0, len(DATA.files)) == (ended.code, ended.report["files"]["loaded"]), ended.err
    bucket.assert_holds(DATA)
    again = run(emulator, *into(bucket), **bucket.env)
    assert (0, len(DATA.files)) == (again.code, again.report["files"]["already_loaded"])
    rows = expected(DATA).total()
    code, verified = run_json(bucket, "verify")
    assert (0, True, rows) == (code, verified["ok"], verified["rows"])
    code, status = run_json(bucket, "status")
    assert (0, len(DATA.files), rows) == (code, status["files"], status["rows"])
    flags = ("--account", "le79344075", "--base-url", emulator.base_url, *WINDOW)
    code, plan = run_json(bucket, "plan", *flags)
    assert (0, 0) == (code, plan["files"]["to_load"])
    code, checked = run_json(bucket, "check", *flags)
    lake = next(check for check in checked["checks"] if check["name"] == "lake")
    assert lake["ok"], lake
    bucket.assert_holds(DATA)


def test_three_runs_at_once(run: Runner, serve: Serve, bucket: Bucket) -> None:
    """Exactly one of them loads each file."""
    emulator = serve(DATA)
    runs = [run.start(emulator, *into(bucket), **bucket.env) for _ in range(3)]
    ended = [run.end(each) for each in runs]
    assert [0, 0, 0] == [each.code for each in ended]
    assert len(DATA.files) == sum(each.report["files"]["loaded"] for each in ended)
    bucket.assert_holds(DATA)


def test_killed_around_each_put(run: Runner, serve: Serve, s3: Bucket) -> None:
    """Killed when the store has a part's bytes but has not answered: the part may exist or not."""
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
                    # Requests that are still in flight fail, because they might be all the rest.
                    s3.proxy.faults.append(Fault(puts, len(MORE.files), break_body=True))

        s3.proxy.on_request = kill
        process.communicate(timeout=60)
        assert -signal.SIGKILL == process.returncode
        s3.proxy.on_request = lambda _: None
        s3.proxy.faults.clear()
        assert set(s3.receipts()) < set(MORE.files)
    ended = run(emulator, *into(s3), **s3.env)
    assert 0 == ended.code, ended.err
    s3.assert_holds(MORE)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(puts, 3, lose_answer=True),
        Fault(puts, 3, break_body=True),
        Fault(puts, 3, lose_answer=True, reset=True),
        Fault(puts, 3, break_body=True, reset=True),
        Fault(puts, 2, answer=CONFLICT),
        Fault(puts, 3, answer=SLOW_DOWN),
        Fault(puts, 2, answer=(500, "<Error><Code>InternalError</Code></Error>")),
        Fault(puts, 2, delay_s=1),
        Fault(lambda request: request.method == "GET", 3, lose_answer=True),
        Fault(lambda request: request.method == "GET", 2, answer=SLOW_DOWN),
        Fault(lists, 3, cut_answer=True, reset=True),
    ],
    ids=[
        *("lost", "broken", "lost_reset", "reset", "conflict", "slow_down", "error", "late"),
        *("lost_get", "slow_get", "list_reset"),
    ],
)
def test_passing_faults_are_survived(run: Runner, serve: Serve, s3: Bucket, fault: Fault) -> None:
    """After a lost answer the part is not taken for another run's; a failed put is repeated."""
    s3.proxy.faults.append(Fault(**{name: getattr(fault, name) for name in Fault.__slots__}))
    ended = run(serve(DATA), *into(s3), **s3.env)
    assert (0, len(DATA.files)) == (ended.code, ended.report["files"]["loaded"]), ended.err
    assert 0 == s3.proxy.faults[0].times
    s3.assert_holds(DATA)


def test_bad_rows_are_kept(run: Runner, serve: Serve, bucket: Bucket) -> None:
    """The receipt counts them, the store keeps them, and `verify` checks them."""
    lines = b'{"segmentId": "s1", "sequence": 1}\nnothing\n{"segmentId": "s2", "sequence": 2}\n'
    data = Dataset.of({BROKEN: gzip.compress(lines)})
    ended = run(serve(data), *into(bucket), **bucket.env)
    assert (0, 1) == (ended.code, ended.report["rows"]["quarantined"]), ended.err
    name = f"{bucket.prefix}/_quarantine{BROKEN.removesuffix('.json.gz')}.ndjson"
    kept = json.loads(bucket.read(name))
    assert (BROKEN, 1, "nothing") == (kept["sourcePath"], kept["row"], kept["raw"])
    bucket.assert_holds(data)
    assert 0 == run_json(bucket, "verify")[0]


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
    code, verified = run_json(bucket, "verify", "--deep")
    assert (0, [], []) == (code, verified["findings"], verified["notes"])


def test_a_lake_from_an_archive(run: Runner, serve: Serve, bucket: Bucket) -> None:
    """Files are archived first, then loaded from there without the vendor, also a corrected one."""
    env = {**bucket.env, "AHT_ETL_RAW__URI": f"{bucket.kind}://{bucket.name}/raw"}
    damaged = gzip.compress(b'{"segmentId":"a"}')[:-3]
    first, second = (Dataset.of({**_contents(DATA), BROKEN: one}) for one in (damaged, CORRECTED))
    for dataset, code, counts in (
        (first, 3, (len(DATA.files), 0)),
        (first, 3, (0, len(DATA.files))),
        (second, 0, (1, len(DATA.files))),
        (second, 0, (0, len(DATA.files) + 1)),
    ):
        ended = run(serve(dataset), *into(bucket), "--archive-only", **env)
        files = ended.report["files"]
        assert (code, counts) == (ended.code, (files["loaded"], files["already_loaded"])), ended.err
    assert [] == bucket.parts()
    assert damaged == bucket.read(f"raw{BROKEN}")
    ended = run(serve(Dataset.of({})), *into(bucket), "--from-archive", **env)
    assert (0, 0, len(DATA.files) + 1) == (
        ended.code,
        ended.report["http"]["requests"],
        ended.report["files"]["loaded"],
    ), ended.err
    assert (sorted(second.files), expected(second)) == (bucket.receipts(), bucket.rows())
    bucket.env = env
    code, verified = run_json(bucket, "verify", "--deep")
    assert (0, [], []) == (code, verified["findings"], verified["notes"])
    part = next(name for name in bucket.parts() if "hour=3/" in name)
    obstore.delete(bucket.client, part)
    code, verified = run_json(bucket, "verify", "--deep")
    # A run may be active, as far as anybody knows; nothing is lost for certain before tomorrow.
    assert (0, {"not_loaded"}) == (code, {note["kind"] for note in verified["notes"]})


def test_a_segment_is_erased_in_a_store(run: Runner, serve: Serve, bucket: Bucket) -> None:
    """From the archive and the lake; loading from the archive brings all other rows back."""
    env = {**bucket.env, "AHT_ETL_RAW__URI": f"{bucket.kind}://{bucket.name}/raw"}
    assert 0 == run(serve(DATA), *into(bucket), **env).code
    segment = next(row["segmentId"] for _, row in DATA.rows())
    done = subprocess.run(
        [COMMAND, "erase", "--lake", bucket.uri, segment],
        env=environment(**env),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
    assert expected(DATA).total() > sum(bucket.rows().values())
    ended = run(serve(Dataset.of({})), *into(bucket), "--from-archive", **env)
    assert 0 == ended.code, ended.err
    left = {row: count for row, count in expected(DATA).items() if row[0] != segment}
    assert left == bucket.rows()


def _contents(dataset: Dataset) -> dict[str, bytes]:
    return {path: file.content for path, file in dataset.files.items()}


def test_a_damaged_part_stops_its_partition_alone(run: Runner, serve: Serve, s3: Bucket) -> None:
    """Nothing is written there; the files of the others are loaded."""
    (first, *_) = sorted({path.rpartition("/")[0] for path in DATA.files})
    obstore.put(s3.client, f"{s3.prefix}{first}/part-00000.parquet", b"no parquet")
    ended = run(serve(DATA), *into(s3), **s3.env)
    lost = [path for path in DATA.files if path.startswith(f"{first}/")]
    assert (3, len(lost)) == (ended.code, ended.report["files"]["failed"])
    assert {"lake"} == {failure["kind"] for failure in ended.report["failures"]}


def test_a_lost_answer_in_each_kind_of_store(run: Runner, serve: Serve, bucket: Bucket) -> None:
    """Each store says in its own way that the name exists: it is the part that was put."""
    bucket.proxy.faults.append(Fault(puts, 3, lose_answer=True))
    ended = run(serve(DATA), *into(bucket), **bucket.env)
    assert (0, len(DATA.files)) == (ended.code, ended.report["files"]["loaded"]), ended.err
    bucket.assert_holds(DATA)


def test_planning_takes_few_small_requests(run: Runner, serve: Serve, bucket: Bucket) -> None:
    """One listing for each day, one read of each part's end, of 64 KiB at most."""
    emulator = serve(MORE)
    assert 0 == run(emulator, *into(bucket), **bucket.env).code
    parts = len(bucket.parts())
    assert parts > 20
    bucket.proxy.seen.clear()
    again = run(emulator, *into(bucket), **bucket.env)
    assert len(MORE.files) == again.report["files"]["already_loaded"]
    reads = [seen for seen in bucket.proxy.seen if seen.path.endswith(".parquet")]
    assert parts == len(reads)
    assert max(seen.answer_bytes for seen in reads) <= 64 * 1024
    # Whether the root can be listed, and one day.
    assert {"GET"} == {seen.method for seen in bucket.proxy.seen}
    assert 2 == len(bucket.proxy.seen) - len(reads)


def test_a_stop_request_while_a_put_gets_no_answer(run: Runner, serve: Serve, s3: Bucket) -> None:
    """The run ends soon after its grace; a part that was stored anyway does no harm later."""
    s3.proxy.faults.append(Fault(puts, 1000, delay_s=25))
    process = run.start(serve(DATA), *into(s3), **s3.env, AHT_ETL_SHUTDOWN__GRACE="0s")
    stop_once = iter([process.terminate])

    def stop_at_a_put(request: web.Request) -> None:
        if puts(request):
            next(stop_once, lambda: None)()

    s3.proxy.on_request = stop_at_a_put
    ended = run.end(process)
    assert (143, "interrupted") == (ended.code, ended.report["status"])
    assert ended.report["duration_seconds"] < 20
    assert len(DATA.files) == ended.report["files"]["not_attempted"]
    s3.proxy.faults.clear()
    s3.proxy.on_request = lambda _: None
    ended = run(serve(DATA), *into(s3), **s3.env)
    assert 0 == ended.code
    s3.assert_holds(DATA)


def test_no_key_is_shown_or_stored(run: Runner, serve: Serve, bucket: Bucket) -> None:
    """At level debug, in the report, and in any object."""
    flags = (*into(bucket), "--log-level", "debug")
    ended = run(serve(DATA), *flags, **bucket.env)
    shown = ended.err + ended.out + json.dumps(ended.report)
    stored = b"".join(bucket.read(name) for name in bucket.objects())
    for secret in SECRETS[bucket.kind].values():
        assert secret not in shown
        assert secret.encode() not in stored


def test_pyarrow_reads_it_as_documented(run: Runner, serve: Serve, s3: Bucket) -> None:
    """Its own S3 client finds every row, and nothing else."""
    assert 0 == run(serve(DATA), *into(s3), **s3.env).code
    store = fs.S3FileSystem(
        access_key=s3.options["access_key_id"],
        secret_key=s3.options["secret_access_key"],
        region=s3.options["region"],
        scheme="http",
        endpoint_override=s3.proxy.url.removeprefix("http://"),
    )
    hive = ds.partitioning(HIVE, flavor="hive")
    lake = ds.dataset(
        f"{s3.name}/{s3.prefix}", filesystem=store, format="parquet", partitioning=hive
    )
    assert expected(DATA).total() == lake.count_rows()
    assert s3.rows() == expected(DATA)


def test_the_page_of_a_lake_in_a_store(run: Runner, serve: Serve, bucket: Bucket) -> None:
    """The HTML names the place and has the rows."""
    assert 0 == run(serve(DATA), *into(bucket), **bucket.env).code
    page = run.folder / "lake.html"
    code, status = run_json(bucket, "status", "--html", str(page))
    assert (0, len(DATA.files)) == (code, status["files"])
    assert bucket.uri in page.read_text()


def test_what_the_lake_lacks_of_its_archive(run: Runner, serve: Serve, s3: Bucket) -> None:
    """It is unknown whether a run is active, so this is a note that names both causes."""
    raw = f"s3://{s3.name}/raw"
    s3.env = {**s3.env, "AHT_ETL_RAW__URI": raw}
    assert 0 == run(serve(DATA), *into(s3), **s3.env).code
    obstore.delete(s3.client, s3.parts()[0])
    code, verified = run_json(s3, "verify", "--deep")
    assert (0, {"not_loaded"}) == (code, {note["kind"] for note in verified["notes"]})
    assert "a run may be active" in verified["notes"][0]["message"]


def test_a_full_temporary_folder(serve: Serve, s3: Bucket) -> None:
    """The files fail with the folder's name and what to set; the lake has no part."""
    emulator = serve(DATA)
    flags = ("--account", "le79344075", "--base-url", emulator.base_url, "--report", "-")
    done = subprocess.run(
        [COMMAND, "run", *flags, *into(s3)],
        env=environment(**s3.env, **keys_of(emulator)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500)),
        check=False,
    )
    report = json.loads(done.stdout)
    assert (3, len(DATA.files)) == (done.returncode, report["files"]["failed"])
    assert {"lake"} == {failure["kind"] for failure in report["failures"]}
    assert "(TMPDIR): " in report["failures"][0]["message"]
    assert [] == s3.parts()
