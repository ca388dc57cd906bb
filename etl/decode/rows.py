"""Text, block by block → rows and bad rows: fast where it is proven, else patiently."""

import re
from collections.abc import Iterator, Sequence
from itertools import compress, groupby
from operator import itemgetter
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from etl.decode.columns import BadRowError, Columns
from etl.decode.decoded import RAW_MAX_BYTES, Decoded
from etl.decode.fast import Objects, as_lines, read, read_some
from etl.decode.template import Template, learn
from etl.decode.values import (
    ArrayReader,
    IncompleteError,
    NotAnArrayError,
    Unreadable,
    Value,
    read_lines,
)
from etl.decode.window import Window

# A longer row is a bad row: as Python objects it may take twenty times its length.
_ROW_MAX_BYTES: Final = 16 * 2**20
_BATCH_ROWS: Final = 2**14
_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_WHITE_SPACE: Final = b" \t\r\n"
# How many templates the objects of one block may have, and how many of those that are left each
# must take; what none takes is read patiently.
_TEMPLATES: Final = 16
_LEAST_SHARE: Final = 1 / 32
# Whether what stands in a line's end is an error is told by so much more.
_PADDING: Final = b"\n" * 17


class Rows:
    """Sorts what a file's text holds into rows and bad rows."""

    def __init__(self, decoded: Decoded, block_bytes: int) -> None:
        self._decoded = decoded
        self._block_bytes = block_bytes
        self._columns = Columns()
        self._row = 0

    def read(self, window: Window, array: ArrayReader | None) -> None:
        """Read the text to its end, a block at a time; a row may be longer than a block.

        Raises NotAnArrayError if it was to be one `array` and is not.
        """
        size = self._block_bytes
        while True:
            window.fill(size)
            block = window.whole()
            done = self._read_block(block, array, final=window.final)
            window.drop(done)
            if window.final and (done == len(block) or not done):
                break
            if done:
                size = self._block_bytes
            elif len(window.buffer) < _ROW_MAX_BYTES:
                size = 2 * len(window.buffer)
            elif array:
                raise NotAnArrayError
            else:
                reason = f"longer than {_ROW_MAX_BYTES} bytes"
                raw = window.buffer.lstrip(_WHITE_SPACE)[:RAW_MAX_BYTES]
                self._bad_row(reason, raw.decode("utf-8", "replace"), self._row)
                self._row += 1
                window.drop_line(self._block_bytes)
        self._flush()

    def _read_block(self, block: bytes, array: ArrayReader | None, *, final: bool) -> int:
        """Take all rows that are whole in the block; return how many of its bytes were read."""
        done = self._read_fast(block, array, final=final)
        if done:
            self._decoded.fast_blocks += 1
            return done
        self._decoded.patient_blocks += 1
        text, valid = _decode(block)
        found: Iterator[Value | Unreadable] = (
            array.read(text, final=final) if array else read_lines(text, final=final)
        )
        try:
            for item in found:
                self._take(item, text, self._row, valid=valid)
                self._row += 1
                if len(self._columns) >= _BATCH_ROWS:
                    self._flush()
        except IncompleteError as incomplete:
            done_text = text[: incomplete.position]
            if done_text.isascii():
                return len(done_text)
            return len(done_text.encode("utf-8", "surrogateescape"))
        finally:
            self._flush()
        return len(block)

    def _read_fast(self, block: bytes, array: ArrayReader | None, *, final: bool) -> int:
        """Take objects from the block's begin by the fast path; return how many bytes they had."""
        begin = array.begin_of_element(block) if array else _behind_space(block, 0)
        template = learn(block, begin, "," if array else "")
        if template is None and array is None:
            template = _of_another_line(block, begin)
        if template is None:
            return 0
        if array is None and template.is_line:
            end = len(block)
        elif array is None and final:
            end = len(block.rstrip(_WHITE_SPACE))
        else:
            # The last object may go on behind the block; in an array the end stands behind it.
            end = block.rfind(template.junction) + 1 if template.junction else 0
        if end <= begin or not (template.is_line or block[end - 1 : end] == b"}"):
            return 0
        objects = as_lines(block[begin:end], template)
        if objects is None:
            return 0
        batch = read(objects.text, objects.template)
        if batch is not None:
            self._decoded.add(batch)
            self._row += batch.num_rows
        elif array is not None or not self._read_mixed(objects):
            return 0
        if array:
            array.went_on()
        return end

    def _read_mixed(self, objects: Objects) -> bool:
        """Take objects of several templates, and what fits none of them; False with nothing taken.

        A text that is left over must begin and end between two values, and so must be what a
        reader of the whole would read there; where it is not, nothing is taken.
        """
        if b"\n" not in objects.between:
            return False
        lines = objects.text.split(b"\n")
        taken, left = _by_templates(lines, objects)
        if 2 * len(left) > len(lines):
            return False
        fast = sorted(position for positions, _ in taken for position in positions)
        try:
            found = list(_read_left(lines, left, objects))
        except IncompleteError:
            return False
        before = 0  # how many values of those that were left stand in front
        position_of_rows: list[int] = []
        at = 0
        for position, item, text, valid in found:
            while at < len(fast) and fast[at] < position:
                at += 1
            if self._take(item, text, self._row + at + before, valid=valid):
                position_of_rows.append(position)
            before += 1
        self._row += len(fast) + before
        if position_of_rows:
            taken.append((position_of_rows, self._columns.take()))
        if taken:
            self._decoded.add(_in_order(taken))
        return True

    def _take(self, item: Value | Unreadable, text: str, row: int, *, valid: bool) -> bool:
        """Take a value, a row or a bad one; tell which."""
        if isinstance(item, Unreadable):
            raw = text[item.start : item.end].removesuffix("\r")
            self._bad_row(item.reason, _replaced(raw), row)
            return False
        try:
            if not valid:
                _check_utf8(text[item.start : item.end])
            self._columns.add(item.value)
        except BadRowError as error:
            self._bad_row(str(error), _replaced(text[item.start : item.end]), row)
            return False
        return True

    def _bad_row(self, reason: str, raw: str, row: int) -> None:
        self._decoded.add_bad_row(row, reason, raw)

    def _flush(self) -> None:
        if len(self._columns):
            self._decoded.add(self._columns.take())


