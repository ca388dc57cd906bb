"""The demo: two days of an invented account, served by the emulator and loaded by the real job."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from etl.emulator import Dataset, Emulator, EmulatorOptions, run_in_thread
from etl.emulator.dataset import DEFAULT_ACCOUNT
from etl.places import is_remote
from etl.settings import Settings
from etl.sources import load
from etl.times import Window

WINDOW: Final = Window(datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 6, 3, tzinfo=UTC))
#: The demo's clock: late in the day after, when most files of the window have arrived.
NOW: Final = datetime(2022, 6, 3, 18, tzinfo=UTC)
_SEED: Final = 79344075

QUERY: Final = """\
SELECT day, count(*) AS units, count(DISTINCT segmentId) AS segments,
       round(sum(handleTimeMillis) / 3600000) AS handle_hours
FROM read_parquet('{lake}/year=*/**/*.parquet', hive_partitioning = true, hive_types =
  {{'year': INT, 'month': INT, 'day': INT, 'hour': INT, 'accountId': VARCHAR}})
GROUP BY day ORDER BY day"""


@contextmanager
def served() -> Iterator[Emulator]:
    """Serve the demo's data to callers with the emulator's OAuth 1.0a keys."""
    dataset = Dataset.generate(_SEED, WINDOW.start, WINDOW.end)
    with run_in_thread(dataset, EmulatorOptions(auth="oauth1", now=NOW)) as emulator:
        yield emulator


def settings(lake: str, emulator: Emulator) -> Settings:
    """Return settings for the emulator that depend on nothing else: no real keys are read.

    Raises UsageError where `lake` is no place for one.
    """
    flags = {
        "account": DEFAULT_ACCOUNT,
        "api": {"base_url": emulator.base_url},
        "auth": emulator.keys,
        "lake": {"uri": lake},
    }
    return load(flags, None, {})


def introduction(emulator: Emulator) -> str:
    """Return what is about to happen."""
    return (
        f"An emulator of the vendor's API on {emulator.base_url} has "
        f"{len(emulator.dataset.files)} files of 1 and 2 June 2022;\n"
        "a few are late and have not arrived yet. Loading what is listed:\n"
    )


def epilogue(lake: str, command: str) -> str:
    """Return where the lake is and what to do with it; `command` is how aht-etl was called."""
    place = lake if is_remote(lake) else str(Path(lake).resolve())
    query = QUERY.format(lake=place)
    again = f"{command} demo" + (
        "" if Path(place).name == "demo-lake" else f" --lake {shlex.quote(lake)}"
    )
    return (
        f"\nThe lake is in {place}\n\n"
        f"A query to try, in DuckDB (pip install duckdb):\n\n{query};\n\n"
        f"Run `{again}` again: nothing is loaded twice."
    )
