"""Objects of whatever shape are taken by msgspec, and are what Python's json says they are."""

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.decode import decode, parsed, rows, structs
from tests.decode.oracle import truth
from tests.decode.test_file import ANY_RATIO, PATH, ROW, lines, load

# No two of them have one template.
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
    "thousands of digits": '{"segmentId": "a", "u": ' + "7" * 5000 + "}",
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
    "nested without end": '{"segmentId": "a", "u": ' + "[" * 100_000 + "]" * 100_000 + "}",
}


def ways(body: bytes) -> set[str]:
    """Return which readers took a block."""
    with decode(io.BytesIO(body), PATH, ANY_RATIO, scratch=Path("/tmp")) as decoded:
        counts = {
            "fast": decoded.fast_blocks,
            "known": decoded.known_blocks,
            "parsed": decoded.parsed_blocks,
            "patient": decoded.patient_blocks,
        }
    return {way for way, count in counts.items() if count}


@pytest.fixture
def _no_structs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave to msgspec's dictionaries what its structures would take."""
    monkeypatch.setattr(structs, "read_structs", lambda *_, **__: None)


no_structs = pytest.mark.usefixtures("_no_structs")


def content(body: bytes) -> tuple[list[Any], list[Any]]:
    """Return all that stands in rows and bad rows, letter for letter."""
    with decode(io.BytesIO(body), PATH, ANY_RATIO, scratch=Path("/tmp")) as decoded:
        found = [row for batch in decoded.batches() for row in batch.rows.to_pylist()]
        return found, [json.loads(line) for line in decoded.bad_rows() or ()]


def patient_content(body: bytes) -> tuple[list[Any], list[Any]]:
    """Return the same, read by Python's json alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "learn", lambda *_: None)
        patch.setattr(parsed, "read_objects", lambda _: None)
        patch.setattr(structs, "read_structs", lambda *_, **__: None)
        return content(body)


@no_structs
@pytest.mark.parametrize("name", PITFALLS)
def test_one_odd_line_is_what_json_says_it_is(name: str) -> None:
    """Whatever stands among rows that are all unlike, it changes nothing but itself."""
    body = (lines(UNLIKE[:5]) + PITFALLS[name] + "\n" + lines(UNLIKE[5:])).encode()
    assert patient_content(body) == content(body)
    if name not in {"nested without end", "thousands of digits"}:  # too much for the oracle
        assert truth(body) == load(body)


@pytest.mark.parametrize("name", PITFALLS)
@pytest.mark.parametrize("count", [1, 3])
def test_odd_lines_alone_are_what_json_says_they_are(name: str, count: int) -> None:
    """A template that is learnt from one takes it for no more than it is."""
    text = (PITFALLS[name] + "\n").encode() * count
    body = gzip.compress(text, 1)  # whatever it begins with
    if name not in {"nested without end", "thousands of digits"}:  # too much for the oracle
        assert truth(text) == load(body)
    else:
        assert patient_content(body)[1] == content(body)[1]


@no_structs
@pytest.mark.parametrize("name", PITFALLS)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_an_odd_last_line_is_what_json_says_it_is(name: str, end: str) -> None:
    """At a text's end, too, a bad row's reason and its text are the same."""
    body = (lines(UNLIKE) + PITFALLS[name] + end).encode()
    assert patient_content(body) == content(body)


@no_structs
@pytest.mark.parametrize("name", PITFALLS)
def test_one_odd_element_is_what_json_says_it_is(name: str) -> None:
    """In an array too, as far as it still is one."""
    elements = [json.dumps(row) for row in UNLIKE]
    body = f"[{', '.join([*elements[:5], PITFALLS[name] or '{}', *elements[5:]])}]".encode()
    assert patient_content(body) == content(body)


@no_structs
@pytest.mark.parametrize("odd", [b'"\xff"', b'"\xed\xa0\x80"', b'"\xc3"', b"\xff"])
def test_invalid_utf8_is_a_bad_row_alone(odd: bytes) -> None:
    """It is found wherever it stands, and the rows around it stay."""
    row = b'{"segmentId": "a", "u": %b}\n' % odd
    body = lines(UNLIKE[:5]).encode() + row + lines(UNLIKE[5:]).encode()
    assert patient_content(body) == content(body)
    assert truth(body) == load(body)
    assert len(load(body).bad) == 1


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


@no_structs
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("block", [2**21, 2**13, 2**12])
def test_rows_that_are_unlike_need_no_patience(
    layout: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However they are laid out and cut into blocks, all but what stands at the end is parsed."""
    monkeypatch.setattr("etl.decode.file._BLOCK_BYTES", block)
    body = LAYOUTS[layout].encode()
    assert "parsed" in ways(body)
    if block == 2**21 and not layout.startswith("array"):
        assert {"parsed"} == ways(body)
    assert patient_content(body) == content(body)
    assert truth(body) == load(gzip.compress(body))


def test_texts_of_which_most_are_no_objects_are_not_taken() -> None:
    """What is no text of objects is left to the reader who says why."""
    assert parsed.read_objects([b"oops"] * 2 + [b'{"segmentId": "a"}']) is None
    assert parsed.read_objects([b"1"] * 2000) is None


def test_what_has_a_template_needs_no_msgspec() -> None:
    """A run that reads documented files alone does not wait for its import."""
    code = (
        "import sys, io; from pathlib import Path; from etl.decode import *;"
        "limits = DecodeLimits(max_file_size=9999, max_bad_row_ratio=0, spill_bytes=9999);"
        f"decode(io.BytesIO({lines([ROW] * 3).encode()!r}), '/x', limits, scratch=Path('/tmp'));"
        "print('msgspec' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert found.stdout == "False\n"


SCALARS = st.sampled_from(
    [
        *("1", "-0", "2.50", "1e3", "7.0", "01", "NaN", "9223372036854775808", "9" * 30),
        *('"7"', '"007"', '"a, b"', '"ü"', '"\\u00fc\\n"', '"}\\n{"', '"\\ud800"', '"\t"'),
        *("true", "null", "{}", "[]"),
    ]
)


def object_of(members: list[tuple[str, str]]) -> str:
    """Return the text of an object of names and values' texts."""
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
BLOCKS = st.sampled_from([64, 2**21])


@settings(max_examples=2 * settings().max_examples)
@given(BODIES, BLOCKS)
def test_parsed_or_patient_any_object_is_the_same(body: bytes, block: int) -> None:
    """Whatever the members of objects, both readers give the same, letter for letter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("etl.decode.file._BLOCK_BYTES", block)
        expected = patient_content(body)
        patch.setattr(rows, "learn", lambda *_: None)
        patch.setattr(structs, "read_structs", lambda *_, **__: None)
        assert expected == content(body)
