"""What the objects of a text have in common, learnt from the first: all but the scalars' text.

An object is flattened to its leaves: scalars, and arrays or objects that are empty. Between two
leaves, however deep they lie, JSON has exactly one comma. So an object cut at its commas falls into
one column a leaf, each with the same text before and behind the value. Where a string holds commas,
the cuts are made at commas with the quote of a next key behind them.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from etl.decode.columns import is_unicode
from etl.schema import INTEGER_COLUMNS, STRING_COLUMNS, TIMESTAMP_COLUMNS

_HEAD_BYTES: Final = 2**16
_MOST_LEAVES: Final = 100
_KNOWN: Final = frozenset((*STRING_COLUMNS, *INTEGER_COLUMNS, *TIMESTAMP_COLUMNS))
_SPACE: Final = re.compile(r"[ \t\r\n]*")
# In a text that is JSON, these are its tokens.
_TOKEN: Final = re.compile(r'(?P<string>"(?:[^"\\]|\\.)*")|(?P<mark>[{}\[\]:,])|[^\s{}\[\]:,"]+')
_DELIMITER: Final = re.compile(r',[ \t\r\n]*"')
_EMPTY: Final = re.compile(r"\{[ \t\r\n]*\}|\[[ \t\r\n]*\]")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A column of a template: the exact text around its value, which may be a string's inside.

    `column` is the lake's, None where the value belongs to the extras. What is `constant` has no
    value: its whole text is `before`.
    """

    before: bytes
    after: bytes
    quoted: bool
    constant: bool
    column: str | None


@dataclass(frozen=True)
class Template:
    """The leaves of all objects that are alike, and what stands between two objects.

    `delimiter` stands between two leaves, and in no leaf. `extras` is the JSON of the undocumented
    fields: texts, and in their midst leaves by number. `junction` is the text from one object's
    last brace to the next one's first, None where there is only one object; `broken` says whether
    there are line ends inside objects.
    """

    leaves: tuple[Leaf, ...]
    delimiter: bytes
    extras: tuple[str | int, ...]
    junction: bytes | None
    broken: bool

    @cached_property
    def is_line(self) -> bool:
        """Whether each object stands on a line of its own, with nothing else on it."""
        between = self.junction[1:-1] if self.junction else b"\n"
        return not self.broken and b"\n" in between and not between.strip(b"\r\n")


def learn(text: bytes, begin: int = 0, separator: str = "") -> Template | None:
    """Return the template of the object at `begin` in a text; None if none can be learnt.

    `separator` stands between two objects, in white space: a comma in an array. Objects that no
    template is learnt from: those that do not end in the first 64 KiB, have no `segmentId`, a key
    twice or one that is no text, or a value that makes them bad rows.
    """
    head = text[begin : begin + _HEAD_BYTES].decode("utf-8", "ignore")
    try:
        value, end = _DECODER.raw_decode(head)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("segmentId") is None:
        return None
    extras: list[str | int] = []
    places = _flatten(head[:end], extras)
    cut = _cut(head[:end], places) if 1 < len(places) <= _MOST_LEAVES else None
    if cut is None:
        return None
    next_object = re.compile(rf"[ \t\r\n]*{separator}[ \t\r\n]*\{{").match(head, end)
    junction = None
    if next_object:
        junction = head[end - 1 : next_object.end()].encode()
    elif _SPACE.fullmatch(head, end) is None:
        return None
    broken = "\n" in head[:end] or "\r" in head[:end]
    leaves, delimiter = cut
    return Template(leaves, delimiter, tuple(_joined(extras)), junction, broken)


class _TwiceError(ValueError):
    """A key stands twice in one object."""


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) != len(found := dict(pairs)):
        raise _TwiceError
    return found


def _no_constant(_: str) -> Any:
    raise ValueError


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_each_once, parse_constant=_no_constant)


@dataclass(slots=True)
class _Place:
    """Where a leaf's value stands in the object's text, without a string's quotes."""

    start: int
    end: int
    quoted: bool
    constant: bool
    column: str | None


