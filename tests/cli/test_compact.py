"""`aht-etl compact`: the coarse copy has every row of the lake once, and only grows."""

import gc
import json
import os
import subprocess
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.lake.compact import Copied, Copier
from etl.lake.layout import Selection
from etl.storage.local import LocalStore
from tests.conftest import COMMAND, environment
from tests.copies import (
    assert_equal,
    compact,
    copy_here,
    files_of,
    receipts,
    sources,
    through_duckdb,
    truth,
)
from tests.parts import ACCOUNT, directory, rewrite, write_part

DAY_1 = f"year=2022/month=6/day=1/accountId={ACCOUNT}"
DAY_2 = f"year=2022/month=6/day=2/accountId={ACCOUNT}"


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Two days, two accounts, both spellings, files without rows, parts of several files."""
    root = tmp_path / "lake"
    write_part(root, directory(6), [("a", 20), ("b", 0), ("c", 7)])
    write_part(root, directory(6), [("d", 3)])
    write_part(root, directory(9), [("e", 1)])
    write_part(root, directory(10), [("f", 5)])
    write_part(root, directory(6, month="06"), [("a", 4), ("g", 2)])
    write_part(root, directory(23, day=2), [("h", 6)])
    write_part(root, directory(0, day=2), [("i", 0)])
    write_part(root, directory(0, account="le1"), [("j", 2)])
    return root


def test_a_copy_has_every_row_once(lake: Path, tmp_path: Path) -> None:
    """A day and account is a folder of one spelling; nothing is left to do for a second call."""
    copy = tmp_path / "copy"
    ended = compact(lake, copy)
    assert (0, "ok") == (ended.code, ended.report["status"]), ended.err
    assert_equal(lake, copy)
    wanted = [f"{DAY_1}/part-00000.parquet", f"{DAY_2}/part-00000.parquet"]
    wanted.insert(1, "year=2022/month=6/day=1/accountId=le1/part-00000.parquet")
    assert (
        wanted == sorted(receipts(copy)) == sorted(part["path"] for part in ended.report["parts"])
    )
    assert {"copied": 3, "already_copied": 0, "failed": 0} == {
        key: ended.report["days"][key] for key in ("copied", "already_copied", "failed")
    }
    before = {part: part.read_bytes() for part in copy.rglob("*.parquet")}
    again = compact(lake, copy)
    assert (0, 11, 0) == (
        again.code,
        again.report["files"]["already_loaded"],
        again.report["files"]["loaded"],
    )
    assert before == {part: part.read_bytes() for part in copy.rglob("*.parquet")}
    assert [] == list((copy / "_staging").iterdir())


def test_output_that_nobody_reads(lake: Path, tmp_path: Path) -> None:
    """The summary cannot be printed; the report is written all the same, and the copy is ok."""
    command = [COMMAND, "compact", "--lake", str(lake), "--to", "copy", "--report", "r.json"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, env=environment(), cwd=tmp_path, check=False)
    assert (0, "ok") == (done.returncode, json.loads((tmp_path / "r.json").read_text())["status"])


def test_a_row_group_is_an_hour(lake: Path, tmp_path: Path) -> None:
    """Readers skip by the statistics of `hour`; the other columns are the lake's."""
    compact(lake, tmp_path / "copy")
    part = tmp_path / "copy" / DAY_1 / "part-00000.parquet"
    metadata = pq.read_metadata(part)
    names = pq.read_schema(part).names
    hours: list[Any] = [
        metadata.row_group(n).column(names.index("hour")).statistics
        for n in range(metadata.num_row_groups)
    ]
    assert [(6, 6), (9, 9), (10, 10)] == [(each.min, each.max) for each in hours]
    assert [*pq.read_schema(next(lake.rglob("*.parquet"))).names, "hour"] == names
    keys = {key.decode() for key in metadata.metadata or {} if key.startswith(b"aht_etl.")}
    assert {"sources", "commit", "run", "version", "schema"} == {key[8:] for key in keys}


