"""`aht-etl verify`."""

from datetime import UTC, datetime
from itertools import groupby
from typing import Annotated, Final

import typer

from etl.audit.verify import Finding, FindingKind, Verification
from etl.audit.verify_archive import ArchiveCheck
from etl.audit.verify_copy import verify_copy
from etl.audit.verify_lake import verify as verify_lake
from etl.cli import log
from etl.cli.command import Call, command
from etl.cli.flags import ACCOUNT, HOURS, LAKE, RAW, Json, Progress
from etl.cli.progress import show_progress
from etl.config.keys import missing
from etl.config.settings import open_archive, open_copy, open_lake
from etl.model.errors import UsageError
from etl.model.text import as_json, one_line, plural

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


@command("verify.failed", ACCOUNT, *HOURS, LAKE, RAW, default_log_level="info")
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
        raise missing("raw.uri", "--raw", "--deep")
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
        shown = ("ok", "parts", "files", "rows", "bytes", "findings", "notes")
        call.print_json(as_json(result, *shown))
    elif not result.empty:
        place = f"copy {settings.compact.uri}" if copy else f"lake {settings.lake.uri}"
        typer.echo(to_text(result, place), nl=False)
    if not result.ok:
        call.complain(why_not(result), "verify.failed")
        raise typer.Exit(1 if result.empty else 3)


_SHOWN_OF_A_KIND: Final = 10


def to_text(result: Verification, place: str) -> str:
    """Return what was read, what is wrong and what to do; `place` is like "lake ./lake"."""
    verdict = "ok" if result.ok else plural(len(result.findings), "finding")
    lines = [
        f"{verdict}: {result.rows:,} rows of {result.files:,} files read in {result.parts:,} "
        f"parts, {place}"
    ]
    for word, findings in (("", result.findings), ("note ", result.notes)):
        for kind, group in groupby(sorted(findings, key=_by_kind), key=_by_kind):
            of_kind = list(group)
            for finding in of_kind[:_SHOWN_OF_A_KIND]:
                lines += [
                    f"  {word}{kind}: {one_line(finding.path)}",
                    f"    {one_line(finding.message)}",
                ]
            if len(of_kind) > _SHOWN_OF_A_KIND:
                more = len(of_kind) - _SHOWN_OF_A_KIND
                lines.append(f"  {word}{kind}: and {more:,} more; --json has them all")
    return "\n".join(lines) + "\n"


def why_not(result: Verification) -> str:
    """Return one line: why a verification is not `ok`, and what to do."""
    if result.empty:
        (note,) = (note for note in result.notes if note.kind is FindingKind.EMPTY)
        return f"error: nothing to verify: {note.message}"
    first = result.findings[0]
    return (
        f"{plural(len(result.findings), 'finding')} in {result.parts:,} parts; the first: "
        f"{first.kind.value}: {first.path}: {first.message}"
    )


def _by_kind(finding: Finding) -> str:
    return finding.kind.value
