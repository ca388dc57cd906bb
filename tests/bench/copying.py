"""Measure what a coarse copy costs and saves: `python -m tests.bench.copying`.

It copies a lake of 10,000 small parts in 30 days, copies again with nothing to do, and scans lake
and copy with DuckDB. It prints a table in Markdown.
"""

import argparse
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import duckdb

from tests.bench.measure import Sample, Spread, run
from tests.copies import arguments
from tests.parts import directory, write_part

_DAYS: Final = 30
_TYPES: Final = "hive_partitioning = true, hive_types = {'accountId': VARCHAR}"
_SCAN: Final = "SELECT startReason, count(*), sum(handleTimeMillis) FROM {} GROUP BY ALL"
_HOUR: Final = "SELECT count(*), sum(handleTimeMillis) FROM {} WHERE day = 7 AND hour = 12"


def main() -> None:
    """Run the measurement with the given flags."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.copying", description=__doc__)
    parser.add_argument("--parts", type=int, default=10_000, help="default 10,000")
    parser.add_argument("--runs", type=int, default=3, help="default 3")
    parser.add_argument("--data", type=Path, help="where the lake is kept for the next time")
    said = parser.parse_args()
    folder = said.data or Path(tempfile.gettempdir(), "aht-etl-bench")
    lake = _lake(folder / f"copying-{said.parts}", said.parts)
    print("| | lake | copy |\n|---|---|---|")
    for row in _rows(lake, folder / "copy", said.runs):
        print(row, flush=True)


def _lake(folder: Path, parts: int) -> Path:
    """Make the lake unless it exists. All hours have about the same number of parts."""
    if not folder.exists():
        chance, temporary = random.Random(1), folder.with_suffix(".new")
        shutil.rmtree(temporary, ignore_errors=True)
        for number in range(parts):
            day, hour = 1 + number % _DAYS, number // _DAYS % 24
            name = f"sequences.{1654113886437 + number}.20220601160446.{number % 1000:05d}"
            write_part(temporary, directory(hour, day=day), [(name, chance.randint(40, 160))])
        temporary.rename(folder)
    return folder


def _rows(lake: Path, copy: Path, runs: int) -> Iterator[str]:
    copied, again = [], []
    for _ in range(runs):
        shutil.rmtree(copy, ignore_errors=True)
        copied.append(_copy(lake, copy))
        again.append(_copy(lake, copy))
    for name, samples in (("copying", copied), ("nothing to do", again)):
        wall = Spread.of([sample.wall_s for sample in samples])
        processor = Spread.of([sample.cpu_s for sample in samples])
        peak_mb = max(sample.peak_bytes for sample in samples) / 1e6
        yield f"| {name} | | {wall} s, processor {processor} s, peak {peak_mb:.0f} MB |"
    sizes = [_size(lake), _size(copy)]
    yield f"| files, size | {sizes[0]} | {sizes[1]} |"
    for name, query in (("full scan", _SCAN), ("one hour", _HOUR)):
        results = []
        for place in (lake, copy):
            read = f"read_parquet('{place}/year=*/**/*.parquet', {_TYPES})"
            results.append(_timed(query.format(read), runs))
        (of_lake, lake_rows), (of_copy, copy_rows) = results
        assert set(lake_rows) == set(copy_rows)
        yield f"| {name} by DuckDB | {of_lake} s | {of_copy} s |"


def _copy(lake: Path, copy: Path) -> Sample:
    command = arguments(lake, copy, "--settle", "0s", "--log-level", "error")
    return run(command, log=copy.with_suffix(".log"))


def _size(place: Path) -> str:
    parts = list(place.glob("year=*/**/*.parquet"))
    return f"{len(parts):,} files, {sum(part.stat().st_size for part in parts) / 1e6:.1f} MB"


def _timed(query: str, runs: int) -> tuple[Spread, list[tuple[object, ...]]]:
    walls, rows = [], []
    for _ in range(runs):
        with duckdb.connect() as connection:
            begun_s = time.perf_counter()
            rows = connection.sql(query).fetchall()
            walls.append(time.perf_counter() - begun_s)
    return Spread.of(walls), rows


if __name__ == "__main__":
    main()
