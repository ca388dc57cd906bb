"""Rows on their way into Arrow columns: the native scanner and the buffers that it fills."""

import ctypes
from typing import Any, Final

import pyarrow as pa

from etl.decode.kernel import Batch, Flags, Place, Stop, scan
from etl.model.dataset import DECODED_SCHEMA, STRING_COLUMNS, TIMESTAMP_COLUMNS, Sized

# The columns in the scanner's order (etl/decode/kernel/scan.h).
_STRINGS: Final = (*STRING_COLUMNS, "extras")
_INTEGERS: Final = ("sequence", *TIMESTAMP_COLUMNS, "handleTimeMillis")
_TYPES: Final = {field.name: field.type for field in DECODED_SCHEMA}
# Buffers of this size, a megabyte together, stay in the processor's cache and are used again and
# again. A batch of rows with long texts has fewer rows.
_ROWS: Final = 2**13
_BYTES: Final = (96 * _ROWS, 24 * _ROWS, 24 * _ROWS, 32 * _ROWS)


class Scanner:
    """Scans text into its buffers; `take` returns the rows. Used by one thread at a time."""

    def __init__(self) -> None:
        self._batch = Batch(max_rows=_ROWS)
        self._reference = ctypes.byref(self._batch)
        self._offsets = [bytearray(4 * (_ROWS + 1)) for _ in _STRINGS]
        self._integers = [bytearray(8 * _ROWS) for _ in _INTEGERS]
        self._valid = [bytearray(_ROWS // 8) for _ in (*_STRINGS, *_INTEGERS)]
        self._batch.offsets[:] = list(map(_address, self._offsets))
        self._batch.integers[:] = list(map(_address, self._integers))
        self._batch.valid[:] = list(map(_address, self._valid))
        self._make_room(1)

    def _make_room(self, factor: int) -> None:
        """Make the text buffers `factor` times their usual size."""
        self._factor = factor
        # Not filled with zeros: of the largest nearly nothing is ever touched.
        self._bytes = [pa.allocate_buffer(factor * size) for size in _BYTES]
        self._batch.bytes[:] = [buffer.address for buffer in self._bytes]
        self._batch.bytes_capacity[:] = [buffer.size for buffer in self._bytes]
        self._batch.rows = 0

    def clear(self) -> None:
        """Begin anew, at the beginning of a text and without rows."""
        self.place = Place.OUTSIDE
        self._batch.rows = 0

    @property
    def rows(self) -> int:
        """How many rows wait to be taken."""
        return int(self._batch.rows)

    @property
    def position(self) -> int:
        """Where in the text the last scan stopped: between two values."""
        return int(self._batch.position)

    @property
    def place(self) -> Place:
        """Whether the text at `position` is inside an array."""
        return Place(self._batch.place)

    @place.setter
    def place(self, place: Place) -> None:
        self._batch.place = place

    def scan(self, text: bytes, position: int, flags: Flags = Flags.NONE) -> Stop:
        """Add the rows in the text from `position` on. Releases the GIL.

        At Stop.FULL take the rows and go on. A row that is too long for empty buffers makes them
        larger.
        """
        self._batch.position = position
        stop = Stop(scan(self._reference, text, len(text), flags))
        while stop is Stop.FULL and not self._batch.rows:
            self._make_room(4 * self._factor)
            stop = Stop(scan(self._reference, text, len(text), flags))
        return stop

    def take(self) -> Sized:
        """Return the rows in Arrow's memory, and empty the buffers."""
        arrays: dict[str, Any] = {}
        size = 0
        for number, name in enumerate((*_STRINGS, *_INTEGERS)):
            arrays[name], bytes_ = self._array(number, name)
            size += bytes_
        if self._factor > 1:
            self._make_room(1)
        self._batch.rows = 0
        columns = [arrays[name] for name in DECODED_SCHEMA.names]
        return Sized(pa.RecordBatch.from_arrays(columns, schema=DECODED_SCHEMA), size)

    def _array(self, number: int, name: str) -> "tuple[pa.Array[Any], int]":
        """Return a column, and how many bytes it takes."""
        rows, nulls = self._batch.rows, self._batch.nulls[number]
        if nulls == rows:
            return pa.nulls(rows, _TYPES[name]), 0
        valid = _copy(self._valid[number], -(-rows // 8)) if nulls else None
        if number < len(_STRINGS):
            offsets = memoryview(self._offsets[number]).cast("i")
            values = [
                _copy(self._offsets[number], 4 * (rows + 1)),
                _copy(self._bytes[number], offsets[rows]),
            ]
        else:
            values = [_copy(self._integers[number - len(_STRINGS)], 8 * rows)]
        array = pa.Array.from_buffers(_TYPES[name], rows, [valid, *values], nulls)
        return array, sum(buffer.size for buffer in values)


def _address(buffer: bytearray) -> int:
    # The array is never resized, so its memory stays where it is.
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def _copy(buffer: bytearray | pa.Buffer, size: int) -> pa.Buffer:
    """Return the first bytes in memory of Arrow's: cheap, as they are in the processor's cache."""
    copy = pa.allocate_buffer(size)
    memoryview(copy).cast("B")[:] = memoryview(buffer).cast("B")[:size]
    return copy
