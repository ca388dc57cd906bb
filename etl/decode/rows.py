"""Text, block by block → rows and bad rows, in the first of four ways that takes the block.

All its objects by one template (etl.decode.fast), or all by their members' names
(etl.decode.structs), or most of them by msgspec (etl.decode.parsed) and what that leaves by
Python's json, or all by Python's json. Each gives the same rows.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from etl.decode.columns import BadRowError, Columns
from etl.decode.decoded import RAW_MAX_BYTES, Decoded, Sized
from etl.decode.fast import as_lines, read
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

if TYPE_CHECKING:
    from etl.decode.parsed import Text

# A longer row is a bad row: as Python objects it may take twenty times its length.
_ROW_MAX_BYTES: Final = 16 * 2**20
_BATCH_ROWS: Final = 2**14
# After so many failures in a row a way is tried on every eighth block.
_FAILURES_MAX: Final = 3
_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_WHITE_SPACE: Final = b" \t\r\n"
# Whether what stands in a line's end is an error is told by so much more.
_PADDING: Final = b"\n" * 17


class _Trial:
    """Whether a way is worth trying on a block: the more often it failed in a row, the rarer."""

    def __init__(self) -> None:
        self._failures = 0
        self._left_out = 0

    def take_turn(self) -> bool:
        """Tell whether to try it on this block."""
        self._left_out -= 1
        return self._left_out < 0

    def tell(self, *, succeeded: bool) -> bool:
        """Take note of how it went, and return that."""
        self._failures = 0 if succeeded else min(self._failures + 1, _FAILURES_MAX)
        self._left_out = 2**self._failures - 1
        return succeeded


class Rows:
    """Sorts what a file's text holds into rows and bad rows."""

    def __init__(self, decoded: Decoded, block_bytes: int) -> None:
        self._decoded = decoded
        self._block_bytes = block_bytes
        self._columns = Columns()
        self._row = 0
        self._alike = _Trial()
        self._known = _Trial()

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
                if array and array.is_open:
                    raise NotAnArrayError
                break
            if done:
                size = self._block_bytes
            elif window.size < _ROW_MAX_BYTES:
                size = 2 * window.size
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
        if array:
            done = self._read_elements(block, array)
        else:
            done = self._read_objects(block, final=final)
        return done or self._read_patiently(block, array, final=final)

    def _read_objects(self, block: bytes, *, final: bool) -> int:
        """Take objects that stand one after another; return how many bytes they had, or 0."""
        begin = _behind_space(block)
        template = learn(block, begin)
        end = _end_of_objects(block, template, final=final)
        text = block[begin:end]
        if self._read_alike(text, template):
            return end
        behind = block[end:] if final else None
        is_line = template.is_line if template else _is_line(block, begin)
        if is_line and (
            self._read_known(text) or self._read_parsed(text.split(b"\n"), b"\n", behind)
        ):
            return end
        from etl.decode import parsed  # noqa: PLC0415 - 5 ms that most runs do not need

        close = len(block) if final else parsed.end_of_objects(block, begin)
        values = block[begin:close]
        if not is_line and self._read_known(values):
            return close
        texts = parsed.split(values)
        if texts and self._read_parsed(texts, b"\n"):
            return close
        objects = as_lines(text, template) if template else None
        if is_line or (template and not objects):
            return 0
        # What does not begin like lines, and one of it is broken.
        texts = objects.lines() if objects else text.split(b"\n")
        between = objects.between if objects else b"\n"
        return end if self._read_parsed(texts, between, behind) else 0

    def _read_elements(self, block: bytes, array: ArrayReader) -> int:
        """Take objects from an array's midst; return how many bytes they had, or 0."""
        begin = array.begin_of_element(block)
        template = learn(block, begin, ",")
        end = _end_of_objects(block, template, final=False)
        if self._read_alike(block[begin:end], template) or (
            end := self._read_unlike_elements(block, begin, array)
        ):
            array.went_on()
            return end
        return 0

    def _read_unlike_elements(self, block: bytes, begin: int, array: ArrayReader) -> int:
        from etl.decode import parsed  # noqa: PLC0415 - see above

        for end in parsed.ends_of_elements(block, begin):
            text = block[begin:end]
            if self._read_known(text, array=True):
                return end
            texts = parsed.split(text, array=True)
            if texts:
                return end if self._read_parsed(texts, b"\n", array=array) else 0
        return 0

    def _read_alike(self, text: bytes, template: Template | None) -> bool:
        """Take objects if all of them fit a template."""
        if template is None or not self._alike.take_turn():
            return False
        objects = as_lines(text, template)
        batch = read(objects.text, objects.template) if objects else None
        if batch is not None:
            self._decoded.fast_blocks += 1
            self._add(batch)
        return self._alike.tell(succeeded=batch is not None)

    def _read_known(self, text: bytes, *, array: bool = False) -> bool:
        """Take objects if all of them are rows and their members' names are few."""
        if not text or not self._known.take_turn():
            return False
        from etl.decode.structs import read_structs  # noqa: PLC0415 - see above

        batch = read_structs(text, array=array)
        if batch is not None:
            self._decoded.known_blocks += 1
            self._add(batch)
        return self._known.tell(succeeded=batch is not None)

    def _add(self, batch: pa.RecordBatch) -> None:
        self._decoded.add(Sized.of(batch))
        self._row += batch.num_rows

    def _read_parsed(
        self,
        texts: "Sequence[Text]",
        between: bytes,
        behind: bytes | None = None,
        array: ArrayReader | None = None,
    ) -> bool:
        """Take texts of which most are an object each; False with nothing taken.

        `between` stands between two of them, and `behind` the last if nothing else does. A text
        that is left over must begin and end between two values, and so must be what a reader of the
        whole would read there; where it is not, nothing is taken.
        """
        from etl.decode import parsed  # noqa: PLC0415 - see above

        found = parsed.read_objects(texts)
        if found is None or (found.left and b"\n" not in between):
            return False
        try:
            left = list(_read_left(texts, found.left, between, behind))
        except IncompleteError:
            return False
        if array and any(isinstance(item, Unreadable) for _, item, _, _ in left):
            return False
        before = 0  # how many values of those that were left stand in front
        numbers: list[int] = []
        at = 0
        for number, item, text, valid in left:
            while at < len(found.numbers) and found.numbers[at] < number:
                at += 1
            if self._take(item, text, self._row + at + before, valid=valid):
                numbers.append(number)
            before += 1
        self._decoded.parsed_blocks += 1
        self._row += len(found.numbers) + before
        if numbers:
            batch = self._columns.take()
            self._decoded.add(Sized.of(_in_order(found.batch, found.numbers, batch, numbers)))
        elif found.numbers:
            self._decoded.add(Sized.of(found.batch))
        return True

    def _read_patiently(self, block: bytes, array: ArrayReader | None, *, final: bool) -> int:
        """Take values one by one; return how many of the block's bytes they had."""
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
            self._decoded.add(Sized.of(self._columns.take()))


