"""The scanner reads what programs write, with the same result as Python's json."""

import gzip
import io
import json
import tracemalloc
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.decode import reader
from etl.decode.file import DecodeLimits, decode
from tests.decode.oracle import truth
from tests.decode.test_file import (
    ANY_RATIO,
    PATH,
    ROW,
    ROWS,
    SHAPES,
    STRICT,
    as_floats,
    as_strings,
    lines,
    load,
)

NESTED = {"tags": [1.50, None, "a\n\\"], "empty": [{}, []], "deep": {"v": [[-2], True]}}
TEXT = 'a, "b": {c} \\u00fc \U0001f600'

FAST = {
    "documented": lines(ROWS),
    "compact": lines(ROWS, separators=(",", ":")),
    "numbers as strings": lines([{**as_strings(row)} for row in ROWS]),
    "integral floats": lines([as_floats(row) for row in ROWS]),
    "sorted keys": lines(ROWS, sort_keys=True),
    "unknown scalars": lines(
        [{"a": "ü x", **row, "z": -3, "f": 1e-3, "b": row["sequence"] == 2} for row in ROWS],
        ensure_ascii=False,
    ),
    "unknown nested": lines([{**row, "meta": NESTED} for row in ROWS]),
    "unknown text with commas and quotes": lines([{**row, "note": TEXT} for row in ROWS]),
    "commas in a column": lines([{**row, "endReason": "a, b"} for row in ROWS]),
    "escapes in a column": lines([{**row, "endReason": 'a"\u00fc\n'} for row in ROWS]),
    "keys with escapes": lines(ROWS).replace("segmentId", "segment\\u0049d"),
    "integers or null": lines([{**row, "sequence": None} if row == ROW else row for row in ROWS]),
    "missing field": lines([{"segmentId": "a", "sequence": 5}] * 3),
    "null field": lines([{**row, "endReason": None} for row in ROWS]),
    "empty strings": lines([{**row, "startReason": "", "endReason": ""} for row in ROWS]),
    "closing marks in the last value": lines([{"sequence": 5, "segmentId": "a}}"}] * 3),
    "CRLF": lines(ROWS).replace("\n", "\r\n"),
    "byte-order mark": "\ufeff" + lines(ROWS),
    "blank lines": lines(ROWS).replace("\n", "\n\n"),
    "no last newline": lines(ROWS).removesuffix("\n"),
    "several lines each": lines(ROWS, indent=2).removesuffix("\n"),
    "several lines each, CRLF": lines(ROWS, indent="\t").replace("\n", "\r\n").removesuffix("\r\n"),
    "several lines each, unknown": lines([{"x": NESTED, **row} for row in ROWS], indent=1).rstrip(),
    "without a break": lines(ROWS).replace("\n", ""),
}  # fmt: skip

