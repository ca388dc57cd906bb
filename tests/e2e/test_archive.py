"""With `raw.uri`, a run keeps the downloaded files byte for byte."""

import gzip
import json
import signal
import subprocess
import sys
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from etl.archive.reader import failure_note_name, version_name
from etl.emulator import Dataset
from tests.conftest import COMMAND, Runner, Serve, environment
from tests.lakes import assert_lake_holds, receipts

HOUR = "/year=2022/month=6/day=1/hour=6/accountId=le79344075/"
DATA = Dataset.generate(
    8,
    datetime(2022, 6, 1, tzinfo=UTC),
    datetime(2022, 6, 1, 4, tzinfo=UTC),
    rows_per_file=10,
    mixed_shapes=True,
)


def archived(raw: Path) -> dict[str, bytes]:
    """Return the files of an archive, by path."""
    found = {f"/{file.relative_to(raw)}": file for file in raw.rglob("*") if file.is_file()}
    return {path: file.read_bytes() for path, file in found.items()}


@pytest.mark.parametrize("encoding", ["as_is", "declared", "on_top", "plain"])
def test_every_file_is_kept_byte_for_byte(run: Runner, serve: Serve, encoding: str) -> None:
    """This holds for any transport encoding. The lake is the same as without an archive."""
    raw = run.folder / "raw"
    assert run(serve(DATA, encoding=encoding), AHT_ETL_RAW__URI=str(raw)).code == 0
    content = {path: file.content for path, file in DATA.files.items()}
    if encoding == "plain":
        content = {path: gzip.decompress(packed) for path, packed in content.items()}
    assert content == archived(raw)
    assert_lake_holds(run.lake, DATA)


def test_a_flag_names_the_archive(run: Runner, serve: Serve) -> None:
    """`--raw` wins over the variable. A run fills this archive; `verify --deep` reads it."""
    window = ("--from", "2022-06-01", "--to", "2022-06-03")
    env = {"AHT_ETL_RAW__URI": str(run.folder / "other")}
    assert run(serve(DATA), *window, "--raw", "raw", **env).code == 0
    assert archived(run.folder / "raw").keys() == DATA.files.keys()
    assert not (run.folder / "other").exists()
    verified = subprocess.run(
        [COMMAND, "verify", "--lake", str(run.lake), "--deep", "--raw", "raw", "--json"],
        env=environment(**env),
        cwd=run.folder,
        capture_output=True,
        check=True,
    )
    assert json.loads(verified.stdout)["ok"]


def test_a_file_without_valid_rows_is_kept(run: Runner, serve: Serve) -> None:
    """A second run changes nothing. Another file with the same path gets another name."""
    raw = run.folder / "raw"
    path, junk, other = f"{HOUR}a.json.gz", gzip.compress(b"{no\n" * 3), gzip.compress(b"{nor\n")
    for content in (junk, junk, other, other):
        ended = run(serve(Dataset.of({path: content})), AHT_ETL_RAW__URI=str(raw))
        assert (3, "malformed") == (ended.code, ended.report["failures"][0]["kind"])
    kept = archived(raw)
    notes = {name: kept.pop(name) for name in list(kept) if name.endswith(".txt")}
    assert {
        failure_note_name(path, sha256(content).hexdigest()) for content in (junk, other)
    } == set(notes)
    assert all(text.startswith(b"malformed: ") for text in notes.values())
    assert {path: junk, version_name(path, sha256(other).hexdigest()): other} == kept
    assert "archive.differs" in [json.loads(line)["event"] for line in ended.err.splitlines()]


@pytest.mark.parametrize(
    ("damaged", "kind"),
    [
        (gzip.compress(b'{"segmentId":"a"}\n')[:-5], "truncated"),
        (gzip.compress(b'{"segmentId":"a"}\n')[:-5] + b"crc??", "corrupt"),
        (gzip.compress(gzip.compress(b'{"segmentId":"a"}\n', mtime=0))[:-7], "truncated"),
        (b"busy, try later", "corrupt"),
    ],
)
def test_a_damaged_file_is_kept(run: Runner, serve: Serve, damaged: bytes, kind: str) -> None:
    """After the last attempt it is kept as received. A later good file is used instead."""
    raw = run.folder / "raw"
    path, good = f"{HOUR}a.json.gz", gzip.compress(b'{"segmentId":"a"}\n')
    ended = run(serve(Dataset.of({path: damaged})), AHT_ETL_RAW__URI=str(raw))
    assert (kind, 4) == tuple(ended.report["failures"][0][key] for key in ("kind", "attempts"))
    assert damaged == archived(raw)[path]
    assert 0 == run(serve(Dataset.of({path: good})), AHT_ETL_RAW__URI=str(raw)).code
    kept = archived(raw)
    beside = version_name(path, sha256(good).hexdigest())
    assert (damaged, good) == (kept[path], kept[beside])
    ended = run(
        serve(Dataset.of({})),
        *("--from-archive", "--from", "2022-06-01", "--to", "2022-06-02"),
        *("--lake", str(run.folder / "again")),
        AHT_ETL_RAW__URI=str(raw),
    )
    assert (0, 1) == (ended.code, ended.report["rows"]["loaded"])


