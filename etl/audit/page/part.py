"""What one part tells: its receipts, its run, its segments and its rows' handle times."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from etl.audit.page.durations import COLUMNS, Durations
from etl.audit.page.segments import Segments
from etl.lake.receipts import Receipt, UnreadablePartError, read_receipts
from etl.model.paths import Partition
from etl.model.printable import one_line
from etl.storage.store import LakeError, Store, StoredFile

_BATCH_ROWS: Final = 65_536
_SEGMENT: Final = "segmentId"


@dataclass(frozen=True, slots=True)
class PartFacts:
    """A part as it was found; `damage` says in one line what cannot be read of it.

    A part whose receipts can be read and whose rows cannot has both.
    """

    partition: Partition
    name: str
    damage: str | None = None
    receipts: tuple[Receipt, ...] = ()
    run: str = ""
    version: str = ""
    written_at: datetime | None = None
    bytes: int = 0
    durations: Durations | None = None
    segments: Segments | None = None


def read_part(store: Store, partition: Partition, part: StoredFile) -> PartFacts | None:
    """Read a part in bounded memory; None if it is gone meanwhile. Blocking, raises nothing."""
    name = part.name.rpartition("/")[2]
    try:
        with store.open(part.name) as stream:
            receipts = read_receipts(stream).sources
            stream.seek(0)
            with pq.ParquetFile(stream) as file:
                metadata = file.metadata.metadata or {}
                durations, segments, damage = _rows(file)
    except FileNotFoundError:
        return None
    except (UnreadablePartError, LakeError, pa.ArrowException, OSError) as error:
        return PartFacts(partition, name, damage=_first_line(error))
    return PartFacts(
        partition,
        name,
        damage,
        receipts,
        one_line(metadata.get(b"aht_etl.run", b"").decode("utf-8", "replace")),
        one_line(metadata.get(b"aht_etl.version", b"").decode("utf-8", "replace")),
        part.modified,
        part.bytes,
        durations,
        segments,
    )


def _rows(file: pq.ParquetFile) -> tuple[Durations | None, Segments | None, str | None]:
    durations, segments = Durations(), Segments()
    try:
        # One row group after another: a reader of all holds on to what it has read.
        for group in range(file.num_row_groups):
            # One thread: the parts are read side by side already.
            for batch in file.iter_batches(
                _BATCH_ROWS, [group], [*COLUMNS, _SEGMENT], use_threads=False
            ):
                durations.add_batches([batch])
                names: Any = pc.unique(batch[_SEGMENT])
                segments.add(names.to_pylist())
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        return None, None, f"its rows cannot be read: {_first_line(error)}"
    return durations, segments, None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
