"""Every documented shape gives the same table; bad rows are kept with a reason."""

import gzip
import io
import json
import resource
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.decode import file, unpack
from etl.decode.file import DecodeLimits, decode
from etl.model.dataset import DECODED_SCHEMA, TIMESTAMP_COLUMNS
from etl.model.errors import FileError
from tests.decode.oracle import Truth, truth

PATH = "/year=2022/month=6/day=1/hour=6/accountId=le79344075/sequences.1.2.00066.json.gz"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ANY_RATIO = DecodeLimits(max_file_size=2**30, max_bad_row_ratio=1.0, spill_bytes=2**24)

ROW = {
    "segmentId": "account:le79344075:conversation:1f0a-3",
    "sequence": 1,
    "startReason": "consumerMessage",
    "endReason": "agentResponse",
    "startTimestamp": 1654063200000,
    "endTimestamp": 1654063212345,
    "handleTimeMillis": 12345,
    "insertTimestamp": 1654066812345,
}
ROWS = [{**ROW, "sequence": number} for number in range(1, 6)]


@pytest.fixture(params=[2**20, 1, 7, 64], ids=lambda size: f"block={size}")
def _block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "_TEXT_PIECE_BYTES", request.param)
    monkeypatch.setattr(unpack, "_PIECE_BYTES", max(3, request.param))  # not within a mark


def load(body: bytes, limits: DecodeLimits = ANY_RATIO, scratch: Path = Path("/tmp")) -> Truth:
    """Decode, and return the result in the oracle's form."""
    with decode(io.BytesIO(body), PATH, limits, scratch=scratch) as decoded:
        found = Truth()
        for batch, _ in decoded.batches():
            assert batch.schema == DECODED_SCHEMA
            batch.validate(full=True)
            for row in batch.to_pylist():
                for name in TIMESTAMP_COLUMNS:
                    if row[name] is not None:
                        row[name] = (row[name] - EPOCH) // timedelta(milliseconds=1)
                if row["extras"] is not None:
                    row["extras"] = json.loads(row["extras"])
                found.rows.append(row)
        for line in decoded.bad_rows() or ():
            bad = json.loads(line)
            assert (bad["sourcePath"], bool(bad["reason"])) == (PATH, True)
            found.bad.append((bad["row"], bad["raw"]))
        assert (decoded.rows, decoded.quarantined) == (len(found.rows), len(found.bad))
        assert decoded.decompressed == len(gzip.decompress(body) if body[:1] == b"\x1f" else body)
    return found


def as_written(text: str) -> Any:
    """Return the JSON value, each number as its text."""
    return json.loads(text, parse_float=str, parse_int=str)


def lines(rows: list[dict[str, Any]], **how: Any) -> str:
    return "".join(json.dumps(row, **how) + "\n" for row in rows)


def as_strings(row: dict[str, Any]) -> dict[str, Any]:
    return {key: str(value) for key, value in row.items()}


def as_floats(row: dict[str, Any]) -> dict[str, Any]:
    return {key: float(value) if isinstance(value, int) else value for key, value in row.items()}


SHAPES = {
    "lines": lines(ROWS),
    "compact lines": lines(ROWS, separators=(",", ":")),
    "several lines each": lines(ROWS, indent=2),
    "without a break": lines(ROWS).replace("\n", ""),
    "array": json.dumps(ROWS),
    "array over lines": json.dumps(ROWS, indent="\t") + "\n\n",
    "byte-order mark": "\ufeff" + lines(ROWS),
    "byte-order mark before an array": "\ufeff" + json.dumps(ROWS),
    "byte-order mark in each member": "\ufeff" + lines(ROWS[:2]) + "\ufeff" + lines(ROWS[2:]),
    "CRLF": lines(ROWS).replace("\n", "\r\n"),
    "CR": lines(ROWS).replace("\n", "\r"),
    "blank lines": "\n \n" + lines(ROWS).replace("\n", "\n\n\t\n"),
    "no last newline": lines(ROWS).removesuffix("\n"),
    "numbers as strings": lines([as_strings(row) for row in ROWS]),
    "integral floats": lines([as_floats(row) for row in ROWS]),
    "exponents": lines(ROWS).replace("12345,", "1.2345e4,"),
    "other key orders": lines(ROWS[:2], sort_keys=True)
    + lines([dict(reversed(row.items())) for row in ROWS[2:]]),
    "escapes": lines(ROWS).replace("consumer", "\\u0063onsumer"),
    "duplicate keys": lines(ROWS).replace('"sequence"', '"sequence": 77, "sequence"'),
}


