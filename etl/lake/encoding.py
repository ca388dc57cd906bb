"""Rows in Arrow columns → a Parquet file, one row group at a time."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from etl.config.sections import Compression
from etl.model.dataset import (
    COPY_SCHEMA,
    DECODED_SCHEMA,
    INTEGER_COLUMNS,
    STRING_COLUMNS,
    TIMESTAMP_COLUMNS,
    SizedBatch,
)
from etl.model.paths import BreakdownPath

# Chosen by measurement (tests/bench/README.md has the figures): a million rows need two thirds of
# the time of pyarrow's defaults and three quarters of the size. Delta encoding of the integers
# would save a little more, but fastparquet reads wide ones wrongly without an error.
_DICTIONARY: Final = [*STRING_COLUMNS, "sequence", "extras", "sourcePath"]
_HOUR: Final = COPY_SCHEMA.field("hour")
_WITH_STATISTICS: Final = [*INTEGER_COLUMNS, *TIMESTAMP_COLUMNS]
_ZSTD_LEVEL: Final = 1
# In memory each row has a number for its path, not a hundred characters. Readers see strings,
# because the file does not contain Arrow's schema.
_WRITTEN: Final = DECODED_SCHEMA.append(
    pa.field("sourcePath", pa.dictionary(pa.int32(), pa.string()))
)


class Encoder:
    """Writes one Parquet file, a row group at a time. Raises OSError.

    With `with_hour`, for a coarse copy, the file also has the column `hour`, from the paths.
    """

    def __init__(self, path: Path, compression: Compression, *, with_hour: bool = False) -> None:
        self._with_hour = with_hour
        # Arrow's own file: with a Python file, each of many small writes would wait for the GIL.
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pq.ParquetWriter(
            self._file,
            _WRITTEN.append(_HOUR) if with_hour else _WRITTEN,
            compression=compression,
            compression_level=_ZSTD_LEVEL if compression == "zstd" else None,
            use_dictionary=_DICTIONARY,  # type: ignore[arg-type]  # its stub knows bool only
            write_statistics=[*_WITH_STATISTICS, _HOUR.name] if with_hour else _WITH_STATISTICS,
            store_schema=False,
            write_page_checksum=True,
        )

    @property
    def bytes(self) -> int:
        """The number of bytes written so far."""
        return self._file.tell()

    def write(self, batches: Sequence[tuple[int, SizedBatch]], paths: Sequence[str]) -> None:
        """Write a row group of batches, each with the number of its source among the `paths`."""
        # Only the paths of these batches: each row group has a dictionary of its own.
        first = batches[0][0]
        paths = paths[first : batches[-1][0] + 1]
        numbers = b"".join(
            (number - first).to_bytes(4, sys.byteorder) * len(batch.rows)
            for number, batch in batches
        )
        rows = pa.Table.from_batches([batch.rows for _, batch in batches], DECODED_SCHEMA)
        if not rows.num_rows:
            return
        indices = pa.Array.from_buffers(pa.int32(), len(rows), [None, pa.py_buffer(numbers)])
        # The type is given, because pyarrow would look for an absent library to infer it.
        names = pa.array(paths, pa.string())
        column = pa.DictionaryArray.from_arrays(indices, names)
        table = rows.append_column(_WRITTEN.field("sourcePath"), column)
        if self._with_hour:
            hours = [BreakdownPath.parse(path).partition.hour.hour for path in paths]
            table = table.append_column(_HOUR, pa.array(hours, pa.int32()).take(indices))
        self._writer.write_table(table, row_group_size=len(table))

    def finish(self, metadata: dict[str, str]) -> int:
        """Complete the file with this metadata in its footer; return its size in bytes."""
        self._writer.add_key_value_metadata(metadata)
        self._writer.close()
        size = self._file.tell()
        self._file.close()
        return size

    def discard(self) -> None:
        """Close the file, which is of no use any more."""
        for closing in (self._writer, self._file):
            with suppress(OSError, pa.ArrowException):
                closing.close()
