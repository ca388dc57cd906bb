"""The forms of the vendor's files that its documentation shows, suggests or allows.

A shape writes rows to a file; it returns the rows as they are in the file, and the file.
"""

import gzip
import json
import random
from collections.abc import Callable
from typing import Any, Final

Rows = list[dict[str, Any]]
Shape = Callable[[Rows, random.Random], tuple[Rows, bytes]]

_NUMBERS: Final = (
    "sequence", "handleTimeMillis", "startTimestamp", "endTimestamp", "insertTimestamp",
)  # fmt: skip


def pack(text: str) -> bytes:
    """Return the gzip of a text, always the same bytes."""
    return gzip.compress(text.encode(), 6, mtime=0)


def _text(rows: Rows, **how: Any) -> str:
    return "".join(json.dumps(row, **how) + "\n" for row in rows)


def lines(rows: Rows, _: random.Random) -> tuple[Rows, bytes]:
    """Write one compact object a line, as the names of the files suggest."""
    return rows, pack(_text(rows, separators=(",", ":")))


def _spread(rows: Rows, _: random.Random) -> tuple[Rows, bytes]:
    return rows, pack(_text(rows, indent=2))


def _without_a_break(rows: Rows, _: random.Random) -> tuple[Rows, bytes]:
    return rows, pack(_text(rows).replace("\n", ""))


def _array(rows: Rows, rng: random.Random) -> tuple[Rows, bytes]:
    return rows, pack(json.dumps(rows, indent=rng.choice([None, 2])))


def _byte_order_mark(rows: Rows, _: random.Random) -> tuple[Rows, bytes]:
    return rows, pack("\ufeff" + _text(rows))


def _crlf(rows: Rows, _: random.Random) -> tuple[Rows, bytes]:
    return rows, pack(_text(rows).replace("\n", "\r\n"))


def _blank_lines_no_last_newline(rows: Rows, _: random.Random) -> tuple[Rows, bytes]:
    return rows, pack("\n" + _text(rows).replace("\n", "\n\n").rstrip("\n"))


def _members(rows: Rows, rng: random.Random) -> tuple[Rows, bytes]:
    text = _text(rows)
    cuts = sorted(rng.randrange(len(text) + 1) for _ in range(3))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    return rows, b"".join(map(pack, pieces)) + bytes(rng.randrange(512))


def _numbers_as_strings(rows: Rows, _: random.Random) -> tuple[Rows, bytes]:
    rows = [{**row, **{name: str(row[name]) for name in _NUMBERS}} for row in rows]
    return rows, pack(_text(rows))


def _integral_floats(rows: Rows, _: random.Random) -> tuple[Rows, bytes]:
    rows = [{**row, **{name: float(row[name]) for name in _NUMBERS}} for row in rows]
    return rows, pack(_text(rows))


def _other_order_nulls_missing(rows: Rows, rng: random.Random) -> tuple[Rows, bytes]:
    changed = []
    for row in rows:
        keys = list(row)
        rng.shuffle(keys)
        other = {key: row[key] for key in keys}
        for key in rng.sample(_NUMBERS, 2):
            other[key] = None
        del other[rng.choice(["startReason", "endReason", *_NUMBERS])]
        changed.append(other)
    return changed, pack(_text(changed))


def _unknown_fields(rows: Rows, rng: random.Random) -> tuple[Rows, bytes]:
    rows = [
        {**row, "skill": "Rechnungsübersicht 😀", "meta": {"tags": [1.5, None, "a\n\\"], "v": 2}}
        for row in rows
    ]
    return rows, pack(_text(rows, ensure_ascii=rng.random() < 0.5))


def _one_long_row(rows: Rows, _: random.Random) -> tuple[Rows, bytes]:
    rows = [{**row, "note": "lorem ipsum " * 40_000} for row in rows[:1]] + rows[1:]
    return rows, pack(_text(rows))


def _empty(_: Rows, __: random.Random) -> tuple[Rows, bytes]:
    return [], pack("")


ALL: Final[tuple[Shape, ...]] = (
    lines, _spread, _without_a_break, _array, _byte_order_mark, _crlf,
    _blank_lines_no_last_newline, _members, _numbers_as_strings, _integral_floats,
    _other_order_nulls_missing, _unknown_fields, _one_long_row, _empty,
)  # fmt: skip
