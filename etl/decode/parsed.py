"""Objects of whatever shape, parsed by msgspec, then turned into columns all at once.

For texts of which no two objects need be alike. What msgspec takes for an object is one to Python's
json too, with the same members in the same order; of two that have one key both take the last. A
number with a point or an exponent stays the text that it was. What msgspec refuses, or what does
not fit its column, is left: half a surrogate pair and integers of thousands of digits are JSON all
the same, and why a row is bad is the patient path's to say.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute

from etl.decode.columns import RANGES, BadRowError, to_integer, to_string
from etl.decode.values import Number
from etl.schema import DECODED_SCHEMA, TIMESTAMP, TIMESTAMP_COLUMNS

# Its stubs do not know which types follow from which.
pc: Any = pyarrow.compute

_Object = dict[str, Any]
# A number as Raw is written as it stood.
_read_object: Final = msgspec.json.Decoder(_Object, float_hook=msgspec.Raw).decode
_write_lines: Final = msgspec.json.Encoder().encode_lines
#: What is raised for a text that is not what it was taken for.
REFUSALS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
# So few objects stay in the processor's cache: all of a block's take a sixth more time.
_AT_ONCE: Final = 500
_NEXT_OBJECT: Final = re.compile(rb"\}[ \t\r\n]*\{")
_NEXT_ELEMENT: Final = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*\{")
_STRUCTURE: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]]', re.DOTALL)
# How far from a block's end what ends there is looked for; a little is nearly always enough.
_TAILS_BYTES: Final = (2**12, 2**16)
_DIGITS: Final = r"^-?[0-9]{1,18}$"


#: A value's text.
Text = bytes | msgspec.Raw


@dataclass(frozen=True, slots=True)
class Readers:
    """What reads a text of values of one kind, one after another or in an array."""

    of_lines: Callable[[bytes], list[Any]]
    of_array: Callable[[bytes], list[Any]]

    @classmethod
    def of(cls, kind: Any) -> "Readers":
        """Make them. A number with a point stays the text that it was."""
        return cls(
            msgspec.json.Decoder(kind, float_hook=msgspec.Raw).decode_lines,
            msgspec.json.Decoder(list[kind], float_hook=msgspec.Raw).decode,
        )

    def read(self, text: bytes, *, array: bool) -> list[Any]:
        """Return the values; of an `array`, what stands in it. Raises what is in REFUSALS."""
        return self.of_array(b"[%b]" % text) if array else self.of_lines(text)


_TEXTS: Final = Readers.of(msgspec.Raw)


def end_of_objects(block: bytes, begin: int) -> int:
    """Return where the last object ends that another follows; `begin` if that is nowhere."""
    marks = list(_NEXT_OBJECT.finditer(block, max(begin, len(block) - _TAILS_BYTES[-1])))
    return marks[-1].start() + 1 if marks else begin


def ends_of_elements(block: bytes, begin: int) -> Iterator[int]:
    """Yield where the elements of an array that stand at `begin` may end, but for the last."""
    for tail in _TAILS_BYTES:
        if end := _end_of_elements(block, max(begin, len(block) - tail)):
            yield end


def split(text: bytes, *, array: bool = False) -> Sequence[Text]:
    """Return the values that stand in a text, or in an `array`; none where it is not JSON."""
    try:
        return _TEXTS.read(text, array=array)
    except REFUSALS:
        return []


def _end_of_elements(block: bytes, begin: int) -> int:
    """Return where the last object ends that another follows, on the level of the array; or 0.

    That is the outermost level behind `begin`, if what looks like two objects there is not within
    a string. Whether it is right is told by what stands in front of it being whole.
    """
    end = depth = least = 0
    first = _NEXT_ELEMENT.search(block, begin)
    for match in _STRUCTURE.finditer(block, first.start()) if first else ():
        if match[0] in (b"{", b"["):
            depth += 1
        elif match[0] in (b"}", b"]"):
            depth -= 1
            if depth <= least and _NEXT_ELEMENT.match(block, match.start()):
                least, end = depth, match.end()
    return end


@dataclass(frozen=True, slots=True)
class Parsed:
    """The rows of the texts that have these `numbers`, and the texts that are left, in order."""

    batch: pa.RecordBatch
    numbers: Sequence[int]
    left: Sequence[int]


def read_objects(texts: Sequence[Text]) -> Parsed | None:
    """Return the rows of texts that are an object each; None if more than half of them are not.

    A text of white space is neither a row nor left.
    """
    values: dict[str, list[Any]] = {name: [] for name in DECODED_SCHEMA.names[:-1]}
    extras: list[bytes] = []
    odd: set[int] = set()
    for first in range(0, len(texts), _AT_ONCE):
        objects, refused = _parse(texts[first : first + _AT_ONCE])
        odd.update(first + position for position in refused)
        if 2 * len(odd) > first + _AT_ONCE:
            return None
        for name, column in values.items():
            column.extend(map(dict.pop, objects, repeat(name), repeat(None)))
        try:
            extras.append(_write_lines(objects))
        except RecursionError:  # what is read may be too deep to be written
            return None
    # A line each: no line ends stand in JSON that msgspec writes.
    rests = pc.split_pattern(pa.array([b"".join(extras)], pa.string()), "\n").values[:-1]
    batch, misfits = to_rows(values, pc.if_else(pc.equal(rests, "{}"), None, rests))
    numbers = [number for number in range(len(texts)) if number not in odd]
    if misfits:
        odd.update(numbers[position] for position in misfits)
        numbers = [number for number in numbers if number not in odd]
    left = [number for number in sorted(odd) if bytes(texts[number]).strip(b" \t\r\n")]
    return None if 2 * len(left) > len(texts) else Parsed(batch, numbers, left)


def _parse(texts: Iterable[Text]) -> tuple[list[_Object], list[int]]:
    """Return the objects that texts are, and the positions of the texts that are none."""
    objects: list[_Object] = []
    refused: list[int] = []
    remaining = iter(texts)
    while True:
        try:
            # What was read before a text that is refused stays; it goes on behind that one.
            objects.extend(map(_read_object, remaining))
        except REFUSALS:
            refused.append(len(objects) + len(refused))
        else:
            return objects, refused


def to_rows(values: Mapping[str, Sequence[Any]], extras: Any) -> tuple[pa.RecordBatch, set[int]]:
    """Return the rows of each column's values, and the positions of what is none, left out."""
    columns = _Columns()
    arrays = [
        columns.integers(name, column) if name in RANGES else columns.strings(name, column)
        for name, column in values.items()
    ]
    batch = pa.record_batch([*arrays, extras], schema=DECODED_SCHEMA)
    if columns.misfits:
        fit = [position not in columns.misfits for position in range(batch.num_rows)]
        batch = batch.filter(pa.array(fit))
    return batch, columns.misfits


