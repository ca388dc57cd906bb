"""The result of decoding a file: rows in memory or spilled to disk, and bad rows."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, Self, cast

import pyarrow as pa

from etl.decode.unpack import Unpacked
from etl.model.dataset import DECODED_SCHEMA, SizedBatch

_BAD_ROWS_IN_MEMORY_BYTES: Final = 2**18
#: operations.md, "Bad rows": the raw text is cut at 64 KiB.
RAW_MAX_BYTES: Final = 2**16


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
        """Complete the result after the last row."""
        self.bytes, self.sha256 = unpacked.file.bytes, unpacked.file.sha256
        self.decompressed, self.encodings = unpacked.decompressed, unpacked.encodings
        if self._writer is not None:
            self._writer.close()

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
