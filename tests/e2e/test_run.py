"""The main job runs as a process against the emulator. Tests compare the whole lake."""

import gzip
import hashlib
import json
import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.emulator import Dataset
from etl.model.times import Window, to_millis
from tests.conftest import Runner, Serve, environment, keys_of
from tests.lakes import assert_lake_holds, expected, receipts, through_pyarrow

START, END = datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 6, 3, tzinfo=UTC)
DAYS = Dataset.generate(7, START, END, files_per_hour=1.5, rows_per_file=40, mixed_shapes=True)
SMALL = Dataset.generate(3, START, datetime(2022, 6, 1, 6, tzinfo=UTC), rows_per_file=20)
PATHS = list(SMALL.files)


def test_each_listed_file_is_loaded_once_and_later_runs_load_only_new_files(
    run: Runner, serve: Serve
) -> None:
    """The first run loads all files, the second none, the third those that arrived late."""
    early, late = datetime(2022, 6, 3, 3, tzinfo=UTC), datetime(2022, 7, 1, tzinfo=UTC)
    arrived = sum(file.available_from_ms <= to_millis(early) for file in DAYS.files.values())
    assert 0 < arrived < len(DAYS.files)
    emulator = serve(DAYS, auth="oauth1", now=early)
    first = run(emulator)
    assert (0, "ok", arrived) == (
        first.code,
        first.report["status"],
        first.report["files"]["loaded"],
    )
    assert_lake_holds(run.lake, DAYS, now_ms=to_millis(early))
    second = run(emulator)
    assert (0, 0, arrived, []) == (
        second.report["files"]["loaded"],
        second.code,
        second.report["files"]["already_loaded"],
        second.report["parts"],
    )
    emulator.options = type(emulator.options)(auth="oauth1", now=late, oldest=None)
    third = run(emulator)
    assert (0, len(DAYS.files) - arrived) == (third.code, third.report["files"]["loaded"])
    assert_lake_holds(run.lake, DAYS)
    assert dict.fromkeys(DAYS.files, 1) == dict(emulator.file_requests())


def test_receipts_describe_the_loaded_files(run: Runner, serve: Serve) -> None:
    """Rows, bytes and checksum are those of the gzip file. The report agrees with the lake."""
    ended = run(serve(DAYS))
    for source in receipts(run.lake):
        file = DAYS.files[source["path"]]
        assert source["bytes"] == len(file.content)
        assert source["sha256"] == hashlib.sha256(file.content).hexdigest()
        assert (source["rows"], source["quarantined"]) == (len(file.rows or ()), 0)
        assert source["part"].startswith(source["path"].strip("/").rpartition("/")[0])
    report = ended.report
    assert report["rows"] == {"loaded": sum(expected(DAYS).values()), "quarantined": 0}
    assert report["bytes"]["downloaded"] == sum(len(f.content) for f in DAYS.files.values())
    for part in report["parts"]:
        assert (run.lake / part["path"]).stat().st_size == part["bytes"]
    assert (report["http"]["requests"], report["listing"]["requests"]) == (len(DAYS.files) + 2, 2)


@pytest.mark.parametrize("encoding", ["declared", "on_top", "plain"])
def test_any_transport_encoding(run: Runner, serve: Serve, encoding: str) -> None:
    """Gzip is recognised by its bytes. Receipts describe the file, not its transport encoding."""
    assert run(serve(SMALL, encoding=encoding)).code == 0
    assert_lake_holds(run.lake, SMALL)
    if encoding != "plain":
        sizes = {source["path"]: source["bytes"] for source in receipts(run.lake)}
        assert {path: len(file.content) for path, file in SMALL.files.items()} == sizes


def test_oauth2_and_the_domain_api(run: Runner, serve: Serve) -> None:
    """The run looks up the host and the token server. All workers use one token."""
    emulator = serve(DAYS, auth="oauth2")
    arguments = run.arguments(emulator, report=str(run.folder / "report-9.json"))
    at = arguments.index("--base-url")
    del arguments[at : at + 2]
    done = subprocess.run(arguments, env=environment(**keys_of(emulator)), check=False)
    assert (0, 1, 2) == (done.returncode, emulator.count("token"), emulator.count("domain"))
    assert_lake_holds(run.lake, DAYS)


def test_a_token_without_expires_in_is_renewed_in_time(run: Runner, serve: Serve) -> None:
    """The run takes the time from the token's own `exp`, so the server refuses no request."""
    emulator = serve(SMALL, auth="oauth2", expires_in=False, token_life_s=5, latency_s=0.02)
    ended = run(emulator)
    assert (0, 0) == (ended.code, emulator.count(status=401))
    assert_lake_holds(run.lake, SMALL)


