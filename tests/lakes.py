"""Read a whole lake as users do, and compute the rows that it must hold."""

import gzip
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from etl.emulator import Dataset, EmulatedFile
from tests.decode.oracle import truth

COLUMNS = (
    "segmentId",
    "sequence",
    "startReason",
    "endReason",
    "startTimestamp",
    "endTimestamp",
    "insertTimestamp",
    "handleTimeMillis",
    "extras",
    "sourcePath",
)
TIMESTAMPS = ("startTimestamp", "endTimestamp", "insertTimestamp")
_PARTITIONS: "list[pa.Field[Any]]" = [
    *(pa.field(name, pa.int64()) for name in ("year", "month", "day", "hour")),
    pa.field("accountId", pa.string()),
]
HIVE = pa.schema(_PARTITIONS)
Row = tuple[Any, ...]


def rows_of(files: Iterable[EmulatedFile]) -> Counter[Row]:
    """Return every row that a lake with these files must have."""
    rows: Counter[Row] = Counter()
    for file in files:
        raw = file.content
        text = gzip.decompress(raw) if raw[:1] == b"\x1f" else raw
        for row in truth(text).rows:
            row["sourcePath"] = file.path
            row["extras"] = None if row["extras"] is None else _canonical(row["extras"])
            rows[(*(row[name] for name in COLUMNS), _directory(file.path))] += 1
    return rows


def expected(dataset: Dataset, *, now_ms: int | None = None) -> Counter[Row]:
    """Return every row of a dataset, or only of the files that have arrived."""
    return rows_of(
        file
        for file in dataset.files.values()
        if now_ms is None or file.available_from_ms <= now_ms
    )


def through_pyarrow(lake: Path) -> Counter[Row]:
    """Return every row that pyarrow's dataset discovery finds."""
    partitioning = ds.partitioning(HIVE, flavor="hive")
    table = ds.dataset(lake, format="parquet", partitioning=partitioning).to_table()
    for name in TIMESTAMPS:
        index = table.column_names.index(name)
        table = table.set_column(index, name, table[name].cast(pa.int64()))
    return counted(table.to_pylist())


def through_duckdb(lake: Path) -> Counter[Row]:
    """Return every row that DuckDB finds with the documented query."""
    columns = ", ".join(
        f"epoch_ms({name}) AS {name}" if name in TIMESTAMPS else name for name in COLUMNS
    )
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        relation = connection.sql(
            f"SELECT {columns}, year, month, day, hour, accountId FROM read_parquet("
            f"'{lake}/year=*/**/*.parquet', hive_partitioning = true, hive_types = "
            "{'year': INT, 'month': INT, 'day': INT, 'hour': INT, 'accountId': VARCHAR})"
        )
        names = relation.columns
        return counted([dict(zip(names, row, strict=True)) for row in relation.fetchall()])


def receipts(lake: Path) -> list[dict[str, Any]]:
    """Return all receipts of all parts, each with the part's name and number of rows."""
    found = []
    for part in sorted(lake.rglob("*.parquet")):
        metadata = pq.read_metadata(part)
        for source in json.loads((metadata.metadata or {})[b"aht_etl.sources"]):
            found.append({**source, "part": str(part.relative_to(lake))})
        sources = [source["rows"] for source in found if source["part"] == found[-1]["part"]]
        assert sum(sources) == metadata.num_rows
    return found


def assert_lake_holds(lake: Path, dataset: Dataset, *, now_ms: int | None = None) -> None:
    """Compare all rows of the lake, as two engines read them, with the expected ones."""
    truth_ = expected(dataset, now_ms=now_ms)
    assert truth_ == through_pyarrow(lake)
    assert truth_ == through_duckdb(lake)
    arrived = [
        file.path
        for file in dataset.files.values()
        if now_ms is None or file.available_from_ms <= now_ms
    ]
    assert sorted(arrived) == sorted(source["path"] for source in receipts(lake))


def counted(rows: list[dict[str, Any]]) -> Counter[Row]:
    """Count equal rows, including their partition columns."""
    found: Counter[Row] = Counter()
    for row in rows:
        if row["extras"] is not None:
            row["extras"] = _canonical(json.loads(row["extras"]))
        directory = "/".join(
            f"{name}={row[name]}" for name in ("year", "month", "day", "hour", "accountId")
        )
        found[(*(row[name] for name in COLUMNS), directory)] += 1
    return found


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _directory(path: str) -> str:
    return path.strip("/").rpartition("/")[0]
