"""The readers that people use agree on the content of a part."""

from datetime import UTC, datetime
from pathlib import Path

import duckdb
import fastparquet
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.lake.commit import commit
from etl.lake.layout import PartitionState
from etl.lake.part import PartBuilder
from etl.lake.receipts import Receipt
from etl.model.dataset import DECODED_SCHEMA, SCHEMA, TIMESTAMP_COLUMNS, SizedBatch
from etl.storage.local import LocalStore

ROWS = [
    {
        "segmentId": f"account:1:conversation:{number // 3}-ü",
        "sequence": -number if number % 7 else None,
        "startReason": "consumerMessage" if number % 5 else None,
        "endReason": f"reason {number % 11}",
        "startTimestamp": datetime.fromtimestamp(1_654_000_000 + number * 77, UTC),
        "endTimestamp": None,
        "insertTimestamp": datetime.fromtimestamp(number / 1000, UTC),
        "handleTimeMillis": number**5 % 2**62,
        "extras": f'{{"n":{number}}}' if number % 2 else None,
    }
    for number in range(5_000)
]


# fastparquet leaves files open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_every_reader_reads_the_same(tmp_path: Path) -> None:
    """pyarrow, DuckDB, Polars and fastparquet agree on every value of every row."""
    store = LocalStore(tmp_path)
    store.prepare()
    builder = PartBuilder(store.stage, "zstd", "run")
    batch = pa.RecordBatch.from_pylist(ROWS, schema=DECODED_SCHEMA)
    for path, rows in (("/a", batch.slice(0, 1_234)), ("/b", batch.slice(1_234))):
        builder.add(Receipt(path, len(rows), 0, 1, "0" * 64), [SizedBatch.of(rows)])
    committed = commit(store, "hour", PartitionState(), builder.finish(), lambda: builder)
    assert committed.part is not None
    part = tmp_path / committed.part.path

    expected = [
        {**row, "sourcePath": "/a" if number < 1_234 else "/b"} for number, row in enumerate(ROWS)
    ]
    assert SCHEMA == pq.read_schema(part)
    assert expected == pq.read_table(part).to_pylist()
    assert expected == pl.read_parquet(part).to_dicts()
    with duckdb.connect() as connection:
        connection.execute("SET timezone = 'UTC'")
        relation = connection.sql(
            f"SELECT * FROM read_parquet('{part}', hive_partitioning = false)"
        )
        assert SCHEMA.names == relation.columns
        millis = ", ".join(f"epoch_ms({name}) AS {name}" for name in TIMESTAMP_COLUMNS)
        found = connection.sql(f"SELECT * REPLACE ({millis}) FROM relation").fetchall()
    assert [tuple(map(_plain, row.values())) for row in expected] == found
    frame = fastparquet.ParquetFile(str(part)).to_pandas()
    assert list(SCHEMA.names) == list(frame.columns)
    for name in ("segmentId", "endReason", "handleTimeMillis", "sourcePath"):
        assert [row[name] for row in expected] == frame[name].tolist()
    assert [_plain(row["startTimestamp"]) for row in expected] == [
        round(at.timestamp() * 1000) for at in frame["startTimestamp"]
    ]


def _plain(value: object) -> object:
    return round(value.timestamp() * 1000) if isinstance(value, datetime) else value
