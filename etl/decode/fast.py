"""The fast path: objects that a machine wrote by one template, split by pyarrow, proven row by row.

A template is learnt from the first object of a text (etl.decode.template). The text is cut into
objects and at commas by pyarrow's CSV reader, without regard to quotes. Then the proof, column by
column, each at once:

1. every text begins with the template's text before the value and ends with that behind it;
2. every value is one JSON scalar: a string's inside without a quote or a control character and with
   whole escapes only, an integer in its columns, a number, true, false or null elsewhere.

So each row, put together again, is an object that a JSON parser reads just so: nothing is missing
or unknown, no value hides a comma, a quote or an escape. Where one row fails, all of them are read
otherwise: see etl.decode.parsed.
"""

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute
from pyarrow import csv

from etl.decode.template import Leaf, Template
from etl.schema import (
    DECODED_SCHEMA,
    INTEGER_COLUMNS,
    TIMESTAMP,
    TIMESTAMP_COLUMNS,
    TIMESTAMP_MAX_MS,
    TIMESTAMP_MIN_MS,
)

# Its stubs do not know which types follow from which.
pc: Any = pyarrow.compute

# What stands for line ends inside objects, while lines are objects: these never stand in JSON.
_NEWLINE: Final = b"\x1e"
_RETURN: Final = b"\x1d"
_RECORD: Final = b"\x1c"
# For the CSV reader, whose delimiter is one character.
_UNIT_SEPARATOR: Final = b"\x1f"
_SPACE: Final = 0x20
_DIGITS: Final = (ord("0"), ord("9"))
# For the kernel, which has no "to the end".
_FAR: Final = 2**31 - 1
# Larger than any text: it is read as one block.
_CSV_BLOCK_BYTES: Final = 2**30

_STRING: Final = r'^(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9A-Fa-f]{4})*$'
# At most 18 digits: with more, whether it is an int64 is the patient path's to say.
_INTEGER: Final = r"^-?(?:0|[1-9][0-9]{0,17})$"
_QUOTED_INTEGER: Final = r"^-?[0-9]{1,18}$"
_INTEGRAL: Final = r"^(-?(?:0|[1-9][0-9]{0,17}))\.0+$"
_SCALAR: Final = r"^(?:-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null)$"


# Looked up once, and called with options that are made once a template: what a block costs beside
# its bytes went from 0.7 to 0.5 ms.
_STARTS_WITH: Final = pc.get_function("starts_with")
_ENDS_WITH: Final = pc.get_function("ends_with")
_REPLACE_SLICE: Final = pc.get_function("binary_replace_slice")
_MIN_MAX: Final = pc.get_function("min_max")
_EQUAL: Final = pc.get_function("equal")
_CAST: Final = pc.get_function("cast")
_QUOTE: Final = pa.scalar(ord('"'), pa.uint8())
_TO_INT64: Final = pc.CastOptions.safe(pa.int64())
_ZERO: Final = pc.MatchSubstringOptions("0")


class _MisfitError(Exception):
    """A text that does not fit the template."""


@dataclass(frozen=True, slots=True)
class Objects:
    """A text of objects, one a line; line ends inside them are hidden if they are `broken`.

    `between` stands between two of them in the text as it was.
    """

    text: bytes
    template: Template
    between: bytes
    broken: bool

    def lines(self) -> list[bytes]:
        """Return each object as it stood in the text."""
        if not self.broken:
            return self.text.split(b"\n")
        if _RECORD not in self.text:
            return _shown(self.text.replace(b"\n", _RECORD)).split(_RECORD)
        return list(map(_shown, self.text.split(b"\n")))


def as_lines(text: bytes, template: Template) -> Objects | None:
    """Put each object on a line of its own; None where a text cannot be put so.

    `text` begins with an object's first brace and must end behind an object's last one; if the
    template is that of lines, blank ones may stand among them.
    """
    if template.is_line:
        return Objects(text, template, b"\n", broken=False)
    junction = template.junction
    if junction is None or not text.endswith(b"}") or _NEWLINE in text or _RETURN in text:
        return None
    lines = _hidden(text).replace(_hidden(junction), b"}\n{")
    return Objects(lines, _hidden_in(template), junction[1:-1], broken=True)


def _hidden(text: bytes) -> bytes:
    return text.replace(b"\n", _NEWLINE).replace(b"\r", _RETURN)


