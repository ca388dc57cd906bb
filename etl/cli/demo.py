"""`aht-etl demo`: the real job loads two days of an invented account from the emulator."""

import os
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from etl.cli.command import Call, check_report_file, command, own_name
from etl.cli.flags import Progress, ReportFile
from etl.cli.process import SIGNALS
from etl.cli.run import execute
from etl.config.sources import load_settings
from etl.emulator import Dataset, EmulatorOptions, run_in_thread
from etl.emulator.dataset import DEFAULT_ACCOUNT
from etl.model.times import Window
from etl.pipeline.job import Job
from etl.storage.places import is_remote

_START: Final = datetime(2022, 6, 1, tzinfo=UTC)
_END: Final = datetime(2022, 6, 3, tzinfo=UTC)
# The demo's clock: most files of the window have arrived by then.
_NOW: Final = datetime(2022, 6, 3, 18, tzinfo=UTC)
_SEED: Final = 79344075

QUERY: Final = """\
SELECT day, count(*) AS units, count(DISTINCT segmentId) AS segments,
       round(sum(handleTimeMillis) / 3600000) AS handle_hours
FROM read_parquet('{lake}/year=*/**/*.parquet', hive_partitioning = true, hive_types =
  {{'year': INT, 'month': INT, 'day': INT, 'hour': INT, 'accountId': VARCHAR}})
GROUP BY day ORDER BY day"""


@command("command.failed", default_log_level="warning")
def demo(
    call: Call,
    lake: Annotated[
        str | None,
        typer.Option(
            "--lake",
            metavar="URI",
            help=(
                "Where the lake goes, for example ./demo-lake (the default, if it can be written)."
            ),
        ),
    ] = None,
    report: ReportFile = None,
    progress: Progress = "auto",
) -> None:
    """Load two days from an emulator of the vendor's API; you need no account.

    Repeat it to see that nothing is loaded twice.

    Example: aht-etl demo --lake ./demo-lake
    """
    check_report_file(report)
    dataset = Dataset.generate(_SEED, _START, _END)
    with run_in_thread(dataset, EmulatorOptions(DEFAULT_ACCOUNT, "oauth1", _NOW)) as emulator:
        # No other source of the configuration is read: real keys must not reach the emulator.
        settings = load_settings(
            environ={},
            account=DEFAULT_ACCOUNT,
            api={"base_url": emulator.base_url},
            auth=emulator.keys,
            lake={"uri": _writable_place() if lake is None else lake},
        )
        SIGNALS.defer()
        job = Job(settings, Window(_START, _END), _NOW, call.redactor)
        place = _absolute(settings.lake.uri)
        if report != "-":
            typer.echo(
                f"An emulator of the vendor's API on {emulator.base_url} has {len(dataset.files)} "
                "files of 1 and 2 June 2022;\na few are late and have not arrived yet. Loading the "
                f"listed files into {place}:\n"
            )
        code = execute(job, progress, call.log_format, report)
    if report != "-" and code == 0:
        again = f"{own_name()} demo" + (f" --lake {shlex.quote(lake)}" if lake else "")
        typer.echo(_next_steps(place, again))
    raise typer.Exit(code)


def _writable_place() -> str:
    """Return the first writable place for the lake, `./demo-lake` if there is none.

    Tried are this folder, the temporary folder, and `/dev/shm`, which is writable in a container
    with a read-only root.
    """
    for folder in (".", *_temporary_folder(), "/dev/shm"):  # noqa: S108
        place = Path(folder, "demo-lake")
        if os.access(place if place.exists() else folder, os.W_OK | os.X_OK):
            return f"./{place}" if folder == "." else str(place)
    return "./demo-lake"


def _temporary_folder() -> Iterator[str]:
    with suppress(FileNotFoundError):  # no folder is writable
        yield tempfile.gettempdir()


def _absolute(lake: str) -> str:
    return lake if is_remote(lake) else str(Path(lake).resolve())


def _next_steps(place: str, again: str) -> str:
    """Return where the lake is, and the commands to try next; `again` repeats the demo."""
    query = QUERY.format(lake=place.replace("'", "''"))
    lake = f"--lake {shlex.quote(place)}"
    page = "lake.html"
    if not is_remote(place) and not os.access(".", os.W_OK):
        page = str(Path(place).with_name(page))
    return (
        f"\nThe lake is in {place}\n\n"
        f"A query to try, in DuckDB (pip install duckdb):\n\n{query};\n\n"
        f"Run `{again}` again: nothing is loaded twice.\n\n"
        "Next:\n"
        f"  {own_name()} status {lake}\n"
        f"  {own_name()} status {lake} --html {shlex.quote(page)}\n"
        f"  {own_name()} verify {lake}"
    )
