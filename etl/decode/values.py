"""Text → JSON values, one after another, and what stands between them that is none.

Where text cannot be read, reading goes on at the next line (README, "Bad rows").
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

# An error this close to the end of what was read so far may vanish when more is read: the
# longest that the scanner looks ahead is a pair of \uXXXX escapes.
_LOOK_AHEAD: Final = 16
_UNTERMINATED: Final = "Unterminated string"
_SPACE: Final = re.compile(r"[^ \t\r\n]|\Z")
# A byte-order mark may stand in front of any row: files made by concatenation hold several.
_SPACE_OR_BOM: Final = re.compile(r"[^ \t\r\n\ufeff]|\Z")


@dataclass(frozen=True, slots=True)
class Number:
    """A JSON number with a point or an exponent, or of very many digits: its text, exactly."""

    text: str


class _NotANumber:
    """NaN and the infinities, which some writers write and JSON does not know."""


NOT_A_NUMBER: Final = _NotANumber()


@dataclass(frozen=True, slots=True)
class Value:
    """A JSON value and where in the text it stood."""

    value: Any
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A stretch of text that is no JSON, to the end of its line, and why."""

    reason: str
    start: int
    end: int


class IncompleteError(Exception):
    """The text ends before it is clear what stands at `position`; read on and try again there."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class NotAnArrayError(Exception):
    """A text that begins like an array is not one from its begin to its end."""


def _integer(digits: str) -> int | Number:
    return int(digits) if len(digits) < 1000 else Number(digits)


def _decoder(**hooks: Any) -> json.JSONDecoder:
    return json.JSONDecoder(parse_float=Number, parse_constant=lambda _: NOT_A_NUMBER, **hooks)


_scan: Final = _decoder().raw_decode
# Python refuses to convert more than 4300 digits; a hook for each integer costs time.
_scan_long_integers: Final = _decoder(parse_int=_integer).raw_decode


def _value_at(text: str, start: int, *, final: bool) -> Value | str:
    """Return the value that begins at `start`, or the reason why there is none.

    Raises IncompleteError where that depends on text that was not read yet.
    """
    try:
        try:
            value, end = _scan(text, start)
        except json.JSONDecodeError:
            raise
        except ValueError:
            value, end = _scan_long_integers(text, start)
    except json.JSONDecodeError as error:
        near_end = error.pos >= len(text) - _LOOK_AHEAD or error.msg.startswith(_UNTERMINATED)
        if near_end and not final:
            raise IncompleteError(start) from None
        what = error.msg.removesuffix(" at")
        return f"not JSON: {what} at character {error.pos - start}"
    except RecursionError:
        return "not readable: nested too deeply"
    if not final and end > len(text) - _LOOK_AHEAD and not isinstance(value, dict | list | str):
        raise IncompleteError(start)  # a number may go on
    return Value(value, start, end)


def read_lines(text: str, *, final: bool) -> Iterator[Value | Unreadable]:
    """Yield the values that stand one after another, and the lines that are unreadable.

    Raises IncompleteError where the text ends in the middle of one and is not the `final` one.
    """
    position = _skip(_SPACE_OR_BOM, text, 0)
    while position < len(text):
        found = _value_at(text, position, final=final)
        if isinstance(found, Value):
            yield found
            end = found.end
        else:
            end = text.find("\n", position)
            if end < 0:
                if not final:
                    raise IncompleteError(position)
                end = len(text)
            yield Unreadable(found, position, end)
        position = _skip(_SPACE_OR_BOM, text, end)


class ArrayReader:
    """Reads the elements of an array that is a file's whole text, piece by piece of the text."""

    def __init__(self) -> None:
        self._expected = "["  # "," behind an element, "" behind the end

    @property
    def is_open(self) -> bool:
        """Whether its end is still to come."""
        return bool(self._expected)

    def begin_of_element(self, text: bytes) -> int:
        """Return where the next element begins, if one does; `text` begins as in `read`."""
        mark = re.compile(rb"[ \t\r\n]*" + re.escape(self._expected.encode()) + rb"[ \t\r\n]*")
        match = mark.match(text)
        return match.end() if match and self._expected else len(text)

    def went_on(self) -> None:
        """Elements were read elsewhere; the text goes on behind the last of them."""
        self._expected = ","

    def read(self, text: str, *, final: bool) -> Iterator[Value]:
        """Yield the elements that are whole in `text`, which begins where the last one ended.

        Raises IncompleteError where the array goes on behind `text`, and NotAnArrayError where it
        is broken or something stands behind it.
        """
        position = 0
        while self._expected:
            try:
                found = self._next(text, position, final=final)
            except IncompleteError:
                raise IncompleteError(position) from None
            if isinstance(found, Value):
                yield found
                position = found.end
            else:
                position = found
        if _skip(_SPACE, text, position) < len(text):
            raise NotAnArrayError
        if not final:
            raise IncompleteError(len(text))

    def _next(self, text: str, position: int, *, final: bool) -> Value | int:
        """Return the next element, or the place behind the array's end."""
        at = _next_mark(text, position, final=final)
        if text[at] == "]" and self._expected == ",":
            self._expected = ""
            return at + 1
        if text[at] != self._expected:
            raise NotAnArrayError
        at = _next_mark(text, at + 1, final=final)
        if text[at] == "]" and self._expected == "[":
            self._expected = ""
            return at + 1
        found = _value_at(text, at, final=final)
        if isinstance(found, str):
            raise NotAnArrayError
        self._expected = ","
        return found


def _next_mark(text: str, position: int, *, final: bool) -> int:
    """Return where white space ends, which must not be the end of the text."""
    at = _skip(_SPACE, text, position)
    if at == len(text):
        if final:
            raise NotAnArrayError
        raise IncompleteError(position)
    return at


def _skip(space: re.Pattern[str], text: str, position: int) -> int:
    """Return where the white space from `position` on ends."""
    match = space.search(text, position)
    return match.start() if match else len(text)
