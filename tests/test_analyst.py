"""Every snippet on the analyst's page runs unchanged and reads the rows of the lake."""

import gzip
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from etl.cli.demo import QUERY
from etl.emulator import Dataset, EmulatorOptions, run_in_thread
from tests.conftest import COMMAND, environment

ROOT = Path(__file__).parent.parent
ANALYST = ROOT.joinpath("configs", "docs", "analyst.md").read_text()
ACCOUNT = "0012345678"
PARTITION = ("year", "month", "day", "hour", "accountId")


def unit(segment: str, sequence: int | None, millis: int, inserted: int = 0) -> dict[str, Any]:
    return {
        "segmentId": segment,
        "sequence": sequence,
        "handleTimeMillis": millis,
        "insertTimestamp": 1_654_600_000_000 + inserted,
    }


#: By hour. Two of them have padded paths. Segment `a`, 1 comes twice, the second time corrected.
FILES = {
    f"/year=2022/month=6/day=7/hour=6/accountId={ACCOUNT}/1.json.gz": [
        unit("a", 1, 1000),
        unit("a", 2, 5000),
        {"bad": "row"},
    ],
    f"/year=2022/month=06/day=07/hour=07/accountId={ACCOUNT}/2.json.gz": [
        unit("a", 1, 2000, inserted=1),
        unit("b", None, 7000),
        unit("b", None, 7000),
    ],
    f"/year=2022/month=06/day=7/hour=8/accountId={ACCOUNT}/3.json.gz": [unit("c", 1, 9000)],
    f"/year=2022/month=6/day=8/hour=6/accountId={ACCOUNT}/4.json.gz": [unit("d", 1, 500)],
}
ROWS = sorted(
    (row["segmentId"], row["handleTimeMillis"], 2022, 6, int(day), int(hour), ACCOUNT)
    for path, rows in FILES.items()
    for day, hour in re.findall(r"day=(\d+)/hour=(\d+)", path)
    for row in rows
    if "segmentId" in row
)


def snippets(document: str, title: str, language: str) -> list[str]:
    """Return the code blocks of a language below a heading, or below a line with that text."""
    section = re.split(r"\n#+ ", document.partition(f"\n{title}\n")[2])[0]
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found, title
    return found


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a lake with padded and unpadded paths, bad rows, and other files that may lie there."""
    folder = tmp_path_factory.mktemp("reading")
    content = {
        path: gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
        for path, rows in FILES.items()
    }
    (folder / "paths.txt").write_text("\n".join(FILES))
    with run_in_thread(Dataset.of(content), EmulatorOptions(oldest=None)) as emulator:
        flags = ("--account", ACCOUNT, "--base-url", emulator.base_url, "--paths", "paths.txt")
        subprocess.run(
            [COMMAND, "run", *flags], env=environment(), cwd=folder, check=True, capture_output=True
        )
    part = next((folder / "lake").glob("year=*/**/*.parquet"))
    for name in ("_staging/half.tmp", "_table_log/1.checkpoint.parquet"):
        file = folder / "lake" / name
        file.parent.mkdir(exist_ok=True)
        shutil.copy(part, file)
    assert list((folder / "lake" / "_quarantine").rglob("*.ndjson"))
    return folder


@pytest.fixture(autouse=True)
def _in_the_lakes_folder(loaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(loaded)


@pytest.fixture
def units() -> Iterator[duckdb.DuckDBPyConnection]:
    """Run the documented statements that make views, in their order."""
    with duckdb.connect() as connection:
        for statement in re.findall(r"```sql\n(CREATE VIEW.*?)```", ANALYST, re.DOTALL):
            connection.execute(statement)
        yield connection


def in_python(code: str) -> Any:
    """Run a snippet; return its variable `units`."""
    found: dict[str, Any] = {}
    exec(code, found)
    return found["units"]


def check(table: pa.Table) -> None:
    """Compare the rows and the types of the partition columns with the loaded data."""
    columns = ("segmentId", "handleTimeMillis", *PARTITION)
    assert sorted(zip(*(table[name].to_pylist() for name in columns), strict=True)) == ROWS
    assert all(pa.types.is_integer(table.schema.field(name).type) for name in PARTITION[:-1])
    account = table.schema.field("accountId").type
    assert any(is_text(account) for is_text in (pa.types.is_string, pa.types.is_large_string))


def test_the_first_query_for_duckdb(units: duckdb.DuckDBPyConnection) -> None:
    """It counts every row of the lake once, padded hours in their day, and nothing else."""
    (query,) = snippets(ANALYST, "### Average handle time per segment and day", "sql")
    assert [row[:4] for row in units.sql(query.strip("; \n")).fetchall()] == [
        (2022, 6, 7, 3),
        (2022, 6, 8, 1),
    ]


def test_the_view_for_duckdb(units: duckdb.DuckDBPyConnection) -> None:
    """The view has every row, numbers as integers and account ids as text."""
    check(units.sql("SELECT * FROM units").to_arrow_table())


def test_the_snippet_for_polars() -> None:
    """It reads every row, although the lake also has files of bad rows."""
    check(in_python(snippets(ANALYST, "### Polars", "python")[0]).collect().to_arrow())


def test_the_snippet_for_pandas() -> None:
    """It reads every row. Account ids keep their leading zeros."""
    check(pa.Table.from_pandas(in_python(snippets(ANALYST, "### pandas", "python")[0])))


def test_the_snippet_for_pyarrow(capsys: pytest.CaptureFixture[str]) -> None:
    """It reads every row, and its filter selects padded hours too. So does the whole folder."""
    (code,) = snippets(ANALYST, "### pyarrow", "python")
    check(in_python(code).to_table())
    assert capsys.readouterr().out == "6\n"
    (other,) = re.findall(r'`(ds\.dataset\("lake".*?\))`', ANALYST)
    check(in_python(f"{code}\nunits = {other}").to_table())


def test_the_query_for_clickhouse() -> None:
    """It counts every row once. It runs in another process, because chdb brings its own Arrow."""
    pytest.importorskip("chdb", reason="chdb is not installed: it is 534 MB large")
    (query,) = snippets(ANALYST, "### ClickHouse", "sql")
    rows = query.replace(
        "year, month, day, uniqExact(segmentId) AS segments",
        f"segmentId, handleTimeMillis, {', '.join(PARTITION)}",
    )
    assert rows != query
    rows = rows.replace("GROUP BY ALL ORDER BY ALL", "ORDER BY ALL")
    code = """
