"""status and verify of a coarse copy, by itself and against its lake."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.conftest import COMMAND, environment
from tests.copies import arguments, copy_here
from tests.parts import ACCOUNT, directory, rewrite, write_part

DAY_1 = f"year=2022/month=6/day=1/accountId={ACCOUNT}"


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Two days with a gap, late files, and their copy."""
    root = tmp_path / "lake"
    early = "sequences.1654066800000.20220601070000.00001"
    late = "sequences.1654239600000.20220603070000.00002"
    write_part(root, directory(6), [(early, 20), (late, 7)])
    write_part(root, directory(9), [("e", 1)])
    write_part(root, directory(9), [("f", 0)])
    write_part(root, directory(1, day=2), [("g", 4)])
    copy_here(root, tmp_path / "copy")
    return root


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "copy"


def told(command: str, *flags: str, **env: str) -> tuple[int, Any]:
    done = subprocess.run(
        [COMMAND, command, *flags, "--json"],
        env=environment(**env),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


def proved(lake: Path, copy: Path, *flags: str, **env: str) -> tuple[int, list[tuple[str, str]]]:
    """Verify the copy against the lake; return the exit code and the findings."""
    of_copy = {"AHT_ETL_COMPACT__URI": str(copy), "AHT_ETL_COMPACT__SETTLE": "0s", **env}
    code, said = told("verify", "--lake", str(lake), "--copy", *flags, **of_copy)
    return code, [(each["kind"], each["path"]) for each in said["findings"]]


def test_a_copy_is_surveyed_like_its_lake(lake: Path, copy: Path) -> None:
    """The same files, rows, gaps and late arrivals, hour by hour; a partition is a day."""
    (_, of_lake), (code, of_copy) = (told("status", "--lake", str(each)) for each in (lake, copy))
    assert 0 == code
    for key in ("files", "rows", "quarantined", "late_files", "gaps", "damaged"):
        assert of_lake[key] == of_copy[key], key
    assert (2, 1) == (of_copy["parts"], of_copy["late_files"])
    assert [DAY_1, DAY_1.replace("day=1", "day=2")] == [
        each["partition"] for each in of_copy["partitions"]
    ]
    shown = [
        subprocess.run(
            [COMMAND, "status", "--lake", str(each), "--hours"],
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for each in (lake, copy)
    ]
    calendars = [[line for line in text.splitlines() if line.startswith("2022-")] for text in shown]
    assert calendars[0] == calendars[1]
    assert shown[1].startswith("copy ")


def test_a_copy_has_no_page(lake: Path, copy: Path, tmp_path: Path) -> None:
    """The hours of a copy are in its rows. The page can only show the lake."""
    code, said = told("status", "--lake", str(copy), "--html", str(tmp_path / "page.html"))
    assert (1, True) == (code, "is a coarse copy" in said)


def test_a_copy_is_proved(lake: Path, copy: Path) -> None:
    """By itself, and against the lake. Days that are not settled may be missing."""
    code, said = told("verify", "--lake", str(copy))
    assert (0, True, 2, 5, 32) == (code, said["ok"], said["parts"], said["files"], said["rows"])
    assert (0, []) == proved(lake, copy)
    write_part(lake, directory(7, day=2), [("late", 1)])
    folder = DAY_1.replace("day=1", "day=2")
    assert (3, [("copy_missing", folder)]) == proved(lake, copy)
    assert (0, []) == proved(lake, copy, AHT_ETL_COMPACT__SETTLE="100000d")
    assert (0, []) == proved(lake, copy, "--to", "2022-06-02")
    copy_here(lake, copy)
    assert (0, []) == proved(lake, copy)


def test_cut_parts_are_proved(lake: Path, tmp_path: Path) -> None:
    """Each source is compared with the lake's, however the copy is cut into parts."""
    copy = tmp_path / "small"
    env = environment(AHT_ETL_LAKE__TARGET_PART_SIZE="1B")
    command = arguments(lake, copy, "--settle", "0s")
    subprocess.run(command, env=env, check=True, capture_output=True)
    assert 5 == len(list(copy.rglob("*.parquet")))
    assert (0, []) == proved(lake, copy)


def other_value(table: pa.Table) -> pa.Table:
    at = table.column_names.index("handleTimeMillis")
    values = [*table["handleTimeMillis"].to_pylist()[:-1], 12345]
    return table.set_column(at, "handleTimeMillis", pa.array(values, pa.int64()))


def other_hour(table: pa.Table) -> pa.Table:
    at = table.column_names.index("hour")
    return table.set_column(at, "hour", pa.array([3] * len(table), pa.int32()))


def test_what_differs_is_found(lake: Path, copy: Path) -> None:
    """A value, an hour, a source that left the lake, a source that is twice in the copy."""
    part = copy / DAY_1 / "part-00000.parquet"
    name, good = f"{DAY_1}/part-00000.parquet", part.read_bytes()
    rewrite(part, other_value)
    assert (3, [("copy_differs", name)]) == proved(lake, copy)
    part.write_bytes(good)
    rewrite(part, other_hour)
    assert (3, [("rows", name)]) == proved(lake, copy)
    assert "rows" == told("verify", "--lake", str(copy))[1]["findings"][0]["kind"]
    part.write_bytes(good)
    part.with_name("part-00001.parquet").write_bytes(good)
    code, found = proved(lake, copy)
    assert (3, ("duplicate", f"{DAY_1}/part-00001.parquet")) == (code, found[0])
    part.with_name("part-00001.parquet").unlink()
    (lake / directory(9) / "part-00000.parquet").unlink()
    assert (3, [("copy_extra", name)]) == proved(lake, copy)
    (lake / directory(9) / "part-00001.parquet").write_bytes(b"PAR1")
    damaged = f"{directory(9)}/part-00001.parquet"
    assert (3, [("unreadable", damaged)]) == proved(lake, copy)


def test_a_part_in_the_wrong_folder_of_a_copy_is_found(lake: Path, copy: Path) -> None:
    folder = copy / DAY_1.replace("day=1", "day=3")
    folder.mkdir(parents=True)
    (copy / DAY_1 / "part-00000.parquet").rename(folder / "part-00000.parquet")
    code, said = told("verify", "--lake", str(copy))
    assert (3, ["misplaced"]) == (code, [each["kind"] for each in said["findings"]])


def test_without_a_copy_there_is_nothing_to_prove(lake: Path, copy: Path, tmp_path: Path) -> None:
    code, said = told("verify", "--lake", str(lake), "--copy")
    assert (2, True) == (code, "compact.uri" in said)
    of_none = {"AHT_ETL_COMPACT__URI": str(tmp_path / "none")}
    assert 1 == told("verify", "--lake", str(tmp_path / "no"), "--copy", **of_none)[0]
    code, said = told("verify", "--lake", str(copy), "--copy", AHT_ETL_COMPACT__URI=str(copy))
    assert (1, True) == (code, "is a coarse copy and no lake" in said)


def test_a_day_in_a_lake_and_an_hour_in_a_copy_are_strays(lake: Path, copy: Path) -> None:
    """Parts of the other kind are findings, in a lake and in a copy: readers read them."""
    part = copy / DAY_1 / "part-00000.parquet"
    (lake / DAY_1).mkdir()
    (lake / DAY_1 / part.name).write_bytes(part.read_bytes())
    code, said = told("verify", "--lake", str(lake))
    assert (3, ["foreign"]) == (code, [each["kind"] for each in said["findings"]])
