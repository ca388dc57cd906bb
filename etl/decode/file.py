"""One file → its rows: unpack it, scan its text, and read patiently what the scanner leaves."""

import re
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from etl.decode.decoded import RAW_MAX_BYTES, Decoded
from etl.decode.kernel import Flags, Place, Stop
from etl.decode.limits import DecodeLimits
from etl.decode.patient import (
    BadRowError,
    IncompleteError,
    Unreadable,
    Value,
    read_value,
    to_row,
)
from etl.decode.scanner import Scanner
from etl.decode.unpack import Unpacked
from etl.model.errors import FailureKind, FileError

# Text is scanned in pieces that stay in the processor's cache, as they come from gunzip.
_BLOCK_BYTES: Final = 2**18
# Longer than nearly all rows.
_HEAD_BYTES: Final = 2**12
# A longer row is a bad row: as Python objects it may take twenty times its length.
_ROW_MAX_BYTES: Final = 16 * 2**20
# How much text the patient reader tries first: its errors cost time for all text in front of them.
_FIRST_TRY_BYTES: Final = 2**12
# Broken values may make it read text more than once: this often for all text, and so much more.
_READ_AGAIN_TIMES: Final = 8
_READ_AGAIN_BYTES: Final = 2**22

_WHITE_SPACE: Final = b" \t\r\n"
_NEXT: Final = {
    # A byte-order mark may stand in front of any row: files made by concatenation hold several.
    Place.OUTSIDE: re.compile(rb"(?:[ \t\r\n]|\xef\xbb\xbf)*"),
    Place.ARRAY_BEGIN: re.compile(rb"[ \t\r\n]*"),
    Place.ARRAY_NEXT: re.compile(rb"[ \t\r\n]*,[ \t\r\n]*"),
}
_ARRAY: Final = re.compile(rb"\[[ \t\r\n]*(?P<first>[^ \t\r\n])")


class _BrokenArrayError(Exception):
    """An array was taken apart and turns out not to be a whole JSON value.

    `number` is how many were taken apart before it: those were whole.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def decode(
    body: BinaryIO,
    path: str,
    limits: DecodeLimits,
    *,
    scratch: Path,
    declared_gzip: bool = False,
    scanner: Scanner | None = None,
) -> Decoded:
    """Decode a downloaded file, whatever of the documented shapes it has.

    `declared_gzip` is whether the answer said that gzip is its transport encoding; see Unpacked.
    A `scanner` that is given is used again, not made anew. Blocking; run it in a thread. Raises
    FileError: truncated, corrupt and too_large as Unpacked does; malformed if more of its rows are
    bad than is allowed. Raises OSError where `scratch` refuses.
    """
    read = partial(_read, body, path, limits, scratch, declared_gzip, scanner or Scanner())
    try:
        decoded = read(careful_from=sys.maxsize)
    except _BrokenArrayError as error:
        decoded = read(careful_from=error.number)
    total = decoded.rows + decoded.quarantined
    if total and decoded.quarantined / total > limits.max_bad_row_ratio:
        decoded.close()
        raise FileError(
            FailureKind.MALFORMED,
            f"{decoded.quarantined} of {total} rows are bad, more than "
            f"limits.max_bad_row_ratio allows; the first is {decoded.first_reason}",
        )
    return decoded


def _read(
    body: BinaryIO,
    path: str,
    limits: DecodeLimits,
    scratch: Path,
    declared_gzip: bool,  # noqa: FBT001 - as `decode` has it
    scanner: Scanner,
    *,
    careful_from: int,
) -> Decoded:
    unpacked = Unpacked(body, limits.max_file_size, declared_gzip=declared_gzip)
    decoded = Decoded(path, limits.spill_bytes, scratch)
    scanner.clear()
    try:
        _Reader(decoded, scanner, _Window(_in_blocks(unpacked)), careful_from).read()
        decoded.finish(unpacked)
    except BaseException:
        decoded.close()
        raise
    return decoded


def _in_blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if len(piece) <= _BLOCK_BYTES:
            yield piece
        else:
            for begin in range(0, len(piece), _BLOCK_BYTES):
                yield piece[begin : begin + _BLOCK_BYTES]


class _Window:
    """The stretch of a text that is in memory, and the position up to which it is read.

    Of the next piece only a little is copied, so that the row that goes on in it can be read. The
    rest is read where it is: copying all text takes a sixth of the time of decoding it.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = b""  # the buffer ends with its first _HEAD_BYTES bytes, if it is not empty
        self.buffer = b""
        self.position = 0
        #: Whether the text ends with the buffer.
        self.final = False

    @property
    def unread(self) -> int:
        """How many bytes of the buffer are not read yet."""
        return len(self.buffer) - self.position

    def extend(self) -> None:
        """Read on. What is unread is doubled at least in two calls, so that trying again pays."""
        unread = self.unread
        if self._piece and unread <= _HEAD_BYTES:
            self.buffer, self._piece = self._piece, b""
            self.position = _HEAD_BYTES - unread
            return
        parts = [self.buffer[self.position :], self._piece[_HEAD_BYTES:]]
        self._piece = b""
        size = sum(map(len, parts))
        while size <= 2 * unread and not self.final:
            piece = next(self._pieces, None)
            if piece is None:
                self.final = True
            elif 0 < size < _HEAD_BYTES < len(piece):
                self._piece = piece
                parts.append(piece[:_HEAD_BYTES])
                break
            else:
                parts.append(piece)
                size += len(piece)
        self.buffer = _joined(parts)
        self.position = 0

    def take_line(self, keep: int) -> bytes:
        """Read to the end of the line, however far that is; return its first bytes, `keep` at most.

        The line's end itself is not read.
        """
        kept = b""
        while (end := self.buffer.find(b"\n", self.position)) < 0:
            kept += self.buffer[self.position : self.position + keep - len(kept)]
            self.position = len(self.buffer)
            if self.final:
                return kept
            self.extend()
        kept += self.buffer[self.position : min(end, self.position + keep - len(kept))]
        self.position = end
        return kept


