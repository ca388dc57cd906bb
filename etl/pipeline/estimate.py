"""An estimate of a plan's size and duration, from the newest parts in the lake."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final

from etl.lake.layout import is_part
from etl.lake.receipts import Receipt, read_receipts
from etl.storage.store import Store, StoredFile, StoreError

# The parts of the newest hours that are read: some days of a busy account.
_SAMPLED_PARTS: Final = 96
# A shorter span between a run's first and last part says nothing about its speed.
_SPAN_LEAST_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """What it takes to load the files of a plan; None where nothing is known.

    `bytes` (of gzip) and `rows` are the mean of the `sampled_files` times the files to load.
    `seconds` is by the speed of the newest run, and never less than `fetch.rate` allows.
    """

    sampled_files: int = 0
    bytes: int | None = None
    rows: int | None = None
    seconds: int | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    run: str
    written_at_s: float
    sources: Sequence[Receipt]


def estimate(store: Store, to_load: int, rate: float | None) -> Estimate:
    """Estimate by the newest hours in the lake. Blocking; it reads a few footers.

    Parts that cannot be read are left out. `rate` is `fetch.rate`, in requests a second.
    """
    sample = islice(_newest_files(store), _SAMPLED_PARTS)
    with ThreadPoolExecutor(4 * store.readers) as pool:
        read = pool.map(lambda file: _part(store, file), sample)
        parts = [part for part in read if part is not None]
    sources = [source for part in parts for source in part.sources]
    times = [to_load / rate] if rate else []
    pace_s = _seconds_a_file(parts)
    if pace_s is not None:
        times.append(pace_s * to_load)
    seconds = round(max(times)) if times else None
    if not sources:
        return Estimate(seconds=seconds)
    count = len(sources)
    return Estimate(
        sampled_files=count,
        bytes=sum(source.bytes for source in sources) * to_load // count,
        rows=sum(source.rows for source in sources) * to_load // count,
        seconds=seconds,
    )


def _seconds_a_file(parts: Sequence[_Part]) -> float | None:
    """Return the seconds a file of the newest run among these parts, if it wrote several."""
    newest = max(parts, key=lambda part: part.written_at_s, default=None)
    if newest is None:
        return None
    its = sorted(
        (part for part in parts if part.run == newest.run), key=lambda part: part.written_at_s
    )
    span_s = its[-1].written_at_s - its[0].written_at_s
    # The first part's files were loaded before the span began.
    files = sum(len(part.sources) for part in its[1:])
    return span_s / files if span_s >= _SPAN_LEAST_S and files else None


def _newest_files(store: Store) -> Iterator[StoredFile]:
    """Yield the files that are named like parts, the newest hour first."""
    for day in _folders(store, "", 3):
        parts = [file for file in store.walk(_pass_over, day) if is_part(_last(file.name))]
        yield from sorted(
            parts,
            key=lambda file: [_by_number(name) for name in file.name.split("/")],
            reverse=True,
        )


def _folders(store: Store, folder: str, depth: int) -> Iterator[str]:
    """Yield the folders `depth` levels below one, the greatest number first."""
    if not depth:
        yield folder
        return
    try:
        names = store.names(folder)
    except StoreError:
        return
    for name in sorted(names, key=_by_number, reverse=True):
        if "=" in name:
            yield from _folders(store, f"{folder}/{name}" if folder else name, depth - 1)


def _pass_over(_: str, __: StoreError) -> None:
    return None


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _by_number(name: str) -> tuple[int, str]:
    digits = "".join(character for character in name if character in "0123456789")
    return int(digits or 0), name


def _part(store: Store, file: StoredFile) -> _Part | None:
    try:
        with store.open(file.name) as stream:
            receipts = read_receipts(stream)
    except (StoreError, OSError):
        return None
    return _Part(receipts.run, file.modified.timestamp(), receipts.sources)
