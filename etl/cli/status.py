"""`aht-etl status`."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from etl.cli.common import failures, usage_errors
from etl.cli.flags import (
    Account,
    BaseUrl,
    Config,
    From,
    Json,
    Lake,
    LogFormat,
    LogLevel,
    Lookback,
    To,
)
from etl.cli.selection import load_selected
from etl.errors import RunError, UsageError
from etl.signals import SIGNALS

if TYPE_CHECKING:
    from etl.lake.store import Store

AgainstApi = Annotated[
    Literal["api"] | None,
    typer.Option("--against", help="api: list the window too, and show what the lake lacks."),
]
Html = Annotated[
    Path | None,
    typer.Option(
        "--html",
        metavar="FILE",
        help="Write a page of the whole lake, for people, for example lake.html.",
    ),
]
Hours = Annotated[bool, typer.Option("--hours", help="One line for each hour as well.")]


def status(
    config: Config = None,
    account: Account = None,
    base_url: BaseUrl = None,
    from_: From = None,
    to: To = None,
    lookback: Lookback = None,
    lake: Lake = None,
    against: AgainstApi = None,
    hours: Hours = False,
    html: Html = None,
    json_: Json = False,
    log_format: LogFormat = "auto",
    log_level: LogLevel = "warning",
) -> None:
    """Show what the lake holds, hour by hour: files, rows, gaps, late arrivals.

    From the lake alone, unless --against api is given. The flags --account, --from, --to and
    --lookback choose the hours that are shown; the page of --html has all hours of the account, or
    of all accounts.

    Example: aht-etl status --lake ./lake --from 2022-06-07 --to 2022-06-08 --hours

    Example: aht-etl status --lake ./lake --html lake.html
    """
    from rich.console import Console

    from etl import log
    from etl.job import new_job, settle_window
    from etl.lake.survey import survey
    from etl.redact import Redactor
    from etl.status import show, to_json
    from etl.stores import open_lake

    redactor = Redactor()
    log.configure(log_format, log_level, redactor)
    with usage_errors(log_format):
        now = datetime.now(UTC)
        settings, selection = load_selected(
            config,
            now,
            account=account,
            from_=from_,
            to=to,
            lookback=lookback,
            api__base_url=base_url,
            lake__uri=lake,
        )
        if against and settings.account is None:
            raise UsageError(
                "account: is missing, and --against api needs it; set --account, "
                "AHT_ETL_ACCOUNT or the YAML's key"
            )
        window = settle_window(settings, now) if against else None
    for secret in settings.secret_values():
        redactor.add(secret)
    store = open_lake(settings)
    with failures("status.failed", log_format, redactor):
        if html is not None:
            with usage_errors(log_format):
                _write_page(store, html, now, account)
        found = survey(store, selection)
        compared = None
        if window is not None:
            from etl.against import ask

            compared = SIGNALS.run(ask(new_job(settings, window, now, redactor)))
    if json_:
        typer.echo(json.dumps(redactor.tree(to_json(found, compared)), indent=2))
    else:
        show(found, compared, settings.lake.uri, Console(highlight=False), by_hour=hours)


def _write_page(store: "Store", file: Path, now: datetime, account: str | None) -> None:
    from etl.page import write_page

    try:
        write_page(store, file, now=now, account=account)
    except OSError as error:
        raise RunError(f"--html {file}: cannot be written: {error.strerror or error}") from error
    typer.echo(f"The page is at {file.absolute().as_uri()}", err=True)
