"""`aht-etl status`."""

from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import typer
from rich.console import Console

from etl.audit.page import require_page, write_page
from etl.audit.survey import Comparison, ListedPartition, Survey, survey
from etl.cli.command import Call, command, run_async
from etl.cli.flags import ACCOUNT, BASE_URL, HOURS, LAKE, Json
from etl.cli.views.status import show, to_json
from etl.config.settings import open_lake
from etl.model.errors import RunError, UsageError
from etl.pipeline import run as pipeline
from etl.pipeline.job import Job, settle_window
from etl.storage.store import Store

AgainstApi = Annotated[
    Literal["api"] | None,
    typer.Option("--against", help="api: list the window as well, and show what the lake lacks."),
]
Html = Annotated[
    Path | None,
    typer.Option(
        "--html", metavar="FILE", help="Write a page with charts as well, for example lake.html."
    ),
]
Timezone = Annotated[
    str | None,
    typer.Option(
        "--timezone",
        metavar="NAME",
        help="Days and hours of the page, for example Europe/Amsterdam (default UTC).",
    ),
]
Hours = Annotated[bool, typer.Option("--hours", help="One line for each hour as well.")]


@command("status.failed", ACCOUNT, BASE_URL, *HOURS, LAKE, log_level="warning")
def status(
    call: Call,
    against: AgainstApi = None,
    hours: Hours = False,
    html: Html = None,
    timezone: Timezone = None,
    json_: Json = False,
) -> None:
    """Show what the lake holds, hour by hour: files, rows, gaps, late arrivals.

    It reads only the lake, unless you give --against api. The flags --account, --from, --to and
    --lookback choose the hours. A gap is an hour without files: between --from and --to, or else
    between an account's first and last hour in the lake.

    Example: aht-etl status --lake ./lake --from 2022-06-07 --to 2022-06-08 --hours

    Example: aht-etl status --lake ./lake --html lake.html --timezone Europe/Amsterdam
    """
    now = datetime.now(UTC)
    settings, selection = call.select(now)
    if against and settings.account is None:
        raise UsageError(
            "account: is missing, and --against api needs it; set --account, AHT_ETL_ACCOUNT or "
            "the YAML's key"
        )
    window = settle_window(settings, now) if against else None
    zone = _zone(timezone, html)
    if html is not None:
        require_page(html)
    store = open_lake(settings)
    found = survey(store, selection, now)
    if not found.exists:
        raise RunError(
            f"there is no lake at {store.place}: check the place for a typing error (--lake, "
            "lake.uri); if nothing was loaded yet, aht-etl run makes it"
        )
    compared = None
    if window is not None:
        compared = run_async(_ask(Job(settings, window, now, call.redactor)))
    if html is not None:
        _write_page(store, found, html, now, compared, zone)
    if json_:
        call.print_json(to_json(found, compared))
    else:
        show(found, compared, settings.lake.uri, Console(highlight=False), by_hour=hours)


async def _ask(job: Job) -> Comparison:
    """List the job's window and subtract what the lake holds; nothing is fetched.

    Raises RunError where the listing cannot be had, or the lake not be read.
    """
    assert job.window is not None  # noqa: S101 - a saved listing is never compared
    state = await pipeline.plan(job)
    plan = state.plan
    partitions = tuple(
        ListedPartition(
            each.partition,
            len(each.already_loaded) + len(each.to_load),
            len(each.to_load),
            each.state.damage,
        )
        for each in plan.partitions
    )
    listing, invalid, skipped = state.listing, len(plan.invalid), len(plan.skipped)
    return Comparison(job.account, job.window, listing, partitions, invalid, skipped)


def _zone(name: str | None, html: Path | None) -> tzinfo:
    if name is None:
        return UTC
    if html is None:
        raise UsageError("--timezone is for the page: give --html FILE too")
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise UsageError(
            f"--timezone {name}: no such time zone here; write a name such as Europe/Amsterdam "
            "(the names come from the system's tzdata, or from pip install tzdata)"
        ) from None


def _write_page(
    store: Store,
    survey: Survey,
    file: Path,
    now: datetime,
    against: Comparison | None,
    zone: tzinfo,
) -> None:
    try:
        write_page(store, survey, file, now=now, against=against, zone=zone)
    except OSError as error:
        raise RunError(f"--html {file}: cannot be written: {error.strerror or error}") from error
    typer.echo(f"The page is at {file.absolute().as_uri()}", err=True)
