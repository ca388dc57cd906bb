"""A downloaded file → rows in Arrow columns, and the rows that are none (bad rows)."""

from etl.decode.decoded import Decoded, Sized
from etl.decode.file import DecodeLimits, decode
from etl.decode.together import Packed, decode_all

__all__ = ["DecodeLimits", "Decoded", "Packed", "Sized", "decode", "decode_all"]
