"""One file → its rows: unpack it, scan its text, and read in Python what the scanner leaves."""

import json
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, Self, cast

import pyarrow as pa

from etl.decode.kernel import Flags, Place, Scanner, Stop
from etl.decode.reader import BadRowError, Found, read_value, to_row
from etl.decode.unpack import Unpacked, Window
from etl.model.dataset import DECODED_SCHEMA, SizedBatch
from etl.model.errors import FailureKind, FileError

_BAD_ROWS_IN_MEMORY_BYTES: Final = 2**18
#: operations.md, "Bad rows": the raw text is cut at 64 KiB.
RAW_MAX_BYTES: Final = 2**16

# A longer row is a bad row: as Python objects it may need twenty times its length.
_ROW_MAX_BYTES: Final = 16 * 2**20
# How much text Python tries to read first: an error costs time for all text in front of it.
_FIRST_TRY_BYTES: Final = 2**12
# Broken values may make Python read text again: a file's text this often, and these bytes more.
_READ_AGAIN_TIMES: Final = 8
_READ_AGAIN_BYTES: Final = 2**22

_WHITE_SPACE: Final = b" \t\r\n"
_NEXT: Final = {
    # A byte-order mark may precede any row: files made by concatenation hold several.
    Place.OUTSIDE: re.compile(rb"(?:[ \t\r\n]|\xef\xbb\xbf)*"),
    Place.ARRAY_BEGIN: re.compile(rb"[ \t\r\n]*"),
    Place.ARRAY_NEXT: re.compile(rb"[ \t\r\n]*,[ \t\r\n]*"),
}
_ARRAY: Final = re.compile(rb"\[[ \t\r\n]*(?P<first>[^ \t\r\n])")


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """How large and how bad a file may be, and how much of it is held in memory, in bytes."""

    max_file_size: int
    max_bad_row_ratio: float
    spill_bytes: int


class Decoded:
    """The rows and bad rows of one file; a context manager that frees memory and disk.

    Rows beyond `spill_bytes` go to an unnamed file in `scratch`, so a killed run leaves nothing
    behind. Raises OSError if that folder cannot be written to.
    """

    def __init__(self, path: str, spill_bytes: int, scratch: Path) -> None:
        self.path = path
        self._spill_bytes = spill_bytes
        self._scratch = scratch
        self._batches: list[SizedBatch] = []
        self.in_memory_bytes = 0
        self._spill: Any = None
        self._writer: Any = None
        self._bad_rows: IO[bytes] | None = None
        self.rows = 0
        self.quarantined = 0
        self.first_reason = ""
        #: Of the file itself, set by `finish`.
        self.bytes = 0
        self.sha256 = ""
        self.decompressed = 0
        #: The number of transport encodings around the file.
        self.encodings = 0
        #: The number of rows with half a surrogate pair in an unknown field, which was replaced.
        self.repaired = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free memory and disk."""
        self._batches = []
        for file in (self._spill, self._bad_rows):
            if file is not None:
                file.close()

    def add(self, batch: SizedBatch) -> None:
        """Add rows."""
        self.rows += batch.rows.num_rows
        self._batches.append(batch)
        self.in_memory_bytes += batch.bytes
        if self._writer is None and self.in_memory_bytes > self._spill_bytes:
            self._spill = tempfile.TemporaryFile(dir=self._scratch)  # noqa: SIM115 - see close
            self._writer = pa.ipc.new_stream(
                self._spill, DECODED_SCHEMA, options=pa.ipc.IpcWriteOptions(compression="lz4")
            )
        if self._writer is not None:
            for waiting in self._batches:
                self._writer.write_batch(waiting.rows)
            self._batches, self.in_memory_bytes = [], 0

    def add_bad_row(self, row: int, reason: str, raw: str) -> None:
        """Add a bad row: its number in the file from 0, why it is bad, and its text."""
        if self._bad_rows is None:
            self._bad_rows = cast(
                "IO[bytes]",
                tempfile.SpooledTemporaryFile(  # noqa: SIM115 - see close
                    _BAD_ROWS_IN_MEMORY_BYTES, dir=str(self._scratch)
                ),
            )
            self.first_reason = f"row {row}: {reason}"
        raw = raw[:RAW_MAX_BYTES].encode()[:RAW_MAX_BYTES].decode("utf-8", "ignore")
        line = {"sourcePath": self.path, "row": row, "reason": reason, "raw": raw}
        self._bad_rows.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        self.quarantined += 1

    def finish(self, unpacked: Unpacked) -> None:
        """Complete the result after the last row. Raises OSError where the disk refuses it."""
        self.bytes, self.sha256 = unpacked.file.bytes, unpacked.file.sha256
        self.decompressed, self.encodings = unpacked.decompressed, unpacked.encodings
        if self._writer is not None:
            self._writer.close()
        for file in (self._spill, self._bad_rows):
            if file is not None:
                file.flush()

    @property
    def spilled(self) -> bool:
        """Whether the rows are on disk."""
        return self._spill is not None

    def batches(self) -> Iterator[SizedBatch]:
        """Yield the rows in the order of the file; each call starts with the first."""
        if self._spill is None:
            yield from self._batches
            return
        self._spill.seek(0)
        with pa.ipc.open_stream(self._spill) as reader:
            yield from map(SizedBatch.of, reader)

    def bad_rows(self) -> BinaryIO | None:
        """Return the bad rows, one JSON object a line; None if there are none.

        The objects are described in operations.md, "Bad rows".
        """
        if self._bad_rows is None:
            return None
        self._bad_rows.seek(0)
        return cast("BinaryIO", self._bad_rows)


class _BrokenArrayError(Exception):
    """An array whose elements were already taken is not a whole JSON value.

    All arrays before the one with this `number` were whole.
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
    """Decode a downloaded file in any of the documented shapes. Blocking; run it in a thread.

    `declared_gzip` says whether the answer named gzip as its transport encoding; see Unpacked. Pass
    a `scanner` to reuse its buffers. Raises FileError: truncated, corrupt and too_large as Unpacked
    does; malformed if more of its rows are bad than `limits` allow. Raises OSError if `scratch`
    cannot be written to.
    """
    scanner = scanner or Scanner()

    def read(careful_from: int) -> Decoded:
        unpacked = Unpacked(body, limits.max_file_size, declared_gzip=declared_gzip)
        decoded = Decoded(path, limits.spill_bytes, scratch)
        try:
            _FileReader(decoded, scanner, Window(iter(unpacked)), careful_from).read()
            decoded.finish(unpacked)
        except BaseException:
            decoded.close()
            raise
        return decoded

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


