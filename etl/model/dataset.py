"""The lake's columns (how-it-works.md, "The lake"), in the order in which every part has them."""

from typing import Final, NamedTuple, Self

import pyarrow as pa

TIMESTAMP: Final = pa.timestamp("ms", tz="UTC")

STRING_COLUMNS: Final = ("segmentId", "startReason", "endReason")
INTEGER_COLUMNS: Final = ("sequence", "handleTimeMillis")
TIMESTAMP_COLUMNS: Final = ("startTimestamp", "endTimestamp", "insertTimestamp")

#: The years 1 to 9999, in epoch milliseconds. A value outside would make a part unreadable, because
#: neither Python nor DuckDB (microseconds) can hold every int64 of milliseconds.
TIMESTAMP_MIN_MS: Final = -62_135_596_800_000
TIMESTAMP_MAX_MS: Final = 253_402_300_799_999

_DECODED: Final[dict[str, pa.DataType]] = {
    "segmentId": pa.string(),
    "sequence": pa.int64(),
    "startReason": pa.string(),
    "endReason": pa.string(),
    "startTimestamp": TIMESTAMP,
    "endTimestamp": TIMESTAMP,
    "insertTimestamp": TIMESTAMP,
    "handleTimeMillis": pa.int64(),
    "extras": pa.string(),
}
#: The columns that come from a file's text: all except its path.
DECODED_SCHEMA: Final = pa.schema(_DECODED)
SCHEMA: Final = DECODED_SCHEMA.append(pa.field("sourcePath", pa.string()))
#: A part of a coarse copy has the hour as a column, because its folders name the day only.
COPY_SCHEMA: Final = SCHEMA.append(pa.field("hour", pa.int32()))


class SizedBatch(NamedTuple):
    """Rows with their size in memory, because asking Arrow for it is slower than counting."""

    rows: pa.RecordBatch
    bytes: int

    @classmethod
    def of(cls, rows: pa.RecordBatch) -> Self:
        """Return rows with the size that Arrow computes."""
        return cls(rows, rows.nbytes)
