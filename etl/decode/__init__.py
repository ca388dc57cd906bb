"""A downloaded file → rows in Arrow columns, and its bad rows."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """How large and how bad a file may be, and how much of it is held in memory, in bytes."""

    max_file_size: int
    max_bad_row_ratio: float
    spill_bytes: int
