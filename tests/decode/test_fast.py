"""The fast path takes what machines write, and nothing that a JSON parser would read otherwise."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.decode import decode
from etl.decode.fast import Template
from etl.schema import SCHEMA
from tests.decode.oracle import truth
from tests.decode.test_file import PATH, ROW, ROWS, SHAPES, STRICT, lines, load

FAST = {
    "documented": lines(ROWS),
    "compact": lines(ROWS, separators=(",", ":")),
    "quoted numbers": lines([{**row, "sequence": "1", "handleTimeMillis": "5"} for row in ROWS]),
    "sorted keys": lines(ROWS, sort_keys=True),
    "unknown fields": lines([{"a": "ü x", **r, "z": -3} for r in ROWS], ensure_ascii=False),
    "missing field": lines([{"segmentId": "a", "sequence": 5}] * 3),
    "empty strings": lines([{**row, "startReason": "", "endReason": ""} for row in ROWS]),
    "closing marks in the last value": lines([{"sequence": 5, "segmentId": "a}}"}] * 3),
    "CRLF": lines(ROWS).replace("\n", "\r\n"),
    "byte-order mark": "\ufeff" + lines(ROWS),
    "blank lines": lines(ROWS).replace("\n", "\n\n"),
}  # fmt: skip


def blocks(text: str) -> tuple[int, int]:
    with decode(io.BytesIO(text.encode()), PATH, STRICT, scratch=Path("/tmp")) as decoded:
        return decoded.fast_blocks, decoded.patient_blocks


@pytest.mark.parametrize("shape", FAST)
def test_one_template_is_fast_and_equals_json(shape: str) -> None:
    """Whatever the template, the rows are those of a JSON parser."""
    text = FAST[shape]
    assert (1, 0) == blocks(text)
    assert truth(text.encode()) == load(text.encode(), STRICT)


def test_extras_are_written_as_the_patient_path_writes_them() -> None:
    """Both paths give the same text, not only the same JSON."""
    text = FAST["unknown fields"]
    template = Template.learn(text.encode())
    assert template is not None
    batch = template.read(text.encode(), PATH)
    assert batch is not None
    assert batch.schema == SCHEMA
    assert ['{"a":"ü x","z":-3}'] * 5 == batch["extras"].to_pylist()


PATIENT = {
    "escape": lines([ROW, {**ROW, "startReason": 'a"b'}]),
    "comma": lines([ROW, {**ROW, "startReason": "a,b"}]),
    "null": lines([ROW, {**ROW, "sequence": None}]),
    "float": lines([ROW, {**ROW, "sequence": 1.0}]),
    "leading zero": lines([ROW, {**ROW, "sequence": 7}]).replace('sequence": 7', 'sequence": 07'),
    "plus": lines([ROW, ROW]).replace("12345,", "+12345,"),
    "hexadecimal": lines([ROW, ROW]).replace("12345,", "0x12,"),
    "space in a number": lines([ROW, ROW]).replace("12345,", "12345 ,"),
    "unknown leading zero": lines([{**ROW, "x": 7}] * 2).replace('"x": 7', '"x": 07'),
    "other keys later": lines([ROW, {**ROW, "skill": "x"}]),
    "other order later": lines([ROW, dict(reversed(ROW.items()))]),
    "duplicate key": lines([ROW]).replace('"sequence"', '"sequence": 77, "sequence"'),
    "a quote too few, one too many": lines([ROW, ROW])
    .replace('"consumerMessage"', '"', 1)
    .replace('"agentResponse"', '"a"b"', 1),
    "tab in a string": lines([ROW, ROW]).replace("consumer", "\t"),
    "NUL in a string": lines([ROW, ROW]).replace("consumer", "\0"),
    "number as segment": lines([{**ROW, "segmentId": 5}, ROW]),
    "no segment": lines([{"sequence": 1, "startReason": "x"}] * 2),
    "beyond int64": lines([{**ROW, "sequence": 2**63}, ROW]),
    "beyond the last year": lines([{**ROW, "startTimestamp": 2**60}, ROW]),
    "one column": lines([{"segmentId": "x"}] * 2),
    "half a row at the end": lines([ROW, ROW])[:-20],
    "objects without a break": lines([ROW, ROW]).replace("\n", "") + "\n",
}


@pytest.mark.parametrize("shape", PATIENT)
def test_all_else_is_left_to_the_patient_path(shape: str) -> None:
    """A block that is not proven is read by the JSON parser."""
    text = PATIENT[shape].encode()
    template = Template.learn(text)
    assert template is None or template.read(text, PATH) is None
    assert truth(text) == load(text)


def test_invalid_utf8_is_left_to_the_patient_path() -> None:
    """Bytes that are no text are found wherever they stand."""
    good = lines([ROW, ROW]).encode()
    for spoiled in (good.replace(b"consumer", b"\xff"), good.replace(b"consumer", b"\xed\xa0\x80")):
        template = Template.learn(good)
        assert template is not None
        assert template.read(spoiled, PATH) is None
        assert Template.learn(spoiled) is None


def test_the_documented_shapes_that_should_be_fast_are() -> None:
    """One object a line, in whatever spacing, key order or line end, takes the fast path."""
    shapes = ["lines", "compact lines", "byte-order mark", "CRLF", "blank lines", "no last newline"]
    assert [(1, 0) if shape != "blank lines" else (0, 1) for shape in shapes] == [
        blocks(SHAPES[shape]) for shape in shapes
    ]


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