def test_empty_and_partial_windows(run: Runner, serve: Serve) -> None:
    """404 is an empty window, 206 a partial one. The report names both, and the run is ok."""
    partial = Window(datetime(2022, 6, 1, 2, tzinfo=UTC), datetime(2022, 6, 1, 3, tzinfo=UTC))
    emulator = serve(SMALL, partial=(partial,))
    ended = run(emulator, "--from", "2022-05-30", "--to", "2022-06-03T12:00:00Z")
    assert (0, 5) == (ended.code, ended.report["listing"]["requests"])
    assert 3 == ended.err.count('"window.empty"')
    day = "2022-{}T00:00:00Z".format
    # The window before 1 June also lists the first hour of 1 June.
    assert {
        "requests": 5,
        "empty_windows": [
            {"from": day("05-30"), "to": day("05-31")},
            {"from": day("06-02"), "to": day("06-03")},
            {"from": day("06-03"), "to": "2022-06-03T12:00:00Z"},
        ],
        "partial_windows": [{"from": day("06-01"), "to": day("06-02")}],
        "unanswered_windows": [],
    } == ended.report["listing"]
    assert_lake_holds(run.lake, SMALL)


def test_nothing_listed_at_all(run: Runner, serve: Serve) -> None:
    """The run is ok, and one event says what to check. A window with files causes no such event."""
    emulator = serve(SMALL)
    for first, last, count in (("2022-05-01", "2022-05-03", 1), ("2022-05-30", "2022-06-03", 0)):
        ended = run(emulator, "--from", first, "--to", last)
        assert (0, count) == (ended.code, ended.err.count('"listing.empty"'))


@pytest.mark.parametrize("form", ["answer", "answers", "lines", "stdin"])
def test_paths_instead_of_a_listing(run: Runner, serve: Serve, form: str) -> None:
    """Saved answers, or one path a line. Duplicates count once; other text is invalid."""
    emulator = serve(SMALL)
    hostile = [
        "/../../etc/passwd",
        PATHS[0].replace("2022", "٢٠٢٢"),
        PATHS[0].replace("sequences", "../sequences"),
        PATHS[0].replace("hour=", "hour=9"),
        PATHS[0] + "\0",
        PATHS[0] + "?x=1",
        PATHS[0].removeprefix("/"),
        "/x?y=1",
    ]
    if form in {"lines", "stdin"}:
        text = "\n".join([*PATHS, PATHS[0], *hostile, ""])
    else:
        listed: list[Any] = [*hostile, PATHS[0] + "\n", 7, None, [PATHS[0]], {"path": PATHS[0]}]
        answers = [PATHS + listed] if form == "answer" else [PATHS[:3], PATHS[2:] + listed]
        hostile = [entry if isinstance(entry, str) else json.dumps(entry) for entry in listed]
        text = " \n".join(json.dumps({"timeframe": {}, "files": files}) for files in answers)
    file = run.folder / "paths"
    file.write_text(text)
    source = "-" if form == "stdin" else str(file)
    process = run.start(emulator, "--paths", source)
    ended = run.end(process, text if form == "stdin" else None)
    assert (3, "partial", None) == (ended.code, ended.report["status"], ended.report["window"])
    files = ended.report["files"]
    assert (len(PATHS), len(hostile)) == (files["loaded"], files["invalid"])
    assert sorted(hostile) == sorted(entry["path"] for entry in ended.report["invalid_paths"])
    assert_lake_holds(run.lake, SMALL)
    assert (0, set(PATHS)) == (emulator.count("listing"), set(emulator.file_requests()))
    assert {"lake", "paths", "report-1.json"} == {entry.name for entry in run.folder.iterdir()}


def test_shards_are_disjoint_and_complete(run: Runner, serve: Serve) -> None:
    """Each share loads its own partitions. Together they load all."""
    emulator = serve(DAYS)
    window = ("--from", "2022-06-01", "--to", "2022-06-03")
    shares = [run(emulator, *window, "--shard", f"{index}/3").report for index in range(3)]
    counts = [share["files"]["listed"] for share in shares]
    assert (len(DAYS.files), 0) == (sum(counts), counts.count(0))
    assert_lake_holds(run.lake, DAYS)


def test_skipped_files_are_never_requested(run: Runner, serve: Serve) -> None:
    """Files that match patterns or paths of fetch.skip are counted, not fetched."""
    emulator = serve(SMALL)
    skip = [PATHS[0], "*/hour=3/*"]
    skipped = {path for path in PATHS if path == PATHS[0] or "/hour=3/" in path}
    ended = run(emulator, AHT_ETL_FETCH__SKIP=json.dumps(skip))
    assert (0, len(skipped)) == (ended.code, ended.report["files"]["skipped"])
    assert set(PATHS) - skipped == set(emulator.file_requests())


