"""One file → its rows. `decode` reads top to bottom."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow as pa

from etl.decode.columns import BadRowError, Columns
from etl.decode.decoded import RAW_MAX_BYTES, Decoded
from etl.decode.fast import Template
from etl.decode.unpack import Unpacked
from etl.decode.values import (
    ArrayReader,
    IncompleteError,
    NotAnArrayError,
    Unreadable,
    Value,
    read_lines,
)
from etl.errors import FailureKind, FileError

_BLOCK_BYTES: Final = 2**20
# A longer row is a bad row: as Python objects it may take twenty times its length.
_ROW_MAX_BYTES: Final = 16 * 2**20
_BATCH_ROWS: Final = 2**14
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """How large and how bad a file may be, and how much of it is held in memory, in bytes."""

    max_file_size: int
    max_bad_row_ratio: float
    spill_bytes: int


def decode(
    body: BinaryIO,
    path: str,
    limits: DecodeLimits,
    *,
    scratch: Path,
    declared_gzip: bool = False,
) -> Decoded:
    """Decode a downloaded file, whatever of the documented shapes it has.

    `declared_gzip` is whether the answer said that gzip is its transport encoding; see Unpacked.
    Blocking; run it in a thread. Raises FileError: truncated, corrupt and too_large as Unpacked
    does; malformed if more of its rows are bad than is allowed. Raises OSError where `scratch`
    refuses.
    """
    unpacked = partial(Unpacked, body, limits.max_file_size, declared_gzip=declared_gzip)
    try:
        decoded = _decode(unpacked(), path, limits, scratch, as_array=True)
    except NotAnArrayError:
        # From here on an array is one (bad) row among others.
        decoded = _decode(unpacked(), path, limits, scratch, as_array=False)
    total = decoded.rows + decoded.quarantined
    if total and decoded.quarantined / total > limits.max_bad_row_ratio:
        decoded.close()
        raise FileError(
            FailureKind.MALFORMED,
            f"{decoded.quarantined} of {total} rows are bad, more than "
            f"limits.max_bad_row_ratio allows; the first is {decoded.first_reason}",
        )
    return decoded


def _decode(
    unpacked: Unpacked, path: str, limits: DecodeLimits, scratch: Path, *, as_array: bool
) -> Decoded:
    window = _Window(unpacked)
    decoded = Decoded(path, limits.spill_bytes, scratch)
    try:
        array = ArrayReader() if as_array and window.begins_like_an_array() else None
        _Rows(decoded, path).read(window, array)
        decoded.finish()
    except BaseException:
        decoded.close()
        raise
    decoded.bytes = unpacked.file_bytes
    decoded.sha256 = unpacked.sha256
    decoded.decompressed = unpacked.decompressed
    return decoded


class _Window:
    """The part of the text that is being read; `final` once it reaches the text's end."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self.buffer = b""
        self.final = False

    def begins_like_an_array(self) -> bool:
        """Tell whether the first character, after byte-order mark and white space, is `[`."""
        while True:
            self.fill(len(_BOM) + 1)
            # Dropped at once: a file may begin with gigabytes of white space.
            self.buffer = self.buffer.removeprefix(_BOM).lstrip(b" \t\r\n")
            if self.buffer or self.final:
                return self.buffer.startswith(b"[")

    def fill(self, size: int) -> None:
        """Read on until the window holds so many bytes or the text ends."""
        pieces = [self.buffer]
        length = len(self.buffer)
        while length < size and not self.final:
            piece = next(self._pieces, None)
            if piece is None:
                self.final = True
            else:
                pieces.append(piece)
                length += len(piece)
        self.buffer = b"".join(pieces)

    def whole(self) -> bytes:
        """Return the window up to its last line's end, or if there is none, its last character's.

        All of it, if it is final.
        """
        if self.final:
            return self.buffer
        newline = self.buffer.rfind(b"\n")
        if newline >= 0:
            return self.buffer[: newline + 1]
        end = len(self.buffer)
        for back in range(1, min(4, end) + 1):
            byte = self.buffer[end - back]
            if byte >= 0xC0:
                return self.buffer[: end - back]
            if byte < 0x80:
                break
        return self.buffer

    def drop(self, size: int) -> None:
        """Go on behind so many bytes."""
        self.buffer = self.buffer[size:]

    def drop_line(self) -> None:
        """Go on at the next line, however far it is."""
        while (newline := self.buffer.find(b"\n")) < 0 and not self.final:
            self.buffer = b""
            self.fill(_BLOCK_BYTES)
        self.drop(newline + 1 if newline >= 0 else len(self.buffer))


