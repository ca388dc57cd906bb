"""The cost of a raw archive: the same runs with and without one, in turns."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.bench.compare import our_command
from tests.bench.measure import Sample, Spread, run
from tests.bench.server import serve
from tests.bench.workload import W1, W2, Workload, make

_WORKLOADS: Final = (W1, W2)


def rows(folder: Path, runs: int, scale: float) -> Iterator[str]:
    """Yield a table in Markdown, row by row."""
    yield "| | without, s | with an archive, s | wall time | processor time |"
    yield "|---|---|---|---|---|"
    for full in _WORKLOADS:
        workload = full.at_scale(scale)
        data = make(workload, folder / f"{workload.name}-{workload.files}")
        places = folder / "archive"
        shutil.rmtree(places, ignore_errors=True)
        with serve(data) as base:
            turns = [_turn(base, workload, places / str(turn)) for turn in range(runs + 1)][1:]
        # Delete only now: some file systems (ext4) make files slowly right after many deletions.
        shutil.rmtree(places)
        walls = [[sample.wall_s for sample in side] for side in zip(*turns, strict=True)]
        wall = Spread.of([kept.wall_s / plain.wall_s for plain, kept in turns])
        cpu = Spread.of([kept.cpu_s / plain.cpu_s for plain, kept in turns])
        without, kept = map(Spread.of, walls)
        yield f"| {workload.name} | {without} | {kept} | {wall} × | {cpu} × |"


def _turn(base: str, workload: Workload, place: Path) -> tuple[Sample, Sample]:
    """Run once without an archive and once with one; check that it has every file."""
    place.mkdir(parents=True)
    log = place / "log"
    plain = run(our_command(base, workload, place / "plain"), log=log)
    raw = place / "raw"
    env = {"AHT_ETL_RAW__URI": str(raw)}
    kept = run(our_command(base, workload, place / "lake"), log=log, env=env)
    assert sum(1 for _ in raw.rglob("*.json.gz")) == workload.files
    return plain, kept
