"""The input of the benchmarks: files of invented HTUs in the documented shape, made from a seed.

W1 is a week of a large contact centre, with many small files. W2 has few large files. The same
scale always gives the same names, rows and bytes.
"""

import gzip
import json
import os
import random
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from etl.emulator.dataset import units
from etl.model.times import to_millis

ACCOUNT: Final = "79344075"
START: Final = datetime(2022, 6, 1, tzinfo=UTC)
_DAY: Final = timedelta(days=1)
#: A function from rows to the text of a file.
Write = Callable[[list[dict[str, Any]], random.Random], str]


@dataclass(frozen=True, slots=True)
class Workload:
    """Some files and their distribution over the hours from START on."""

    name: str
    files: int
    rows_per_file: int
    hours: int

    @property
    def rows(self) -> int:
        """The number of rows of all files together."""
        return sum(self.rows_of(index) for index in range(self.files))

    @property
    def end(self) -> datetime:
        """The midnight that ends the window of all files."""
        return START + _DAY * -(-self.hours // 24)

    def rows_of(self, index: int) -> int:
        """Return the rows of a file: the average, in small files up to a third more or less."""
        if self.rows_per_file >= 10_000:
            return self.rows_per_file
        return self.rows_per_file + (index % 3 - 1) * (self.rows_per_file // 3)

    def path_of(self, index: int) -> str:
        """Return the path of a file as the vendor writes it."""
        at = START + timedelta(hours=index * self.hours // self.files)
        written = at + timedelta(hours=1, minutes=20)
        return (
            f"/year={at.year}/month={at.month}/day={at.day}/hour={at.hour}/accountId={ACCOUNT}"
            f"/sequences.{to_millis(written)}.{written:%Y%m%d%H%M%S}.{index:05d}.json.gz"
        )

    def at_scale(self, scale: float) -> "Workload":
        """Return the same workload with this many times the files."""
        files, hours = max(1, round(self.files * scale)), max(1, round(self.hours * scale))
        return Workload(self.name, files, self.rows_per_file, hours)


W1: Final = Workload("W1", files=2000, rows_per_file=500, hours=168)
W2: Final = Workload("W2", files=24, rows_per_file=200_000, hours=24)


def compact_lines(rows: list[dict[str, Any]], _: random.Random) -> str:
    """Write one compact object per line, the documented shape."""
    return "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)


def make(workload: Workload, folder: Path, write: Write = compact_lines) -> Path:
    """Make the files and the listing of each day under `folder`, unless they exist.

    The files have their own paths. The answers of the Breakdown API are in
    `listing/<fromMillis>.json`.
    """
    done = folder / "done"
    key = json.dumps([workload.name, workload.files, workload.rows_per_file, workload.hours])
    if done.exists() and done.read_text() == key:
        return folder
    paths = [workload.path_of(index) for index in range(workload.files)]
    for path in paths:
        (folder / path[1:]).parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        jobs = [
            pool.submit(_make_file, folder / path[1:], index, workload.rows_of(index), write)
            for index, path in enumerate(paths)
        ]
        for job in jobs:
            job.result()
    listing = folder / "listing"
    listing.mkdir(exist_ok=True)
    day = START
    while day < workload.end:
        files = [path for path in paths if f"/day={day.day}/" in path]
        timeframe = {"startTimeL": to_millis(day), "endTimeL": to_millis(day + _DAY)}
        answer = {"timeframe": timeframe, "files": files}
        listing.joinpath(f"{to_millis(day)}.json").write_text(json.dumps(answer))
        day += _DAY
    done.write_text(key)
    return folder


def _make_file(file: Path, index: int, count: int, write: Write) -> None:
    rng = random.Random(f"aht-{index}")
    hour_ms = to_millis(START) + index * 1000
    rows = units(rng, ACCOUNT, hour_ms, hour_ms + 4_800_000, count)
    file.write_bytes(gzip.compress(write(rows, rng).encode(), 6, mtime=0))
