"""Receipts in a part's metadata, and parts without them."""

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.lake.receipts import Receipt, UnreadablePartError, read_receipts, to_metadata

ONE = Receipt("/a", 3, 1, 17, "0" * 64)
SOURCE = {"path": "/a", "rows": 3, "quarantined": 1, "bytes": 17, "sha256": "0" * 64}


def part(metadata: dict[str, str]) -> io.BytesIO:
    """Return a Parquet file with this metadata."""
    stream = io.BytesIO()
    table = pa.table({"a": pa.array([], pa.int64())}).replace_schema_metadata(metadata)
    pq.write_table(table, stream)
    stream.seek(0)
    return stream


def with_sources(sources: Any) -> io.BytesIO:
    return part({"aht_etl.sources": json.dumps(sources), "aht_etl.commit": "c"})


def test_receipts_read_as_they_were_written() -> None:
    """With any other metadata."""
    read = read_receipts(part({**to_metadata([ONE], "c", "r"), "other": "x"}))
    assert ((ONE,), "r") == (read.sources, read.run)


def test_what_a_later_version_adds_is_passed_over() -> None:
    """A receipt with more fields is a receipt."""
    assert (ONE,) == read_receipts(with_sources([{**SOURCE, "more": {}}])).sources
    assert () == read_receipts(with_sources([])).sources


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (io.BytesIO(b""), "no readable Parquet file"),
        (io.BytesIO(b"PAR1" + bytes(50) + b"PAR1"), "no readable Parquet file"),
        (part({}), "without receipts"),
        (part({"aht_etl.commit": "c"}), "without receipts"),
        (part({"aht_etl.sources": "[", "aht_etl.commit": "c"}), "damaged receipts"),
        (with_sources(7), "damaged receipts"),
        (with_sources(["/a"]), "damaged receipts"),
        (with_sources([{"path": "/a"}]), "damaged receipts"),
        (with_sources([{**SOURCE, "rows": "3"}]), "damaged receipts"),
        (with_sources([{**SOURCE, "rows": -1}]), "damaged receipts"),
        (with_sources([{**SOURCE, "bytes": 2**63}]), "damaged receipts"),
    ],
)
def test_parts_that_vouch_for_nothing(stream: io.BytesIO, said: str) -> None:
    """Each has its own error; none counts as empty."""
    with pytest.raises(UnreadablePartError, match=said):
        read_receipts(stream)
