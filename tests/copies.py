"""A lake's coarse copy: make it with the command, read it as users do, check its rows."""

import json
import subprocess
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from etl.lake.compact import Copied, Copier
from etl.lake.layout import Selection
from etl.model.dataset import SCHEMA, TIMESTAMP_COLUMNS
from etl.model.paths import BreakdownPath
from etl.storage.local import LocalStore
from tests.conftest import COMMAND, Ended, environment
from tests.parts import rows_of

KEYS = ("year", "month", "day", "hour", "accountId")
_FOLDERS: "list[pa.Field[Any]]" = [pa.field(key, pa.int32()) for key in KEYS[:3]]
HIVE = pa.schema([*_FOLDERS, pa.field(KEYS[4], pa.string())])
Row = tuple[Any, ...]


def arguments(lake: Path | str, copy: Path | str, *more: str) -> list[str]:
    return [COMMAND, "compact", "--lake", str(lake), "--to", str(copy), *more]


def compact(lake: Path | str, copy: Path | str, *more: str, **env: str) -> Ended:
    """Copy all days that are over, without a settling time; return the outcome and the report."""
    done = subprocess.run(
        arguments(lake, copy, "--settle", "0s", "--json", *more),
        env=environment(**env),
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(done.stdout) if done.stdout else {}
    if report:
        check_report(report, done.returncode)
    return Ended(done.returncode, done.stdout, done.stderr, report)


def copy_here(lake: Path, copy: Path) -> Copied:
    """Copy all days inside this process."""
    so_far = Copied()
    stores = LocalStore(lake), LocalStore(copy)
    copier = Copier(*stores, "zstd", 2**27, 2**26, "run", lambda: False)
    copier.run(Selection(), datetime.now(UTC), so_far)
    return so_far


def check_report(report: dict[str, Any], code: int) -> None:
    """Check that the report counts every file once, however the command ended."""
    files = dict(report["files"])
    assert files.pop("listed") == sum(files.values())
    assert min(files.values()) >= 0
    assert report["exit_code"] == code
    assert sum(part["rows"] for part in report["parts"]) == report["rows"]["loaded"]
    assert sum(part["sources"] for part in report["parts"]) == files["loaded"]
    assert sum(part["bytes"] for part in report["parts"]) == report["bytes"]["written"]
    assert len(report["failures"]) == report["days"]["failed"]


def receipts(root: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the receipts of each part below a folder."""
    return {
        str(part.relative_to(root)): json.loads(
            (pq.read_metadata(part).metadata or {})[b"aht_etl.sources"]
        )
        for part in sorted(root.glob("year=*/**/part-*.parquet"))
    }


def sources(root: Path) -> Counter[str]:
    """Return every receipt below a folder, as text, and how often it occurs."""
    return Counter(
        json.dumps(source, sort_keys=True) for part in receipts(root).values() for source in part
    )


def truth(files: Iterable[tuple[str, int]]) -> Counter[Row]:
    """Return every row that a copy of these files must have; a file is a path and its rows."""
    rows: Counter[Row] = Counter()
    for path, count in files:
        partition = BreakdownPath.parse(path).partition
        at = partition.hour
        keys = (at.year, at.month, at.day, at.hour, partition.account)
        for row in rows_of(path, count):
            rows[(*(row[name] for name in SCHEMA.names), *keys)] += 1
    return rows


def files_of(lake: Path) -> list[tuple[str, int]]:
    """Return the files of a lake; a file is a path and its rows."""
    return [(each["path"], each["rows"]) for part in receipts(lake).values() for each in part]


def through_duckdb(copy: Path) -> Counter[Row]:
    millis = ", ".join(f"epoch_ms({name}) AS {name}" for name in TIMESTAMP_COLUMNS)
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        relation = connection.sql(
            f"SELECT {', '.join((*SCHEMA.names, *KEYS))} FROM (SELECT * REPLACE ({millis}) FROM "
            f"read_parquet('{copy}/year=*/**/*.parquet', hive_partitioning = true, "
            "hive_types = {'accountId': VARCHAR}))"
        )
        return Counter(relation.fetchall())


def through_pyarrow(copy: Path) -> Counter[Row]:
    table = ds.dataset(
        copy, format="parquet", partitioning=ds.partitioning(HIVE, flavor="hive")
    ).to_table()
    for name in TIMESTAMP_COLUMNS:
        at = table.column_names.index(name)
        table = table.set_column(at, name, table[name].cast(pa.int64()))
    return Counter(tuple(row[name] for name in (*SCHEMA.names, *KEYS)) for row in table.to_pylist())


def assert_equal(lake: Path, copy: Path) -> None:
    """Compare the copy's rows (read by two engines) and its receipts with the lake's."""
    wanted = truth(files_of(lake))
    assert wanted == through_duckdb(copy)
    assert wanted == through_pyarrow(copy)
    assert sources(lake) == sources(copy)
