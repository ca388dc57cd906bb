"""Measurements without a comparison: start-up, nothing to do, memory, shapes, limits."""

import gc
import gzip
import io
import json
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from statistics import median
from typing import Any, Final

from etl.cli import GARBAGE_AFTER
from etl.decode.file import DecodeLimits, decode
from etl.emulator import Dataset, EmulatorOptions, run_in_thread
from etl.emulator.dataset import pack, units
from etl.emulator.server import Request
from etl.model.times import to_millis
from tests.bench.compare import our_command
from tests.bench.measure import Sample, run
from tests.bench.server import serve
from tests.bench.workload import ACCOUNT, START, W1, W2, Workload, compact_lines, make

#: The name of a goal and its measurement.
Figure = tuple[str, str]
_MANY: Final = Workload("many", files=10_000, rows_per_file=3, hours=720)
_LARGE_BYTES: Final = 5_000_000_000
_RATE: Final = 50.0
_LIMITS: Final = DecodeLimits(max_file_size=2**34, max_bad_row_ratio=0.5, spill_bytes=2**26)


def figures(folder: Path, runs: int, scale: float) -> Iterator[Figure]:
    """Yield the measurements one after another."""
    for measured in (_start, _nothing_to_do, _per_million, _memory, _large, _shapes, _rate):
        yield from measured(folder, runs, scale)


def _start(folder: Path, runs: int, _: float) -> Iterator[Figure]:
    command = [str(Path(sys.executable).with_name("aht-etl")), "--version"]
    samples = [run(command, log=folder / "log") for _ in range(max(5, runs))]
    yield "start-up, `aht-etl --version`", f"{median(s.wall_s for s in samples):.2f} s"


def _nothing_to_do(folder: Path, runs: int, scale: float) -> Iterator[Figure]:
    workload = _MANY.at_scale(scale)
    data = make(workload, folder / f"many-{workload.files}")
    with serve(data) as base:
        first = _load(base, workload, folder)
        again = [run(our_command(base, workload, folder / "lake"), log=folder / "log")]
        again += [run(our_command(base, workload, folder / "lake"), log=folder / "log")]
        idle = [_idle(base, folder) for _ in range(max(3, runs))]
    beyond = min(s.wall_s for s in again) - median(s.wall_s for s in idle)
    name = f"nothing to do, {workload.files:,} files in {workload.hours} hours loaded"
    yield name, f"{beyond:.2f} s beyond start-up (loading them: {first.wall_s:.1f} s)"


def _per_million(folder: Path, runs: int, scale: float) -> Iterator[Figure]:
    workload = W2.at_scale(scale)
    data = make(workload, folder / f"{workload.name}-{workload.files}")
    with serve(data) as base:
        cpu_s = median(_load(base, workload, folder).cpu_s for _ in range(max(3, runs)))
        idle_s = median(_idle(base, folder).cpu_s for _ in range(max(3, runs)))
    per_million = (cpu_s - idle_s) / workload.rows * 1e6
    yield "processor time, gzip to Parquet, 1 M rows of W2", f"{per_million:.2f} s"


def _memory(folder: Path, runs: int, scale: float) -> Iterator[Figure]:
    # The vendor keeps a month, so ten times W1 also means more files per hour.
    for name, files, hours in (
        ("W1", W1.files, W1.hours),
        ("W1 in {} hours", W1.files, 72),
        ("ten times that in {} hours", 10 * W1.files, 720),
    ):
        workload = Workload("W1", round(files * scale), W1.rows_per_file, round(hours * scale))
        data = make(workload, folder / f"W1-{workload.files}-{workload.hours}")
        with serve(data) as base:
            peak = max(_load(base, workload, folder).peak_bytes for _ in range(runs))
        yield f"peak memory, {name.format(workload.hours)}", f"{peak / 1e6:.0f} MB"


def _large(folder: Path, _runs: int, scale: float) -> Iterator[Figure]:
    workload = Workload("large", 1, 1, 1)
    data = make(workload, folder / "large")
    rng = random.Random(1)
    rows = units(rng, ACCOUNT, to_millis(START), to_millis(START + timedelta(hours=2)), 300_000)
    text = compact_lines(rows, rng).encode()
    member = gzip.compress(text, 6, mtime=0)
    count = max(1, round(_LARGE_BYTES * scale / len(text)))
    with (data / workload.path_of(0)[1:]).open("wb") as file:
        for _ in range(count):
            file.write(member)
    with serve(data) as base:
        sample = _load(base, workload, folder)
    shutil.rmtree(data)
    yield (
        f"one file of {count * len(text) / 1e9:.1f} GB unpacked",
        f"peak {sample.peak_bytes / 1e6:.0f} MB, {sample.wall_s:.1f} s, "
        f"{count * len(rows) / 1e6:.1f} M rows",
    )


def _load(base: str, workload: Workload, folder: Path) -> Sample:
    shutil.rmtree(folder / "lake", ignore_errors=True)
    return run(our_command(base, workload, folder / "lake"), log=folder / "log")


def _idle(base: str, folder: Path) -> Sample:
    """Run for a window without files."""
    nothing = ("--from", "2021-01-01", "--to", "2021-01-02")
    return run(our_command(base, W1, folder / "nowhere", *nothing), log=folder / "log")


