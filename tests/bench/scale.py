"""Compute the data of a month and the time to load it: `python -m tests.bench.scale`.

The input is results.json, where W1 and W2 give the processor time of a file and of a row, and the
assumptions below. It prints tables in Markdown. --write puts them into configs/docs/scale.md.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.pages import SCALE, put
from tests.bench.workload import W1, W2

_RESULTS: Final = Path(__file__).with_name("results.json")

#: An agent on duty for 160 hours a month, with 25 HTUs an hour, of several conversations at a time.
_ROWS_AN_AGENT: Final = 160 * 25
#: Agents, and the vendor's files per hour. Larger centres also have larger files.
_CENTRES: Final = ((1_000, 12), (10_000, 60), (100_000, 240))
_HOURS: Final = 720
#: Bytes of a row in the documented shape: as JSON, in gzip and in the lake (tests/bench/README.md).
_JSON_BYTES: Final = 279
_GZIP_BYTES: Final = 36
_PARQUET_BYTES: Final = 18.5

_CORES: Final = 2
_IN_FLIGHT: Final = 16  # fetch.concurrency
_ANSWER_S: Final = 0.1  # from a request to the first byte of its answer, over the internet
_BYTES_A_SECOND: Final = 100e6 / 8  # the bandwidth between a machine and the vendor
_START_UP_S: Final = 0.45
_MACHINES: Final = (1, 4, 16)
_RATES: Final = (10, 50)
#: US dollars for 1,000 requests of S3's standard class: puts and listings, gets.
_PUT_COST: Final = 0.005
_GET_COST: Final = 0.0004


@dataclass(frozen=True, slots=True)
class Month:
    """A month of a contact centre, and the time that a machine with this number of cores needs."""

    agents: int
    rows: int
    files: int
    processor_s: float

    def bounds_s(self, machines: int) -> dict[str, float]:
        """Return the seconds on this number of machines, for each possible bottleneck."""
        return {
            "processors": self.processor_s / _CORES / machines,
            "waiting for answers": self.files * _ANSWER_S / _IN_FLIGHT / machines,
            "the network": self.rows * _GZIP_BYTES / _BYTES_A_SECOND / machines,
        }


def months() -> Iterator[Month]:
    """Yield the months, with processor times from the measurements."""
    cpu_s = {
        line["test"]: line["cpu_s"]
        for line in json.loads(_RESULTS.read_text())
        if line["name"] == "aht-etl"
    }
    # Two workloads give two unknowns: the cost of a file and the cost of a row.
    one, two = cpu_s["W1"] - _START_UP_S, cpu_s["W2"] - _START_UP_S
    row_s = (two - one * W2.files / W1.files) / (W2.rows - W1.rows * W2.files / W1.files)
    file_s = (one - row_s * W1.rows) / W1.files
    for agents, files_an_hour in _CENTRES:
        rows, files = agents * _ROWS_AN_AGENT, files_an_hour * _HOURS
        yield Month(agents, rows, files, _START_UP_S + rows * row_s + files * file_s)


def tables() -> Iterator[str]:
    """Yield the tables of the page."""
    all_months = list(months())
    yield _table(
        ["agents", "rows", "files", "rows a file", "gzip", "JSON", "Parquet"],
        (
            [
                f"{m.agents:,}",
                f"{m.rows / 1e6:,.0f} M",
                f"{m.files:,}",
                f"{m.rows / m.files:,.0f}",
                *(_size(m.rows * each) for each in (_GZIP_BYTES, _JSON_BYTES, _PARQUET_BYTES)),
            ]
            for m in all_months
        ),
    )
    yield _table(
        [
            "agents",
            *(f"{n} machine{'s' * (n > 1)}" for n in _MACHINES),
            "bound by",
            "processors alone, 1 machine",
            *(f"at {rate} requests a second" for rate in _RATES),
        ],
        (
            [
                f"{m.agents:,}",
                *(_time(max(m.bounds_s(n).values())) for n in _MACHINES),
                ", then ".join(
                    dict.fromkeys(max(b, key=b.__getitem__) for b in map(m.bounds_s, _MACHINES))
                ),
                _time(m.bounds_s(1)["processors"]),
                *(_time(m.files / rate) for rate in _RATES),
            ]
            for m in all_months
        ),
    )
    yield _table(
        ["agents", "to the vendor", "to the lake", "cost", "and to the archive", "cost"],
        (
            [
                f"{m.agents:,}",
                f"{31 + m.files:,}",
                f"{_HOURS + 31 + 3:,} puts and listings",
                f"${(_HOURS + 34) / 1000 * _PUT_COST:.3f}",
                f"{m.files:,} puts",
                f"${m.files / 1000 * _PUT_COST:.2f}",
            ]
            for m in all_months
        ),
    )


def _table(head: list[str], rows: Iterator[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _size(count: float) -> str:
    unit, count = ("GB", count / 1e9) if count >= 1e9 else ("MB", count / 1e6)
    return f"{count:,.1f} {unit}" if count < 10 else f"{count:,.0f} {unit}"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def main() -> None:
    """Print the tables, or write each into the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale", description=__doc__)
    parser.add_argument("--write", action="store_true", help="into configs/docs/scale.md")
    write = parser.parse_args().write
    for mark, table in zip(("amounts", "times", "requests"), tables(), strict=True):
        print(table)
        if write:
            put(SCALE, mark, table)


if __name__ == "__main__":
    main()