@pytest.mark.usefixtures("_block")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("packed", [True, False], ids=["gzip", "plain"])
def test_every_shape_gives_the_same_table(shape: str, *, packed: bool) -> None:
    """The rows are the same in each shape."""
    text = SHAPES[shape].encode()
    expected = Truth([{**row, "extras": None} for row in ROWS])
    assert expected == load(gzip.compress(text) if packed else text)


@pytest.mark.usefixtures("_block")
def test_a_line_cut_between_two_gzip_members() -> None:
    """A line may span two members."""
    text = lines(ROWS).encode()
    body = b"".join(gzip.compress(text[at : at + 33]) for at in range(0, len(text), 33))
    assert Truth([{**row, "extras": None} for row in ROWS]) == load(body)


def test_a_file_without_rows() -> None:
    """An empty file, white space and an empty array have no rows, good or bad."""
    files = [gzip.compress(text) for text in (b"", b"\n\n", b"\xef\xbb\xbf", b"[]", b" [ ]\n")]
    assert [Truth()] * 5 == [load(body, STRICT) for body in files]


STRICT = DecodeLimits(max_file_size=2**30, max_bad_row_ratio=0.0, spill_bytes=2**24)


@pytest.mark.usefixtures("_block")
@pytest.mark.parametrize(
    ("changes", "columns"),
    [
        ({"sequence": None}, {"sequence": None}),
        ({"sequence": "007"}, {"sequence": 7}),
        ({"sequence": "-0"}, {"sequence": 0}),
        ({"sequence": 2**63 - 1}, {"sequence": 2**63 - 1}),
        ({"sequence": str(-(2**63))}, {"sequence": -(2**63)}),
        ({"startReason": None}, {"startReason": None}),
        ({"startReason": 'ü"\\\n😀'}, {"startReason": 'ü"\\\n😀'}),
        ({"segmentId": ""}, {"segmentId": ""}),
        ({"skill": "billing"}, {"extras": {"skill": "billing"}}),
        ({"a": {"b": [1.5, None]}, "c": []}, {"extras": {"a": {"b": [1.5, None]}, "c": []}}),
        ({"big": 10**1000, "ü": "\udc00"}, {"extras": {"big": 10**1000, "ü": "\ufffd"}}),
    ],
)  # fmt: skip
def test_what_fits_its_column(changes: dict[str, Any], columns: dict[str, Any]) -> None:
    """Numbers come in several forms; unknown fields are kept in extras."""
    body = gzip.compress(lines([{**ROW, **changes}]).encode())
    assert Truth([{**ROW, "extras": None, **columns}]) == load(body, STRICT)


def test_extras_keep_numbers_as_they_were_written() -> None:
    """No number is rounded, overflows to infinity or is too long."""
    extras = '{"z":1e999,"a":-0.10,"n":[12345678901234567890.123456789,{}],"d":' + "9" * 5000 + "}"
    text = lines([ROW]).rstrip().removesuffix("}") + "," + extras[1:]
    with decode(io.BytesIO(text.encode()), PATH, STRICT, scratch=Path("/tmp")) as decoded:
        ((batch, _),) = decoded.batches()
        (found,) = batch["extras"].to_pylist()
        assert found is not None
        assert as_written(extras) == as_written(found)


