"""The demo: two days of an invented account, served by the emulator and loaded by the real job."""

import os
import shlex
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from etl.config.settings import Settings
from etl.config.sources import load
from etl.emulator import Dataset, Emulator, EmulatorOptions, run_in_thread
from etl.emulator.dataset import DEFAULT_ACCOUNT
from etl.model.times import Window
from etl.storage.places import is_remote

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
    with run_in_thread(dataset, EmulatorOptions(DEFAULT_ACCOUNT, "oauth1", NOW)) as emulator:
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


def choose_place(folders: Iterable[str] | None = None) -> str:
    """Return where the demo's lake goes unless somebody says so: the first of `folders` to write.

    By default this folder, the temporary one, and the one in memory that a container with a
    read-only root has. `./demo-lake` where none can be written.
    """
    folders = folders if folders is not None else (".", *_temporary(), "/dev/shm")  # noqa: S108
    for folder in folders:
        place = Path(folder, "demo-lake")
        if os.access(place if place.exists() else folder, os.W_OK | os.X_OK):
            return f"./{place}" if folder == "." else str(place)
    return "./demo-lake"


def _temporary() -> Iterator[str]:
    with suppress(FileNotFoundError):  # there is none
        yield tempfile.gettempdir()


def introduction(emulator: Emulator, lake: str) -> str:
    """Return what is about to happen; `lake` is where it goes."""
    return (
        f"An emulator of the vendor's API on {emulator.base_url} has "
        f"{len(emulator.dataset.files)} files of 1 and 2 June 2022;\n"
        f"a few are late and have not arrived yet. Loading what is listed into {_full(lake)}:\n"
    )


def epilogue(lake: str, command: str, *, named: bool) -> str:
    """Return where the lake is and what to do next.

    `command` is how aht-etl was called, `named` whether the place was given.
    """
    place = _full(lake)
    query = QUERY.format(lake=place.replace("'", "''"))
    again = f"{command} demo{f' --lake {shlex.quote(lake)}' if named else ''}"
    on_it = f"--lake {shlex.quote(place)}"
    beside = not is_remote(lake) and not os.access(".", os.W_OK)
    page = str(Path(place).with_name("lake.html")) if beside else "lake.html"
    return (
        f"\nThe lake is in {place}\n\n"
        f"A query to try, in DuckDB (pip install duckdb):\n\n{query};\n\n"
        f"Run `{again}` again: nothing is loaded twice.\n\n"
        "Next:\n"
        f"  {command} status {on_it}\n"
        f"  {command} status {on_it} --html {shlex.quote(page)}\n"
        f"  {command} verify {on_it}"
    )


def _full(lake: str) -> str:
    return lake if is_remote(lake) else str(Path(lake).resolve())
