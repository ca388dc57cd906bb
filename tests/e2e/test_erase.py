"""`aht-etl erase` removes a segment, and nothing else, from the archive and the lake for good."""

import gzip
import json
import re
import subprocess
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from etl.archive.reader import version_name
from etl.emulator import Dataset
from etl.storage.local import LocalStore
from tests.conftest import COMMAND, Runner, Serve, environment
from tests.lakes import expected, through_duckdb, through_pyarrow

HOUR = "/year=2022/month=6/day=1/hour=6/accountId=le79344075/"
GENERATED = Dataset.generate(
    4,
    datetime(2022, 6, 1, 5, tzinfo=UTC),
    datetime(2022, 6, 1, 9, tzinfo=UTC),
    files_per_hour=4,
    rows_per_file=30,
    mixed_shapes=True,
)
SEGMENT = next(row["segmentId"] for path, row in GENERATED.rows() if path.startswith(HOUR))
ROW = json.dumps({"segmentId": SEGMENT, "sequence": 1}).encode()
OTHER = b'{"segmentId":"other"}'
SPECIAL = {
    # In every shape, in an undocumented field, in a bad row, with escapes.
    "lines": b"\n".join([OTHER, ROW, OTHER]),
    "array": b"[" + b", ".join([OTHER, ROW]) + b"]",
    "spread": json.dumps(json.loads(ROW), indent=1).encode() + b"\n" + OTHER,
    "extras": b'{"segmentId":"x","of":{"was":"' + SEGMENT.encode() + b'"}}\n' + OTHER,
    "bad": b"{no " + SEGMENT.encode() + b"\n" + OTHER + b'\n{"x":1}\n' + OTHER,
    "bad_alone": OTHER + b"\n{no " + SEGMENT.encode(),
    "escaped": ROW.replace(b":co", b"\\u003aco") + b"\n" + OTHER,
}
MALFORMED = f"{HOUR}malformed.json.gz"
DAMAGED = f"{HOUR}damaged.json.gz"
DATA = Dataset(
    {
        **GENERATED.files,
        **Dataset.of(
            {f"{HOUR}{name}.json.gz": gzip.compress(text) for name, text in SPECIAL.items()}
            | {
                MALFORMED: gzip.compress(b"{no " + SEGMENT.encode() + b"\n{no\n"),
                DAMAGED: gzip.compress(ROW + b"\n" + OTHER * 99)[:-9],
            }
        ).files,
    }
)
WINDOW = ("--from", "2022-06-01", "--to", "2022-06-02")


