"""`aht-etl ddl`: each statement makes the lake a table, with the right types and all partitions."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlglot
from sqlglot import exp

from etl.audit.ddl import Engine, Facts, statement
from tests.conftest import COMMAND, Ended, environment
from tests.parts import ACCOUNT, directory, rows_of, write_part

DIALECTS = {engine: engine.value for engine in Engine}
S3 = Facts("s3://bucket/some/lake", (ACCOUNT, "le1"), 2022, 2023)


def ddl(*arguments: str, **env: str) -> Ended:
    done = subprocess.run(
        [COMMAND, "ddl", *arguments],
        env=environment(**env),
        capture_output=True,
        text=True,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr, {})


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Two accounts, hours with and without two digits, and other files next to the years."""
    root = tmp_path / "lake"
    write_part(root, directory(6), [("a", 20), ("b", 0)])
    write_part(root, directory(6), [("c", 3)])
    write_part(root, directory(23, day=30), [("d", 5)])
    write_part(root, directory(0, account="le1"), [("e", 2)])
    log = root / "_delta_log"
    log.mkdir()
    pq.write_table(pa.table({"x": [1]}), log / "00000000000000000010.checkpoint.parquet")
    return root


EXPECTED = {"a": (20, 6, ACCOUNT), "c": (3, 6, ACCOUNT), "d": (5, 23, ACCOUNT), "e": (2, 0, "le1")}
QUERY = """
    SELECT sourcePath, count(*) AS n, min(hour) AS hour, min(accountId) AS account,
           {handled} AS handled, {started} AS started
    FROM aht.units WHERE year = 2022 AND month = 6 GROUP BY sourcePath
"""


def check_rows(found: list[tuple[Any, ...]]) -> None:
    """Compare what a query of a table returns with the files that the lake was made of."""
    names = {path.rpartition("/")[2].partition(".")[0]: rest for path, *rest in found}
    assert EXPECTED == {name: tuple(rest[:3]) for name, rest in names.items()}
    for path, count, _, _, handled, started in found:
        rows = rows_of(path, count)
        assert sum(row["handleTimeMillis"] for row in rows) == int(handled)
        assert rows[0]["startTimestamp"] == int(started)


def test_duckdb_reads_the_lake_by_its_statement(lake: Path) -> None:
    ended = ddl("--engine", "duckdb", "--lake", str(lake))
    assert (0, "") == (ended.code, ended.err)
    with duckdb.connect() as connection:
        connection.execute(ended.out)
        query = QUERY.format(
            handled="sum(handleTimeMillis)", started="epoch_ms(min(startTimestamp))"
        )
        check_rows(connection.sql(query).fetchall())
        types = dict(
            connection.sql("SELECT column_name, column_type FROM (DESCRIBE aht.units)").fetchall()
        )
    assert ("VARCHAR", "INTEGER") == (types["accountId"], types["hour"])
    assert "TIMESTAMP WITH TIME ZONE" == types["insertTimestamp"]


def test_clickhouse_reads_the_lake_by_its_statement(lake: Path) -> None:
    """In a process of its own: chdb brings half a gigabyte, and its own Arrow."""
    pytest.importorskip("chdb", reason="chdb is not installed: it is 534 MB large")
    ended = ddl("--engine", "clickhouse", "--lake", str(lake))
    query = QUERY.format(
        handled="sum(handleTimeMillis)", started="toUnixTimestamp64Milli(min(startTimestamp))"
    )
    code = """
import json, sys
from chdb.session import Session
session = Session()
session.query("CREATE DATABASE aht")
for text in json.load(sys.stdin):
    out = session.query(text, "JSONCompactEachRow")
print(out.bytes().decode())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([ended.out, query]),
        check=True,
        capture_output=True,
        text=True,
    )
    check_rows(
        [
            tuple(_number(each) for each in json.loads(line))
            for line in done.stdout.splitlines()
            if line
        ]
    )


def _number(value: Any) -> Any:
    """Return an integer that JSON has as text, but no account and no path."""
    return int(value) if isinstance(value, str) and len(value) > 8 and value.isdigit() else value


@pytest.mark.parametrize("engine", Engine)
@pytest.mark.parametrize("is_copy", [False, True], ids=["lake", "copy"])
def test_every_statement_parses_and_has_every_column(engine: Engine, *, is_copy: bool) -> None:
    """A parser of the engine's dialect accepts it, and finds each column once."""
    facts = Facts(S3.place, S3.accounts, 2022, 2023, is_copy=is_copy)
    written = statement(engine, facts, "aht.units")
    if engine is Engine.BIGQUERY:
        # sqlglot does not know this clause. GoogleSQL's own parser does (zetasql, by hand).
        written = re.sub(r"\)\nWITH PARTITION COLUMNS \((.*)\)", r",\n  \1)", written)
    trees = sqlglot.parse(written, dialect=DIALECTS[engine])
    creates = [tree for tree in trees if isinstance(tree, exp.Create)]
    table = creates[-1]
    assert ("aht", "units") == (table.find(exp.Table).db, table.find(exp.Table).name)  # type: ignore[union-attr]
    text = table.sql(dialect=DIALECTS[engine])
    wanted = ["accountId", "year", "month", "day", "hour"]
    wanted += [] if engine is Engine.DUCKDB else ["segmentId", "sequence", "startTimestamp"]
    if engine is Engine.DUCKDB and is_copy:
        wanted.remove("hour")  # a column of the files, as the others are
    for name in wanted:
        assert re.search(rf"(?i)\b{name}\b", text), name
    if engine in {Engine.CLICKHOUSE, Engine.DUCKDB}:
        return
    columns = {column.name.lower(): column.kind for column in table.find_all(exp.ColumnDef)}
    assert columns["accountid"].is_type("text", "varchar"), columns["accountid"]  # type: ignore[union-attr]
    assert 15 == len(columns)


def projected(text: str, engine: Engine) -> set[str]:
    """Return every place that a projection computes."""
    if engine is Engine.ATHENA:
        properties = dict(re.findall(r"'([a-z.]+)' = '([^']*)'", text))
    else:
        properties = {
            "storage.location.template": re.findall("location_template = '(.*?)'", text)[0]
        }
        key_at = r"(\w+) integer WITH .*?ARRAY\['(\d+)', '(\d+)'\]"
        padded = r"(?:, partition_projection_digits = (\d))?"
        for key, first, last, digits in re.findall(key_at + padded, text):
            properties[f"projection.{key}.range"] = f"{first},{last}"
            properties[f"projection.{key}.digits"] = digits or "0"
        accounts = re.findall(r"ENUM', .*?ARRAY\[(.*?)\]", text)[0]
        properties["projection.accountid.values"] = accounts.replace("'", "").replace(", ", ",")
    values = {"accountid": properties["projection.accountid.values"].split(",")}
    for key in ("year", "month", "day", "hour"):
        if f"projection.{key}.range" in properties:
            first, last = map(int, properties[f"projection.{key}.range"].split(","))
            digits = int(properties.get(f"projection.{key}.digits", 0))
            values[key] = [str(n).zfill(digits) for n in range(first, last + 1)]
    places = set()
    for combination in itertools.product(*values.values()):
        place = properties["storage.location.template"]
        for key, value in zip(values, combination, strict=True):
            place = place.replace(f"${{{key}}}", value)
        places.add(place)
    return places


@pytest.mark.parametrize("engine", ["athena", "trino"])
@pytest.mark.parametrize("month", ["6", "06"])
def test_a_projection_computes_every_folder(tmp_path: Path, engine: str, month: str) -> None:
    """Padded or not, of each account; `MSCK REPAIR` would find none of them."""
    for hour, account in ((6, ACCOUNT), (23, ACCOUNT), (0, "le1")):
        write_part(tmp_path, directory(hour, month=month, account=account), [("a", 1)])
    ended = ddl("--engine", engine, "--lake", str(tmp_path))
    assert 0 == ended.code, ended.err
    folders = {f"file://{part.parent}/" for part in tmp_path.rglob("*.parquet")}
    assert folders <= projected(ended.out, Engine(engine))
    assert "MSCK" not in ended.out


def test_both_spellings_are_refused_where_only_one_would_be_seen(tmp_path: Path) -> None:
    for month in ("6", "06"):
        write_part(tmp_path, directory(6, month=month), [("a", 1)])
    for engine in Engine:
        ended = ddl("--engine", engine.value, "--lake", str(tmp_path))
        if engine in {Engine.ATHENA, Engine.TRINO, Engine.SPARK, Engine.DATABRICKS}:
            assert (1, "") == (ended.code, ended.out)
            assert "both spellings, with and without a leading zero, of month" in ended.err
        else:
            assert 0 == ended.code, ended.err
    ended = ddl("--engine", "duckdb", "--lake", str(tmp_path), "--name", "units")
    with duckdb.connect() as connection:
        connection.execute(ended.out)
        assert [(2,)] == connection.sql("SELECT count(*) FROM units WHERE month = 6").fetchall()


def test_an_empty_lake_needs_an_account(tmp_path: Path) -> None:
    """Its accounts are unknown; with --account the statement is complete."""
    ended = ddl("--engine", "athena", "--lake", str(tmp_path))
    assert (2, "") == (ended.code, ended.out)
    assert "--account" in ended.err
    given = ddl("--engine", "athena", "--lake", str(tmp_path), "--account", "le2")
    assert (0, True) == (given.code, "'projection.accountid.values' = 'le2'" in given.out)


def test_a_given_account_is_added(lake: Path) -> None:
    ended = ddl("--engine", "athena", "--lake", str(lake), "--account", "le2")
    assert f"values' = '{ACCOUNT},le1,le2'" in ended.out


@pytest.mark.parametrize("name", ["", "a b", "x'", "a.b.c.d", "1a"])
def test_a_name_that_would_need_quotes_is_wrong_usage(lake: Path, name: str) -> None:
    ended = ddl("--engine", "duckdb", "--lake", str(lake), "--name", name)
    assert (2, "", True) == (ended.code, ended.out, "--name" in ended.err)


@pytest.mark.parametrize(
    ("engine", "place", "written"),
    [
        (Engine.SPARK, "s3://bucket/lake", "s3a://bucket/lake"),
        (Engine.DATABRICKS, "s3://bucket/lake", "s3://bucket/lake"),
        (Engine.SPARK, "az://box/lake", "abfss://box@acc.dfs.core.windows.net/lake"),
        (Engine.CLICKHOUSE, "gs://bucket/lake", "gcs('gs://bucket/lake/year=*/"),
        (
            Engine.CLICKHOUSE,
            "az://box/lake",
            "azureBlobStorage('https://acc.blob.core.windows.net', 'box', 'lake/year=*/",
        ),
        (Engine.DUCKDB, "/it's/lake", "'/it''s/lake/year=*/**/*.parquet'"),
        (Engine.BIGQUERY, "gs://bucket/lake", "uris = ['gs://bucket/lake/year=*']"),
    ],
)
def test_a_place_is_written_as_the_engine_writes_it(
    engine: Engine, place: str, written: str
) -> None:
    facts = Facts(place, ("1",), 2022, 2022)
    assert written in statement(engine, facts, "units", "acc")