# Objects that differ, and among them values that are no rows.
MIXED = {
    "unknown field here and there": lines([ROW, {**ROW, "skill": "x"}, ROW, ROW]),
    "null here and there": lines([ROW, {**ROW, "endReason": None}, ROW]),
    "other order later": lines([ROW, dict(reversed(ROW.items())), ROW]),
    "comma later": lines([ROW, {**ROW, "startReason": "a,b"}, ROW]),
    "first line is none": "{oops\n" + lines(ROWS),
    "a bad row": lines([ROW, {**ROW, "segmentId": None}, ROW, ROW]),
    "a broken line": lines(ROWS).replace('"sequence": 2', '"sequence": , 2'),
    "half a row at the end": lines([ROW, ROW, ROW])[:-20],
    "float": lines([ROW, {**ROW, "sequence": 1.5}, ROW, ROW]),
    "leading zero": lines(ROWS).replace('"sequence": 3', '"sequence": 03'),
    "plus": lines(ROWS).replace('"sequence": 3', '"sequence": +3'),
    "hexadecimal": lines(ROWS).replace('"sequence": 3', '"sequence": 0x3'),
    "NaN": lines([{**row, "x": -number} for number, row in enumerate(ROWS)]).replace("-3", "NaN"),
    "duplicate key": lines(ROWS).replace('"sequence": 2', '"sequence": 77, "sequence": 2'),
    "tab in a string": lines([ROW, {**ROW, "endReason": "@"}, ROW, ROW]).replace("@", "\t"),
    "NUL in a string": lines([ROW, {**ROW, "endReason": "@"}, ROW, ROW]).replace("@", "\0"),
    "dangling escape": lines([ROW, {**ROW, "endReason": "@"}, ROW, ROW]).replace("@", "\\x"),
    "half a surrogate pair": lines([ROW, {**ROW, "endReason": "\ud800"}, ROW, ROW]),
    "half a pair, unknown": lines([{**row, "x": "\ud800"} for row in ROWS]),
    "a quote too many": lines([ROW, {**ROW, "endReason": "@"}, ROW, ROW]).replace("@", 'a"b'),
    "an object within a line": lines(ROWS).replace('"sequence": 2', '"sequence": {}'),
    "two objects on a line": lines(ROWS).replace("}\n", "} ", 1),
    "an object over lines": lines([ROW]) + lines([ROW], indent=2) + lines([ROW] * 20),
    "beyond int64": lines([{**ROW, "sequence": 2**63}, ROW, ROW]),
    "beyond the last year": lines([ROW, {**ROW, "startTimestamp": 2**60}, ROW]),
    "several lines each, null": lines([ROW, {**ROW, "endReason": None}, ROW], indent=2).rstrip(),
    "several lines each, broken": lines(ROWS, indent=2).replace(": 3,", ": ,3,").rstrip(),
}  # fmt: skip

# No two of them are alike.
UNLIKE: list[dict[str, Any]] = [
    {**ROW, "x": {f"k{n}": list(range(n))}} if n % 2 else {f"y{n}": 1.50, **ROW} for n in range(9)
]