import json, sys, chdb
for text in json.load(sys.stdin):
    print(json.dumps([json.loads(line) for line in
                      chdb.query(text, "JSONCompactEachRow").bytes().decode().splitlines()]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([query.strip("; \n"), rows.strip("; \n")]),
        check=True,
        capture_output=True,
        text=True,
    )
    days, all_rows = map(json.loads, done.stdout.splitlines())
    assert [[int(number) for number in day] for day in days] == [[2022, 6, 7, 3], [2022, 6, 8, 1]]
    assert sorted((row[0], int(row[1]), *row[2:]) for row in all_rows) == ROWS


def test_the_query_of_the_demo() -> None:
    """The query that the demo prints counts the same rows."""
    with duckdb.connect() as connection:
        assert connection.sql(QUERY.format(lake="lake")).fetchall() == [(7, 6, 3, 0), (8, 1, 1, 0)]


def test_every_snippet_names_the_glob_and_the_types() -> None:
    """All pages and the demo's query read the lake in the same way."""
    types = "{'year': INT, 'month': INT, 'day': INT, 'hour': INT, 'accountId': VARCHAR}"
    files = (ROOT / "README.md", *ROOT.joinpath("configs").rglob("*.md"))
    for text in (*(file.read_text() for file in files), QUERY.format(lake="lake")):
        words = " ".join(text.split())
        assert words.count("**/*.parquet") == words.count("year=*/**/*.parquet")
        of_copy = types.replace(" 'hour': INT,", "")  # the hour is a column there
        named = words.count(f"hive_types = {types}") + words.count(f"hive_types = {of_copy}")
        assert words.count("hive_types = ") == named


def test_duplicate_rows_are_found_by_their_key(units: duckdb.DuckDBPyConnection) -> None:
    """Rows that occur in two files are counted once. Rows without a key all stay."""
    doubles, _, handled = snippets(ANALYST, "### Deduplicate", "sql")
    assert units.sql(doubles.strip("; \n")).fetchall() == [(1, 1, 2)]
    kept = units.sql("SELECT segmentId, handleTimeMillis FROM distinct_units").fetchall()
    assert sorted(kept) == [
        ("a", 2000), ("a", 5000), ("b", 7000), ("b", 7000), ("c", 9000), ("d", 500),
    ]  # fmt: skip
    assert units.sql(handled.strip("; \n")).fetchall() == [
        ("b", 2, 14.0),
        ("c", 1, 9.0),
        ("a", 2, 7.0),
        ("d", 1, 0.5),
    ]