def test_late_files_make_a_further_part(lake: Path, tmp_path: Path) -> None:
    """The existing parts are not written again."""
    copy = tmp_path / "copy"
    compact(lake, copy)
    before = {part: part.read_bytes() for part in copy.rglob("*.parquet")}
    write_part(lake, directory(6), [("late", 9)])
    write_part(lake, directory(3), [("later", 0)])
    ended = compact(lake, copy)
    assert [(f"{DAY_1}/part-00001.parquet", 2)] == [
        (part["path"], part["sources"]) for part in ended.report["parts"]
    ]
    assert_equal(lake, copy)
    assert before == {part: part.read_bytes() for part in before}


def test_a_part_is_cut_near_the_target(lake: Path, tmp_path: Path) -> None:
    """Between two files of the vendor, never within one."""
    ended = compact(lake, tmp_path / "copy", AHT_ETL_LAKE__TARGET_PART_SIZE="1B")
    assert 0 == ended.code, ended.err
    assert len(ended.report["parts"]) > 6
    assert_equal(lake, tmp_path / "copy")


def test_young_days_wait(tmp_path: Path) -> None:
    """A day is copied once it has been over for `--settle`."""
    lake, copy = tmp_path / "lake", tmp_path / "copy"
    for day in (1, 2):
        write_part(lake, directory(6, day=day), [("a", 1)])
    age = datetime.now(UTC) - datetime(2022, 6, 2, 12, tzinfo=UTC)
    ended = compact(lake, copy, "--settle", f"{age // timedelta(seconds=1)}s")
    assert (0, 1, 1) == (
        ended.code,
        ended.report["days"]["copied"],
        ended.report["days"]["not_settled"],
    )
    assert [f"{DAY_1}/part-00000.parquet"] == list(receipts(copy))


def test_flags_choose_whole_days(lake: Path, tmp_path: Path) -> None:
    """A window picks the days that it overlaps; `--to` is a time as well as the place."""
    copy = tmp_path / "copy"
    window = ("--from", "2022-06-01T22:00:00Z", "--to", "2022-06-02", "--account", ACCOUNT)
    ended = compact(lake, copy, *window)
    assert 0 == ended.code, ended.err
    assert [f"{DAY_1}/part-00000.parquet"] == list(receipts(copy))
    assert ACCOUNT == ended.report["account"]
    assert {"from": "2022-06-01T22:00:00Z", "to": "2022-06-02T00:00:00Z"} == ended.report["window"]
    assert 0 == compact(lake, copy).code
    assert_equal(lake, copy)


def damage_footer(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-5])


def damage_page(part: Path) -> None:
    content = bytearray(part.read_bytes())
    content[60] ^= 0xFF
    part.write_bytes(content)


def damage_receipts(part: Path) -> None:
    pq.write_table(pq.ParquetFile(part).read().replace_schema_metadata(None), part)


def fewer_rows(part: Path) -> None:
    rewrite(part, lambda table: table.slice(1))


def rows_of_another(part: Path) -> None:
    """Let the sources change places: their rows are not where the receipts say."""
    rewrite(part, lambda table: table.take(pa.array(range(len(table)))[::-1]))


