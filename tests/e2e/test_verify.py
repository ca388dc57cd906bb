"""`aht-etl verify`: a good lake is ok, and each kind of damage is a finding."""

import gzip
import json
import os
import pty
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import structlog
from typer.testing import CliRunner

from etl.cli import app
from etl.emulator import Dataset, EmulatorOptions, Fault, run_in_thread
from tests.conftest import COMMAND, Runner, Serve, environment, load
from tests.lakes import receipts

HOUR = "year=2022/month=6/day=1/hour=6/accountId=le79344075"
BAD = f"/{HOUR}/bad.json.gz"
JUNK = f"/{HOUR}/junk.json.gz"
DATA = Dataset(
    {
        **Dataset.generate(
            3,
            datetime(2022, 6, 1, 6, tzinfo=UTC),
            datetime(2022, 6, 1, 9, tzinfo=UTC),
            files_per_hour=9,
            rows_per_file=60,
            mixed_shapes=True,
        ).files,
        **Dataset.of(
            {
                BAD: gzip.compress(b'{"segmentId":"a"}\n{"segmentId":"b"}\n{"x":1}\n[2]\n'),
                JUNK: gzip.compress(b"{no\n" * 3),
            }
        ).files,
    }
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a lake with several parts an hour, and its raw archive."""
    folder = tmp_path_factory.mktemp("loaded")
    with run_in_thread(DATA, EmulatorOptions(oldest=None)) as emulator:
        report = load(
            emulator,
            folder / "lake",
            raw={"uri": str(folder / "raw")},
            lake={"uri": str(folder / "lake"), "target_part_size": 1},
            fetch={"concurrency": 1},  # so that the parts are the same each time
        )
    assert [JUNK] == [failure["path"] for failure in report["failures"]]
    return folder


@pytest.fixture
def folder(loaded: Path, tmp_path: Path) -> Path:
    """Copy the lake, so that a test can damage the copy."""
    return Path(shutil.copytree(loaded, tmp_path / "folder"))


def verify(folder: Path, *more: str, **env: str) -> tuple[int, dict[str, Any]]:
    """Return the command's exit code and its JSON."""
    lake = ("--lake", str(folder / "lake"))
    ended = CliRunner().invoke(app, ["verify", *lake, "--json", *more], env=env)
    structlog.reset_defaults()
    result = json.loads(ended.stdout)
    empty = not result["parts"] and not result["findings"]
    code = 1 if empty else 3 if result["findings"] else 0
    assert (code, code == 0) == (ended.exit_code, result["ok"]), ended.output
    if code:
        reason = json.loads(ended.stderr.splitlines()[-1])["reason"]
        assert ("nothing to verify" if empty else f"{len(result['findings'])} finding") in reason
    return ended.exit_code, result


def deep(folder: Path) -> dict[str, Any]:
    return verify(folder, "--deep", AHT_ETL_RAW__URI=str(folder / "raw"))[1]


def kinds(result: dict[str, Any], which: str = "findings") -> list[tuple[str, str]]:
    return sorted((finding["kind"], finding["path"]) for finding in result[which])


def parts(folder: Path) -> list[Path]:
    """Return the parts of the busiest hour, in order."""
    found = sorted((folder / "lake" / HOUR).glob("part-*.parquet"))
    assert len(found) > 1
    return found


def name(folder: Path, part: Path) -> str:
    return str(part.relative_to(folder / "lake"))


def said_by(part: Path) -> dict[str, str]:
    """Return the metadata that the job wrote into a part."""
    metadata = pq.read_metadata(part).metadata or {}
    return {k.decode(): v.decode() for k, v in metadata.items() if k.startswith(b"aht_etl.")}


def rewritten(part: Path, **options: Any) -> None:
    """Write a part again with these changes."""
    table, said = pq.read_table(part, partitioning=None), said_by(part)
    with pq.ParquetWriter(part, table.schema, **options) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(said)


def with_sources(part: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Write a part again with other receipts."""
    table = pq.read_table(part, partitioning=None)
    sources = json.loads(said_by(part)["aht_etl.sources"])
    change(sources)
    with pq.ParquetWriter(part, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"aht_etl.sources": json.dumps(sources)})


def test_an_unchanged_lake(folder: Path) -> None:
    """It is ok, also compared with the archive. A file that failed to load is a note."""
    _, result = verify(folder)
    sources = receipts(folder / "lake")
    assert {
        "ok": True,
        "parts": len({source["part"] for source in sources}),
        "files": len(DATA.files) - 1,
        "rows": sum(source["rows"] for source in sources),
        "bytes": sum(part.stat().st_size for part in (folder / "lake").rglob("*.parquet")),
        "findings": [],
        "notes": [],
    } == result
    result = deep(folder)
    assert ([], [("unloadable", JUNK[1:])]) == (kinds(result), kinds(result, "notes"))


def test_deep_without_an_archive(folder: Path) -> None:
    """It is wrong usage, because there is nothing to compare with. Nothing is read."""
    ended = CliRunner().invoke(app, ["verify", "--lake", str(folder / "lake"), "--deep"])
    structlog.reset_defaults()
    assert (2, "") == (ended.exit_code, ended.stdout)
    assert "raw.uri: is missing, and --deep needs it" in ended.stderr


@pytest.mark.parametrize("keep", [0, 3, 100, -1, -9])
def test_a_part_that_ends_too_early(folder: Path, keep: int) -> None:
    """The finding is `unreadable`, and all other parts are still read."""
    part = parts(folder)[1]
    part.write_bytes(part.read_bytes()[:keep])
    _, result = verify(folder)
    assert [("unreadable", name(folder, part))] == kinds(result)
    assert "delete it while no run is active and run again" in result["findings"][0]["message"]
    assert result["rows"] > 0


@pytest.mark.parametrize("damage", ["folder", "pipe", "link", "empty"])
def test_something_else_under_the_name_of_a_part(folder: Path, damage: str) -> None:
    """The command does not wait for it, and does not treat it as absent."""
    part = folder / "lake" / HOUR / "part-00099.parquet"
    match damage:
        case "folder":
            part.mkdir()
        case "pipe":
            os.mkfifo(part)
        case "link":
            part.symlink_to("nowhere")
        case "empty":
            part.touch()
    assert [("unreadable", name(folder, part))] == kinds(verify(folder)[1])


def test_a_flipped_byte_where_pages_have_checksums(folder: Path) -> None:
    """The byte is found even if the damaged page can be decompressed."""
    part = parts(folder)[0]
    rewritten(part, write_page_checksum=True, compression="none", use_dictionary=False)
    column = pq.read_metadata(part).row_group(0).column(0)
    good = part.read_bytes()
    end = column.data_page_offset + column.total_compressed_size - 1
    part.write_bytes(good[:end] + bytes([good[end] ^ 1]) + good[end + 1 :])
    assert [("unreadable", name(folder, part))] == kinds(verify(folder)[1])
    part.write_bytes(good)
    assert [] == kinds(verify(folder)[1])


def test_a_flipped_byte_in_a_packed_page(folder: Path) -> None:
    """A page that cannot be decompressed is found, also in the last row group."""
    part = parts(folder)[0]
    metadata = pq.read_metadata(part)
    column = metadata.row_group(metadata.num_row_groups - 1).column(0)
    good = bytearray(part.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    magic = good.index(b"\x28\xb5\x2f\xfd", start)  # a zstd frame's first bytes
    good[magic] ^= 1
    part.write_bytes(good)
    assert [("unreadable", name(folder, part))] == kinds(verify(folder)[1])


def test_text_that_is_not_utf8(folder: Path) -> None:
    """Arrow reads it without an error; DuckDB and Spark do not."""
    part = parts(folder)[0]
    rewritten(part, compression="none", use_dictionary=False, write_statistics=False)
    good = part.read_bytes()
    at = good.index(b"account:le79344075")
    part.write_bytes(good[:at] + b"\xff" + good[at + 1 :])
    (finding,) = verify(folder)[1]["findings"]
    assert ("unreadable", True) == (finding["kind"], "UTF8" in finding["message"])


def test_a_part_without_receipts(folder: Path) -> None:
    """A Parquet file without receipts, under the name of a part."""
    part = parts(folder)[0]
    bare = pq.read_table(part, partitioning=None).replace_schema_metadata(None)
    pq.write_table(bare, part)
    assert [("receipts", name(folder, part))] == kinds(verify(folder)[1])


def test_a_wrong_schema(folder: Path) -> None:
    """A missing column and one of another type; the message names it."""
    first, second = parts(folder)[:2]
    said = []
    for part in (first, second):
        table, metadata = pq.read_table(part, partitioning=None), said_by(part)
        if part == first:
            table = table.drop_columns(["extras"])
        else:
            table = table.set_column(1, "sequence", table["sequence"].cast(pa.int32()))
        with pq.ParquetWriter(part, table.schema) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata(metadata)
        said.append(("schema", name(folder, part)))
    _, result = verify(folder)
    assert said == kinds(result)
    assert "its column sequence is int32, not int64" in result["findings"][1]["message"]


def test_receipts_with_wrong_row_counts(folder: Path) -> None:
    """The total is wrong, or only the counts of two sources."""
    first, second = parts(folder)[:2]

    def one_more(sources: list[dict[str, Any]]) -> None:
        sources[-1]["rows"] += 1

    def another_name(sources: list[dict[str, Any]]) -> None:
        sources[-1]["path"] += ".json.gz"

    with_sources(first, one_more)
    with_sources(second, another_name)
    assert [("rows", name(folder, first)), ("rows", name(folder, second))] == kinds(
        verify(folder)[1]
    )


def test_a_receipt_twice_in_a_part(folder: Path) -> None:
    """Its rows are then counted twice as well."""
    part = parts(folder)[0]
    with_sources(part, lambda sources: sources.append(sources[0]))
    assert {("duplicate", name(folder, part)), ("rows", name(folder, part))} == set(
        kinds(verify(folder)[1])
    )


def test_a_part_copied_under_another_number(folder: Path) -> None:
    """The finding names both parts; a note names the missing numbers."""
    part = parts(folder)[0]
    copy = part.with_name("part-00044.parquet")
    shutil.copy(part, copy)
    _, result = verify(folder)
    assert [("duplicate", name(folder, copy))] == kinds(result)
    assert name(folder, part) in result["findings"][0]["message"]
    assert [("number_gap", HOUR)] == kinds(result, "notes")


def test_a_part_in_another_partition(folder: Path) -> None:
    """A moved part is misplaced; the sources of a copied part are also in the lake twice."""
    part = parts(folder)[-1]
    moved = folder / "lake" / HOUR.replace("hour=6", "hour=7") / "part-00077.parquet"
    shutil.copy(part, moved)
    assert [("duplicate", name(folder, moved)), ("misplaced", name(folder, moved))] == kinds(
        verify(folder)[1]
    )
    part.unlink()
    assert [("misplaced", name(folder, moved))] == kinds(verify(folder)[1])
    again = moved.parent.with_name("accountId=other") / "part-00000.parquet"
    again.parent.mkdir()
    shutil.copy(moved, again)
    assert [
        ("duplicate", name(folder, again)),
        ("misplaced", name(folder, moved)),
        ("misplaced", name(folder, again)),
    ] == kinds(verify(folder)[1])


def test_parts_that_an_operator_deleted(folder: Path) -> None:
    """Operators do that to load a file again: a note, not a finding."""
    parts(folder)[0].unlink()
    code, result = verify(folder)
    assert (0, [("number_gap", HOUR)]) == (code, kinds(result, "notes"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (None, "is not there, of 2 bad rows"),
        (lambda lines: lines[:1], "has 1 bad rows, its receipt says 2"),
        (lambda lines: [*lines, lines[0]], "has 3 bad rows, its receipt says 2"),
        (lambda lines: [lines[0], b"{}\n"], "line 2 is no bad row"),
        (lambda lines: [lines[0], b"no\n"], "line 2 is no bad row"),
        (lambda lines: [lines[0], lines[1].rstrip(b"\n")], "line 2 is no bad row"),
        (lambda lines: [lines[0].replace(b"bad.json", b"worse.json"), lines[1]], "line 1 is no"),
        (lambda lines: [lines[0].replace(b'"row": 2', b'"row": "2"'), lines[1]], "line 1 is no"),
        (lambda lines: [b"[" * 100_000 + b"\n", lines[1]], "line 1 is no"),
    ],
)
def test_bad_rows_that_differ_from_the_receipt(
    folder: Path, change: Callable[[list[bytes]], list[bytes]] | None, said: str
) -> None:
    """They are missing, short, too many or changed."""
    file = folder / "lake" / f"_quarantine{BAD.removesuffix('.json.gz')}.ndjson"
    lines = file.read_bytes().splitlines(keepends=True)
    if change is None:
        file.unlink()
    else:
        file.write_bytes(b"".join(change(lines)))
    _, result = verify(folder)
    assert [("quarantine", name(folder, file))] == kinds(result)
    assert said in result["findings"][0]["message"]


def test_bad_rows_without_a_receipt(folder: Path) -> None:
    """They are written before the part: normal during a run, or after it was killed."""
    (folder / "lake" / "_quarantine" / HOUR / "more.ndjson").write_text("{}\n")
    assert 0 == verify(folder)[0]


def test_foreign_files(folder: Path) -> None:
    """Only files that readers read matter: a note, or a finding if it is a part."""
    lake = folder / "lake"
    (lake / HOUR / "_SUCCESS").touch()
    (lake / HOUR / ".part-00000.parquet.crc").touch()
    (lake / HOUR / "notes.txt").write_text("mine")
    (lake / "_staging" / ".left.tmp").write_text("half")
    (lake / "lost+found").mkdir()
    bare = pq.read_table(parts(folder)[0], partitioning=None).replace_schema_metadata(None)
    pq.write_table(bare, lake / "mine.parquet")
    code, result = verify(folder)
    assert (0, [("foreign", "mine.parquet")]) == (code, kinds(result, "notes"))
    shutil.copy(parts(folder)[0], lake / HOUR / "copy.parquet")
    assert [("foreign", f"{HOUR}/copy.parquet")] == kinds(verify(folder)[1])


def test_an_archive_that_differs_from_the_lake(folder: Path) -> None:
    """The findings name each missing, changed or damaged file."""
    missing, changed, cut = sorted(path for path in DATA.files if path not in {BAD, JUNK})[:3]
    (folder / f"raw{missing}").unlink()
    (folder / f"raw{changed}").write_bytes(gzip.compress(b'{"segmentId":"a"}'))
    (folder / f"raw{cut}").write_bytes((folder / f"raw{cut}").read_bytes()[:-3])
    result = deep(folder)
    assert [
        ("archive_differs", changed[1:]),
        ("archive_differs", cut[1:]),
        ("archive_missing", missing[1:]),
    ] == sorted(kinds(result))
    assert 0 == verify(folder)[0]


def test_an_archived_file_that_was_damaged_before_it_was_loaded(folder: Path) -> None:
    """No run can load it any more. A file that was never readable stays a note."""
    shutil.rmtree(folder / "lake" / HOUR)
    cut, gone = sorted(path for path in DATA.files if HOUR in path and path not in {BAD, JUNK})[:2]
    (folder / f"raw{cut}").write_bytes((folder / f"raw{cut}").read_bytes()[:1000])
    (folder / f"raw{gone}").unlink()
    (folder / f"raw{gone}").symlink_to("nowhere")
    chosen = ("--from", "2022-06-01T06:00:00Z", "--to", "2022-06-01T07:00:00Z")
    env = {"AHT_ETL_RAW__URI": str(folder / "raw")}
    for flags in ((), chosen):
        result = verify(folder, "--deep", *flags, **env)[1]
        found = kinds(result)
        assert [("archive_differs", cut[1:]), ("archive_differs", gone[1:])] == found[:2]
        assert {"not_loaded"} == {kind for kind, _ in found[2:]}
        assert [("unloadable", JUNK[1:])] == kinds(result, "notes")


def test_an_archived_file_whose_path_was_taken(folder: Path) -> None:
    """If the path was taken, the right file has its checksum after its name."""
    (source,) = (s for s in receipts(folder / "lake") if s["path"] == BAD)
    file = folder / f"raw{BAD}"
    file.rename(file.with_name(f"{file.name}.sha256-{source['sha256'][:12]}"))
    file.write_bytes(gzip.compress(b'{"segmentId":"a"}'))
    assert [] == kinds(deep(folder))


def test_receipts_that_differ_from_the_archive(folder: Path) -> None:
    """The file decodes to more bad rows than its receipt says."""
    (part,) = {s["part"] for s in receipts(folder / "lake") if s["path"] == BAD}

    def none_bad(sources: list[dict[str, Any]]) -> None:
        (source,) = (source for source in sources if source["path"] == BAD)
        source["quarantined"] = 0

    with_sources(folder / "lake" / part, none_bad)
    assert 0 == verify(folder)[0]
    assert [("archive_rows", BAD[1:])] == kinds(deep(folder))


def test_an_archived_file_that_is_not_loaded(folder: Path) -> None:
    """The files of a deleted part are found, unless another part of the hour is damaged."""
    part = parts(folder)[-1]
    paths = [s["path"][1:] for s in receipts(folder / "lake") if s["part"] == name(folder, part)]
    part.unlink()
    assert [("not_loaded", path) for path in sorted(paths)] == kinds(deep(folder))
    broken = parts(folder)[0]
    broken.write_bytes(b"")
    assert [("unreadable", name(folder, broken))] == kinds(deep(folder))


def test_a_skipped_file_is_not_missing(folder: Path) -> None:
    """No run ever loads it, so it is no finding."""
    shutil.rmtree(folder / "lake" / HOUR)
    env = {"AHT_ETL_RAW__URI": str(folder / "raw"), "AHT_ETL_FETCH__SKIP": '["*/hour=6/*"]'}
    assert 0 == verify(folder, "--deep", **env)[0]


def test_verify_of_selected_hours(folder: Path) -> None:
    """Damage in other hours is not reported."""
    parts(folder)[0].write_bytes(b"")
    chosen = ("--from", "2022-06-01T07:00:00Z", "--to", "2022-06-01T08:00:00Z")
    code, result = verify(folder, *chosen, "--deep", AHT_ETL_RAW__URI=str(folder / "raw"))
    hours = {s["part"] for s in receipts(folder / "lake" / HOUR.replace("hour=6", "hour=7"))}
    assert (0, len(hours)) == (code, result["parts"])
    assert 3 == verify(folder, "--account", "le79344075")[0]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--lake", "missing"), r"there is no lake at /.+/missing: check the place for a typing"),
        (("--lake", "empty"), r"/.+/empty holds no parts: check the place for a typing error"),
        (
            ("--account", "other"),
            r"holds no parts of account other; it holds parts of account le79344075 from "
            r"2022-06-01 06:00 to 2022-06-01 08:00: check --account, --from and --to$",
        ),
        (("--from", "2022-06-02", "--to", "2022-06-03"), r"no parts from 2022-06-02 00:00 to 2022"),
        (("--lookback", "7d"), r"holds no parts from "),
    ],
)
def test_nothing_to_verify(folder: Path, flags: tuple[str, ...], said: str) -> None:
    """The exit code is 1, and a line says what to check, also with --json. The lake is never ok."""
    (folder / "empty").mkdir()
    where = ("--lake", "lake") if "--lake" not in flags else ()
    for more in ((), ("--json",)):
        done = subprocess.run(
            [COMMAND, "verify", *where, *flags, *more],
            env=environment(),
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        reason = json.loads(done.stderr.splitlines()[-1])["reason"]
        assert (1, True) == (done.returncode, reason.startswith("error: nothing to verify: "))
        assert re.search(said, reason), reason
        if more:
            result = json.loads(done.stdout)
            assert (False, [("empty", "lake.uri")]) == (result["ok"], kinds(result, "notes"))
        else:
            assert "" == done.stdout


def test_a_lake_that_is_not_a_folder(folder: Path) -> None:
    """The command ends with an error in one line."""
    (folder / "file").touch()
    done = subprocess.run(
        [COMMAND, "verify", "--lake", "file"],
        env=environment(),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (1, "") == (done.returncode, done.stdout)
    assert "reading file: Not a directory" in json.loads(done.stderr)["reason"]


def test_names_with_control_characters(folder: Path) -> None:
    """They are removed on the terminal and in the last line."""
    (folder / "lake" / HOUR / "part-\x1b[31m\n.parquet").touch()
    done = subprocess.run(
        [COMMAND, "verify", "--lake", "lake"],
        env=environment(),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (3, True) == (done.returncode, "part- [31m .parquet" in done.stdout)
    assert "\x1b" not in done.stdout + json.loads(done.stderr.splitlines()[-1])["reason"]


def test_the_output_for_people(folder: Path) -> None:
    """One line has the result. A long list of findings of one kind is cut."""
    command = [COMMAND, "verify", "--lake", "lake"]
    done = subprocess.run(
        command, env=environment(), cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("ok: ")
    for number in range(50, 70):
        (folder / "lake" / HOUR / f"part-{number:05d}.parquet").touch()
    done = subprocess.run(
        command, env=environment(), cwd=folder, capture_output=True, text=True, check=False
    )
    assert (3, True) == (done.returncode, done.stdout.startswith("20 findings: "))
    assert "unreadable: and 10 more; --json has them all" in done.stdout
    reason = json.loads(done.stderr.splitlines()[-1])["reason"]
    assert reason.startswith("20 findings in ")
    assert "delete it while no run is active and run again" in reason


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--account", "a-b"), "account:"),
        (("--from", "2022-06-02", "--to", "2022-06-01"), "is not before"),
        (("--lookback", "7"), "window.lookback: not a duration"),
        (("--config", "missing.yaml"), "cannot be read"),
    ],
)
def test_wrong_usage(flags: tuple[str, ...], said: str) -> None:
    """The exit code is 2, and the message names the mistake."""
    ended = CliRunner().invoke(app, ["verify", *flags])
    structlog.reset_defaults()
    assert (2, True) == (ended.exit_code, said in ended.stderr), ended.output


def test_on_a_terminal_that_is_interrupted(folder: Path) -> None:
    """A bar shows the progress. At any end, the terminal has its cursor again."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, "verify", "--lake", "lake"],
        env=environment(TERM="xterm"),
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    output = b""
    try:
        while piece := os.read(ours, 65536):
            output += piece
            if b"reading" in output and process.poll() is None:
                process.send_signal(signal.SIGINT)
    except OSError:  # on Linux, this means that the other side has closed
        pass
    os.close(ours)
    assert process.wait() in {0, 130}
    assert b"reading" in output
    assert output.rindex(b"\x1b[?25h") > output.rindex(b"\x1b[?25l")


def test_files_that_a_run_has_not_committed_yet(run: Runner, serve: Serve) -> None:
    """Files that wait for the last file of their hour are no finding while their run is active."""
    waits_for, *others = (path for path in DATA.files if "hour=7" in path)
    emulator = serve(DATA, faults=(Fault("file", "hang", waits_for, times=None),))
    # With one request for each file, no worker waits for others, so each file is decoded at once.
    process = run.start(
        emulator, AHT_ETL_RAW__URI=str(run.folder / "raw"), AHT_ETL_FETCH__CONCURRENCY="500"
    )
    waiting = {path[1:] for path in others}
    try:
        for _ in range(600):
            result = deep(run.folder)
            assert [] == result["findings"]
            if waiting <= {path for kind, path in kinds(result, "notes") if kind == "not_loaded"}:
                break
        else:
            pytest.fail("the run never waited")
    finally:
        process.kill()
        process.communicate()
    raw = run.folder / "raw"
    kept = {str(file.relative_to(raw)) for file in raw.rglob("year=*/**/*.json.gz")}
    kept -= {source["path"][1:] for source in receipts(run.lake)} | {JUNK[1:]}
    assert waiting <= kept
    assert [("not_loaded", path) for path in sorted(kept)] == kinds(deep(run.folder))


def test_while_runs_write(run: Runner, serve: Serve) -> None:
    """Parts, bad rows and archived files that appear meanwhile are never findings."""
    days = Dataset.generate(
        5,
        datetime(2022, 6, 1, tzinfo=UTC),
        datetime(2022, 6, 3, tzinfo=UTC),
        rows_per_file=40,
        mixed_shapes=True,
    )
    emulator = serve(Dataset({**days.files, **DATA.files}), latency_s=0.05)
    env = {"AHT_ETL_RAW__URI": str(run.folder / "raw"), "AHT_ETL_LAKE__TARGET_PART_SIZE": "4kB"}
    processes = [run.start(emulator, **env) for _ in range(2)]
    results = []
    while any(process.poll() is None for process in processes):
        results.append(deep(run.folder))
    for process in processes:
        assert 3 == run.end(process).code  # the file JUNK fails
    results.append(deep(run.folder))
    assert [[]] * len(results) == [result["findings"] for result in results]
    assert len(results[-1]["notes"]) == 1
    assert results[-1]["rows"] == sum(source["rows"] for source in receipts(run.lake))