def test_bad_rows_are_quarantined_and_too_many_fail_the_file(run: Runner, serve: Serve) -> None:
    """A bad row is kept with its text. A file of bad rows fails. An empty file has a receipt."""
    hour = "/year=2022/month=6/day=1/hour=6/accountId=le79344075/"
    good = '{"segmentId":"a","sequence":1}\n'
    dataset = Dataset.of(
        {
            f"{hour}a.json.gz": gzip.compress(f"{good}oops\n{good}".encode()),
            f"{hour}b.json.gz": gzip.compress(b"not json\n" * 3),
            f"{hour}c.json.gz": gzip.compress(b""),
        }
    )
    ended = run(serve(dataset))
    assert (3, {"loaded": 2, "quarantined": 1}) == (ended.code, ended.report["rows"])
    (failure,) = ended.report["failures"]
    assert (f"{hour}b.json.gz", "malformed", 1) == (
        failure["path"],
        failure["kind"],
        failure["attempts"],
    )
    quarantine = run.lake / "_quarantine" / f"{hour}a.ndjson".lstrip("/")
    (line,) = quarantine.read_text().splitlines()
    bad = json.loads(line)
    assert (f"{hour}a.json.gz", 1, "oops") == (bad["sourcePath"], bad["row"], bad["raw"])
    assert {("a", 2, 1), ("c", 0, 0)} == {
        (source["path"].rpartition("/")[2][0], source["rows"], source["quarantined"])
        for source in receipts(run.lake)
    }
    again = run(serve(dataset))
    assert (3, 2) == (again.code, again.report["files"]["already_loaded"])
    assert quarantine.read_text() == line + "\n"


ODD = (
    '{"segmentId": "a", "u": "\\ud800", "\\udfff": 1}\n'
    '{"segmentId": "b", "u": ["\\ud83d\\ude00"]}\n'
    '{"segmentId": "c", "u": 1e999, "n": 123456789012345678901234567890, "z": "\\u0000"}\n'
    '{"segmentId": "d", "u": {"deep": ' + "[" * 100 + "]" * 100 + "}}\n"
)


def test_extras_parse_as_json_in_every_engine(run: Runner, serve: Serve) -> None:
    """Half a surrogate pair in an unknown field is replaced. The row counts as loaded."""
    path = "/year=2022/month=6/day=1/hour=6/accountId=le79344075/a.json.gz"
    ended = run(serve(Dataset.of({path: gzip.compress(ODD.encode())})))
    assert (0, 4) == (ended.code, ended.report["rows"]["loaded"])
    assert 1 == ended.report["quality"]["repaired_rows"]
    lake = str(run.lake / "year=*/**/*.parquet")
    extras = f"SELECT segmentId, extras FROM read_parquet('{lake}') ORDER BY 1"
    connection = duckdb.connect()
    keys = f"SELECT segmentId, json_valid(extras), json_keys(extras) FROM ({extras})"
    expected = [("a", ["u", "\ufffd"]), ("b", ["u"]), ("c", ["u", "n", "z"]), ("d", ["u"])]
    assert [(name, True, keys) for name, keys in expected] == connection.execute(keys).fetchall()
    texts = dict(connection.execute(extras).fetchall())
    assert [keys for _, keys in expected] == [list(json.loads(texts[name])) for name in "abcd"]
    frame = pl.read_parquet(lake, hive_partitioning=False).sort("segmentId")
    found = frame.head(2)["extras"].str.json_path_match("$.u").to_list()
    assert found == ["\ufffd", '["😀"]']


def test_a_file_with_lines_and_arrays_loses_no_row(run: Runner, serve: Serve) -> None:
    """Concatenated files can have both."""
    path = "/year=2022/month=6/day=1/hour=6/accountId=le79344075/a.json.gz"
    array = json.dumps([{"segmentId": f"a{number}"} for number in range(5000)])
    lines = '{"segmentId": "b"}\n' * 3
    file = gzip.compress(array.encode()) + gzip.compress(lines.encode())
    ended = run(serve(Dataset.of({path: file})))
    assert (0, {"loaded": 5003, "quarantined": 0}) == (ended.code, ended.report["rows"])


def test_only_empty_files(run: Runner, serve: Serve) -> None:
    """A partition without rows has a part with the receipts, which engines can read."""
    path = "/year=2022/month=6/day=1/hour=6/accountId=le79344075/a.json.gz"
    dataset = Dataset.of({path: gzip.compress(b"")})
    emulator = serve(dataset)
    assert [0, 0] == [run(emulator).code, run(emulator).code]
    assert emulator.count("file") == 1
    assert_lake_holds(run.lake, dataset)


