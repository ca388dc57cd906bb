"""The reader in Python, for values that the native scanner leaves: one at a time, by `json`.

It decides which values are bad rows, and why (operations.md, "Bad rows"); etl.decode.file adds
those that are too long or no UTF-8. It writes each row as one line of JSON that the scanner can
read, so only the scanner fills columns.
"""

import json
import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from etl.model.dataset import (
    INTEGER_COLUMNS,
    STRING_COLUMNS,
    TIMESTAMP_COLUMNS,
    TIMESTAMP_MAX_MS,
    TIMESTAMP_MIN_MS,
)

# More text can remove an error this close to the end of the text: json looks ahead at most as far
# as a pair of \uXXXX escapes is long.
_LOOK_AHEAD: Final = 16
_UNTERMINATED: Final = "Unterminated string"
_DIGITS: Final = re.compile(r"-?[0-9]+", re.ASCII)
_HALF_PAIR: Final = re.compile("[\ud800-\udfff]")
_REPLACEMENT: Final = "\ufffd"
_STRING_OR_NAN: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|NaN')
_RANGES: Final = {
    **dict.fromkeys(INTEGER_COLUMNS, (-(2**63), 2**63 - 1)),
    **dict.fromkeys(TIMESTAMP_COLUMNS, (TIMESTAMP_MIN_MS, TIMESTAMP_MAX_MS)),
}
# An int64 has at most this many digits. Without this limit a number with an exponent, which has few
# characters, could take very long to convert.
_MOST_DIGITS: Final = 19
_TOO_DEEP: Final = "not readable: nested too deeply"


class BadRowError(Exception):
    """A value that is not a row; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Found:
    """The JSON value at the start of a text; `reason` says why there is none, else it is empty.

    The value ends at `end`; without a value, `end` is about where reading stopped.
    """

    end: int
    value: Any = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Number:
    """A JSON number with a point, an exponent or very many digits, exactly as written."""

    text: str


# NaN and the infinities: some writers write them, but they are not JSON.
_NOT_A_NUMBER: Final = object()


def _integer(digits: str) -> int | _Number:
    return int(digits) if len(digits) < 1000 else _Number(digits)


def _decoder(**hooks: Any) -> json.JSONDecoder:
    return json.JSONDecoder(parse_float=_Number, parse_constant=lambda _: _NOT_A_NUMBER, **hooks)


_scan: Final = _decoder().raw_decode
# Python refuses to convert more than 4300 digits; a hook for each integer costs time.
_scan_long_integers: Final = _decoder(parse_int=_integer).raw_decode


def read_value(text: str, *, final: bool) -> Found | None:
    """Return the JSON value at the start of a text.

    Return None if that depends on what follows the text, unless the text is `final`.
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
            return None
        what = error.msg.removesuffix(" at")
        return Found(error.pos, reason=f"not JSON: {what} at character {error.pos}")
    except RecursionError:
        return Found(len(text), reason=_TOO_DEEP)
    if not final and end > len(text) - _LOOK_AHEAD and not isinstance(value, dict | list | str):
        return None  # a number may continue
    return Found(end, value)


def to_row(value: Any) -> tuple[str, bool]:
    """Return a JSON value as a row: a JSON object on one line, without duplicate keys.

    Also return whether half a surrogate pair in an unknown field was replaced by U+FFFD. Raises
    BadRowError if the value is not a row.
    """
    if not isinstance(value, dict):
        raise BadRowError("not an object")
    strings = {name: _to_string(name, value.pop(name, None)) for name in STRING_COLUMNS}
    if strings["segmentId"] is None:
        raise BadRowError("no segmentId")
    integers = {name: _to_integer(name, value.pop(name, None)) for name in _RANGES}
    known = json.dumps({**strings, **integers}, ensure_ascii=False)
    if not value:
        return known, False
    try:
        extras = _to_json(value)
    except RecursionError:
        raise BadRowError(_TOO_DEEP) from None
    repaired = _HALF_PAIR.sub(_REPLACEMENT, extras)
    return f"{known[:-1]},{repaired[1:]}", repaired != extras


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
    """Return a number without a fraction: by its digits, as a float would round it."""
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
    numbers: list[str] = []

    def hold_place(value: Any) -> float:
        if value is _NOT_A_NUMBER:
            raise BadRowError("not JSON: NaN or Infinity")
        numbers.append(value.text)
        return math.nan

    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"), default=hold_place)
    if not numbers:
        return text
    number = iter(numbers)
    return _STRING_OR_NAN.sub(lambda found: next(number) if found[0] == "NaN" else found[0], text)
