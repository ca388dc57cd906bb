"""A slow and simple reader for comparison: it reads the whole text at once."""

import json
import re
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Self

INT64 = range(-(2**63), 2**63)
MILLIS = range(-62_135_596_800_000, 253_402_300_800_000)
RANGES = {
    "sequence": INT64,
    "handleTimeMillis": INT64,
    "startTimestamp": MILLIS,
    "endTimestamp": MILLIS,
    "insertTimestamp": MILLIS,
}
STRINGS = ("segmentId", "startReason", "endReason")


@dataclass
class Truth:
    """Rows as dictionaries (timestamps as integers, extras parsed) and bad rows' raw texts."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    bad: list[tuple[int, str]] = field(default_factory=list)


def truth(text: bytes) -> Truth:
    """Return the rows and bad rows of a text, as documented."""
    found = Truth()
    for index, (value, raw) in enumerate(_values(text)):
        row = _row(value)
        if row is None:
            found.bad.append((index, raw))
        else:
            found.rows.append(row)
    return found


class _Bad:
    pass


class _Float(float):
    """A number that remembers how it was written: a float may be another integer than that."""

    def __new__(cls, text: str) -> Self:
        number = super().__new__(cls, text)
        try:
            number.exact = Decimal(text)
        except InvalidOperation:  # an exponent beyond Decimal's own
            number.exact = Decimal("NaN")
        return number

    exact: Decimal


def _constant(_: str) -> Any:
    return _Bad()


def _values(raw_text: bytes) -> list[tuple[Any, str]]:
    text = raw_text.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    decoder = json.JSONDecoder(parse_constant=_constant, parse_float=_Float)
    position = 0
    values = []
    while match := re.compile(r"[^ \t\r\n\ufeff]").search(text, position):
        position = match.start()
        try:
            value, end = decoder.raw_decode(text, position)
        except ValueError:
            value = _Bad()
            newline = text.find("\n", position)
            end = len(text) if newline < 0 else newline
            raw = text[position:end].removesuffix("\r")
        else:
            raw = text[position:end]
            if _holds_objects(value):
                values += _elements(text, position, decoder, len(value))
                position = end
                continue
        values.append(_unless_invalid(value, raw))
        position = end
    return values


def _holds_objects(value: Any) -> bool:
    """Return whether a value of the file is an array of rows."""
    return isinstance(value, list) and (not value or any(isinstance(each, dict) for each in value))


def _elements(
    text: str, position: int, decoder: json.JSONDecoder, count: int
) -> list[tuple[Any, str]]:
    space = re.compile(r"[ \t\r\n]*")
    values = []
    for _ in range(count):
        position = space.match(text, position + 1).end()  # type: ignore[union-attr]
        value, end = decoder.raw_decode(text, position)
        values.append(_unless_invalid(value, text[position:end]))
        position = space.match(text, end).end()  # type: ignore[union-attr]
    return values


def _unless_invalid(value: Any, raw: str) -> tuple[Any, str]:
    try:
        raw.encode()
    except UnicodeEncodeError:
        value = _Bad()
    return value, raw.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _row(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict) or _holds_bad(value):
        return None
    row: dict[str, Any] = {}
    for name in STRINGS:
        item = value.pop(name, None)
        if item is not None and not isinstance(item, str):
            return None
        if item is not None and re.search("[\ud800-\udfff]", item):
            return None
        row[name] = item
    if row["segmentId"] is None:
        return None
    for name, allowed in RANGES.items():
        item = value.pop(name, None)
        if isinstance(item, bool):
            return None
        if isinstance(item, _Float) and _is_integral(item.exact):
            item = int(item.exact)
        if isinstance(item, str) and re.fullmatch("-?[0-9]+", item):
            item = int(item)
        if item is not None and (not isinstance(item, int) or item not in allowed):
            return None
        row[name] = item
    row["extras"] = _whole(value) or None
    return None if _depth(value) > 500 else row


def _whole(value: Any) -> Any:
    """Return a value without half surrogate pairs, which are not characters."""
    match value:
        case str():
            return re.sub("[\ud800-\udfff]", "\ufffd", value)
        case dict():
            return {_whole(key): _whole(item) for key, item in value.items()}
        case list():
            return [_whole(item) for item in value]
    return value


def _depth(value: Any) -> int:
    """Return the depth of nested objects and arrays."""
    if not isinstance(value, dict | list):
        return 0
    items = value.values() if isinstance(value, dict) else value
    return 1 + max(map(_depth, items), default=0)


def _is_integral(number: Decimal) -> bool:
    # Few characters can be a number with a million digits: it is out of range as it is.
    return not number or (number.adjusted() < 30 and number == number.to_integral_value())


def _holds_bad(value: Any) -> bool:
    match value:
        case _Bad():
            return True
        case dict():
            return any(map(_holds_bad, value.values()))
        case list():
            return any(map(_holds_bad, value))
    return False