def _joined(parts: Iterable[bytes]) -> bytes:
    parts = [part for part in parts if part]
    return parts[0] if len(parts) == 1 else b"".join(parts)


class _Reader:
    """Reads a text to its end: rows by the scanner, what it leaves by the patient reader.

    An array is taken apart where it stands as a value of the file and its elements are objects. A
    reader first makes sure that it is whole, from the array `careful_from` on; of an earlier one it
    raises _BrokenArrayError when it finds that it is not.
    """

    def __init__(
        self, decoded: Decoded, scanner: Scanner, window: _Window, careful_from: int
    ) -> None:
        self._decoded = decoded
        self._scanner = scanner
        self._window = window
        self._careful_from = careful_from
        self._arrays = 0
        self._read_again_bytes = 0
        self._left_bytes = 0

    def read(self) -> None:
        """Read the text. Raises _BrokenArrayError."""
        window, scanner = self._window, self._scanner
        while True:
            flags = Flags.FINAL if window.final else Flags.NONE
            stop = scanner.scan(window.buffer, window.position, flags)
            window.position = scanner.position
            if stop is Stop.FULL:
                self._decoded.add(scanner.take())
            elif stop is Stop.LEFT:
                self._read_left()
            elif window.final:
                break
            elif window.unread < _ROW_MAX_BYTES:
                window.extend()
            else:
                self._skip_long_row()
        if scanner.place is not Place.OUTSIDE:
            raise _BrokenArrayError(self._arrays - 1)
        if scanner.rows:
            self._decoded.add(scanner.take())

    def _read_left(self) -> None:
        """Read the one value that the scanner left."""
        window, place = self._window, self._scanner.place
        begin = _NEXT[place].match(window.buffer, window.position)
        if begin is None:
            raise _BrokenArrayError(self._arrays - 1)
        window.position = begin.end()
        if place is Place.OUTSIDE and window.buffer.startswith(b"[", window.position):
            self._read_array()
        else:
            self._take(self._find_value())

    def _read_array(self) -> None:
        """Go into an array whose elements are objects; take any other one as a bad row."""
        window = self._window
        while (match := _ARRAY.match(window.buffer, window.position)) is None:
            if window.final or window.unread >= _ROW_MAX_BYTES:
                break
            window.extend()
        found = None
        if self._arrays >= self._careful_from or match is None or match["first"] not in b"{]":
            found = self._find_value()
            if not (isinstance(found, Value) and _has_objects(found.value)):
                if found is None:
                    raise FileError(
                        FailureKind.MALFORMED,
                        f"an array longer than {_ROW_MAX_BYTES} bytes is read only if it begins "
                        "with a row and no array in front of it is broken",
                    )
                self._take(found)
                return
            self._left_bytes += found.end
        self._arrays += 1
        window.position += 1
        self._scanner.place = Place.ARRAY_BEGIN

    def _find_value(self) -> Value | Unreadable | None:
        """Return the value at the window's position, in bytes; None if it is too long."""
        window = self._window
        size = _FIRST_TRY_BYTES
        budget = _READ_AGAIN_BYTES + _READ_AGAIN_TIMES * self._left_bytes
        # In an array, which is whole, errors cannot repeat: the first one ends this attempt.
        in_array = self._scanner.place is not Place.OUTSIDE
        within_line = not in_array and self._read_again_bytes > budget
        while True:
            end = min(window.position + size, len(window.buffer))
            newline = window.buffer.find(b"\n", window.position, end) if within_line else -1
            if newline >= 0:
                end = newline
            text = window.buffer[window.position : end]
            final = newline >= 0 or (window.final and end == len(window.buffer))
            characters = text.decode("utf-8", "surrogateescape")
            try:
                found = read_value(characters, final=final)
            except IncompleteError:
                size *= 4
                if end < len(window.buffer):
                    continue
                if window.unread >= _ROW_MAX_BYTES:
                    return None
                window.extend()
                continue
            self._read_again_bytes += found.end
            if isinstance(found, Value) and not text.isascii():
                read = characters[: found.end].encode("utf-8", "surrogateescape")
                return Value(found.value, len(read))
            return found

    def _take(self, found: Value | Unreadable | None) -> None:
        """Take what stands at the window's position: a row, a bad row, or a line that is none."""
        if isinstance(found, Value):
            self._take_value(found)
        elif self._scanner.place is not Place.OUTSIDE:
            raise _BrokenArrayError(self._arrays - 1)
        elif found is None:
            self._skip_long_row()
        else:
            begin = self._window.position
            raw = self._window.take_line(RAW_MAX_BYTES + 1).removesuffix(b"\r")
            self._left_bytes += max(len(raw), self._window.position - begin)
            self._add_bad_row(found.reason, raw)

    def _take_value(self, found: Value) -> None:
        window = self._window
        raw = window.buffer[window.position : window.position + found.end]
        try:
            _check_utf8(raw)
            row = to_row(found.value)
            self._add(row.text.encode())
            self._decoded.repaired += row.repaired
        except BadRowError as error:
            self._add_bad_row(str(error), raw[:RAW_MAX_BYTES])
        window.position += found.end
        self._left_bytes += found.end
        if self._scanner.place is not Place.OUTSIDE:
            self._scanner.place = Place.ARRAY_NEXT

    def _add(self, line: bytes) -> None:
        """Add a row by its line. Raises BadRowError."""
        scanner = self._scanner
        place, scanner.place = scanner.place, Place.OUTSIDE
        stop = scanner.scan(line, 0, Flags.FINAL_DISTINCT)
        if stop is Stop.FULL:
            self._decoded.add(scanner.take())
            stop = scanner.scan(line, 0, Flags.FINAL_DISTINCT)
        scanner.place = place
        if stop is Stop.LEFT:
            raise BadRowError("not readable: nested too deeply")

    def _skip_long_row(self) -> None:
        if self._scanner.place is not Place.OUTSIDE:
            raise _BrokenArrayError(self._arrays - 1)
        window = self._window
        window.position = len(window.buffer) - len(
            window.buffer[window.position :].lstrip(_WHITE_SPACE)
        )
        raw = window.take_line(RAW_MAX_BYTES)
        self._add_bad_row(f"longer than {_ROW_MAX_BYTES} bytes", raw)

    def _add_bad_row(self, reason: str, raw: bytes) -> None:
        row = self._decoded.rows + self._scanner.rows + self._decoded.quarantined
        self._decoded.add_bad_row(row, reason, raw.decode("utf-8", "replace"))


def _has_objects(value: object) -> bool:
    """Tell whether a value is an array whose elements are rows, some of them bad ones perhaps."""
    return isinstance(value, list) and (not value or any(isinstance(v, dict) for v in value))


def _check_utf8(raw: bytes) -> None:
    try:
        raw.decode()
    except UnicodeDecodeError:
        raise BadRowError("not JSON: invalid UTF-8") from None