class _Columns:
    """Values on their way into columns, and the positions of those that do not fit."""

    def __init__(self) -> None:
        self.misfits: set[int] = set()

    def strings(self, name: str, values: Sequence[Any]) -> Any:
        try:
            array = pa.array(values, pa.string())
        except pa.ArrowException:
            array = pa.array(self._each(to_string, name, values), pa.string())
        if name == "segmentId" and array.null_count:
            self.misfits.update(n for n, value in enumerate(array.to_pylist()) if value is None)
        return array

    def integers(self, name: str, values: Sequence[Any]) -> Any:
        array = _to_int64(values)
        if array is None or not _are_within(array, *RANGES[name]):
            array = pa.array(self._each(to_integer, name, values), pa.int64())
        return array.cast(TIMESTAMP) if name in TIMESTAMP_COLUMNS else array

    def _each(
        self, convert: Callable[[str, Any], Any], name: str, values: Sequence[Any]
    ) -> list[Any]:
        converted = []
        for position, value in enumerate(values):
            try:
                converted.append(convert(name, _number(value)))
            except BadRowError:
                converted.append(None)
                self.misfits.add(position)
        return converted


def _number(value: Any) -> Any:
    """Return what Python's json would have read; of small numbers before `.0` the integer."""
    if not isinstance(value, msgspec.Raw):
        return value
    text = str(value, "ascii")
    return int(text[:-2]) if text.endswith(".0") and len(text) < 20 else Number(text)


def _to_int64(values: Sequence[Any]) -> Any:
    """Return integers, or strings of few digits; None where there is anything else."""
    try:
        return pa.array(values, pa.int64())
    except (pa.ArrowException, OverflowError):
        pass
    try:
        texts = pa.array(values, pa.string())
    except pa.ArrowException:
        return None
    return None if pc.match_substring_regex(texts, _DIGITS).false_count else texts.cast(pa.int64())


def _are_within(array: Any, least: int, most: int) -> bool:
    span = pc.min_max(array)
    return not span["min"].is_valid or least <= span["min"].as_py() <= span["max"].as_py() <= most
