"""`aht-etl verify`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from etl.audit.verify_archive import ArchiveCheck
from etl.audit.verify_copy import verify_copy
from etl.audit.verify_lake import verify as verify_lake
from etl.cli.command import Call, command
from etl.cli.flags import ACCOUNT, HOURS, LAKE, RAW, Json, Progress
from etl.cli.process import log
from etl.cli.views.verify import show_progress, to_json, to_text, why_not
from etl.config.settings import open_archive, open_copy, open_lake
from etl.model.errors import UsageError

Deep = Annotated[
    bool,
    typer.Option("--deep", help="Also compare with the raw archive, file by file; needs raw.uri."),
]
OfCopy = Annotated[
    bool,
    typer.Option(
        "--copy",
        help="Verify the coarse copy instead, and compare it with the lake; needs compact.uri.",
    ),
]


@command("verify.failed", ACCOUNT, *HOURS, LAKE, RAW, log_level="info")
def verify(
    call: Call,
    deep: Deep = False,
    copy: OfCopy = False,
    json_: Json = False,
    progress: Progress = "auto",
) -> None:
    """Read the whole lake and prove that it is right: receipts, rows, bad rows, no file twice.

    The exit code is 0, 3 if something is wrong (each finding says what to do), or 1 if there is
    nothing to verify. The flags --account, --from, --to and --lookback choose the hours. A run may
    be active. A coarse copy is proved like a lake; --copy also compares its rows
    with the lake's.

    Example: aht-etl verify --lake ./lake --lookback 7d
    """
    now = datetime.now(UTC)
    settings, selection = call.select(now)
    kept = open_archive(settings) if deep else None
    if deep and kept is None:
        raise UsageError(
            "raw.uri: is missing, and --deep needs it; set --raw, AHT_ETL_RAW__URI or the YAML's "
            "key"
        )
    if copy and deep:
        raise UsageError("--copy and --deep exclude each other: call verify twice")
    coarse = open_copy(settings) if copy else None
    archive = None if kept is None else ArchiveCheck(kept, settings.limits, settings.fetch.skip)
    with show_progress(progress, live=not log.is_json(call.log_format)) as on_part:
        lake_ = open_lake(settings)
        if coarse is None:
            result = verify_lake(lake_, selection, archive, on_part)
        else:
            settled_before = now - settings.compact.settle
            result = verify_copy(lake_, coarse, selection, settled_before, on_part)
    if json_:
        call.print_json(to_json(result))
    elif not result.empty:
        place = f"copy {settings.compact.uri}" if copy else f"lake {settings.lake.uri}"
        typer.echo(to_text(result, place), nl=False)
    if not result.ok:
        call.complain(why_not(result), "verify.failed")
        raise typer.Exit(1 if result.empty else 3)