NOT_ROWS = [
    "garbage",
    "5",
    '"text"',
    "null",
    "[1, 2]",
    lines([ROW]).rstrip()[:-1],
    "{'segmentId': 'x'}",
    '{"segmentId": NaN}',
    '{"segmentId": "x", "other": -Infinity}',
    "{}",
    '{"segmentId": null}',
    '{"segmentId": 5}',
    '{"segmentId": "\\ud800"}',
    '{"segmentId": "x", "sequence": 1.5}',
    '{"segmentId": "x", "sequence": true}',
    '{"segmentId": "x", "sequence": ""}',
    '{"segmentId": "x", "sequence": "1.0"}',
    '{"segmentId": "x", "sequence": " 1"}',
    '{"segmentId": "x", "sequence": "٣"}',
    '{"segmentId": "x", "sequence": [1]}',
    '{"segmentId": "x", "sequence": 9223372036854775808}',
    '{"segmentId": "x", "sequence": 1e999999999}',
    '{"segmentId": "x", "sequence": ' + "1" * 5000 + "}",
    '{"segmentId": "x", "startTimestamp": 253402300800000}',
    '{"segmentId": "x", "startTimestamp": "2022-06-01T00:00:00Z"}',
    '{"segmentId": "x", "startReason": {"a": 1}}',
    '{"segmentId": "x", "deep": ' + "[" * 100_000 + "}",
    '{"segmentId": "x" "sequence": 1}',
    '{"segmentId": "tab\tin it"}',
]


@pytest.mark.usefixtures("_block")
@pytest.mark.parametrize("text", NOT_ROWS, ids=lambda text: text[:40])
def test_a_bad_row_is_kept_and_the_rest_of_its_file_loads(text: str) -> None:
    """Its raw text and its number are kept; the rows around it do not change."""
    if len(text) > 2**16 and unpack._TEXT_PIECE_BYTES < 64:
        pytest.skip("slow and nothing new")
    body = (lines(ROWS[:2]) + text + "\r\n" + lines(ROWS[2:])).encode()
    rows = [{**row, "extras": None} for row in ROWS]
    assert Truth(rows, [(2, text[: 2**16])]) == load(body)


def test_reading_goes_on_at_the_next_line() -> None:
    """Rows before the unreadable text on its line count; the rest of the line does not."""
    one, two, three = (lines([row]).rstrip() for row in ROWS[:3])
    found = load(f"{one}}} {two}\n{one}{two}, {three}\n{three}".encode())
    expected = [(1, "}" + f" {two}"), (4, f", {three}")]
    assert (expected, [1, 1, 2, 3]) == (found.bad, [row["sequence"] for row in found.rows])


def test_invalid_utf8_is_a_bad_row_with_it_replaced() -> None:
    """Bytes that are not UTF-8 make only their row bad."""
    body = (
        lines(ROWS[:1]).encode() + b'{"segmentId": "\xff\xfe"}\n\xfe\n' + lines(ROWS[1:]).encode()
    )
    expected = [(1, '{"segmentId": "\ufffd\ufffd"}'), (2, "\ufffd")]
    found = load(body)
    assert (expected, len(ROWS)) == (found.bad, len(found.rows))


@pytest.mark.usefixtures("_block")
@pytest.mark.parametrize(
    "text",
    [
        *("[{}]\n" + lines(ROWS), lines(ROWS) + "[{}]", "[" + lines(ROWS), "[1,]\n" + lines(ROWS)),
        # Cut off behind an element, on one line.
        *("[" + lines(ROWS[:1]), json.dumps(ROWS)[:-1]),
        *(json.dumps([{**ROW, f"u{n}": n} for n in range(9)])[:-1] + end for end in ("", " ", ",")),
    ],
)
def test_an_array_that_is_not_the_whole_file_is_one_bad_row(text: str) -> None:
    """Only a whole file is split into rows."""
    found = load(text.encode())
    assert (1, truth(text.encode())) == (len(found.bad), found)