PITFALLS = {
    "nothing odd": "",
    "a key twice, the last counts": '{"segmentId": "a", "sequence": 1, "sequence": 2}',
    "an unknown key twice": '{"u": 1, "segmentId": "a", "v": 2, "u": {"w": 1, "w": 2}}',
    "a key twice, once by an escape": '{"segmentId": "a", "\\u0073equence": 1, "sequence": 2}',
    "segmentId twice, last null": '{"segmentId": "a", "segmentId": null}',
    "segmentId is the number of a name": '{"segmentId": 1.5}',
    "numbers as written": '{"segmentId": "a", "u": [1.50, -0.0, 1e5, 1E+05, 0e1, 1e400, 1e-400]}',
    "minus zero": '{"segmentId": "a", "sequence": -0, "u": -0}',
    "more digits than 64 bits": '{"segmentId": "a", "u": 123456789012345678901234567890}',
    "the largest integers": '{"segmentId": "a", "sequence": 9223372036854775807}',
    "one more than the largest": '{"segmentId": "a", "sequence": 9223372036854775808}',
    "the smallest integers": '{"segmentId": "a", "sequence": -9223372036854775808}',
    "strings of many digits": '{"segmentId": "a", "sequence": "0009223372036854775807"}',
    "strings of too many digits": '{"segmentId": "a", "sequence": "9223372036854775808"}',
    "a string with a sign": '{"segmentId": "a", "sequence": "+1"}',
    "a string with an underscore": '{"segmentId": "a", "sequence": "1_0"}',
    "a string of other digits": '{"segmentId": "a", "sequence": "\u0661"}',
    "integral floats": '{"segmentId": "a", "sequence": 12.0, "handleTimeMillis": 1.2e1}',
    "an integral float of many digits": '{"segmentId": "a", "sequence": 9007199254740993.0}',
    "a float out of range": '{"segmentId": "a", "sequence": 92233720368547758070.0}',
    "no integral float": '{"segmentId": "a", "sequence": 1.5}',
    "a truth value": '{"segmentId": "a", "sequence": true}',
    "a list in a column": '{"segmentId": "a", "startReason": ["b"]}',
    "a float in a text column": '{"segmentId": "a", "startReason": 1.0}',
    "before the first year": '{"segmentId": "a", "startTimestamp": -62135596800001}',
    "behind the last year": '{"segmentId": "a", "startTimestamp": "253402300800000"}',
    "NaN": '{"segmentId": "a", "u": NaN}',
    "infinite": '{"segmentId": "a", "u": [-Infinity]}',
    "a leading zero": '{"segmentId": "a", "sequence": 01}',
    "a point and nothing": '{"segmentId": "a", "u": 1.}',
    "a pair of surrogates": '{"segmentId": "a", "u": "\\ud83d\\ude00"}',
    "half a pair, unknown": '{"segmentId": "a", "u": "\\ud800"}',
    "half a pair and more": '{"segmentId": "a", "u": "\\ud800\\u0041"}',
    "half a pair in a column": '{"segmentId": "\\udc00"}',
    "half a pair in a key": '{"segmentId": "a", "\\ud800": 1}',
    "NUL by an escape": '{"segmentId": "a\\u0000b", "u": "\\u0000"}',
    "a control character": '{"segmentId": "a\tb"}',
    "DEL and line separators": '{"segmentId": "a\x7f\u2028\x85", "u": "\x7f\u2028\x85"}',
    "escapes that need none": '{"segmentId": "\\u0061\\/", "u": "\\u0061\\/"}',
    "an unknown escape": '{"segmentId": "\\x61"}',
    "a comma too many": '{"segmentId": "a",}',
    "a key without quotes": '{segmentId: "a"}',
    "byte-order mark": '\ufeff{"segmentId": "a"}',
    "white space of Unicode": '{"segmentId": "a"}\u00a0',
    "a vertical tab": "\v",
    "a form feed before a row": '\f{"segmentId": "a"}',
    "white space": " \t\r",
    "two on a line": '{"segmentId": "a"} {"segmentId": "b"}',
    "one and rubbish": '{"segmentId": "a"} oops',
    "one over lines": '{"segmentId":\n"a",\n"u": {}}',
    "an object that would hold the next": '{"segmentId": "a", "u":',
    "a value that is none": "[1, 2]",
    "a string": '"segmentId"',
    "an empty object": "{}",
    "an empty key": '{"segmentId": "a", "": {"": ""}}',
    "columns in a column's place": '{"segmentId": "a", "u": {"segmentId": 1, "sequence": "x"}}',
    "nested": '{"segmentId": "a", "u": ' + "[" * 100 + "]" * 100 + "}",
}

MANY = [{**row, "n": number} for number, row in enumerate(UNLIKE * 3)]
LAYOUTS = {
    "lines": lines(MANY),
    "CRLF": lines(MANY).replace("\n", "\r\n"),
    "blank lines": lines(MANY).replace("\n", "\n \n", 5),
    "over lines": lines(MANY, indent=2),
    "over lines, CRLF": lines(MANY, indent="\t").replace("\n", "\r\n"),
    "over lines, a bad row": lines([*MANY, {**ROW, "segmentId": None}, *MANY], indent=2),
    "over lines, first is bad": lines([{**ROW, "segmentId": None}, *MANY], indent=2),
    "without a break": lines(MANY).replace("\n", ""),
    "braces in a text, without a break": lines([{**r, "u": "}{"} for r in MANY]).replace("\n", ""),
    "array": json.dumps(MANY),
    "array over lines": json.dumps(MANY, indent=1),
    "array, a bad row": json.dumps([*MANY, {**ROW, "segmentId": None}, *MANY]),
    "array, objects in objects": json.dumps([{**r, "u": [{}, {"a": [{}, {}]}] * 9} for r in MANY]),
    "hundreds of fields": lines([{**r, **dict.fromkeys(map(str, range(300)), 1)} for r in MANY]),
}


