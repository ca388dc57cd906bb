"""Compare this program with its alternatives: in turns, on the same files, with equal rows."""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb

from tests.bench.measure import Sample, Spread, run
from tests.bench.rivals import RIVALS
from tests.bench.server import serve
from tests.bench.workload import ACCOUNT, START, W1, W2, Workload, make

OURS: Final = "aht-etl"
LATENCY_MS: Final = 30
#: Name, workload, milliseconds before each answer, and the measured programs.
TESTS: Final = (
    ("W1", W1, 0, tuple(name for name in RIVALS if "32" not in name)),
    ("W1L", W1, LATENCY_MS, tuple(name for name in RIVALS if name != "DuckDB httpfs")),
    ("W2", W2, 0, tuple(name for name in RIVALS if "32" not in name)),
)
_ROWS: Final = "read_parquet('{lake}/year=*/**/*.parquet', hive_partitioning = false)"
# The numbers do not depend on the order of rows and files.
_FINGERPRINT: Final = """
SELECT count(*), sum(hash(segmentId, sequence, startReason, endReason, {times},
    handleTimeMillis)::HUGEINT)::VARCHAR
FROM {rows}
"""
_TIMES: Final = ("startTimestamp", "endTimestamp", "insertTimestamp")


@dataclass(frozen=True, slots=True)
class Line:
    """One program on one workload. `ratio` is our wall time divided by its wall time, per turn."""

    test: str
    name: str
    wall_s: Spread
    cpu_s: Spread
    peak_bytes: int
    ratio: Spread


def our_command(base: str, workload: Workload, lake: Path, *more: str) -> list[str]:
    """Return the command that loads a workload from a server."""
    window = ("--from", START.isoformat(), "--to", workload.end.isoformat())
    command = str(Path(sys.executable).with_name("aht-etl"))
    return [
        *(command, "run", "--account", ACCOUNT, "--base-url", base, "--lake", str(lake)),
        *(*window, *more),
    ]


def compare(folder: Path, runs: int, scale: float) -> list[Line]:
    """Measure all programs in turns. Raises AssertionError if their rows differ."""
    lines = []
    for test, full, pause_ms, rivals in TESTS:
        workload = full.at_scale(scale)
        data = make(workload, folder / f"{workload.name}-{workload.files}")
        names = (OURS, *rivals)
        samples: dict[str, list[Sample]] = {name: [] for name in names}
        with serve(data, pause_ms) as base:
            for turn in range(runs + 1):
                for name in names:
                    sample = _measured(name, base, workload, data, folder)
                    if turn:  # the first one fills the disk cache
                        samples[name].append(sample)
                    print(f"{test} {name}: {sample.wall_s:.2f} s", file=sys.stderr, flush=True)
        lines += [_line(test, name, samples[name], samples[OURS]) for name in names]
    return lines


def _measured(name: str, base: str, workload: Workload, data: Path, folder: Path) -> Sample:
    lake = folder / "lake"
    shutil.rmtree(lake, ignore_errors=True)
    if name == OURS:
        command = our_command(base, workload, lake)
    else:
        days = str((workload.end - START).days)
        command = [sys.executable, "-m", "tests.bench.rivals", name, base, days, str(lake)]
    sample = run(command, log=folder / "log")
    _check(data, lake, workload)
    return sample


def _check(data: Path, lake: Path, workload: Workload) -> None:
    """Compare the lake's rows with those of the first lake of this workload."""
    with duckdb.connect() as connection:
        rows = _ROWS.format(lake=lake)
        one = connection.execute(f"SELECT typeof(startTimestamp) FROM {rows} LIMIT 1").fetchone()
        # DuckDB keeps the integers of timestamps.
        as_integers = _TIMES if one == ("BIGINT",) else [f"epoch_ms({name})" for name in _TIMES]
        query = _FINGERPRINT.format(rows=rows, times=", ".join(as_integers))
        found = connection.execute(query).fetchone()
    known = data / "fingerprint.json"
    if not known.exists():
        known.write_text(json.dumps(found))
    assert found is not None
    assert [workload.rows, found[1]] == json.loads(known.read_text()), f"other rows in {lake}"


def _line(test: str, name: str, samples: list[Sample], ours: list[Sample]) -> Line:
    ratios = [our.wall_s / its.wall_s for our, its in zip(ours, samples, strict=True)]
    return Line(
        test,
        name,
        Spread.of([sample.wall_s for sample in samples]),
        Spread.of([sample.cpu_s for sample in samples]),
        max(sample.peak_bytes for sample in samples),
        Spread.of(ratios),
    )


def to_table(lines: list[Line]) -> str:
    """Return the lines as a table in Markdown."""
    rows = [
        "| | program | wall, s | processor, s | peak, MB | aht-etl takes |",
        "|---|---|---|---|---|---|",
    ]
    for line in lines:
        ratio = "" if line.name == OURS else f"{line.ratio} ×"
        rows.append(
            f"| {line.test} | {line.name} | {line.wall_s} | {line.cpu_s.median:.1f} "
            f"| {line.peak_bytes / 1e6:.0f} | {ratio} |"
        )
    return "\n".join(rows) + "\n"


def as_json(lines: list[Line]) -> list[dict[str, Any]]:
    """Return the lines as JSON, for the plot and for later use."""
    return [
        {
            "test": line.test,
            "name": line.name,
            "wall_s": line.wall_s.median,
            "cpu_s": line.cpu_s.median,
            "peak_mb": line.peak_bytes / 1e6,
            "ratio": line.ratio.median,
        }
        for line in lines
    ]


def to_sentence(results: list[dict[str, Any]]) -> str:
    """Return README's sentence about speed from the result of `as_json`."""
    took = {line["name"]: f"{line['wall_s']:.1f} s" for line in results if line["test"] == "W1"}
    ours = took.pop(OURS)
    others = ", ".join(f"{name} {seconds}" for name, seconds in took.items())
    return f"To load {W1.files:,} small files, {OURS} takes {ours}, {others}.\n"
