"""The native scanner (scan.c), called by ctypes: text → rows in Arrow columns.

build.py compiles the library when the package is installed.
"""

import ctypes
from enum import IntEnum
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import pyarrow as pa

from etl.model.dataset import DECODED_SCHEMA, STRING_COLUMNS, TIMESTAMP_COLUMNS, SizedBatch
from etl.model.errors import RunError

_FOLDER: Final = Path(__file__).parent
# The columns in the scanner's order (scan.h).
_STRINGS: Final = (*STRING_COLUMNS, "extras")
_COLUMNS: Final = (*_STRINGS, "sequence", *TIMESTAMP_COLUMNS, "handleTimeMillis")
_INTEGERS: Final = len(_COLUMNS) - len(_STRINGS)
_ORDER: Final = [_COLUMNS.index(name) for name in DECODED_SCHEMA.names]
_TYPES: Final = [DECODED_SCHEMA.field(name).type for name in _COLUMNS]
# Buffers of this size, a megabyte together, stay in the processor's cache and are reused. A batch
# of rows with long texts has fewer rows.
_ROWS: Final = 2**13
_BYTES: Final = (96 * _ROWS, 24 * _ROWS, 24 * _ROWS, 32 * _ROWS)


class Place(IntEnum):
    """Where in the text the next byte is (scan.h, aht_place)."""

    OUTSIDE = 0
    ARRAY_BEGIN = 1
    ARRAY_NEXT = 2


class Stop(IntEnum):
    """Why a scan stopped (scan.h, aht_stop)."""

    END = 0
    FULL = 1
    LEFT = 2


class Flags(IntEnum):
    """What a scan may rely on (scan.h, aht_flags)."""

    NONE = 0
    FINAL = 1
    FINAL_DISTINCT = 3


class Batch(ctypes.Structure):
    """Buffers, and how far they are filled (scan.h, aht_batch)."""

    rows: int
    place: int
    position: int
    _fields_ = (
        ("offsets", ctypes.c_void_p * len(_STRINGS)),
        ("bytes", ctypes.c_void_p * len(_STRINGS)),
        ("bytes_capacity", ctypes.c_int64 * len(_STRINGS)),
        ("integers", ctypes.c_void_p * _INTEGERS),
        ("valid", ctypes.c_void_p * len(_COLUMNS)),
        ("max_rows", ctypes.c_int64),
        ("rows", ctypes.c_int64),
        ("nulls", ctypes.c_int64 * len(_COLUMNS)),
        ("place", ctypes.c_int64),
        ("position", ctypes.c_int64),
    )


def _load(path: Path) -> ctypes.CDLL:
    """Load the library. Raises RunError if it is missing or belongs to another version."""
    advice = "install aht-etl again (pip install --force-reinstall)"
    try:
        library = ctypes.CDLL(str(path))
        library.aht_version.restype = library.aht_batch_size.restype = ctypes.c_int64
        found = (library.aht_version(), library.aht_batch_size())
    except (OSError, AttributeError):
        raise RunError(f"{path} is missing or cannot be loaded; {advice}") from None
    # build.py compiles the checksum of the sources into the library.
    version = crc32((_FOLDER / "scan.h").read_bytes() + (_FOLDER / "scan.c").read_bytes())
    if found != (version, ctypes.sizeof(Batch)):
        raise RunError(f"{path} is not of this version of aht-etl; {advice}")
    return library


# `aht_scan` of scan.h: batch, text, its length, flags → a Stop. It runs without the GIL.
_scan: Final = _load(_FOLDER / "scan.so").aht_scan
_scan.argtypes = (ctypes.POINTER(Batch), ctypes.c_char_p, ctypes.c_int64, ctypes.c_int32)
_scan.restype = ctypes.c_int


class Scanner:
    """Scans text into buffers that it reuses. Used by one thread at a time.

    After a scan, `batch` has the number of rows that wait for `take`, the position in the text,
    always between two values, and whether that position is inside an array.
    """

    def __init__(self) -> None:
        self.batch = Batch(max_rows=_ROWS)
        self._reference = ctypes.byref(self.batch)
        self._offsets = [bytearray(4 * (_ROWS + 1)) for _ in _STRINGS]
        self._integers = [bytearray(8 * _ROWS) for _ in range(_INTEGERS)]
        self._valid = [bytearray(_ROWS // 8) for _ in _COLUMNS]
        self.batch.offsets[:] = list(map(_address, self._offsets))
        self.batch.integers[:] = list(map(_address, self._integers))
        self.batch.valid[:] = list(map(_address, self._valid))
        self._make_room(1)

    def _make_room(self, factor: int) -> None:
        """Make the text buffers `factor` times their usual size, and empty."""
        self._factor = factor
        # Not filled with zeros: most of the largest ones is never touched.
        self._bytes = [pa.allocate_buffer(factor * size) for size in _BYTES]
        self.batch.bytes[:] = [buffer.address for buffer in self._bytes]
        self.batch.bytes_capacity[:] = [buffer.size for buffer in self._bytes]
        self.batch.rows = 0

    def clear(self) -> None:
        """Drop all rows, and expect the start of a text."""
        self.batch.place = Place.OUTSIDE
        self.batch.rows = 0

    def scan(self, text: bytes, position: int, flags: Flags = Flags.NONE) -> Stop:
        """Add the rows of the text from `position` on. Releases the GIL.

        After Stop.FULL, take the rows and scan again. A row that is too long for empty buffers
        makes them larger.
        """
        self.batch.position = position
        stop = Stop(_scan(self._reference, text, len(text), flags))
        while stop is Stop.FULL and not self.batch.rows:
            self._make_room(4 * self._factor)
            stop = Stop(_scan(self._reference, text, len(text), flags))
        return stop

    def take(self) -> SizedBatch:
        """Return the rows in Arrow's memory, and empty the buffers."""
        columns, sizes = zip(*map(self._column, _ORDER), strict=True)
        rows = pa.RecordBatch.from_arrays(list(columns), schema=DECODED_SCHEMA)
        if self._factor > 1:
            self._make_room(1)
        self.batch.rows = 0
        return SizedBatch(rows, sum(sizes))

    def _column(self, number: int) -> "tuple[pa.Array[Any], int]":
        """Return a column, and its size in bytes."""
        rows, nulls = self.batch.rows, self.batch.nulls[number]
        if nulls == rows:
            return pa.nulls(rows, _TYPES[number]), 0
        valid = _copy(self._valid[number], -(-rows // 8)) if nulls else None
        if number < len(_STRINGS):
            offsets = memoryview(self._offsets[number]).cast("i")
            values = [
                _copy(self._offsets[number], 4 * (rows + 1)),
                _copy(self._bytes[number], offsets[rows]),
            ]
        else:
            values = [_copy(self._integers[number - len(_STRINGS)], 8 * rows)]
        array = pa.Array.from_buffers(_TYPES[number], rows, [valid, *values], nulls)
        return array, sum(buffer.size for buffer in values)


def _address(buffer: bytearray) -> int:
    # Nothing resizes the array, so its memory does not move.
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def _copy(buffer: bytearray | pa.Buffer, size: int) -> pa.Buffer:
    """Copy the first bytes to Arrow's memory: cheap, as they are in the processor's cache."""
    copy = pa.allocate_buffer(size)
    memoryview(copy).cast("B")[:] = memoryview(buffer).cast("B")[:size]
    return copy