SCANNED = {**FAST, **SHAPES}
# What the reader in Python takes, because the scanner does not know it.
del SCANNED["exponents"]
LEFT = {
    "array, a bad row",
    "over lines, a bad row",
    "over lines, first is bad",
    "hundreds of fields",
}


@pytest.fixture
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if anything is left to the reader in Python."""

    def read_value(text: str, **_: Any) -> Any:
        raise AssertionError(text[:200])

    monkeypatch.setattr("etl.decode.file.read_value", read_value)


@pytest.fixture(params=[2**21, 1, 2, 7, 64, 300], ids=lambda size: f"block={size}")
def _block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etl.decode.unpack._TEXT_PIECE_BYTES", request.param)
    monkeypatch.setattr("etl.decode.unpack._HEAD_BYTES", max(1, request.param // 3))


@pytest.mark.usefixtures("_no_patience", "_block")
@pytest.mark.parametrize("shape", SCANNED)
def test_the_scanner_takes_every_documented_shape(shape: str) -> None:
    """Nothing is left to the reader in Python, in pieces of any size."""
    text = SCANNED[shape].encode()
    assert truth(text) == load(gzip.compress(text), STRICT)


@pytest.mark.usefixtures("_no_patience")
@pytest.mark.parametrize("layout", sorted(LAYOUTS.keys() - LEFT))
def test_the_scanner_takes_objects_that_are_all_unlike(layout: str) -> None:
    """In any layout."""
    text = LAYOUTS[layout].encode()
    assert truth(text) == load(gzip.compress(text), STRICT)


@pytest.mark.usefixtures("_block")
@pytest.mark.parametrize("shape", [*MIXED, *LAYOUTS])
def test_rows_that_differ_are_what_json_says_they_are(shape: str) -> None:
    """In pieces of any size."""
    text = {**MIXED, **LAYOUTS}[shape].encode()
    assert truth(text) == load(gzip.compress(text))


@pytest.mark.usefixtures("_block")
@pytest.mark.parametrize("name", PITFALLS)
@pytest.mark.parametrize("before", [5, 0, len(UNLIKE)], ids=["amid", "first", "last"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"], ids=["cut", "LF", "CRLF"])
def test_one_odd_line_is_what_json_says_it_is(name: str, before: int, end: str) -> None:
    """A row of any kind does not change the rows around it."""
    text = lines(UNLIKE[:before]) + PITFALLS[name] + end + lines(UNLIKE[before:])
    assert truth(text.encode()) == load(gzip.compress(text.encode()))


@pytest.mark.parametrize("name", PITFALLS)
def test_one_odd_element_is_what_json_says_it_is(name: str) -> None:
    """In an array too, if it is still one."""
    elements = [json.dumps(row) for row in UNLIKE]
    text = f"[{', '.join([*elements[:5], PITFALLS[name] or '{}', *elements[5:]])}]".encode()
    assert truth(text) == load(text)


@pytest.mark.parametrize("odd", [b'"\xff"', b'"\xed\xa0\x80"', b'"\xc3"', b"\xff"])
def test_invalid_utf8_is_a_bad_row_alone(odd: bytes) -> None:
    """It is found anywhere, and the rows around it do not change."""
    row = b'{"segmentId": "a", "u": %b}\n' % odd
    body = lines(UNLIKE[:5]).encode() + row + lines(UNLIKE[5:]).encode()
    assert truth(body) == load(body)
    assert len(load(body).bad) == 1


def test_extras_are_the_unknown_fields_without_white_space() -> None:
    """Each value keeps its text."""
    text = lines([{"a": "ü x", **ROW, "z": [-3, {"f": 1e-3}], "b": False}], ensure_ascii=False)
    with decode(io.BytesIO(text.encode()), PATH, STRICT, scratch=Path("/tmp")) as decoded:
        ((batch, _),) = decoded.batches()
    assert ['{"a":"ü x","z":[-3,{"f":0.001}],"b":false}'] == batch["extras"].to_pylist()


ARRAYS = {
    "behind lines": lines(ROWS) + json.dumps(ROWS) + "\n",
    "before lines": json.dumps(ROWS) + "\n" + lines(ROWS),
    "one a line": "".join(json.dumps([row, row]) + "\n" for row in ROWS),
    "one behind another": json.dumps(ROWS) * 2,
    "empty ones": "[]\n" + lines(ROWS) + "[ ]" + lines(ROWS),
    "without objects": "[1, 2]\n" + lines(ROWS) + '["a"]\n' + lines(ROWS),
    "an object behind other elements": json.dumps([1, None, *ROWS, "x", *ROWS]),
    "an array in an array": json.dumps([*ROWS, [ROW, ROW], *ROWS]),
    "a broken one behind a whole one": json.dumps(ROWS) + "\n[{},\n" + lines(ROWS),
    "a whole one behind a broken one": '[{"segmentId": "a"},\n' + json.dumps(ROWS) + "\n",
    "a comma at its end": json.dumps(ROWS)[:-1] + ",]\n" + json.dumps(ROWS),
    "byte-order marks": "\ufeff" + json.dumps(ROWS) + "\ufeff" + json.dumps(ROWS),
    "over lines, cut off": json.dumps(ROWS, indent=1)[:-3] + "\n" + lines(ROWS),
}


@pytest.mark.usefixtures("_block")
@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_of_objects_is_rows_wherever_it_is_a_whole_value(name: str) -> None:
    """A broken array, or one without objects, is a bad row; the rows around it are read."""
    text = ARRAYS[name].encode()
    assert truth(text) == load(gzip.compress(text))


# More than the reader in Python may read again.
BAD_ONE = json.dumps([*ROWS * 3_000, {**ROW, "segmentId": None}, *ROWS], indent=1)
LARGE_ARRAYS = {
    "a bad row in it": (BAD_ONE + "\n[{", 15_005, 2),
    "several": ((json.dumps(ROWS * 800, indent=1) + "\n") * 10 + "[{", 40_000, 1),
    "behind null": ("[null,\n" + BAD_ONE[1:], 15_005, 2),
    "longer than a row may be": (json.dumps(ROWS * 30_000) + "\n" + lines(ROWS) + "[{", 150_005, 1),
}


@pytest.mark.parametrize("name", LARGE_ARRAYS)
def test_text_that_is_no_json_takes_no_rows_of_a_large_array_away(name: str) -> None:
    """With any text after a whole array."""
    text, rows, bad = LARGE_ARRAYS[name]
    with decode(io.BytesIO(text.encode()), PATH, ANY_RATIO, scratch=Path("/tmp")) as decoded:
        assert (rows, bad) == (decoded.rows, decoded.quarantined)


@pytest.mark.parametrize("levels", [498, 499, 500, 501, 800])
def test_a_row_may_have_500_levels(levels: int) -> None:
    """The scanner and the reader in Python have the same limit, independent of Python's own."""
    deep = "[" * (levels - 1) + "]" * (levels - 1)
    for text in (
        f'{{"segmentId": "a", "u": {deep}}}',
        f'{{"u": 1, "segmentId": "a", "u": {deep}}}',
    ):
        found = load((lines(ROWS[:1]) + text + "\n" + lines(ROWS)).encode())
        assert (levels > 500) == len(found.bad)
        assert 7 - len(found.bad) == len(found.rows)