def _shown(text: bytes) -> bytes:
    return text.replace(_NEWLINE, b"\n").replace(_RETURN, b"\r")


def _hidden_in(template: Template) -> Template:
    leaves = tuple(
        replace(leaf, before=_hidden(leaf.before), after=_hidden(leaf.after))
        for leaf in template.leaves
    )
    return replace(template, leaves=leaves, delimiter=_hidden(template.delimiter))


def read(lines: bytes, template: Template) -> pa.RecordBatch | None:
    """Return the rows of lines that are objects; None if one of them does not fit the template."""
    try:
        return _Reader(template).read(lines)
    except _MisfitError:
        return None


class _Reader:
    def __init__(self, template: Template) -> None:
        self._template = template

    def read(self, lines: bytes) -> pa.RecordBatch:
        """Read the lines. Raises _MisfitError."""
        escapes = b"\\" in lines
        columns = self._split(lines)
        rows = len(columns[0])
        texts: list[Any] = []
        values: dict[str, Any] = {}
        columns.reverse()
        # Column by column, each to its end and then let go of: it stays in the processor's cache.
        for leaf in self._template.leaves:
            text = self._to_text(leaf, self._between(leaf, columns.pop()))
            texts.append(text if leaf.column is None else None)
            if leaf.constant:
                continue
            if leaf.column in INTEGER_COLUMNS or leaf.column in TIMESTAMP_COLUMNS:
                values[leaf.column] = self._integers(text, leaf)
            elif leaf.quoted:
                self._check_strings(text, escapes=escapes)
                if leaf.column is not None:
                    values[leaf.column] = self._unescaped(text) if escapes else text
            else:
                self._check_scalars(text)
        if self._template.extras:
            values["extras"] = self._extras(texts, rows)
        arrays = [
            values[field.name] if field.name in values else pa.nulls(rows, field.type)
            for field in DECODED_SCHEMA
        ]
        return pa.record_batch(arrays, schema=DECODED_SCHEMA)

    def _split(self, lines: bytes) -> list[Any]:
        delimiter = self._template.delimiter
        if delimiter != b",":
            if _UNIT_SEPARATOR in lines:
                raise _MisfitError
            lines, delimiter = lines.replace(delimiter, _UNIT_SEPARATOR), _UNIT_SEPARATOR
        options = _csv_options(len(self._template.leaves), delimiter.decode())
        try:
            # Streamed, though it is one block: read_csv begins a thread for each call.
            table = csv.open_csv(pa.BufferReader(lines), *options).read_all()  # type: ignore[arg-type]  # a file of Arrow's own
        except pa.ArrowInvalid:  # columns are missing
            raise _MisfitError from None
        return [
            column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
            for column in table.itercolumns()
        ]

    def _between(self, leaf: Leaf, column: Any) -> Any:
        """Cut the template's own text off, where it stands."""
        if leaf.constant:
            _require(pc.equal(column, pa.scalar(leaf.before, pa.binary())))
            return column
        cut = _cut_of(leaf)
        _require(_STARTS_WITH.call([column], cut.before))
        value = _REPLACE_SLICE.call([column], cut.off_before)
        if leaf.after:
            # Behind the text before it, so that the two cannot share a quote.
            _require(_ENDS_WITH.call([value], cut.after))
            value = _REPLACE_SLICE.call([value], cut.off_after)
        return value

    def _to_text(self, leaf: Leaf, value: Any) -> Any:
        """Return values as text; of those that are not strings only ASCII will be let through."""
        if not leaf.quoted:
            _, offsets, data = value.buffers()
            return pa.Array.from_buffers(pa.string(), len(value), [None, offsets, data])
        try:
            return value.cast(pa.string())
        except pa.ArrowInvalid:  # invalid UTF-8
            raise _MisfitError from None

    def _check_strings(self, text: Any, *, escapes: bool) -> None:
        if not escapes:
            least, _ = _span_of(characters := _bytes_of(text))
            if least is None or (
                least >= _SPACE and not _EQUAL.call([characters, _QUOTE]).true_count
            ):
                return
        _require(pc.match_substring_regex(text, _STRING))

    def _unescaped(self, text: Any) -> Any:
        """Return strings as JSON means them; few of them are different."""
        if not pc.match_substring(text, "\\").true_count:
            return text
        encoded = text.dictionary_encode()
        strings = [_meant(string) for string in encoded.dictionary.to_pylist()]
        meant = pa.array(strings, pa.string()).take(encoded.indices)
        _require(pc.is_valid(meant))
        return meant

    def _check_scalars(self, text: Any) -> None:
        if _plain_integers(text) is None:
            _require(pc.match_substring_regex(text, _SCALAR))

    def _integers(self, text: Any, leaf: Leaf) -> Any:
        integers = _plain_integers(text)
        if integers is None:
            integers = self._to_int64(text, quoted=leaf.quoted)
        if leaf.column not in TIMESTAMP_COLUMNS:
            return integers
        least, most = _span_of(integers)
        if least is not None and not TIMESTAMP_MIN_MS <= least <= most <= TIMESTAMP_MAX_MS:
            raise _MisfitError
        return integers.view(TIMESTAMP)

    def _to_int64(self, text: Any, *, quoted: bool) -> Any:
        if not quoted:
            text = pc.replace_substring_regex(text, _INTEGRAL, r"\1")
        integral = pc.match_substring_regex(text, _QUOTED_INTEGER if quoted else _INTEGER)
        _require(integral if quoted else pc.or_(integral, pc.equal(text, "null")))
        return pc.cast(pc.if_else(integral, text, None), pa.int64())

    def _extras(self, texts: list[Any], rows: int) -> Any:
        pieces = [
            piece if isinstance(piece, str) else texts[piece] for piece in self._template.extras
        ]
        if len(pieces) == 1:
            return pa.repeat(pa.scalar(pieces[0]), rows)
        return pc.binary_join_element_wise(*pieces, "")