def command(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the archive."""
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=folder,
        env=environment(AHT_ETL_RAW__URI="raw", **env),
        capture_output=True,
        text=True,
        check=False,
    )


def erase(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return command(folder, "erase", "--log-format", "console", *arguments)


def mentions(folder: Path, wanted: str) -> list[str]:
    """Return all files below a folder that contain the text, also in gzip."""
    found = []
    for file in folder.rglob("*"):
        if file.is_file() and file.suffix != ".parquet":
            content = file.read_bytes()
            if content.startswith(b"\x1f\x8b"):
                unpack = subprocess.run(
                    ["gzip", "-dc"], input=content, capture_output=True, check=False
                )
                content = unpack.stdout
            if wanted in content.decode("utf-8", "replace").replace("\\u003a", ":"):
                found.append(str(file.relative_to(folder)))
    return found


def test_a_segment_is_gone_for_good(run: Runner, serve: Serve) -> None:
    """It is gone from lake, bad rows and archive. Other rows stay. Later runs change nothing."""
    raw = run.folder / "raw"
    emulator = serve(DATA)
    assert 3 == run(emulator, *WINDOW, AHT_ETL_RAW__URI="raw").code
    beside = raw / version_name(f"{HOUR}lines.json.gz"[1:], "0" * 64)
    beside.write_bytes(gzip.compress(ROW + b"\n" + OTHER))
    assert mentions(raw, SEGMENT)
    assert mentions(run.lake, SEGMENT)

    ended = erase(run.folder, SEGMENT)
    assert (0, "") == (ended.returncode, ended.stderr)
    runs = [line for line in ended.stdout.splitlines() if line.startswith("then: ")]
    for line in runs:
        command(run.folder, *line.split()[2:], "--lake", "lake")
    assert [] == mentions(run.folder / "raw", SEGMENT)
    assert [] == mentions(run.lake, SEGMENT)
    loadable = {p: f for p, f in DATA.files.items() if p not in (MALFORMED, DAMAGED)}
    del loadable[f"{HOUR}lines.json.gz"]  # erase replaced this file
    left = {
        row: count
        for row, count in expected(Dataset(loadable)).items()
        if row[0] != SEGMENT and SEGMENT not in (row[8] or "")
    }
    for engine in (through_pyarrow, through_duckdb):
        rows = engine(run.lake)
        rest = {row: n for row, n in rows.items() if row in left}
        assert left == rest
        # Of the damaged file, only the readable rows are left.
        more = {(row[0], row[9].rpartition("/")[2], n) for row, n in (rows - Counter(left)).items()}
        assert {("other", "lines.json.gz", 1), ("other", "damaged.json.gz", 99)} == more

    proved = command(run.folder, "verify", "--lake", "lake", "--deep", "--json")
    assert ([], 0) == (json.loads(proved.stdout)["findings"], proved.returncode)
    # Each run fetches files that cannot be loaded again, unless fetch.skip names them.
    run(emulator, *WINDOW, AHT_ETL_RAW__URI="raw", AHT_ETL_FETCH__SKIP=json.dumps([MALFORMED]))
    assert rows == through_pyarrow(run.lake)
    ended = erase(run.folder, SEGMENT)
    nothing = f"aht-etl: error: nothing mentions {SEGMENT}; nothing was changed\n"
    assert (1, "", nothing) == (ended.returncode, ended.stdout, ended.stderr)


def test_a_file_without_an_archived_copy_is_not_deleted(run: Runner, serve: Serve) -> None:
    """Otherwise the file's other rows would be lost."""
    assert 3 == run(serve(DATA), *WINDOW).code
    before = through_pyarrow(run.lake)
    (run.folder / "raw").mkdir()
    ended = erase(run.folder, SEGMENT)
    assert (1, True) == (ended.returncode, "not in the archive" in ended.stderr)
    assert before == through_pyarrow(run.lake)


NEAR = "account:1:conversation:aa-1"
NEIGHBOURS = Dataset.of(
    {
        f"{HOUR}{name}.json.gz": gzip.compress(text)
        for name, text in {
            "1": b'{"segmentId":"account:1:conversation:aa-1"}\n' + OTHER,
            "10": b'{"segmentId":"account:1:conversation:aa-10"}\n' + OTHER,
            "escaped": b'{"segmentId":"account:1:conversation:aa-1\\u0030"}\n'
            b'{"segmentId":"x","of":"account:1:conversation\\u003aaa-1,"}\n'
            b'{"segmentId":"x","of":"account:1:conversation:aa-1\\u0030"}',
            "bad": b"{no account:1:conversation:aa-10\n{no account:1:conversation:aa-1\n"
            + OTHER * 9,
        }.items()
    }
)


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        (NEAR, ["10", "10", "10", "bad 10"]),
        ("account:1:conversation:aa", []),
        ("account:1:conversation:aa-10", ["1", "1", "bad 1"]),
    ],
)
def test_only_the_named_segment_is_removed(
    run: Runner, serve: Serve, wanted: str, left: list[str]
) -> None:
    """Segment 1 is not segment 10, also with escapes. A conversation means all its segments."""
    assert 0 == run(serve(NEIGHBOURS), *WINDOW, AHT_ETL_RAW__URI="raw").code
    ended = erase(run.folder, wanted)
    assert (0, "") == (ended.returncode, ended.stderr)
    for line in ended.stdout.splitlines():
        if line.startswith("then: "):
            again = command(run.folder, *line.split()[2:], "--lake", "lake")
            assert 0 == again.returncode, again.stderr
    named = [str(text) for row in through_pyarrow(run.lake).elements() for text in (row[0], row[8])]
    found = [
        name[1]
        for text in named
        for name in re.finditer(r"conversation(?::|\\u003a)aa-(1\\?\w*)", text)
    ]
    bad = [
        "bad " + name
        for file in run.lake.glob("_quarantine/**/*.ndjson")
        for name in re.findall("no account:1:conversation:aa-([0-9]+)", file.read_text())
    ]
    assert left == sorted(name.replace("\\u0030", "0") for name in found) + bad


def test_the_hours_to_load_again_are_printed_first(run: Runner, serve: Serve) -> None:
    """All hours to load are printed before the first deletion; --dry-run prints only them."""
    assert 3 == run(serve(DATA), *WINDOW, AHT_ETL_RAW__URI="raw").code
    before = {file: file.read_bytes() for file in run.folder.rglob("*") if file.is_file()}
    tried = erase(run.folder, "--dry-run", SEGMENT)
    assert (0, "") == (tried.returncode, tried.stderr)
    assert re.search(
        r"^rows of the lake .*: [1-9]\d*\narchived files .*: [1-9]\d*$", tried.stdout, re.MULTILINE
    )
    assert tried.stdout.splitlines()[-1].startswith("then: ")
    assert before == {file: file.read_bytes() for file in run.folder.rglob("*") if file.is_file()}

    ended = erase(run.folder, SEGMENT)
    assert ended.stdout.startswith(tried.stdout)
    done = ended.stdout.removeprefix(tried.stdout).splitlines()
    assert {"written again", "deleted"} == {line.partition(":")[0] for line in done}