def test_a_long_array_that_is_cut_off_is_no_array() -> None:
    """Wherever the cut is, the file does not count as whole."""
    elements = [json.dumps(row) for row in ROWS]
    for count in (7900, 8000, 40_000):
        found = load(("[" + ",".join(elements * (count // len(elements)))).encode())
        assert (0, 1) == (len(found.rows), len(found.bad))


def test_a_row_of_several_megabytes_and_one_of_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long row is a row; beyond a limit, which bounds memory, it is a bad row."""
    long = {**ROW, "note": "x" * 5_000_000}
    found = load(gzip.compress(lines([ROW, long, ROW]).encode()), STRICT)
    assert [None, {"note": long["note"]}, None] == [row["extras"] for row in found.rows]
    monkeypatch.setattr(file, "_ROW_MAX_BYTES", 2**21)
    found = load(gzip.compress(lines([ROW, long, ROW]).encode()))
    assert (2, [(1, lines([long])[: 2**16])]) == (len(found.rows), found.bad)


def test_raw_text_is_cut_at_64_kib_of_utf8() -> None:
    """A cut never leaves half a character."""
    (bad,) = load(('{"x": "' + "ü" * 2**16).encode()).bad
    assert (2**16 - 1, "ü") == (len(bad[1].encode()), bad[1][-1])


@pytest.mark.parametrize(("bad", "fails"), [(1, False), (2, False), (3, True)])
def test_more_bad_rows_than_allowed_fail_the_file(bad: int, *, fails: bool) -> None:
    """The ratio itself is allowed; the message says how many and shows the first reason."""
    body = (lines([ROW] * 2) + "garbage\n" * bad).encode()
    limits = DecodeLimits(max_file_size=2**20, max_bad_row_ratio=0.5, spill_bytes=2**20)
    if not fails:
        assert len(load(body, limits).bad) == bad
        return
    with pytest.raises(FileError, match=r"3 of 5 rows are bad.*first is row 2: not JSON") as caught:
        load(body, limits)
    assert caught.value.kind == "malformed"


def test_a_full_disk_is_met_while_a_file_is_decoded(tmp_path: Path) -> None:
    """Not when the bad rows are read: what is written last waits in a buffer."""
    body = b"\n".join(b"{%d %s" % (number, b"x" * 500) for number in range(600))
    with decode(io.BytesIO(body), PATH, ANY_RATIO, scratch=tmp_path) as decoded:
        whole = len((decoded.bad_rows() or io.BytesIO()).read())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole - 1, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            decode(io.BytesIO(body), PATH, ANY_RATIO, scratch=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_rows_beyond_the_memory_are_spilled_and_come_back_in_order(tmp_path: Path) -> None:
    """Rows beyond the limit are in an unnamed file, and can be read more than once."""
    rows = [{**ROW, "sequence": number} for number in range(20_000)]
    limits = DecodeLimits(max_file_size=2**30, max_bad_row_ratio=0, spill_bytes=100_000)
    body = io.BytesIO(gzip.compress(lines(rows).encode()))
    with decode(body, PATH, limits, scratch=tmp_path) as decoded:
        assert decoded.in_memory_bytes == 0
        for _ in range(2):
            numbers = [n for batch in decoded.batches() for n in batch.rows["sequence"].to_pylist()]
            assert list(range(20_000)) == numbers
        assert list(tmp_path.iterdir()) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
ROW_LIKE = st.fixed_dictionaries(
    {"segmentId": st.text(max_size=5) | JSON},
    optional={name: JSON | st.integers(-5, 5) for name in (*list(ROW)[1:], "other")},
)
TEXTS = st.lists(
    st.one_of(
        st.builds(json.dumps, ROW_LIKE | JSON),
        st.builds(lambda row: json.dumps(row, indent=1, ensure_ascii=False), ROW_LIKE),
        st.sampled_from(["[", "]", ",", "\n", "\r\n", " ", "\ufeff", '"', "{", "}", "\\u", "12"]),
        st.text(max_size=8),
    ),
    max_size=8,
).map(lambda parts: "".join(parts).encode("utf-8", "surrogatepass"))
ARRAYS = st.lists(ROW_LIKE | JSON, max_size=5).map(lambda values: json.dumps(values).encode())


def _mutations(text: bytes) -> Iterator[bytes]:
    yield text
    if len(text) > 4:
        yield text[: len(text) // 2]
        yield text[: len(text) // 3] + b"\xff" + text[len(text) // 3 :]


@settings(max_examples=4 * settings().max_examples)
@given(TEXTS | ARRAYS | st.binary(max_size=60), st.sampled_from([1, 5, 33, 2**20]))
def test_any_text_gives_what_the_oracle_says(text: bytes, block: int) -> None:
    """Pieces of any size give the same rows and bad rows as the whole text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unpack, "_TEXT_PIECE_BYTES", block)
        for mutation in _mutations(text):
            if not mutation.startswith(b"\x1f\x8b"):
                assert truth(mutation) == load(gzip.compress(mutation)), mutation
