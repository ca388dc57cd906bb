"""Run the benchmark: `python -m tests.bench`; --quick does a tenth of the work.

It needs the extra `bench`, and root on Debian to install nginx and aria2 if they are missing. It
prints tables in Markdown. --write puts them into the page `performance` and a sentence into README.
"""

import argparse
import json
import os
import platform
import re
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Final

from tests.bench import archive
from tests.bench.compare import as_json, compare, to_sentence, to_table
from tests.bench.goals import figures
from tests.bench.pages import PERFORMANCE, README, put

_RESULTS: Final = Path(__file__).with_name("results.json")
_PACKAGES: Final = ("aht-etl", "pyarrow", "aiohttp", "isal", "duckdb")


def main() -> None:
    """Run the benchmarks that the flags select."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the files")
    parser.add_argument("--runs", type=int, default=5, help="turns that count (default 5)")
    parser.add_argument("--only", choices=["compare", "goals", "archive"], help="a part")
    parser.add_argument("--data", type=Path, help="where files are kept for the next time")
    parser.add_argument("--write", action="store_true", help="into the pages and results.json")
    arguments = parser.parse_args()
    scale = 0.1 if arguments.quick else 1.0
    folder = arguments.data or Path(tempfile.gettempdir(), "aht-etl-bench")
    folder.mkdir(parents=True, exist_ok=True)
    machine = _machine()
    print(f"{machine}\n")
    if arguments.only in {None, "compare"}:
        lines = compare(folder, arguments.runs, scale)
        table = to_table(lines)
        print(table)
        if arguments.write:
            results = as_json(lines)
            _RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            put(PERFORMANCE, "compared", f"{machine}\n\n{table}")
            put(README, "sentence", to_sentence(results))
    if arguments.only in {None, "archive"}:
        rows = []
        for row in archive.rows(folder, arguments.runs, scale):
            rows.append(row)
            print(row, flush=True)
        if arguments.write:
            put(PERFORMANCE, "archive", f"{machine}\n\n" + "\n".join(rows) + "\n")
    if arguments.only in {None, "goals"}:
        rows = ["| goal | measured |", "|---|---|"]
        for name, figure in figures(folder, max(1, arguments.runs // 2), scale):
            rows.append(f"| {name} | {figure} |")
            print(rows[-1], flush=True)
        if arguments.write:
            put(PERFORMANCE, "goals", "\n".join(rows) + "\n")


def _machine() -> str:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    cores = len(os.sched_getaffinity(0))
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    processor = model[1] if model else platform.machine()
    return f"{cores} cores ({processor}), Python {platform.python_version()}; {packages}."


if __name__ == "__main__":
    main()
