"""A downloaded file → rows in Arrow columns, and the rows that are none (bad rows)."""

from etl.decode.decoded import Decoded
from etl.decode.file import DecodeLimits, decode

__all__ = ["DecodeLimits", "Decoded", "decode"]