class _Rows:
    """Sorts what a file's text holds into rows and bad rows."""

    def __init__(self, decoded: Decoded, path: str) -> None:
        self._decoded = decoded
        self._path = path
        self._columns = Columns(path)
        self._row = 0

    def read(self, window: _Window, array: ArrayReader | None) -> None:
        """Read the text to its end, a block at a time; a row may be longer than a block.

        Raises NotAnArrayError if it was to be one `array` and is not.
        """
        size = _BLOCK_BYTES
        while True:
            window.fill(size)
            block = window.whole()
            read = self._read_block(block, array, final=window.final)
            window.drop(read)
            if window.final:
                break
            if read:
                size = _BLOCK_BYTES
            elif len(window.buffer) < _ROW_MAX_BYTES:
                size = 2 * len(window.buffer)
            elif array:
                raise NotAnArrayError
            else:
                reason = f"longer than {_ROW_MAX_BYTES} bytes"
                raw = window.buffer.lstrip(b" \t\r\n")[:RAW_MAX_BYTES]
                self._bad_row(reason, raw.decode("utf-8", "replace"))
                window.drop_line()
        self._flush()

    def _read_block(self, block: bytes, array: ArrayReader | None, *, final: bool) -> int:
        """Take all rows that are whole in the block; return how many of its bytes were read."""
        if array is None and (batch := self._read_fast(block)) is not None:
            self._decoded.add(batch)
            self._decoded.fast_blocks += 1
            self._row += batch.num_rows
            return len(block)
        self._decoded.patient_blocks += 1
        valid = True
        try:
            text = block.decode()
        except UnicodeDecodeError:
            text = block.decode("utf-8", "surrogateescape")
            valid = False
        found: Iterator[Value | Unreadable] = (
            array.read(text, final=final) if array else read_lines(text, final=final)
        )
        try:
            for item in found:
                self._take(item, text, valid=valid)
        except IncompleteError as incomplete:
            read = text[: incomplete.position]
            return len(read) if read.isascii() else len(read.encode("utf-8", "surrogateescape"))
        finally:
            self._flush()
        return len(block)

    def _read_fast(self, block: bytes) -> pa.RecordBatch | None:
        template = Template.learn(block)
        return template.read(block, self._path) if template else None

    def _take(self, item: Value | Unreadable, text: str, *, valid: bool) -> None:
        if isinstance(item, Unreadable):
            raw = text[item.start : item.end].removesuffix("\r")
            self._bad_row(item.reason, _replaced(raw))
            return
        try:
            if not valid:
                _check_utf8(text[item.start : item.end])
            self._columns.add(item.value)
        except BadRowError as error:
            self._bad_row(str(error), _replaced(text[item.start : item.end]))
            return
        self._row += 1
        if len(self._columns) >= _BATCH_ROWS:
            self._flush()

    def _bad_row(self, reason: str, raw: str) -> None:
        self._decoded.add_bad_row(self._row, reason, raw)
        self._row += 1

    def _flush(self) -> None:
        if len(self._columns):
            self._decoded.add(self._columns.take())


def _check_utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRowError("not JSON: invalid UTF-8") from None


def _replaced(text: str) -> str:
    """Return text with what was invalid UTF-8 replaced."""
    raw = text[:RAW_MAX_BYTES].encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "replace")