def _flatten(text: str, extras: list[str | int]) -> list[_Place]:
    """Return the leaves of an object and add to its extras; none where it does not fit."""
    places: list[_Place] = []
    for key, tokens in _members(text):
        if not is_unicode(key):
            return []
        if key not in _KNOWN:
            extras += ["," if extras else "{", json.dumps(key, ensure_ascii=False), ":"]
            extras += _undocumented(tokens, places)
        elif (place := _documented(tokens, key)) is not None:
            places.append(place)
        else:
            return []
    if extras:
        extras.append("}")
    return places


# A token's text and where it begins.
_Token = tuple[str, int]


def _members(text: str) -> Iterator[tuple[str, list[_Token]]]:
    """Yield an object's keys, each with its value's tokens; an empty array or object is one."""
    tokens = list(_tokens(text))[1:-1]
    at = 0
    while at < len(tokens):
        key = json.loads(tokens[at][0])
        at += 2  # the key and its colon
        begun, depth = at, 0
        while at < len(tokens) and (depth or tokens[at][0] != ","):
            depth += (tokens[at][0] in {"{", "["}) - (tokens[at][0] in {"}", "]"})
            at += 1
        yield key, tokens[begun:at]
        at += 1


def _tokens(text: str) -> Iterator[_Token]:
    position = 0
    while match := _TOKEN.search(text, position):
        empty = _EMPTY.match(text, match.start())
        position = empty.end() if empty else match.end()
        yield text[match.start() : position], match.start()


def _is_leaf(token: _Token) -> bool:
    return token[0] not in {"{", "}", "[", "]", ",", ":"}


def _documented(tokens: list[_Token], column: str) -> _Place | None:
    """Return the place of a column's value; None where it may be a bad row's."""
    token, *more = tokens
    place = _place(token, column)
    if more or token[0] in {"true", "false"} or _EMPTY.fullmatch(token[0]):
        return None
    if column in STRING_COLUMNS and not (place.quoted or place.constant):
        return None
    return place


def _undocumented(tokens: list[_Token], places: list[_Place]) -> Iterator[str | int]:
    """Yield the JSON of a value, its leaves by their numbers; they are added to `places`."""
    for token, behind in zip(tokens, [*tokens[1:], None], strict=True):
        if not _is_leaf(token) or (behind and behind[0] == ":"):
            yield token[0]
            continue
        place = _place(token, None)
        places.append(place)
        if place.constant:
            yield token[0]
        else:
            quote = '"' if place.quoted else ""
            yield from (quote, len(places) - 1, quote)


def _place(token: _Token, column: str | None) -> _Place:
    text, start = token
    end = start + len(text)
    if text.startswith('"'):
        return _Place(start + 1, end - 1, quoted=True, constant=False, column=column)
    # A number where others have null is told by its own text; null where others have a string is
    # another template.
    constant = bool(_EMPTY.fullmatch(text)) or (column in STRING_COLUMNS and text == "null")
    return _Place(start, end, quoted=False, constant=constant, column=column)


def _cut(text: str, places: list[_Place]) -> tuple[tuple[Leaf, ...], bytes] | None:
    """Cut an object between its leaves; None if what stands there stands elsewhere too."""
    delimiter = ","
    if text.count(delimiter) != len(places) - 1:
        behind = _DELIMITER.search(text, places[0].end)
        delimiter = behind[0] if behind else delimiter
    if text.count(delimiter) != len(places) - 1:
        return None
    leaves = []
    begin = 0
    for place, following in zip(places, [*places[1:], None], strict=True):
        end = len(text)
        if following is not None:
            end = text.find(delimiter, place.end, following.start)
            if end < 0:
                return None
        if place.constant:
            before, after = text[begin:end], ""
        else:
            before, after = text[begin : place.start], text[place.end : end]
        leaves.append(
            Leaf(before.encode(), after.encode(), place.quoted, place.constant, place.column)
        )
        begin = end + len(delimiter)
    return tuple(leaves), delimiter.encode()


def _joined(pieces: list[str | int]) -> list[str | int]:
    """Join texts that follow one another."""
    joined: list[str | int] = []
    for piece in pieces:
        if isinstance(piece, str) and joined and isinstance(joined[-1], str):
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined
