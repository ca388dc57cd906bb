"""The native scanner (scan.c), loaded by ctypes: text → rows in Arrow columns.

The library is compiled when the package is installed (build.py). Loading it takes no pyarrow.
"""

import ctypes
from enum import IntEnum
from pathlib import Path
from typing import Final
from zlib import crc32

from etl.model.errors import RunError

__all__ = ["Batch", "Flags", "Place", "Stop", "scan"]

_FOLDER: Final = Path(__file__).parent
_STRINGS: Final = 4
_INTEGERS: Final = 5


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

    _fields_ = (
        ("offsets", ctypes.c_void_p * _STRINGS),
        ("bytes", ctypes.c_void_p * _STRINGS),
        ("bytes_capacity", ctypes.c_int64 * _STRINGS),
        ("integers", ctypes.c_void_p * _INTEGERS),
        ("valid", ctypes.c_void_p * (_STRINGS + _INTEGERS)),
        ("max_rows", ctypes.c_int64),
        ("rows", ctypes.c_int64),
        ("nulls", ctypes.c_int64 * (_STRINGS + _INTEGERS)),
        ("place", ctypes.c_int64),
        ("position", ctypes.c_int64),
    )


def _load(path: Path) -> ctypes.CDLL:
    """Load the library. Raises RunError where it is missing or not this version's."""
    advice = "install aht-etl again (pip install --force-reinstall)"
    try:
        library = ctypes.CDLL(str(path))
        library.aht_version.restype = library.aht_batch_size.restype = ctypes.c_int64
        found = (library.aht_version(), library.aht_batch_size())
    except (OSError, AttributeError):
        raise RunError(f"{path} is missing or cannot be loaded; {advice}") from None
    if found != (_checksum(), ctypes.sizeof(Batch)):
        raise RunError(f"{path} is not of this version of aht-etl; {advice}")
    return library


def _checksum() -> int:
    """Return the checksum of the sources, which the library is compiled with (build.py)."""
    return crc32((_FOLDER / "scan.h").read_bytes() + (_FOLDER / "scan.c").read_bytes())


#: `aht_scan` of scan.h: batch, text, its length, flags → a Stop. It runs without the GIL.
scan: Final = _load(_FOLDER / "scan.so").aht_scan
scan.argtypes = (ctypes.POINTER(Batch), ctypes.c_char_p, ctypes.c_int64, ctypes.c_int32)
scan.restype = ctypes.c_int
