"""The fast path: lines that a machine wrote by one template, split by pyarrow, proven row by row.

A template is learnt from a block's first line: the same keys in the same order, with the same
spaces. The block is cut at commas and line ends by pyarrow's CSV reader, without regard to quotes;
then the proof, over whole columns at once:

1. every column begins with its key's exact text, ends with its exact closing text, and is long
   enough for both;
2. the block holds no backslash, no control character but line ends, only valid UTF-8, and exactly
   as many quotes as the template has, times the rows.

By 1 each row holds all of the template's quotes, by 2 no other: no value hides a comma, a quote
or an escape, no field is missing or unknown. An integer is taken if writing it again gives the same
text. So what is cut out is what a JSON parser would give. A block that fails goes to the patient
path, alone.
"""

import io
import re
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from etl.schema import (
    INTEGER_COLUMNS,
    SCHEMA,
    STRING_COLUMNS,
    TIMESTAMP_COLUMNS,
    TIMESTAMP_MAX_MS,
    TIMESTAMP_MIN_MS,
)

_FIELD: Final = re.compile(
    r'(?P<open> *\{)? *"(?P<key>[^"\\]*)" *: *(?:"(?P<string>[^"\\]*)"|(?P<integer>-?[0-9]+))'
    r"(?P<close> *\} *)?"
)
_FIRST_LINE_MAX_BYTES: Final = 2**16
_SPACE: Final = 0x20
_QUOTE: Final = 0x22


@dataclass(frozen=True, slots=True)
class _Field:
    """A column of a template: the exact text around its value."""

    key: str
    before: str
    after: str
    quoted: bool


@dataclass(frozen=True, slots=True)
class Template:
    """What all lines of a block have in common."""

    fields: tuple[_Field, ...]
    quotes: int

    @classmethod
    def learn(cls, block: bytes) -> "Template | None":
        """Return the template of a block's first line; None if it is none of the fast path's."""
        end = block.find(b"\n", 0, _FIRST_LINE_MAX_BYTES)
        try:
            line = block[: max(end, 0)].decode().removeprefix("\ufeff").removesuffix("\r")
        except UnicodeDecodeError:
            return None
        columns = line.split(",")
        fields = [_field(column) for column in columns]
        opened = [bool(field and field[1]) for field in fields]
        closed = [bool(field and field[2]) for field in fields]
        last = len(columns) - 1
        keys = {field[0].key for field in fields if field}
        if (
            last < 1
            or len(keys) != len(columns)
            or opened != [index == 0 for index in range(len(columns))]
            or closed != [index == last for index in range(len(columns))]
            or "segmentId" not in keys
        ):
            return None
        return cls(tuple(field[0] for field in fields if field), line.count('"'))

    def read(self, block: bytes, source_path: str) -> pa.RecordBatch | None:
        """Return the rows of a block of whole lines; None if they do not fit the template."""
        if b"\\" in block:
            return None
        try:
            columns = self._split(block)
            if columns is None or not self._fits(block, columns):
                return None
            return self._batch(columns, source_path)
        except pa.ArrowInvalid:
            return None  # columns missing, invalid UTF-8 or no integer

    def _split(self, block: bytes) -> list[Any] | None:
        names = [str(index) for index in range(len(self.fields))]
        table = csv.read_csv(
            io.BytesIO(block),
            read_options=csv.ReadOptions(
                use_threads=False, column_names=names, block_size=len(block) + 1
            ),
            parse_options=csv.ParseOptions(quote_char=False, escape_char=False),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
        return [column.combine_chunks() for column in table.itercolumns()]

    def _fits(self, block: bytes, columns: list[Any]) -> bool:
        for field, column in zip(self.fields, columns, strict=True):
            shortest = len(field.before.encode()) + len(field.after.encode())
            if not (
                _all(pc.starts_with(column, field.before))
                and _all(pc.ends_with(column, field.after))
                and _all(
                    pc.greater_equal(pc.binary_length(column), pa.scalar(shortest, pa.int32()))
                )
            ):
                return False
        count = _Counter(block)
        line_ends = block.count(b"\n") + block.count(b"\r")
        return (
            count.equal(_QUOTE) == self.quotes * len(columns[0]) and count.less(_SPACE) == line_ends
        )

    def _batch(self, columns: list[Any], source_path: str) -> pa.RecordBatch | None:
        rows = len(columns[0])
        values: dict[str, Any] = {}
        extras: list[Any] = []
        for field, column in zip(self.fields, columns, strict=True):
            text = _between(column, field)
            if field.key in STRING_COLUMNS:
                if not field.quoted:
                    return None
                values[field.key] = text
            elif field.key in INTEGER_COLUMNS:
                values[field.key] = _integers(text)
            elif field.key in TIMESTAMP_COLUMNS:
                values[field.key] = _timestamps(text)
            else:
                if not field.quoted:
                    _integers(text)  # proves that the text is a JSON integer
                quote = '"' if field.quoted else ""
                extras += [f'{"," if extras else "{"}"{field.key}":{quote}', text, quote]
        if extras:
            values["extras"] = pc.binary_join_element_wise(*extras, "}", "")
        values["sourcePath"] = pa.repeat(pa.scalar(source_path), rows)
        arrays = [
            values[field.name] if field.name in values else pa.nulls(rows, field.type)
            for field in SCHEMA
        ]
        return pa.record_batch(arrays, schema=SCHEMA)


def _field(column: str) -> tuple[_Field, bool, bool] | None:
    match = _FIELD.fullmatch(column)
    if match is None:
        return None
    quoted = match["string"] is not None
    start, end = match.span("string" if quoted else "integer")
    field = _Field(match["key"], column[:start], column[end:], quoted)
    return field, match["open"] is not None, match["close"] is not None


class _Counter:
    """Counts bytes of a block by their value, many at once."""

    def __init__(self, block: bytes) -> None:
        buffers: Any = [None, pa.py_buffer(block)]
        self._bytes: Any = pa.Array.from_buffers(pa.uint8(), len(block), buffers)

    def equal(self, value: int) -> int:
        return _true(pc.equal(self._bytes, pa.scalar(value, pa.uint8())))

    def less(self, value: int) -> int:
        return _true(pc.less(self._bytes, pa.scalar(value, pa.uint8())))


def _true(flags: Any) -> int:
    return int(pc.sum(flags).as_py() or 0)


def _all(flags: Any) -> bool:
    return _true(flags) == len(flags)


def _between(column: Any, field: _Field) -> Any:
    """Cut a field's own text off."""
    text = pc.binary_replace_slice(column, 0, len(field.before.encode()), "")
    if field.after:
        text = pc.binary_replace_slice(text, -len(field.after), 2**31 - 1, "")
    return text


def _integers(text: Any) -> Any:
    """Return int64s; ArrowInvalid where one is not written as JSON writes an integer."""
    integers = pc.cast(text, pa.int64())
    if not _all(pc.equal(pc.cast(integers, pa.string()), text)):
        raise pa.ArrowInvalid("another way to write an integer")
    return integers


def _timestamps(text: Any) -> Any:
    integers = _integers(text)
    span: Any = pc.min_max(integers).as_py()
    if span["min"] < TIMESTAMP_MIN_MS or span["max"] > TIMESTAMP_MAX_MS:
        raise pa.ArrowInvalid("out of range")
    return integers.cast(pa.timestamp("ms", tz="UTC"))
