"""Lakes without a run: parts of invented files, as the job would have written them."""

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from etl.lake.receipts import Receipt, to_metadata
from etl.model.dataset import SCHEMA

ACCOUNT = "12345678"


def directory(hour: int, *, day: int = 1, month: str = "6", account: str = ACCOUNT) -> str:
    """Return the folder of an hour."""
    return f"year=2022/month={month}/day={day}/hour={hour}/accountId={account}"


def rows_of(path: str, count: int) -> list[dict[str, Any]]:
    """Return the rows of an invented file. No two files have the same rows."""
    start = int(hashlib.sha256(path.encode()).hexdigest()[:6], 16)
    return [
        {
            "segmentId": f"account:1:conversation:{start + n // 3}-ü",
            "sequence": -n if n % 7 else None,
            "startReason": "consumerMessage" if n % 5 else None,
            "endReason": f"reason {n % 11}",
            "startTimestamp": 1_654_000_000_000 + start * 100 + n,
            "endTimestamp": None,
            "insertTimestamp": n,
            "handleTimeMillis": n**5 % 2**62,
            "extras": json.dumps({"n": n}) if n % 2 else None,
            "sourcePath": path,
        }
        for n in range(count)
    ]


def write_part(root: Path, folder: str, files: Iterable[tuple[str, int]], number: int = -1) -> Path:
    """Write a part of files (names and rows) under the next number or the given one."""
    receipts, rows = [], []
    for name, count in files:
        path = f"/{folder}/{name}.json.gz"
        sha256 = hashlib.sha256(path.encode()).hexdigest()
        receipts.append(Receipt(path, count, 0, 10 * count + 20, sha256))
        rows += rows_of(path, count)
    part_folder = root / folder
    part_folder.mkdir(parents=True, exist_ok=True)
    if number < 0:
        number = len(list(part_folder.glob("part-*.parquet")))
    part = part_folder / f"part-{number:05d}.parquet"
    columns = [pa.array([row[f.name] for row in rows], f.type) for f in SCHEMA]
    table = pa.Table.from_arrays(columns, schema=SCHEMA)
    # As in a commit, the final name appears only when the file is whole.
    staged = root / "_staging" / f".{uuid.uuid4().hex}.tmp"
    staged.parent.mkdir(exist_ok=True)
    with pq.ParquetWriter(staged, SCHEMA, store_schema=False, write_page_checksum=True) as writer:
        if rows:
            writer.write_table(table)
        writer.add_key_value_metadata(to_metadata(receipts, str(uuid.uuid4()), "run"))
    staged.rename(part)
    return part


def rewrite(part: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the rows of a part and keep its receipts."""
    with pq.ParquetFile(part) as file:
        table, metadata = change(file.read()), file.metadata.metadata or {}
    table = table.replace_schema_metadata(None)
    with pq.ParquetWriter(part, table.schema, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({k.decode(): v.decode() for k, v in metadata.items()})
