"""`aht-etl erase`."""

from typing import Annotated, Final

import typer

from etl.archive.erase import Wanted, find
from etl.archive.erase import erase as carry_out
from etl.cli.command import Call, command
from etl.cli.flags import LAKE, RAW, Flag
from etl.config.keys import missing
from etl.config.settings import open_archive, open_copy, open_lake
from etl.pipeline.job import require_lake

Segment = Annotated[
    str,
    typer.Argument(
        metavar="SEGMENT",
        help=(
            "A segment's id, for example account:12345678:conversation:0a1b2c3d-0, or without its "
            "last -number all segments of the conversation."
        ),
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be changed, and change nothing.")
]
COPY: Final = Flag(
    "compact.uri", "--copy", "URI", "The lake's coarse copy, if there is one, for example ./coarse."
)


@command("erase.failed", LAKE, RAW, COPY, default_log_level="info")
def erase(call: Call, segment: Segment, dry_run: DryRun = False) -> None:
    """Take a segment, or all segments of a conversation, out of the raw archive and the lake.

    Archived files are written again without the rows that mention the id. The parts and bad rows
    that came from these files are deleted, also in the coarse copy (compact.uri). The commands that
    load and copy all other rows again are printed first: call them afterwards. Suspend the schedule
    before. If it is interrupted, call it again. The exit code is 1 if nothing mentions the id, and
    if other rows would be lost because their files are not archived.

    Example: aht-etl erase --lake ./lake --raw ./raw account:12345678:conversation:0a1b2c3d-0
    """
    wanted = Wanted(segment)
    settings = call.settings()
    require_lake(settings)
    archive = open_archive(settings)
    if archive is None:
        raise missing("raw.uri", "--raw")
    copy = open_copy(settings) if settings.compact.uri is not None else None
    stores = open_lake(settings), archive, copy
    found = find(*stores, wanted)
    typer.echo(f"rows of the lake that mention it: {found.rows:,}")
    typer.echo(f"archived files to write again: {len(found.archived):,}")
    typer.echo(
        f"to delete: {len(found.parts):,} parts, {len(found.bad_rows):,} files of bad rows, "
        f"{len(found.copied_parts):,} parts of the copy"
    )
    for hour in dict.fromkeys(partition.hour for partition in found.hours):
        start = f"{hour:%Y-%m-%dT%H}"
        typer.echo(f"then: aht-etl run --from-archive --from {start}:00:00Z --to {start}:59:59Z")
    for day in dict.fromkeys(partition.hour for partition in found.days):
        typer.echo(f"then: aht-etl compact --from {day:%Y-%m-%d} --to {day:%Y-%m-%d}T23:59:59Z")
    if not dry_run:
        carry_out(found, *stores, wanted, typer.echo)