def _shapes(_folder: Path, runs: int, scale: float) -> Iterator[Figure]:
    rng = random.Random(1)
    hour_ms = to_millis(START)
    rows = units(rng, ACCOUNT, hour_ms, hour_ms + 4_800_000, round(100_000 * max(scale, 0.2)))
    written = {name: write(rows) for name, write in SHAPES.items()}
    seconds: dict[str, list[float]] = {name: [] for name in written}
    gc.freeze()
    gc.set_threshold(GARBAGE_AFTER)  # as the command does
    for _ in range(max(5, runs)):
        for name, text in written.items():
            begun = time.process_time()
            with decode(io.BytesIO(text), "/x", _LIMITS, scratch=Path("/tmp")) as decoded:
                seconds[name].append(time.process_time() - begun)
                assert decoded.rows == len(rows)
    documented = min(seconds["documented"])
    yield (
        "decoding, documented shape, 1 M rows",
        f"{documented / len(rows) * 1e6:.2f} s of processor time",
    )
    for name, taken in seconds.items():
        if name != "documented":
            yield f"decoding, {name}", f"{min(taken) / documented:.1f} × the documented shape"


def _numbers(change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda row: {k: change(v) if isinstance(v, int) else v for k, v in row.items()}


def _packed(rows: list[dict[str, Any]], **how: Any) -> bytes:
    return pack("".join(json.dumps(row, **how) + "\n" for row in rows))


def _at_random(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with missing fields, with unknown fields of any shape, and in any order."""
    rng = random.Random(2)

    def value(depth: int) -> Any:
        kind = rng.random()
        if depth < 2 and kind < 0.3:
            return {f"k{rng.randrange(90)}": value(depth + 1) for _ in range(rng.randrange(5))}
        if depth < 2 and kind < 0.6:
            return [value(depth + 1) for _ in range(rng.randrange(6))]
        return rng.choice([None, True, rng.randrange(10**6), rng.random(), "a, b", 'Ü "quoted"'])

    changed = []
    for row in rows:
        optional = {"endReason", "insertTimestamp", "sequence"}
        members = [item for item in row.items() if item[0] not in optional or rng.random() < 0.8]
        members += [(f"u{rng.randrange(10)}", value(0)) for _ in range(rng.randrange(4))]
        changed.append(dict(rng.sample(members, len(members))))
    return changed


_COMPACT: Final = (",", ":")
_NESTED: Final = {"tags": [1.5, None, "a\n\\"], "v": 2}
SHAPES: Final[dict[str, Callable[[list[dict[str, Any]]], bytes]]] = {
    "documented": lambda rows: _packed(rows, separators=_COMPACT),
    "spread over lines": lambda rows: _packed(rows, indent=2),
    "one array": lambda rows: pack(json.dumps(rows)),
    "numbers as strings": lambda rows: _packed(list(map(_numbers(str), rows))),
    "integral floats": lambda rows: _packed(list(map(_numbers(float), rows))),
    "an unknown field": lambda rows: _packed([{**row, "skill": "Übersicht"} for row in rows]),
    "an unknown field in every third row": lambda rows: _packed(
        [{**row, "skill": "x"} if i % 3 == 0 else row for i, row in enumerate(rows)]
    ),
    "unknown nested fields": lambda rows: _packed([{**row, "meta": _NESTED} for row in rows]),
    "text with commas and quotes": lambda rows: _packed(
        [{**row, "note": f'he said, "{i}"'} for i, row in enumerate(rows)]
    ),
    "null in every third row": lambda rows: _packed(
        [{**row, "endReason": None} if i % 3 == 0 else row for i, row in enumerate(rows)]
    ),
    "no two neighbours alike": lambda rows: _packed(
        [{**row, "x": {f"k{i % 50}": list(range(i % 23))}} for i, row in enumerate(rows)]
    ),
    "fields, order and containers at random": lambda rows: _packed(_at_random(rows)),
    "at random, spread over lines": lambda rows: _packed(_at_random(rows), indent=2),
    "at random, one array": lambda rows: pack(json.dumps(_at_random(rows))),
}


def _rate(folder: Path, _runs: int, scale: float) -> Iterator[Figure]:
    count = round(3000 * max(scale, 0.2))
    hours = 24
    workload = Workload("rate", count, 2, hours)
    data = make(workload, folder / f"rate-{count}")
    files = {path: (data / path[1:]).read_bytes() for path in map(workload.path_of, range(count))}
    options = EmulatorOptions(rate=_RATE, oldest=None)
    with run_in_thread(Dataset.of(files), options) as emulator:
        shutil.rmtree(folder / "lake", ignore_errors=True)
        run(our_command(emulator.base_url, workload, folder / "lake"), log=folder / "log")
    requests = [request for request in emulator.requests if request.endpoint == "file"]
    begin, end = requests[0].at_s, requests[-1].at_s
    later = [request for request in requests if request.at_s >= (begin + end) / 2]
    yield (
        f"a server that allows {_RATE:g} requests a second, {end - begin:.0f} s",
        f"{_of_the_rate(later)} in the second half; {_of_the_rate(requests)} from "
        "the first file on",
    )


def _of_the_rate(requests: Sequence[Request]) -> str:
    refused = sum(request.status == HTTPStatus.TOO_MANY_REQUESTS for request in requests)
    took_s = requests[-1].at_s - requests[0].at_s
    share = (len(requests) - refused) / took_s / _RATE
    return f"{share:.2f} of that and {refused / len(requests):.1%} answers of 429"