def _require(flags: Any) -> None:
    """Go no further where this is not so for every row."""
    if flags.true_count != len(flags):
        raise _MisfitError


def _meant(inside: str) -> str | None:
    """Return what a JSON string means by its inside; None where that is no text."""
    try:
        string = str(json.loads(f'"{inside}"'))
        string.encode()
    except (ValueError, UnicodeEncodeError):
        return None
    return string


def _bytes_of(text: Any) -> Any:
    """Return all characters of all texts as one array of bytes, without a copy."""
    _, offsets, data = text.buffers()
    ends = memoryview(offsets).cast("i")
    begin, end = ends[text.offset], ends[text.offset + len(text)]
    return pa.Array.from_buffers(pa.uint8(), end - begin, [None, data], offset=begin)


def _span_of(array: Any) -> tuple[Any, Any]:
    """Return the least and the greatest value; None where there is none."""
    span = _MIN_MAX.call([array])
    return span["min"].as_py(), span["max"].as_py()


def _plain_integers(text: Any) -> Any:
    """Return the integers if every text is digits alone, none of them a leading zero; else None."""
    least, most = _span_of(characters := _bytes_of(text))
    if least is None or not _DIGITS[0] <= least <= most <= _DIGITS[1]:
        return None
    try:
        integers = _CAST.call([text], _TO_INT64)
    except pa.ArrowInvalid:  # out of range, or nothing at all
        return None
    least, most = _span_of(integers)
    if len(str(least)) == len(str(most)) == len(characters) / len(text):
        return integers  # so no text is longer than its number
    zeros = _STARTS_WITH.call([text], _ZERO)
    if zeros.true_count and pc.max(pc.binary_length(pc.filter(text, zeros))).as_py() != 1:
        return None
    return integers


@dataclass(frozen=True, slots=True)
class _Cut:
    """What is asked of Arrow for a leaf: to find its text before and after a value, and cut it."""

    before: Any
    off_before: Any
    after: Any
    off_after: Any


@lru_cache(maxsize=256)
def _cut_of(leaf: Leaf) -> _Cut:
    return _Cut(
        pc.MatchSubstringOptions(leaf.before),
        pc.ReplaceSliceOptions(0, len(leaf.before), b""),
        pc.MatchSubstringOptions(leaf.after),
        pc.ReplaceSliceOptions(-len(leaf.after), _FAR, b""),
    )


@lru_cache(maxsize=256)
def _csv_options(
    columns: int, delimiter: str
) -> tuple[csv.ReadOptions, csv.ParseOptions, csv.ConvertOptions]:
    names = [str(index) for index in range(columns)]
    return (
        csv.ReadOptions(use_threads=False, column_names=names, block_size=_CSV_BLOCK_BYTES),
        csv.ParseOptions(delimiter=delimiter, quote_char=False, escape_char=False),
        csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.binary()), strings_can_be_null=False
        ),
    )
