"""Objects whose members' names are known are what Python's json says they are."""

import gzip
from typing import Any

import pytest
from hypothesis import given, settings

from etl.decode import rows, structs
from tests.decode.oracle import truth
from tests.decode.test_file import ROW, as_written, lines, load
from tests.decode.test_parsed import (
    BLOCKS,
    BODIES,
    LAYOUTS,
    MANY,
    PITFALLS,
    UNLIKE,
    content,
    patient_content,
    ways,
)

# What has too many names, or little in each object.
NOT_TAKEN = {"hundreds of fields", "array, objects in objects"}
BLOCK = "etl.decode.file._BLOCK_BYTES"


@pytest.fixture(autouse=True)
def _nothing_met(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on the names that another one read."""
    monkeypatch.setattr(structs, "_names", ())


def in_values(found: tuple[list[Any], list[Any]]) -> Any:
    """Return rows and bad rows with extras as what they say: their members have no order."""
    good, bad = found
    extras = [row["extras"] and as_written(row["extras"]) for row in good]
    return [{**row, "extras": extra} for row, extra in zip(good, extras, strict=True)], bad


@pytest.mark.parametrize("name", PITFALLS)
@pytest.mark.parametrize("before", [5, 0, len(UNLIKE)], ids=["amid", "first", "last"])
def test_one_odd_line_is_what_json_says_it_is(name: str, before: int) -> None:
    """Taken as a whole or left as a whole, the rows are those that Python's json finds."""
    text = (lines(UNLIKE[:before]) + PITFALLS[name] + "\n" + lines(UNLIKE[before:])).encode()
    body = gzip.compress(text, 1)  # whatever it begins with
    # Where json says less, or more than it was told: of two members it keeps the last, and no -0.
    if name not in {"nested without end", "minus zero", "an unknown key twice"}:
        assert in_values(patient_content(body)) == in_values(content(body))
    if name not in {"nested without end", "thousands of digits"}:  # too much for the oracle
        assert truth(text) == load(body)


@pytest.mark.parametrize("layout", sorted(LAYOUTS.keys() - NOT_TAKEN))
@pytest.mark.parametrize("block", [2**21, 2**13])
def test_what_has_few_names_is_taken_as_a_whole(
    layout: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the objects are laid out, all but what stands at an array's end."""
    monkeypatch.setattr(BLOCK, block)
    body = LAYOUTS[layout].encode()
    taken = ways(body)
    assert "bad" in layout or "known" in taken
    if block == 2**21 and not layout.startswith("array") and "bad" not in layout:
        assert {"known"} == taken
    assert truth(body) == load(gzip.compress(body))


@pytest.mark.parametrize(
    "odd",
    [
        {f"n{n}": n for n in range(17)},
        {"a\x7fb": 1},
        {"\x7f": 0},
        {"u": "\x7f"},
        {"n" * 201: 1},
        {'a"b': 1},
        {"a\\b": 1},
        {"a\nb": 1},
        {"segmentId": 5},
        {"u": [{}] * 5000},
    ],
    ids=[
        *("17 names", "DEL", "mark", "mark's value", "long", "quote", "backslash", "line end"),
        *("no row", "little in each object"),
    ],
)
def test_what_has_other_names_is_left(odd: dict[str, Any]) -> None:
    """Too many names, or one that msgspec takes for none: dictionaries are slower and take any."""
    body = lines([*MANY, {**ROW, **odd}], ensure_ascii=False).encode()
    assert structs.read_structs(body, array=False) is None
    assert "parsed" in ways(body)
    assert truth(body) == load(body)


def test_names_come_and_go() -> None:
    """Those of each text are learnt; where they grow too many, those of others are forgotten."""
    for first in (0, 10, 5, 40):
        text = lines([{**ROW, f"n{n}": [n, {"m": n}]} for n in range(first, first + 10)]).encode()
        batch = structs.read_structs(text, array=False)
        assert batch is not None
        assert [f'{{"n{n}":[{n},{{"m":{n}}}]}}' for n in range(first, first + 10)] == batch[
            "extras"
        ].to_pylist()
        assert f"n{first}" in structs._names
    assert len(structs._names) <= 16


def test_short_objects_are_left_whatever_a_sample_sees() -> None:
    """As structures they would take many times their text's length."""
    row = '{"segmentId":"aaaaaaaaaaaaaaaa"}\n'
    for head in ("", *(" " * n for n in range(len(row)))):
        text = (head + row * (2**21 // len(row))).encode()
        assert structs.read_structs(text, array=False) is None
    assert structs.read_structs(b" \n", array=False) is None


def test_an_unknown_field_without_a_value_is_not_one_that_is_null() -> None:
    """Null is kept, and so is an empty name; what is missing leaves no trace."""
    text = lines([{**ROW, "u": None}, ROW, {**ROW, "": {}}]).encode()
    batch = structs.read_structs(text, array=False)
    assert batch is not None
    assert ['{"u":null}', None, '{"":{}}'] == batch["extras"].to_pylist()


def test_a_way_that_fails_is_tried_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a bad row in every block it is tried on each eighth, and again on all that have none."""
    size = 2**18  # as much as is unpacked at once
    monkeypatch.setattr(BLOCK, size)
    tried: list[bool] = []
    read = structs.read_structs

    def read_structs(text: bytes, *, array: bool) -> Any:
        batch = read(text, array=array)
        tried.append(batch is not None)
        return batch

    monkeypatch.setattr(structs, "read_structs", read_structs)
    bad = lines([row for _ in range(4000) for row in ({**ROW, "segmentId": None}, *UNLIKE)])
    good = lines([{**row, "n": n} for n, row in enumerate(UNLIKE * 2000)])
    body = gzip.compress((bad + good).encode(), 1)
    assert truth((bad + good).encode()) == load(body)
    blocks = len(bad) // size
    assert blocks > 32
    assert 3 + blocks // 8 - 1 <= tried.count(False) <= 3 + blocks // 8 + 1
    assert tried.count(True) >= len(good) // size - 8


@settings(max_examples=2 * settings().max_examples)
@given(BODIES, BLOCKS)
def test_any_object_is_what_json_says_it_is(body: bytes, block: int) -> None:
    """Whatever the members of objects, the rows are those of an independent reader."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BLOCK, block)
        patch.setattr(rows, "learn", lambda *_: None)
        assert truth(body) == load(body)
