"""`aht-etl status`."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Annotated, Literal

import typer

from etl.cli.common import settle_window, usage_errors
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
from etl.errors import AhtEtlError, UsageError

AgainstApi = Annotated[
    Literal["api"] | None,
    typer.Option("--against", help="api: list the window too, and show what the lake lacks."),
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
    json_: Json = False,
    log_format: LogFormat = "auto",
    log_level: LogLevel = "warning",
) -> None:
    """Show what the lake holds, hour by hour: files, rows, gaps, late arrivals.

    From the lake alone, unless --against api is given. The flags --account, --from, --to and
    --lookback choose the hours that are shown.

    Example: aht-etl status --lake ./lake --from 2022-06-07 --to 2022-06-08 --hours
    """
    from pathlib import Path

    from rich.console import Console

    from etl import log
    from etl.lake.store import LocalStore
    from etl.lake.survey import survey
    from etl.redact import Redactor
    from etl.status import show, to_json

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
    store = LocalStore(Path(settings.lake.uri))
    try:
        found = survey(store, selection)
        compared = None
        if window is not None:
            from etl.against import ask

            ours = settings.account or ""
            compared = asyncio.run(ask(settings, ours, window, store, redactor.add))
    except AhtEtlError as error:
        log.complain(f"error: {redactor.text(str(error))}", "status.failed", log_format)
        raise typer.Exit(1) from None
    if json_:
        typer.echo(json.dumps(redactor.tree(to_json(found, compared)), indent=2))
    else:
        show(found, compared, settings.lake.uri, Console(highlight=False), by_hour=hours)
