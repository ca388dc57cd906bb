"""The patient reader: what the native scanner leaves, one value at a time, by Python's json.

It alone decides which values are bad rows, and why (operations.md, "Bad rows"). A value that is a
row becomes one line of JSON that the scanner takes (`Row.text`), so there is one way into columns.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NoReturn

from etl.model.dataset import (
    INTEGER_COLUMNS,
    STRING_COLUMNS,
    TIMESTAMP_COLUMNS,
    TIMESTAMP_MAX_MS,
    TIMESTAMP_MIN_MS,
)

# An error this close to the end of what was read so far may vanish when more is read: the
# longest that json looks ahead is a pair of \uXXXX escapes.
_LOOK_AHEAD: Final = 16
_UNTERMINATED: Final = "Unterminated string"
_DIGITS: Final = re.compile(r"-?[0-9]+", re.ASCII)
_HALF_PAIR: Final = re.compile("[\ud800-\udfff]")
_REPLACEMENT: Final = "\ufffd"
_RANGES: Final = {
    **dict.fromkeys(INTEGER_COLUMNS, (-(2**63), 2**63 - 1)),
    **dict.fromkeys(TIMESTAMP_COLUMNS, (TIMESTAMP_MIN_MS, TIMESTAMP_MAX_MS)),
}
# No number with more digits in front of its point is an int64; with an exponent it could still
# be written in few characters and take for ever to convert.
_MOST_DIGITS: Final = 19


class IncompleteError(Exception):
    """The text ends before it is clear what its first value is: read on and try again."""


class BadRowError(Exception):
    """A value that is no row; its text is the reason."""


@dataclass(frozen=True, slots=True)
class Value:
    """A JSON value at the beginning of a text, and where in the text it ends."""

    value: Any
    end: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why a text does not begin with JSON; `end` is about where reading it stopped."""

    reason: str
    end: int


@dataclass(frozen=True, slots=True)
class Row:
    """A row as a JSON object on one line, no key twice.

    `repaired` is whether half a surrogate pair in an unknown field was replaced by U+FFFD.
    """

    text: str
    repaired: bool


@dataclass(frozen=True, slots=True)
class _Number:
    """A JSON number with a point or an exponent, or of very many digits: its text, exactly."""

    text: str


# NaN and the infinities, which some writers write and JSON does not know.
_NOT_A_NUMBER: Final = object()


def _integer(digits: str) -> int | _Number:
    return int(digits) if len(digits) < 1000 else _Number(digits)


def _decoder(**hooks: Any) -> json.JSONDecoder:
    return json.JSONDecoder(parse_float=_Number, parse_constant=lambda _: _NOT_A_NUMBER, **hooks)


_scan: Final = _decoder().raw_decode
# Python refuses to convert more than 4300 digits; a hook for each integer costs time.
_scan_long_integers: Final = _decoder(parse_int=_integer).raw_decode


def read_value(text: str, *, final: bool) -> Value | Unreadable:
    """Return the JSON value that the text begins with, or why there is none.

    Raises IncompleteError where that depends on what follows the text, unless it is `final`.
    """
    try:
        try:
            value, end = _scan(text)
        except json.JSONDecodeError:
            raise
        except ValueError:
            value, end = _scan_long_integers(text)
    except json.JSONDecodeError as error:
        near_end = error.pos >= len(text) - _LOOK_AHEAD or error.msg.startswith(_UNTERMINATED)
        if near_end and not final:
            raise IncompleteError from None
        what = error.msg.removesuffix(" at")
        return Unreadable(f"not JSON: {what} at character {error.pos}", error.pos)
    except RecursionError:
        return Unreadable("not readable: nested too deeply", len(text))
    if not final and end > len(text) - _LOOK_AHEAD and not isinstance(value, dict | list | str):
        raise IncompleteError  # a number may go on
    return Value(value, end)


def to_row(value: Any) -> Row:
    """Return a JSON value as a row. Raises BadRowError where it is none."""
    if not isinstance(value, dict):
        raise BadRowError("not an object")
    strings = {name: _to_string(name, value.pop(name, None)) for name in STRING_COLUMNS}
    if strings["segmentId"] is None:
        raise BadRowError("no segmentId")
    integers = {name: _to_integer(name, value.pop(name, None)) for name in _RANGES}
    known = json.dumps({**strings, **integers}, ensure_ascii=False)
    if not value:
        return Row(known, repaired=False)
    try:
        extras = _to_json(value)
    except RecursionError:
        raise BadRowError("not readable: nested too deeply") from None
    whole = _HALF_PAIR.sub(_REPLACEMENT, extras)
    return Row(f"{known[:-1]},{whole[1:]}", repaired=whole != extras)


def _to_string(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise BadRowError(f"{name} is not a string")
    if _HALF_PAIR.search(value):
        raise BadRowError(f"{name} holds half a surrogate pair, which is no character")
    return value


def _to_integer(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if type(value) is int:
        number = value
    elif isinstance(value, _Number):
        number = _integral(name, value.text)
    elif isinstance(value, str) and _DIGITS.fullmatch(value):
        if len(value.lstrip("-0")) > _MOST_DIGITS:
            raise BadRowError(f"{name} is out of range")
        number = int(value)
    else:
        raise BadRowError(f"{name} is not an integer")
    least, most = _RANGES[name]
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


class _NotPlainError(Exception):
    """There is a number in it that json would not write as it was."""


def _not_plain(_: Any) -> NoReturn:
    raise _NotPlainError


def _to_json(fields: dict[str, Any]) -> str:
    """Return the fields as JSON, each number as it was written."""
    try:
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"), default=_not_plain)
    except _NotPlainError:
        return "".join(_tokens(fields))


def _tokens(value: Any) -> Iterator[str]:
    """Yield JSON with each number's own text."""
    match value:
        case _Number():
            yield value.text
        case dict():
            for index, (key, item) in enumerate(value.items()):
                yield "," if index else "{"
                yield json.dumps(key, ensure_ascii=False) + ":"
                yield from _tokens(item)
            yield "}" if value else "{}"
        case list():
            for index, item in enumerate(value):
                yield "," if index else "["
                yield from _tokens(item)
            yield "]" if value else "[]"
        case _ if value is _NOT_A_NUMBER:
            raise BadRowError("not JSON: NaN or Infinity")
        case _:
            yield json.dumps(value, ensure_ascii=False)