class _FileReader:
    """Reads a text to its end: the scanner takes rows, Python reads what the scanner leaves.

    If an array is a value of the file and its elements are objects, each element is a row. From the
    array number `careful_from` on, the reader first checks that an array is whole. If an earlier
    array is not, it raises _BrokenArrayError.
    """

    def __init__(
        self, decoded: Decoded, scanner: Scanner, window: Window, careful_from: int
    ) -> None:
        self._decoded = decoded
        self._scanner = scanner
        self._batch = scanner.batch
        self._window = window
        self._careful_from = careful_from
        self._arrays = 0
        self._read_again_bytes = 0
        self._left_bytes = 0

    def read(self) -> None:
        """Read the text. Raises _BrokenArrayError."""
        window, scanner, batch = self._window, self._scanner, self._batch
        scanner.clear()
        while True:
            flags = Flags.FINAL if window.final else Flags.NONE
            stop = scanner.scan(window.buffer, window.position, flags)
            window.position = batch.position
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
        self._require_outside()
        if batch.rows:
            self._decoded.add(scanner.take())

    def _require_outside(self) -> None:
        """Raise _BrokenArrayError inside an array."""
        if self._batch.place != Place.OUTSIDE:
            raise _BrokenArrayError(self._arrays - 1)

    def _read_left(self) -> None:
        """Read the one value that the scanner left."""
        window, place = self._window, Place(self._batch.place)
        begin = _NEXT[place].match(window.buffer, window.position)
        if begin is None:
            raise _BrokenArrayError(self._arrays - 1)
        window.position = begin.end()
        if place is Place.OUTSIDE and window.buffer.startswith(b"[", window.position):
            self._read_array()
        else:
            self._take(self._find_value())

    def _read_array(self) -> None:
        """Enter an array whose elements are objects; any other array is a bad row."""
        window = self._window
        while (match := _ARRAY.match(window.buffer, window.position)) is None:
            if window.final or window.unread >= _ROW_MAX_BYTES:
                break
            window.extend()
        if self._arrays >= self._careful_from or match is None or match["first"] not in b"{]":
            found = self._find_value()
            if found is None:
                raise FileError(
                    FailureKind.MALFORMED,
                    f"an array longer than {_ROW_MAX_BYTES} bytes is read only if it begins "
                    "with a row and no array in front of it is broken",
                )
            if not _has_objects(found.value):
                self._take(found)
                return
            self._left_bytes += found.end
        self._arrays += 1
        window.position += 1
        self._batch.place = Place.ARRAY_BEGIN

    def _find_value(self) -> Found | None:
        """Return the value at the window's position, its end in bytes; None if it is too long."""
        window = self._window
        size = _FIRST_TRY_BYTES
        budget = _READ_AGAIN_BYTES + _READ_AGAIN_TIMES * self._left_bytes
        # In an array, which is whole, errors cannot repeat: the first one ends this attempt.
        in_array = self._batch.place != Place.OUTSIDE
        within_line = not in_array and self._read_again_bytes > budget
        while True:
            end = min(window.position + size, len(window.buffer))
            newline = window.buffer.find(b"\n", window.position, end) if within_line else -1
            if newline >= 0:
                end = newline
            text = window.buffer[window.position : end]
            final = newline >= 0 or (window.final and end == len(window.buffer))
            characters = text.decode("utf-8", "surrogateescape")
            found = read_value(characters, final=final)
            if found is not None:
                self._read_again_bytes += found.end
                if found.reason or text.isascii():
                    return found
                read = characters[: found.end].encode("utf-8", "surrogateescape")
                return Found(len(read), found.value)
            size *= 4
            if end == len(window.buffer):
                if window.unread >= _ROW_MAX_BYTES:
                    return None
                window.extend()

    def _take(self, found: Found | None) -> None:
        """Take the value at the window's position as a row or a bad row; else its line is bad."""
        if found is None:
            self._skip_long_row()
        elif found.reason:
            self._require_outside()
            begin = self._window.position
            raw = self._window.take_line(RAW_MAX_BYTES + 1).removesuffix(b"\r")
            self._left_bytes += max(len(raw), self._window.position - begin)
            self._add_bad_row(found.reason, raw)
        else:
            self._take_value(found)

    def _take_value(self, found: Found) -> None:
        window = self._window
        raw = window.buffer[window.position : window.position + found.end]
        try:
            raw.decode()
            line, repaired = to_row(found.value)
            self._add(line.encode())
            self._decoded.repaired += repaired
        except UnicodeDecodeError:
            self._add_bad_row("not JSON: invalid UTF-8", raw[:RAW_MAX_BYTES])
        except BadRowError as error:
            self._add_bad_row(str(error), raw[:RAW_MAX_BYTES])
        window.position += found.end
        self._left_bytes += found.end
        if self._batch.place != Place.OUTSIDE:
            self._batch.place = Place.ARRAY_NEXT

    def _add(self, line: bytes) -> None:
        """Add a row by its line. Raises BadRowError."""
        scanner, batch = self._scanner, self._batch
        place, batch.place = batch.place, Place.OUTSIDE
        stop = scanner.scan(line, 0, Flags.FINAL_DISTINCT)
        if stop is Stop.FULL:
            self._decoded.add(scanner.take())
            stop = scanner.scan(line, 0, Flags.FINAL_DISTINCT)
        batch.place = place
        if stop is Stop.LEFT:
            raise BadRowError("not readable: nested too deeply")

    def _skip_long_row(self) -> None:
        self._require_outside()
        window = self._window
        window.position = len(window.buffer) - len(
            window.buffer[window.position :].lstrip(_WHITE_SPACE)
        )
        raw = window.take_line(RAW_MAX_BYTES)
        self._add_bad_row(f"longer than {_ROW_MAX_BYTES} bytes", raw)

    def _add_bad_row(self, reason: str, raw: bytes) -> None:
        row = self._decoded.rows + self._batch.rows + self._decoded.quarantined
        self._decoded.add_bad_row(row, reason, raw.decode("utf-8", "replace"))


def _has_objects(value: object) -> bool:
    """Return whether a value is an array of rows; some of them may be bad rows."""
    return isinstance(value, list) and (not value or any(isinstance(v, dict) for v in value))
