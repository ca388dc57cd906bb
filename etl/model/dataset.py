"""The lake's columns (how-it-works.md, "The lake"), in the order in which every part has them."""

from typing import Any, Final, NamedTuple, Self

import pyarrow as pa

TIMESTAMP: Final = pa.timestamp("ms", tz="UTC")

STRING_COLUMNS: Final = ("segmentId", "startReason", "endReason")
INTEGER_COLUMNS: Final = ("sequence", "handleTimeMillis")
TIMESTAMP_COLUMNS: Final = ("startTimestamp", "endTimestamp", "insertTimestamp")

#: A year from 1 to 9999, in epoch milliseconds. What lies beyond would make a part unreadable:
#: neither Python nor DuckDB (microseconds) can hold every int64 of milliseconds.
TIMESTAMP_MIN_MS: Final = -62_135_596_800_000
TIMESTAMP_MAX_MS: Final = 253_402_300_799_999

_FIELDS: "Final[list[pa.Field[Any]]]" = [
    pa.field("segmentId", pa.string()),
    pa.field("sequence", pa.int64()),
    pa.field("startReason", pa.string()),
    pa.field("endReason", pa.string()),
    pa.field("startTimestamp", TIMESTAMP),
    pa.field("endTimestamp", TIMESTAMP),
    pa.field("insertTimestamp", TIMESTAMP),
    pa.field("handleTimeMillis", pa.int64()),
    pa.field("extras", pa.string()),
    pa.field("sourcePath", pa.string()),
]

SCHEMA: Final = pa.schema(_FIELDS)
#: What a file's text alone says of its rows: all but where it came from.
DECODED_SCHEMA: Final = pa.schema(_FIELDS[:-1])
#: A part of a coarse copy has the hour as well; its folders name the day only.
COPY_SCHEMA: Final = SCHEMA.append(pa.field("hour", pa.int32()))


class Sized(NamedTuple):
    """Rows, and how many bytes of memory they take: to ask Arrow takes longer than to count."""

    rows: pa.RecordBatch
    bytes: int

    @classmethod
    def of(cls, rows: pa.RecordBatch) -> Self:
        """Ask Arrow."""
        return cls(rows, rows.nbytes)