DAMAGES = ("cut off", "empty", "without receipts", "a folder", "a pipe", "a link to nothing")


def _damage(part: Path, how: str) -> None:
    match how:
        case "cut off":
            os.truncate(part, part.stat().st_size - 9)
        case "empty":
            os.truncate(part, 0)
        case "without receipts":
            pq.write_table(pa.table({"a": [1]}), part)
        case "a folder":
            part.unlink()
            part.mkdir()
        case "a pipe":
            part.unlink()
            os.mkfifo(part)
        case "a link to nothing":
            part.unlink()
            part.symlink_to("nowhere")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_is_never_treated_as_absent(run: Runner, serve: Serve, damage: str) -> None:
    """Nothing is written to its partition, and its files fail. All others are loaded."""
    emulator = serve(SMALL)
    run(emulator)
    part = min(run.lake.rglob("*.parquet"))
    _damage(part, damage)
    mine = str(part.parent.relative_to(run.lake))
    shutil.rmtree(max(run.lake.rglob("*.parquet")).parent)
    ended = run(emulator)
    there = {path for path in PATHS if path.startswith(f"/{mine}/")}
    assert (3, there) == (ended.code, {f["path"] for f in ended.report["failures"]})
    assert ended.report["files"]["loaded"] > 0
    assert {"lake"} == {failure["kind"] for failure in ended.report["failures"]}
    assert part.name in ended.report["failures"][0]["message"]
    assert [part] == list(part.parent.iterdir())
    part.rmdir() if damage == "a folder" else part.unlink()
    assert run(emulator).code == 0
    assert_lake_holds(run.lake, SMALL)


def test_foreign_files_in_the_lake_are_not_touched(run: Runner, serve: Serve) -> None:
    """A run neither reads them as parts nor changes them."""
    emulator = serve(SMALL)
    run(emulator)
    folder = min(run.lake.rglob("*.parquet")).parent
    (folder / "_SUCCESS").write_text("")
    (folder / "notes.txt").write_text("mine")
    (folder / "sub").mkdir()
    assert run(emulator).code == 0
    assert "mine" == (folder / "notes.txt").read_text()


def test_little_memory_is_enough(run: Runner, serve: Serve) -> None:
    """With the smallest budget all data goes to disk. Nothing hangs, and the lake is the same."""
    ended = run(serve(DAYS), AHT_ETL_LIMITS__MEMORY="1MB", AHT_ETL_FETCH__CONCURRENCY="8")
    assert ended.code == 0
    assert_lake_holds(run.lake, DAYS)


def test_parts_are_cut_between_sources(run: Runner, serve: Serve) -> None:
    """A partition larger than the target has several parts. Each source is whole in one of them."""
    ended = run(serve(DAYS), AHT_ETL_LAKE__TARGET_PART_SIZE="1kB")
    parts = [part["path"] for part in ended.report["parts"]]
    assert len(parts) > len({part.rpartition("/")[0] for part in parts})
    assert_lake_holds(run.lake, DAYS)


def test_accounts_of_digits_stay_text(run: Runner, serve: Serve) -> None:
    """The documented query reads an account id of digits as text, with its leading zeros."""
    path = "/year=2022/month=6/day=1/hour=6/accountId=0079/a.json.gz"
    dataset = Dataset.of({path: gzip.compress(b'{"segmentId":"a"}')})
    assert run(serve(dataset)).code == 0
    assert_lake_holds(run.lake, dataset)
    (row,) = through_pyarrow(run.lake)
    assert row[-1].endswith("accountId=0079")


def test_output_for_machines(run: Runner, serve: Serve) -> None:
    """Standard output has the results, standard error one JSON object a line."""
    ended = run(serve(SMALL))
    assert f"{len(PATHS):,} files listed" in ended.out
    events = [json.loads(line) for line in ended.err.splitlines()]
    assert {ended.report["run_id"]} == {event["run_id"] for event in events}
    arguments = run.arguments(serve(SMALL), report="-")
    done = subprocess.run(arguments, env=environment(), check=True, capture_output=True)
    assert len(PATHS) == json.loads(done.stdout)["files"]["already_loaded"]


def test_a_run_leaves_only_parts_in_the_lake(run: Runner, serve: Serve) -> None:
    """After a run the lake has parts and folders, and no staged file."""
    run(serve(DAYS))
    names = {path.name for path in run.lake.rglob("*") if path.is_file()}
    assert all(name.startswith("part-") for name in names)
    assert not list((run.lake / "_staging").iterdir())