def _behind_space(block: bytes, position: int) -> int:
    match = _SPACE.match(block, position)
    return match.end() if match else position


def _of_another_line(block: bytes, position: int) -> Template | None:
    """Return the template of one of the next lines, if it is one of lines."""
    for _ in range(_TEMPLATES):
        position = block.find(b"\n", position) + 1
        template = learn(block, position) if position else None
        if template is not None or not position:
            return template if template and template.is_line else None
    return None


_Taken = list[tuple[Sequence[int], pa.RecordBatch]]


def _by_templates(lines: list[bytes], objects: Objects) -> tuple[_Taken, list[int]]:
    """Return the rows that fit some template, by their lines' numbers, and the lines that do not.

    The template of the next is always learnt from the first line that is left; blank lines are
    no rows and are not counted.
    """
    taken: _Taken = []
    left: list[int] = []
    todo = [number for number, line in enumerate(lines) if line and not line.isspace()]
    for _ in range(_TEMPLATES):
        if not todo:
            break
        first = todo[0]
        template = learn(objects.restore(lines[first]))
        if template is not None:
            template = objects.adapt(template)
            cuts, delimiter = len(template.leaves) - 1, template.delimiter
            group = [number for number in todo if lines[number].count(delimiter) == cuts]
            if len(group) < _LEAST_SHARE * len(todo):
                break
            found = read_some(b"\n".join([lines[number] for number in group]), template)
            if found is not None and found.lines == len(group) and found.batch.num_rows:
                if found.fit is not None:
                    group = list(compress(group, found.fit.to_pylist()))
                taken.append((group, found.batch))
                fitted = set(group)
                todo = [number for number in todo if number not in fitted]
        if todo and todo[0] == first:  # it does not fit what was learnt from it
            left.append(todo.pop(0))
    return taken, sorted(left + todo)


def _read_left(
    lines: list[bytes], left: list[int], objects: Objects
) -> Iterator[tuple[int, Value | Unreadable, str, bool]]:
    """Read stretches of lines one after another; yield each value with its first line's number.

    Raises IncompleteError where a stretch ends within a value.
    """
    for _, run in groupby(enumerate(left), lambda pair: pair[1] - pair[0]):
        numbers = list(map(itemgetter(1), run))
        stretch = objects.between.join([objects.restore(lines[number]) for number in numbers])
        text, valid = _decode(stretch + objects.between + _PADDING)
        for item in read_lines(text, final=False):
            yield numbers[0], item, text, valid


def _in_order(taken: _Taken) -> pa.RecordBatch:
    if len(taken) == 1:
        return taken[0][1]
    positions = pa.array([position for some, _ in taken for position in some], pa.int32())
    rows = pa.Table.from_batches([batch for _, batch in taken]).combine_chunks()
    order = pc.sort_indices(positions)  # stable
    return rows.take(order).to_batches()[0]


def _decode(block: bytes) -> tuple[str, bool]:
    """Return a block's text, and whether it is valid UTF-8."""
    try:
        return block.decode(), True
    except UnicodeDecodeError:
        return block.decode("utf-8", "surrogateescape"), False


def _check_utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRowError("not JSON: invalid UTF-8") from None


def _replaced(text: str) -> str:
    """Return text with what was invalid UTF-8 replaced."""
    raw = text[:RAW_MAX_BYTES].encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "replace")
