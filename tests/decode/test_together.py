"""Small files decoded side by side are what each is alone, and cost one reading for all."""

import gzip
import io
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from etl.decode import Decoded, DecodeLimits, Packed, decode, decode_all, together
from etl.decode.fast import read
from etl.errors import FailureKind, FileError
from tests.decode.test_file import ROW, ROWS, lines

LIMITS = DecodeLimits(max_file_size=2**30, max_bad_row_ratio=0.5, spill_bytes=2**26)
SCRATCH = Path("/tmp")

FILES = {
    "lines": gzip.compress(lines(ROWS).encode()),
    "lines, plain": lines(ROWS[:2]).encode(),
    "no last newline": gzip.compress(lines(ROWS[:3]).removesuffix("\n").encode()),
    "byte-order mark": gzip.compress(("\ufeff" + lines(ROWS[:1])).encode()),
    "two members": gzip.compress(lines(ROWS[:1]).encode()) + gzip.compress(lines(ROWS).encode()),
    "no rows": gzip.compress(b""),
    "an array": gzip.compress(b"[" + lines([ROW]).encode() + b"]"),
    "cut": gzip.compress(lines(ROWS).encode())[:-9],
    "a web page": b"<html>",
    "mostly bad": gzip.compress((lines([ROW]) + '{"x": oops}\n{"x": oops}\n').encode()),
    "nothing": b"",
}
# Beside these the others are still read together, or all are read alone.
ODD = {
    "blank lines": gzip.compress(lines(ROWS).replace("\n", "\n\n").encode()),
    "an unknown field": gzip.compress(lines([{**ROW, "x": 1}]).encode()),
    "a bad row": gzip.compress((lines(ROWS) + '{"segmentId": null}\n').encode()),
    "objects over lines": gzip.compress(lines(ROWS, indent=1).encode()),
}


def packed(files: dict[str, bytes]) -> list[Packed]:
    return [
        Packed(io.BytesIO(body), len(body), path, declared_gzip=False)
        for path, body in files.items()
    ]


def content(outcome: Decoded | Exception) -> Any:
    """Return all that an outcome says of its file."""
    if isinstance(outcome, FileError):
        return outcome.kind, outcome.message
    assert isinstance(outcome, Decoded)
    with outcome:
        rows = [row for batch in outcome.batches() for row in batch.rows.to_pylist()]
        bad_rows = (outcome.bad_rows() or io.BytesIO()).read()
        file = (outcome.bytes, outcome.sha256, outcome.decompressed)
        return rows, outcome.rows, outcome.quarantined, bad_rows, file


def alone(path: str, body: bytes) -> Any:
    try:
        return content(decode(io.BytesIO(body), path, LIMITS, scratch=SCRATCH))
    except FileError as error:
        return content(error)


@pytest.mark.parametrize("odd", [None, *ODD])
def test_each_is_what_it_is_alone(odd: str | None) -> None:
    """Rows, bad rows, checksums and errors, in the order of the files."""
    files = FILES if odd is None else {**FILES, odd: ODD[odd], "last": FILES["lines"]}
    expected = [alone(path, body) for path, body in files.items()]
    found = [content(outcome) for outcome in decode_all(packed(files), LIMITS, SCRATCH)]
    assert expected == found
    assert FailureKind.TRUNCATED in {outcome[0] for outcome in found if len(outcome) == 2}


def test_files_of_lines_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a call costs, more than a file of 500 rows, is paid once for all of them."""
    calls: list[int] = []

    def counted(text: bytes, template: Any) -> pa.RecordBatch | None:
        calls.append(len(text))
        return read(text, template)

    monkeypatch.setattr(together, "read", counted)
    text = lines(ROWS)
    files = {f"/{number}": gzip.compress(text.encode()) for number in range(12)}
    outcomes = decode_all(packed(files), LIMITS, SCRATCH)
    assert [12 * len(text)] == calls
    assert [(5, 1, 0)] * 12 == [
        (outcome.rows, outcome.fast_blocks, outcome.patient_blocks)
        for outcome in outcomes
        if isinstance(outcome, Decoded)
    ]


def test_a_large_file_is_never_whole_in_memory() -> None:
    """Its text passes in blocks; beyond the limit its rows are on disk."""
    body = gzip.compress(lines([ROW] * 200_000, separators=(",", ":")).encode(), 1)
    limits = DecodeLimits(max_file_size=2**30, max_bad_row_ratio=0.5, spill_bytes=2**23)
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    with decode(io.BytesIO(body), "/x", limits, scratch=SCRATCH) as decoded:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert decoded.decompressed > 40_000_000
        assert (200_000, 0) == (decoded.rows, decoded.patient_blocks)
        assert peak < 10_000_000
        assert pa.total_allocated_bytes() - before < 10_000_000
