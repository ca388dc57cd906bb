"""The fast path takes what machines write, and nothing that a JSON parser would read otherwise."""

import gzip
import json
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.decode.fast import as_lines, read
from etl.decode.template import learn
from etl.schema import DECODED_SCHEMA
from tests.decode.oracle import truth
from tests.decode.test_file import (
    ROW,
    ROWS,
    SHAPES,
    STRICT,
    as_floats,
    as_strings,
    lines,
    load,
)
from tests.decode.test_parsed import ways

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

# Objects of several templates, and among them what is no row.
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

# A template of these would prove too little, or there is none.
PATIENT = {
    "no segment": lines([{"sequence": 1, "startReason": "x"}] * 2),
    "number as segment": lines([{**ROW, "segmentId": 5}] * 2),
    "one column": lines([{"segmentId": "x"}] * 2),
    "a line end in a string, several lines each": lines([ROW] * 4, indent=2).replace(
        '"agentResponse"', '"agent\nResponse"', 1
    ),
    "what hides line ends is there already": lines([ROW] * 4, indent=2).replace("agent", "\x1e"),
}


@pytest.mark.parametrize("shape", FAST)
def test_one_template_is_fast_and_equals_json(shape: str) -> None:
    """Whatever the template, the rows are those of a JSON parser, and every one is proven."""
    text = FAST[shape].encode()
    plain = text.removeprefix(b"\xef\xbb\xbf")
    template = learn(plain)
    assert template is not None
    objects = as_lines(plain, template)
    assert objects is not None
    batch = read(objects.text, objects.template)
    assert batch is not None
    assert batch.schema == DECODED_SCHEMA
    expected = truth(text)
    assert len(expected.rows) == batch.num_rows
    assert {"fast"} == ways(text)
    assert expected == load(text, STRICT)


@pytest.mark.parametrize("shape", MIXED)
def test_one_odd_row_makes_no_block_slow(shape: str) -> None:
    """What is not proven is parsed; only what is no row is read patiently, alone."""
    text = MIXED[shape].encode()
    assert "patient" not in ways(text)
    assert truth(text) == load(text)


@pytest.mark.parametrize("shape", PATIENT)
def test_all_else_is_left_to_the_patient_path(shape: str) -> None:
    """What no template can be learnt from is read by the JSON parser."""
    text = PATIENT[shape].encode()
    template = learn(text)
    objects = as_lines(text, template) if template else None
    assert objects is None or read(objects.text, objects.template) is None
    assert truth(text) == load(text)


def test_extras_are_written_as_the_patient_path_writes_them() -> None:
    """Both paths give the same text, not only the same JSON."""
    text = FAST["unknown scalars"].encode()
    template = learn(text)
    assert template is not None
    batch = read(text, template)
    assert batch is not None
    flags = ["false", "true", "false", "false", "false"]
    expected = [f'{{"a":"ü x","z":-3,"f":0.001,"b":{flag}}}' for flag in flags]
    assert expected == batch["extras"].to_pylist()


def test_invalid_utf8_is_left_to_the_patient_path() -> None:
    """Bytes that are no text are found wherever they stand."""
    good = lines([ROW, ROW]).encode()
    template = learn(good)
    assert template is not None
    for spoiled in (good.replace(b"consumer", b"\xff"), good.replace(b"consumer", b"\xed\xa0\x80")):
        assert read(spoiled, template) is None
        assert truth(spoiled) == load(spoiled)


def test_the_documented_shapes_that_should_be_fast_are() -> None:
    """One object a line or over lines, in whatever spacing, order or line end, is fast."""
    shapes = ["lines", "compact lines", "several lines each", "byte-order mark", "CRLF", "array"]
    assert all("fast" in ways(SHAPES[shape].encode()) for shape in shapes)


EDITS = st.tuples(st.integers(0, 10_000), st.sampled_from([*'",:{}\\ \t\n\r\0-0+.eaü', ""]))
VALUES = st.text(alphabet='ab}{" ,ü\\:', max_size=4) | st.integers(-5, 5)


@settings(max_examples=5 * settings().max_examples)
@given(
    st.lists(
        st.fixed_dictionaries({"segmentId": st.text(max_size=3), "sequence": st.integers(0, 9)}),
        min_size=1,
        max_size=4,
    ),
    VALUES,
    st.lists(EDITS, max_size=3),
)
def test_fast_or_patient_any_edit_gives_what_the_oracle_says(
    rows: list[dict[str, Any]], more: Any, edits: list[tuple[int, str]]
) -> None:
    """Nothing that is done to good lines makes the two paths differ."""
    text = "".join(
        json.dumps({**row, "startReason": more}, ensure_ascii=False) + "\n" for row in rows
    )
    for position, edit in edits:
        at = position % (len(text) + 1)
        text = text[:at] + edit + text[at + 1 :]
    body = text.encode("utf-8", "replace")
    assert truth(body) == load(gzip.compress(body))


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
    """However objects differ, are laid out or damaged, the rows and their order stay."""
    text = end.join(json.dumps(row, indent=indent, ensure_ascii=False) for row in rows) + end
    if as_array:
        text = json.dumps(rows, indent=indent)
    for position, edit in edits:
        at = position % (len(text) + 1)
        text = text[:at] + edit + text[at + 1 :]
    body = text.encode("utf-8", "replace")
    assert truth(body) == load(gzip.compress(body))