def _behind_space(block: bytes) -> int:
    match = _SPACE.match(block)
    return match.end() if match else 0


def _is_line(block: bytes, begin: int) -> bool:
    """Tell whether the first line may be an object and nothing else."""
    end = block.find(b"\n", begin)
    return block[begin : end if end >= 0 else None].rstrip(_WHITE_SPACE).endswith(b"}")


def _end_of_objects(block: bytes, template: Template | None, *, final: bool) -> int:
    """Return where the last object ends that is whole if all are laid out like the first."""
    if template is None or template.is_line:
        return len(block)
    if final:
        return len(block.rstrip(_WHITE_SPACE))
    # The last object may go on behind the block; in an array the end stands behind it.
    return block.rfind(template.junction) + 1 if template.junction else 0


def _read_left(
    texts: "Sequence[Text]", left: Sequence[int], between: bytes, behind: bytes | None
) -> Iterator[tuple[int, Value | Unreadable, str, bool]]:
    """Read stretches of texts one after another; yield each value with its first text's number.

    Raises IncompleteError where a stretch ends within a value.
    """
    for _, run in groupby(enumerate(left), lambda pair: pair[1] - pair[0]):
        numbers = list(map(itemgetter(1), run))
        stretch = between.join([texts[number] for number in numbers])
        end = behind if numbers[-1] == len(texts) - 1 else None
        text, valid = _decode(stretch + (between + _PADDING if end is None else end))
        for item in read_lines(text, final=end is not None):
            yield numbers[0], item, text, valid


def _in_order(
    batch: pa.RecordBatch, numbers: Sequence[int], other: pa.RecordBatch, others: Sequence[int]
) -> pa.RecordBatch:
    """Return the rows of both batches in the order of their numbers."""
    rows = pa.Table.from_batches([batch, other]).combine_chunks()
    order = pc.sort_indices(pa.array([*numbers, *others], pa.int32()))  # stable
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