@pytest.mark.parametrize(
    "damage", [damage_footer, damage_page, damage_receipts, fewer_rows, rows_of_another]
)
def test_a_damaged_part_leaves_its_day_out(
    lake: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """With kind `lake` and the part's name; all other days are copied, and later this one too."""
    part = lake / directory(6) / "part-00000.parquet"
    good = part.read_bytes()
    damage(part)
    copy = tmp_path / "copy"
    ended = compact(lake, copy)
    assert (3, "partial", 2) == (
        ended.code,
        ended.report["status"],
        ended.report["days"]["copied"],
    )
    (failure,) = ended.report["failures"]
    name = f"{directory(6)}/part-00000.parquet"
    assert ("lake", name) == (failure["kind"], failure["path"])
    assert name in failure["message"]
    assert DAY_1 not in {part.rpartition("/")[0] for part in receipts(copy)}
    assert truth(files_of(copy)) == through_duckdb(copy)
    last = json.loads(ended.err.splitlines()[-1])
    assert "compact.partial" == last["event"]
    assert name in last["reason"]
    part.write_bytes(good)
    assert 0 == compact(lake, copy).code
    assert_equal(lake, copy)


def test_a_part_in_the_wrong_folder_leaves_its_day_out(lake: Path, tmp_path: Path) -> None:
    """Its rows would have another hour in the copy than in the lake."""
    (lake / directory(11)).mkdir(parents=True)
    (lake / directory(10) / "part-00000.parquet").rename(
        lake / directory(11) / "part-00000.parquet"
    )
    ended = compact(lake, tmp_path / "copy")
    (failure,) = ended.report["failures"]
    assert (3, f"{directory(11)}/part-00000.parquet") == (ended.code, failure["path"])
    assert 2 == ended.report["days"]["copied"]


def test_a_part_of_a_file_that_is_not_the_vendors_leaves_its_day_out(
    lake: Path, tmp_path: Path
) -> None:
    """Its hour is unknown. Control characters of its name do not reach the terminal."""
    part = write_part(lake, directory(12), [("strange\x1b[31m", 1)])
    ended = compact(lake, tmp_path / "copy")
    (failure,) = ended.report["failures"]
    assert (3, str(part.relative_to(lake))) == (ended.code, failure["path"])
    assert "\x1b" not in ended.err
    assert 2 == ended.report["days"]["copied"]


def test_a_damaged_part_of_the_copy_leaves_its_day_out(lake: Path, tmp_path: Path) -> None:
    """Nothing is written next to it, because any file might be in it."""
    copy = tmp_path / "copy"
    compact(lake, copy)
    damage_footer(copy / DAY_1 / "part-00000.parquet")
    for day in (1, 2):
        write_part(lake, directory(7, day=day), [("late", 1)])
    ended = compact(lake, copy)
    assert (3, 1) == (ended.code, ended.report["days"]["copied"])
    assert "part-00000.parquet" in ended.report["failures"][0]["message"]
    assert 1 == len(list((copy / DAY_1).iterdir()))


def test_a_source_that_the_lake_holds_twice_is_copied_once(lake: Path, tmp_path: Path) -> None:
    """`verify` reports the lake, and the copy has the rows once."""
    write_part(lake, directory(6), [("a", 20)])
    assert 0 == compact(lake, tmp_path / "copy").code
    assert 1 == max(sources(tmp_path / "copy").values())
    assert truth(set(files_of(lake))) == through_duckdb(tmp_path / "copy")


def test_another_copier_is_faster(tmp_path: Path) -> None:
    """What it brought is taken out of a part that is encoded already; the rest is committed."""
    lake, earlier, copy = tmp_path / "lake", tmp_path / "earlier", tmp_path / "copy"
    write_part(lake, directory(6), [("a", 20), ("b", 0), ("c", 7)])
    write_part(earlier, directory(6), [("b", 0), ("c", 7)])
    write_part(lake, directory(7), [("d", 3)])
    for each in (lake, earlier):
        write_part(each, directory(8), [("e", 2)])
    asked = 0

    def meanwhile() -> bool:
        nonlocal asked
        asked += 1
        if asked == 6:  # all three receipts are read, and all but the last part's rows
            copy_here(earlier, copy)
        return False

    so_far = Copied()
    stores = LocalStore(lake), LocalStore(copy)
    copier = Copier(*stores, "zstd", 2**27, 2**26, "run", meanwhile)
    copier.run(Selection(), datetime.now(UTC), so_far)
    (day,) = so_far.days
    assert ("copied", 5, 5, [2]) == (
        day.outcome,
        day.files,
        day.in_copy,
        [part.sources for part in day.parts],
    )
    assert_equal(lake, copy)
    parts = sorted(copy.rglob("*.parquet"))
    groups = [pq.read_metadata(part).num_row_groups for part in parts]
    assert [2, 2] == groups  # hours 6 and 8, then hours 6 and 7


def test_paths_of_finished_days_are_forgotten(tmp_path: Path) -> None:
    """A lake has millions of files: only those of the days in work are in memory."""
    for day in range(1, 5):
        files = [(f"{'x' * 60}{number}", 0) for number in range(1000)]
        write_part(tmp_path / "lake", directory(6, day=day), files)
    copy_here(tmp_path / "lake", tmp_path / "copy")
    gc.collect()
    tracemalloc.start()
    try:
        so_far = copy_here(tmp_path / "lake", tmp_path / "copy")
        gc.collect()
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [(1000, 1000)] * 4 == [(day.files, day.in_copy) for day in so_far.days]
    assert kept_bytes < 4000 * 100


def test_wrong_places(lake: Path, tmp_path: Path) -> None:
    """Neither in the other, the copy no lake, the lake no copy, and both must be given."""
    done = compact(lake, lake / "copy")
    assert (2, "") == (done.code, done.out)
    assert "compact.uri must not lie in lake.uri" in done.err
    assert 2 == compact(lake / "below", lake).code
    assert 2 == compact(lake, lake).code
    run = [COMMAND, "run", "--account", "1", "--lake", str(lake), "--from-archive"]
    env = environment(AHT_ETL_COMPACT__URI=str(lake), AHT_ETL_RAW__URI=str(tmp_path / "raw"))
    assert 2 == subprocess.run(run, env=env, capture_output=True, check=False).returncode
    other = tmp_path / "other"
    write_part(other, directory(6), [("x", 1)])
    done = compact(lake, other)
    assert (1, "failed") == (done.code, done.report["status"])
    assert "is a lake and no coarse copy" in done.report["error"]
    copy = tmp_path / "copy"
    assert 0 == compact(lake, copy).code
    done = compact(copy, tmp_path / "second")
    assert (1, True) == (done.code, "is a coarse copy and no lake" in done.report["error"])
    (tmp_path / "file").write_text("x")
    done = compact(lake, tmp_path / "file")
    assert (1, True) == (done.code, "check compact.uri" in done.report["error"])


def test_without_a_place_nothing_is_done(lake: Path, tmp_path: Path) -> None:
    done = compact(lake, "2022-06-02")
    assert (2, True) == (done.code, "compact.uri: is missing" in done.err)
    for wrong in ("1654041600", "2022-06-31", "20220601"):  # a time, and no place of that name
        done = compact(lake, wrong)
        assert (2, "") == (done.code, done.out)
        assert "window.to" in done.err
    assert 0 == compact(lake, "2022-06-03", AHT_ETL_COMPACT__URI=str(tmp_path / "copy")).code
    assert_equal(lake, tmp_path / "copy")


def test_an_empty_lake_is_nothing_to_do(tmp_path: Path) -> None:
    ended = compact(tmp_path / "none", tmp_path / "copy")
    assert (0, 0) == (ended.code, ended.report["files"]["listed"])


def test_the_report_is_written_to_a_file(lake: Path, tmp_path: Path) -> None:
    """It is the document on standard output, also after a partial copy."""
    damage_footer(lake / directory(6) / "part-00000.parquet")
    ended = compact(lake, tmp_path / "copy", "--report", str(tmp_path / "report.json"))
    assert ended.report == json.loads((tmp_path / "report.json").read_text())
    assert 3 == ended.report["exit_code"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_leaves_its_day_out(lake: Path, tmp_path: Path) -> None:
    (lake / directory(6)).chmod(0)
    try:
        ended = compact(lake, tmp_path / "copy")
    finally:
        (lake / directory(6)).chmod(0o755)
    assert (3, 2) == (ended.code, ended.report["days"]["copied"])