def test_a_segment_that_does_not_exist(run: Runner, serve: Serve) -> None:
    """Nothing changes, and the message says so."""
    assert 0 == run(serve(GENERATED), *WINDOW, AHT_ETL_RAW__URI="raw").code
    ended = erase(run.folder, "account:1:conversation:2-0")
    assert (
        "",
        "aht-etl: error: nothing mentions account:1:conversation:2-0; nothing was changed\n",
        1,
    ) == (
        ended.stdout,
        ended.stderr,
        ended.returncode,
    )


def test_a_lake_or_archive_that_does_not_exist(tmp_path: Path) -> None:
    """The message names it. A typing error must not look like "nothing found"."""
    (tmp_path / "lake").mkdir()
    ended = erase(tmp_path, "--raw", "rw", SEGMENT)
    assert (1, True) == (ended.returncode, "/rw does not exist or is empty" in ended.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("",),
        ("a",),
        ("account:1",),
        ("account:1:conversation:",),
        (SEGMENT, "more"),
        (SEGMENT, "--raw", ""),
        (SEGMENT, "--lake", "lake", "--raw", "lake/raw"),
    ],
)
def test_wrong_usage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Text shorter than a conversation is refused, because an empty text is in every row."""
    ended = erase(tmp_path, *arguments)
    assert (2, "") == (ended.returncode, ended.stdout)
    assert "Traceback" not in ended.stderr


def test_a_segment_is_removed_from_the_copy_too(run: Runner, serve: Serve) -> None:
    """Its days are copied again from the lake, and `verify` compares lake and copy."""
    emulator = serve(GENERATED)
    assert 0 == run(emulator, *WINDOW, AHT_ETL_RAW__URI="raw").code
    coarse = ("compact", "--lake", "lake", "--settle", "0s")
    env = {"AHT_ETL_COMPACT__URI": "coarse", "AHT_ETL_COMPACT__SETTLE": "0s"}

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return command(run.folder, *arguments, **env)

    def segments(place: str) -> set[object]:
        parts = (run.folder / place).glob("year=*/**/*.parquet")
        return {each for part in parts for each in pq.read_table(part)["segmentId"].to_pylist()}

    assert 0 == call(*coarse).returncode
    assert SEGMENT in segments("coarse")
    other = segments("lake") - {SEGMENT}
    tried = erase(run.folder, "--dry-run", "--copy", "coarse", SEGMENT)
    assert (0, True) == (tried.returncode, " 1 parts of the copy" in tried.stdout)
    # If it is erased from the lake only, the copy still has it.
    for flags in ((), ("--copy", "coarse")):
        ended = erase(run.folder, *flags, SEGMENT)
        assert (0, "") == (ended.returncode, ended.stderr)
        assert flags == () or "aht-etl compact --from 2022-06-01 " in ended.stdout
        for line in ended.stdout.splitlines():
            if line.startswith("then: "):
                done = call(*line.split()[2:], "--lake", "lake")
                assert 0 == done.returncode, done.stderr
    assert other == segments("lake") == segments("coarse")
    assert 0 == call("verify", "--lake", "lake", "--copy").returncode
    ended = erase(run.folder, "--copy", "coarse", SEGMENT)
    assert (1, "") == (ended.returncode, ended.stdout)


def test_rows_in_any_array_are_found(run: Runner, serve: Serve) -> None:
    """The elements of each array in a file are rows. The text of other rows does not change."""
    other = b'{"segmentId": "x", "of": [1e3, 7.10, "\\u00e9"]}'
    arrays = b'[%b]\n[\n %b,\n {"segmentId": "%b"} ,{"segmentId":"y"}]' % (
        OTHER,
        other,
        NEAR.encode(),
    )
    data = Dataset.of({f"{HOUR}arrays.json.gz": gzip.compress(arrays)})
    assert 0 == run(serve(data), *WINDOW, AHT_ETL_RAW__URI="raw").code
    ended = erase(run.folder, NEAR)
    assert (0, "") == (ended.returncode, ended.stderr)
    left = gzip.decompress((run.folder / f"raw{HOUR}arrays.json.gz").read_bytes())
    assert b'%b\n%b\n{"segmentId":"y"}\n' % (OTHER, other) == left


def test_a_run_that_is_active_is_not_disturbed(run: Runner, serve: Serve) -> None:
    """While a run uses the archive, `erase` changes nothing."""
    assert 0 == run(serve(NEIGHBOURS), *WINDOW, AHT_ETL_RAW__URI="raw").code
    before = through_pyarrow(run.lake)
    active = LocalStore(run.folder / "raw")
    active.hold()
    ended = erase(run.folder, NEAR)
    assert (1, True) == (ended.returncode, "a run uses the archive" in ended.stderr)
    assert before == through_pyarrow(run.lake)
