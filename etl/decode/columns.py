"""JSON values → the lake's columns, or the reason why a value is a bad row."""

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final, NoReturn

import pyarrow as pa

from etl.decode.values import NOT_A_NUMBER, Number
from etl.schema import (
    DECODED_SCHEMA,
    INTEGER_COLUMNS,
    STRING_COLUMNS,
    TIMESTAMP_COLUMNS,
    TIMESTAMP_MAX_MS,
    TIMESTAMP_MIN_MS,
)

_DIGITS: Final = re.compile(r"-?[0-9]+", re.ASCII)
#: The least and the greatest value of each column of numbers.
RANGES: Final = {
    **dict.fromkeys(INTEGER_COLUMNS, (-(2**63), 2**63 - 1)),
    **dict.fromkeys(TIMESTAMP_COLUMNS, (TIMESTAMP_MIN_MS, TIMESTAMP_MAX_MS)),
}
# No number with more digits in front of its point is an int64; with an exponent it could still
# be written in few characters and take for ever to convert.
_MOST_DIGITS: Final = 19


class BadRowError(Exception):
    """A value that is no row; its text is the reason."""


class Columns:
    """Rows on their way into columns."""

    def __init__(self) -> None:
        self._clear()

    def __len__(self) -> int:
        return len(self._extras)

    def add(self, value: Any) -> None:
        """Add a row. Raises BadRowError, with nothing added, where the value is none."""
        if not isinstance(value, dict):
            raise BadRowError("not an object")
        strings = [to_string(name, value.pop(name, None)) for name in STRING_COLUMNS]
        if strings[0] is None:
            raise BadRowError("no segmentId")
        integers = [to_integer(name, value.pop(name, None)) for name in RANGES]
        extras = _to_json(value) if value else None
        for name, item in zip((*STRING_COLUMNS, *RANGES), (*strings, *integers), strict=True):
            self._columns[name].append(item)
        self._extras.append(extras)

    def take(self) -> pa.RecordBatch:
        """Return the rows that were added and begin anew."""
        columns: dict[str, Any] = {**self._columns, "extras": self._extras}
        arrays = [pa.array(columns[field.name], type=field.type) for field in DECODED_SCHEMA]
        self._clear()
        return pa.record_batch(arrays, schema=DECODED_SCHEMA)

    def _clear(self) -> None:
        self._columns: dict[str, list[Any]] = {name: [] for name in (*STRING_COLUMNS, *RANGES)}
        self._extras: list[str | None] = []


def to_string(name: str, value: Any) -> str | None:
    """Return the value of a column of strings. Raises BadRowError where it is none."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise BadRowError(f"{name} is not a string")
    if not is_unicode(value):
        raise BadRowError(f"{name} holds half a surrogate pair, which is no character")
    return value


def to_integer(name: str, value: Any) -> int | None:
    """Return the value of a column of numbers. Raises BadRowError where it is none."""
    if value is None:
        return None
    if type(value) is int:
        number = value
    elif isinstance(value, Number):
        number = _integral(name, value.text)
    elif isinstance(value, str) and _DIGITS.fullmatch(value):
        if len(value.lstrip("-0")) > _MOST_DIGITS:
            raise BadRowError(f"{name} is out of range")
        number = int(value)
    else:
        raise BadRowError(f"{name} is not an integer")
    least, most = RANGES[name]
    if not least <= number <= most:
        raise BadRowError(f"{name} is out of range")
    return number


def _integral(name: str, text: str) -> int:
    """Return a number that has nothing behind its point, by its digits, not by a float's."""
    try:
        number = Decimal(text)
        if number and number.adjusted() >= _MOST_DIGITS:
            raise BadRowError(f"{name} is out of range")
        if number.is_finite() and number == number.to_integral_value():
            return int(number)
    except ArithmeticError:
        pass
    raise BadRowError(f"{name} is not an integer")


def _to_json(fields: dict[str, Any]) -> str:
    """Return the fields as JSON, each number as it was written."""
    try:
        text = _dump(fields, ensure_ascii=False)
        return text if is_unicode(text) else _dump(fields, ensure_ascii=True)
    except RecursionError:
        raise BadRowError("not readable: nested too deeply") from None


def _dump(value: Any, *, ensure_ascii: bool) -> str:
    try:
        return json.dumps(
            value, ensure_ascii=ensure_ascii, separators=(",", ":"), default=_not_plain
        )
    except _NotPlainError:
        return "".join(_tokens(value, ensure_ascii=ensure_ascii))


class _NotPlainError(Exception):
    """There is a number in it that json would not write as it was."""


def _not_plain(_: Any) -> NoReturn:
    raise _NotPlainError


def _tokens(value: Any, *, ensure_ascii: bool) -> Iterator[str]:
    """Yield JSON with each Number's own text."""
    match value:
        case Number():
            yield value.text
        case dict():
            for index, (key, item) in enumerate(value.items()):
                yield "," if index else "{"
                yield json.dumps(key, ensure_ascii=ensure_ascii) + ":"
                yield from _tokens(item, ensure_ascii=ensure_ascii)
            yield "}" if value else "{}"
        case list():
            for index, item in enumerate(value):
                yield "," if index else "["
                yield from _tokens(item, ensure_ascii=ensure_ascii)
            yield "]" if value else "[]"
        case _ if value is NOT_A_NUMBER:
            raise BadRowError("not JSON: NaN or Infinity")
        case _:
            yield json.dumps(value, ensure_ascii=ensure_ascii)


def is_unicode(text: str) -> bool:
    """Tell whether it is text: half of a surrogate pair is no character."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