def test_a_row_with_hundreds_of_unknown_fields_is_a_row() -> None:
    """Of two equal keys the last one counts."""
    row = {**ROW, **{f"n{n}": n for n in range(400)}}
    text = json.dumps(row)[:-1] + ', "n7": "last"}'
    assert truth(text.encode()) == load(text.encode())
    assert [{**{f"n{n}": n for n in range(400)}, "n7": "last"}] == [
        row["extras"] for row in load(text.encode()).rows
    ]


def test_rows_that_fill_the_buffers_at_every_place_are_all_there() -> None:
    """A text buffer may be full before or after any row; a long row makes it larger."""
    for length in (10, 95, 97, 1000, 900_000):
        rows = [{**ROW, "segmentId": f"{n:0{length}d}", "u": "ü" * (n % 40)} for n in range(20)]
        many = rows * (1000 if length < 1000 else 1)
        found = load(gzip.compress(lines(many).encode(), 1))
        assert [row["segmentId"] for row in many] == [row["segmentId"] for row in found.rows]


def _reads(monkeypatch: pytest.MonkeyPatch, text: bytes) -> int:
    """Return the number of characters that Python's json reads."""
    characters = 0

    def read_value(text: str, *, final: bool) -> reader.Found | None:
        nonlocal characters
        characters += len(text)
        return reader.read_value(text, final=final)

    monkeypatch.setattr("etl.decode.file.read_value", read_value)
    load(gzip.compress(text, 1))
    return characters


