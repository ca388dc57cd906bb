"""Measure: `python -m tests.bench`, or with --quick a tenth of the work.

Needs the extra `bench` and Debian's packages, as root, for nginx and aria2, which it installs where
they are missing. Prints tables in Markdown; --write puts them and a plot into the README's place.
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

from tests.bench.compare import as_json, compare, to_table
from tests.bench.goals import figures
from tests.bench.pages import put

_README: Final = Path(__file__).parents[2] / "README.md"
_RESULTS: Final = Path(__file__).with_name("results.json")
_PACKAGES: Final = ("aht-etl", "pyarrow", "aiohttp", "isal", "duckdb")


def main() -> None:
    """Measure what the flags say."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the files")
    parser.add_argument("--runs", type=int, default=5, help="turns that count (default 5)")
    parser.add_argument("--only", choices=["compare", "goals"], help="one half of it")
    parser.add_argument("--data", type=Path, help="where files are kept for the next time")
    parser.add_argument("--write", action="store_true", help="into README.md and results.json")
    arguments = parser.parse_args()
    scale = 0.1 if arguments.quick else 1.0
    folder = arguments.data or Path(tempfile.gettempdir(), "aht-etl-bench")
    folder.mkdir(parents=True, exist_ok=True)
    machine = _machine()
    print(f"{machine}\n")
    if arguments.only != "goals":
        lines = compare(folder, arguments.runs, scale)
        table = to_table(lines)
        print(table)
        if arguments.write:
            _RESULTS.write_text(json.dumps(as_json(lines), indent=1) + "\n")
            put(_README, "compared", f"{machine}\n\n{table}")
    if arguments.only != "compare":
        rows = ["| goal | measured |", "|---|---|"]
        for name, figure in figures(folder, max(1, arguments.runs // 2), scale):
            rows.append(f"| {name} | {figure} |")
            print(rows[-1], flush=True)
        if arguments.write:
            put(_README, "goals", "\n".join(rows) + "\n")


def _machine() -> str:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    cores = len(os.sched_getaffinity(0))
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    processor = model[1] if model else platform.machine()
    return f"{cores} cores ({processor}), Python {platform.python_version()}; {packages}."


if __name__ == "__main__":
    main()
