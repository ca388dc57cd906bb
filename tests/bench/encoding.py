"""Measure encodings of a row group, in time and size: `python -m tests.bench.encoding`."""

import random
import time
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from etl.emulator.dataset import units
from etl.model.dataset import INTEGER_COLUMNS, SCHEMA, TIMESTAMP_COLUMNS
from etl.model.times import to_millis
from tests.bench.workload import ACCOUNT, START

_ROWS: Final = 120_000
_STRINGS: Final = ["segmentId", "startReason", "endReason", "extras", "sourcePath"]
_NUMBERS: Final = [*INTEGER_COLUMNS, *TIMESTAMP_COLUMNS]
_PATH: Final = "/year=2022/month=6/day=1/hour=6/accountId=1/sequences.1654113886437.1.json.gz"
_CHOSEN: Final[dict[str, Any]] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": [*_STRINGS, "sequence"],
    "write_statistics": _NUMBERS,
    "write_page_checksum": True,
}
WAYS: Final[dict[str, dict[str, Any]]] = {
    "pyarrow's defaults, zstd 3": {"compression": "zstd", "compression_level": 3},
    "pyarrow's defaults, zstd 1": {"compression": "zstd", "compression_level": 1},
    "chosen": _CHOSEN,
    "chosen, numbers as deltas": {
        **_CHOSEN,
        "use_dictionary": _STRINGS,
        "column_encoding": dict.fromkeys(_NUMBERS, "DELTA_BINARY_PACKED"),
    },
    "chosen, numbers split by bytes": {
        **_CHOSEN,
        "use_dictionary": _STRINGS,
        "column_encoding": dict.fromkeys(_NUMBERS, "BYTE_STREAM_SPLIT"),
    },
    "chosen, zstd 3": {**_CHOSEN, "compression_level": 3},
    "chosen, snappy": {**_CHOSEN, "compression": "snappy", "compression_level": None},
    "chosen, statistics of strings too": {**_CHOSEN, "write_statistics": True},
    "chosen, no page checksums": {**_CHOSEN, "write_page_checksum": False},
    "chosen, segmentId not in a dictionary": {
        **_CHOSEN,
        "use_dictionary": [*_STRINGS[1:], "sequence"],
    },
    "chosen, row groups of 20,000": {**_CHOSEN, "row_group_size": 20_000},
    "chosen, sorted by start": {**_CHOSEN, "sort": True},
}


def main() -> None:
    """Print a table in Markdown, per million rows: the least processor time of nine, the size."""
    hour_ms = to_millis(START)
    rows = units(random.Random(1), ACCOUNT, hour_ms, hour_ms + 4_800_000, _ROWS)
    table = pa.Table.from_pylist([{**row, "sourcePath": _PATH} for row in rows], schema=SCHEMA)
    print("| way | processor, s | MB |\n|---|---|---|")
    for name, how in WAYS.items():
        seconds, size = min(_encoded(table, **how) for _ in range(9))
        print(f"| {name} | {seconds / _ROWS * 1e6:.2f} | {size / _ROWS:.1f} |")


def _encoded(
    table: pa.Table, *, row_group_size: int = _ROWS, sort: bool = False, **how: Any
) -> tuple[float, int]:
    sink = pa.BufferOutputStream()
    begun = time.process_time()
    if sort:
        table = table.sort_by("startTimestamp")
    with pq.ParquetWriter(sink, SCHEMA, store_schema=False, **how) as writer:
        writer.write_table(table, row_group_size=row_group_size)
    return time.process_time() - begun, sink.getvalue().size


if __name__ == "__main__":
    main()