@pytest.mark.parametrize(
    "line",
    [
        lines([ROW]).rstrip() + ",\n",
        "2022-06-01,agent,7\n",
        "[\n",
        '[{"segmentId": "a"},\n',
        '{"segmentId": "a", "u":\n',
        '{"segmentId": "a", "u": "\n',
        "[1,\n",
        '"\\\n',
    ],
    ids=["comma behind it", "CSV", "brackets", "arrays", "objects", "quote", "numbers", "escape"],
)
def test_text_that_is_no_json_costs_time_in_proportion_to_its_size(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four times the lines need at most a little more than four times the reads."""
    few, many = (_reads(monkeypatch, line.encode() * count) for count in (10_000, 40_000))
    assert many < 5 * few
    assert few < 10_000 * (2**15 + 16 * len(line)) + 2**25


HOSTILE = {
    "brackets": b"[" * 40_000_000,
    "braces": b'{"a":' * 8_000_000,
    "a string without an end": b'{"segmentId": "' + b"a" * 40_000_000,
    "a number without an end": b'{"segmentId": "a", "sequence": ' + b"1" * 40_000_000,
    "NUL bytes": b"{}" + b"\0" * 40_000_000,
    "bytes that are no UTF-8": b"{}"
    + b"\xff\xc3\x28\xa0\xa1\xe2\x28\xa1\xf0\x90\x28\xbc" * 3_000_000,
    "white space": b"{}" + b" \n" * 20_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_meets_bounded_time_and_memory(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text that Python's json reads, and the memory, do not grow with the file."""
    text = HOSTILE[name]
    read = 0

    def read_value(text: str, *, final: bool) -> reader.Found | None:
        nonlocal read
        read += len(text)
        return reader.read_value(text, final=final)

    monkeypatch.setattr("etl.decode.file.read_value", read_value)
    body = io.BytesIO(gzip.compress(text, 1))
    limits = DecodeLimits(max_file_size=2**30, max_bad_row_ratio=1.0, spill_bytes=2**23)
    tracemalloc.start()
    try:
        with decode(body, PATH, limits, scratch=Path("/tmp")) as decoded:
            assert decoded.rows == 0
            assert decoded.quarantined in {1, 2}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert read < 2 * len(text)
    assert peak < 180_000_000


def test_a_large_file_is_never_whole_in_memory() -> None:
    """Its text is read in pieces; beyond the limit its rows are on disk."""
    body = gzip.compress(lines([ROW] * 200_000, separators=(",", ":")).encode(), 1)
    limits = DecodeLimits(max_file_size=2**30, max_bad_row_ratio=0.5, spill_bytes=2**23)
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    with decode(io.BytesIO(body), "/x", limits, scratch=Path("/tmp")) as decoded:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert decoded.decompressed > 40_000_000
        assert decoded.rows == 200_000
        assert peak < 10_000_000
        assert pa.total_allocated_bytes() - before < 10_000_000


EDITS = st.tuples(st.integers(0, 10_000), st.sampled_from([*'",:{}\\ \t\n\r\0-0+.eaü', ""]))
VALUES = st.text(alphabet='ab}{" ,ü\\:', max_size=4) | st.integers(-5, 5)


NAMES = ("segmentId", "sequence", "endReason", "startTimestamp", "u")
ABSENT = object()
# All rows there may be, made once: drawn field by field they take most of a test's time.
FIELDS = st.sampled_from(
    [
        {name: value for name, value in zip(NAMES, values, strict=True) if value is not ABSENT}
        for values in product(
            ["a", "b,", 'c"', "d\\", "e\n", None],
            [ABSENT, 0, 9, "7", 1.0, None, 1.5],
            [ABSENT, "x", "y, z", None, "ü"],
            [ABSENT, 0, 10**12, -5, 2**62, "9"],
            [ABSENT, "t", [1, "a,b"], {"k": [None]}, {}, 1e5, True, 'q"}\n{'],
        )
    ]
)


@settings(max_examples=5 * settings().max_examples)
@given(
    st.lists(FIELDS, min_size=1, max_size=12),
    st.sampled_from([None, 2, "\t"]),
    st.sampled_from(["\n", "\r\n", "", " ", "\n\n", " \n"]),
    st.lists(EDITS, max_size=2),
    st.booleans(),
)
def test_rows_of_many_templates_are_what_the_oracle_says(
    rows: list[dict[str, Any]],
    indent: Any,
    end: str,
    edits: list[tuple[int, str]],
    as_array: bool,
) -> None:
    """Objects may differ, have any layout or be damaged: the rows and their order are right."""
    text = end.join(json.dumps(row, indent=indent, ensure_ascii=False) for row in rows) + end
    if as_array:
        text = json.dumps(rows, indent=indent)
    for position, edit in edits:
        at = position % (len(text) + 1)
        text = text[:at] + edit + text[at + 1 :]
    body = text.encode("utf-8", "replace")
    assert truth(body) == load(gzip.compress(body))


SCALARS = st.sampled_from(
    [
        *("1", "-0", "2.50", "1e3", "7.0", "01", "NaN", "9223372036854775808", "9" * 30),
        *('"7"', '"007"', '"a, b"', '"ü"', '"\\u00fc\\n"', '"}\\n{"', '"\\ud800"', '"\t"'),
        *("true", "null", "{}", "[]"),
    ]
)


def object_of(members: list[tuple[str, str]]) -> str:
    """Return the text of an object with these names and texts of values."""
    return "{" + ", ".join(f'"{key}": {value}' for key, value in members) + "}"


VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.lists(st.tuples(st.sampled_from("kl"), inner), max_size=3).map(object_of),
    ),
    max_leaves=6,
)
KEYS = st.sampled_from([*ROW, "u", "v", "\\u0075", "ü"])
MEMBERS = st.lists(st.tuples(KEYS, VALUES), max_size=5)


def _body(objects: list[list[tuple[str, str]]], between: str) -> bytes:
    body = between.join(object_of([("segmentId", '"s"'), *each]) for each in objects).encode()
    return b"[%b]" % body if between == "," else body


#: Texts of objects with any members, one after another or in an array.
BODIES = st.builds(
    _body,
    st.lists(MEMBERS, min_size=1, max_size=8),
    st.sampled_from(["\n", "\r\n", "", "\n\ufeff", ","]),
)
BLOCKS = st.sampled_from([1, 64, 2**21])


@settings(max_examples=5 * settings().max_examples)
@given(BODIES, BLOCKS)
def test_any_object_is_what_json_says_it_is(body: bytes, block: int) -> None:
    """For any members of objects, an independent reader gives the same rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("etl.decode.unpack._TEXT_PIECE_BYTES", block)
        assert truth(body) == load(body)