def test_an_empty_answer_is_not_kept(run: Runner, serve: Serve) -> None:
    """An answer without bytes makes no file in the archive."""
    raw = run.folder / "raw"
    ended = run(serve(Dataset.of({f"{HOUR}a.json.gz": b""})), AHT_ETL_RAW__URI=str(raw))
    assert ("truncated", {}) == (ended.report["failures"][0]["kind"], archived(raw))


def test_a_file_that_failed_loads_with_other_limits(run: Runner, serve: Serve) -> None:
    """If the file can now be decoded, its note goes away. The archive keeps it once."""
    raw = run.folder / "raw"
    half = gzip.compress(b'{"segmentId":"a"}\n{no\n')
    emulator = serve(Dataset.of({f"{HOUR}a.json.gz": half}))
    strict = {"AHT_ETL_LIMITS__MAX_BAD_ROW_RATIO": "0.1", "AHT_ETL_RAW__URI": str(raw)}
    assert 3 == run(emulator, **strict).code
    assert 0 == run(emulator, AHT_ETL_RAW__URI=str(raw)).code
    assert sorted([half, b""]) == sorted(archived(raw).values())


def test_a_bomb_in_a_transport_encoding_is_not_unpacked(run: Runner, serve: Serve) -> None:
    """A file that is too large is kept as received."""
    raw = run.folder / "raw"
    inner = gzip.compress(bytes(4 * 2**20), 0)
    path, bomb = f"{HOUR}a.json.gz", gzip.compress(inner)
    dataset = Dataset.of({path: bomb})
    ended = run(serve(dataset), AHT_ETL_RAW__URI=str(raw), AHT_ETL_LIMITS__MAX_FILE_SIZE="2MiB")
    assert (3, "too_large") == (ended.code, ended.report["failures"][0]["kind"])
    assert bomb == archived(raw)[path]


def test_an_archive_that_cannot_be_written(run: Runner, serve: Serve) -> None:
    """A file that cannot be kept is not loaded. An archive that is no folder ends the run."""
    raw = run.folder / "raw"
    (raw / "year=2022").parent.mkdir()
    (raw / "year=2022").write_text("in the way")
    emulator = serve(DATA)
    ended = run(emulator, AHT_ETL_RAW__URI=str(raw))
    kinds = {failure["kind"] for failure in ended.report["failures"]}
    assert (3, {"lake"}, 0) == (ended.code, kinds, ended.report["files"]["loaded"])
    assert "check raw.uri" in ended.report["failures"][0]["message"]
    ended = run(emulator, AHT_ETL_RAW__URI=str(raw / "year=2022"))
    assert (1, True) == (ended.code, "check raw.uri" in ended.report["error"])


def test_an_archive_in_the_lake_is_wrong_usage(run: Runner, serve: Serve) -> None:
    """Otherwise readers of the lake could read the archive's files."""
    ended = run(serve(DATA), AHT_ETL_RAW__URI=str(run.lake / "raw"))
    assert (2, False) == (ended.code, run.lake.exists())


@pytest.mark.parametrize("at", [8, 17, 25, 33, 41, 60])
def test_killed_at_an_effect(run: Runner, serve: Serve, at: int) -> None:
    """Each file in the lake is complete in the archive. The next run completes both."""
    raw = run.folder / "raw"
    emulator = serve(DATA)
    arguments = run.arguments(emulator, report=str(run.folder / "report.json"))
    process = subprocess.run(
        [sys.executable, "-m", "tests.e2e.killed", str(at), *arguments[1:]],
        env=environment(AHT_ETL_RAW__URI=str(raw), AHT_ETL_FETCH__CONCURRENCY="2"),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert -signal.SIGKILL == process.returncode, process.stderr
    content = {path: file.content for path, file in DATA.files.items()}
    kept = {path: found for path, found in archived(raw).items() if path.startswith("/year=")}
    assert kept.items() <= content.items()
    if list(run.lake.rglob("part-*.parquet")):
        assert {receipt["path"] for receipt in receipts(run.lake)} <= kept.keys()
    assert 0 == run(emulator, AHT_ETL_RAW__URI=str(raw)).code
    # Files in the lake are not fetched again. The killed run kept them before it loaded them.
    assert content == archived(raw)
    assert_lake_holds(run.lake, DATA)
    assert [] == list((raw / "_staging").iterdir())


def test_three_runs_at_once(run: Runner, serve: Serve) -> None:
    """Runs that share an archive keep each file once."""
    raw = run.folder / "raw"
    emulator = serve(DATA, latency_s=0.01)
    lakes = [run.folder / f"lake-{number}" for number in range(3)]
    runs = [
        run.start(
            emulator,
            *("--from", "2022-06-01", "--to", "2022-06-02", "--lake", str(lake)),
            AHT_ETL_RAW__URI=str(raw),
        )
        for lake in lakes
    ]
    assert [0, 0, 0] == [run.end(process).code for process in runs]
    assert {path: file.content for path, file in DATA.files.items()} == archived(raw)
    for lake in lakes:
        assert_lake_holds(lake, DATA)
