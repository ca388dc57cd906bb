"""`aht-etl status`."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

import typer
from rich.console import Console, Group, RenderableType
from rich.filesize import decimal
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from etl.audit.page import require_page, write_page
from etl.audit.survey import (
    LATE_AFTER,
    Comparison,
    Gap,
    ListedPartition,
    PartitionSurvey,
    Survey,
    survey,
)
from etl.cli.command import Call, command, run_async
from etl.cli.flags import ACCOUNT, BASE_URL, HOURS, LAKE, Json
from etl.cli.heatmap import Calendar, Mark, draw, is_bold
from etl.config.keys import missing
from etl.config.settings import open_lake
from etl.lake.layout import to_minute
from etl.model.errors import RunError, UsageError
from etl.model.paths import HOUR
from etl.model.text import as_json, one_line, plural
from etl.model.times import rfc3339
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


@command("status.failed", ACCOUNT, BASE_URL, *HOURS, LAKE, default_log_level="warning")
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
        raise missing("account", "--account", "--against api")
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


_DAYS_SHOWN: Final = 31
_LINES_SHOWN: Final = 10
_MAPS_SHOWN: Final = 3
# Of a gap of more hours only the first and the last day are drawn.
_DRAWN_WHOLE: Final = 72


def to_json(survey: Survey, against: Comparison | None) -> dict[str, Any]:
    """Return the document of `--json` (operations.md, "What status shows")."""
    document: dict[str, Any] = {
        **as_json(survey, "files", "rows", "bytes", "parts", "quarantined"),
        "late_files": sum(partition.late for partition in survey.partitions),
        "partitions": [_partition(partition) for partition in survey.partitions],
        "gaps": [as_json(gap, "account", "start", "end") for gap in survey.gaps],
        "damaged": [{"path": damage.name, "message": damage.message} for damage in survey.damages],
    }
    if against is not None:
        document["against"] = _against(against)
    return document


def _partition(survey: PartitionSurvey) -> dict[str, Any]:
    loaded, delays = survey.loaded, survey.delays
    return {
        **as_json(survey, "partition"),
        **as_json(survey.partition, "hour", "account"),
        **as_json(survey, "files", "rows", "bytes"),
        "parts": len(survey.parts),
        "quarantined": survey.quarantined,
        "damaged": len(survey.damages),
        "loaded": {"first": rfc3339(loaded[0]), "last": rfc3339(loaded[1])} if loaded else None,
        "late_files": survey.late,
        "delay_seconds": {
            "median": round(median(delay.total_seconds() for delay in delays)),
            "max": round(delays[-1].total_seconds()),
        }
        if delays
        else None,
    }


def _against(against: Comparison) -> dict[str, Any]:
    return {
        **as_json(against, "window", "listed"),
        "already_loaded": against.loaded,
        **as_json(against, "missing", "invalid", "skipped"),
        **as_json(against.listing, "empty_windows", "partial_windows"),
        "unanswered_windows": as_json([*against.listing.unanswered]),
        "partitions": [
            {
                **as_json(each, "partition", "listed"),
                "already_loaded": each.listed - each.missing,
                **as_json(each, "missing", "damage"),
            }
            for each in against.partitions
        ],
    }


def show(
    survey: Survey, against: Comparison | None, lake: str, console: Console, *, by_hour: bool
) -> None:
    """Print what the lake holds; `by_hour` adds a line for each hour."""
    with console.capture() as printed:
        for number, block in enumerate(_blocks(survey, against, lake, console, by_hour=by_hour)):
            if number:
                console.print()
            console.print(block)
    # The columns end with blanks, which are in the way of other programs.
    lines = (line.rstrip() for line in printed.get().splitlines())
    console.file.write("\n".join(lines) + "\n")


def _blocks(
    survey: Survey, against: Comparison | None, lake: str, console: Console, *, by_hour: bool
) -> Iterator[RenderableType]:
    accounts = survey.accounts
    if against is not None and against.missing and against.account not in accounts:
        accounts = (*accounts, against.account)
    if not survey.partitions and not survey.damages:
        nothing = (
            "yet: check --lake if that is a surprise, else aht-etl run loads it"
            if survey.selection.everything
            else survey.selection.describe()
        )
        yield Text(f"{lake} holds nothing {nothing}")
    else:
        yield _summary(survey, lake)
    several = len(accounts) > 1
    if len(accounts) > _MAPS_SHOWN:
        yield _accounts(survey)
    else:
        for account in accounts:
            heat_map = _map(survey.of(account), against, account, console)
            yield Group(Text(f"account {account}", "bold"), heat_map) if several else heat_map
    if by_hour and survey.partitions:
        yield _hours(survey.partitions, several=several)
    if survey.gaps:
        yield _gaps(survey.gaps, several=several, asked=against is not None)
    if survey.damages:
        yield _damages(survey)
    if against is not None:
        yield _compared(against)


def _summary(survey: Survey, lake: str) -> RenderableType:
    facts = Table.grid(padding=(0, 2))
    facts.add_column()
    facts.add_column(overflow="fold")
    hours = {hour for partition in survey.partitions for hour in partition.rows_by_hour}
    chosen = "" if survey.selection.everything else f" {survey.selection.describe()}"
    facts.add_row("copy" if survey.is_copy else "lake", f"{lake}{chosen}")
    facts.add_row(
        "holds",
        f"{plural(survey.files, 'file')}, {plural(survey.rows, 'row')} in "
        f"{plural(survey.parts, 'part')}, {decimal(survey.bytes)}",
    )
    if hours:
        facts.add_row(
            "hours",
            f"{len(hours):,}, {to_minute(min(hours))} to {to_minute(max(hours))} UTC",
        )
    if loaded := [p.loaded for p in survey.partitions if p.loaded is not None]:
        first, last = min(first for first, _ in loaded), max(last for _, last in loaded)
        facts.add_row("loaded", f"{to_minute(first)} to {to_minute(last)}")
    facts.add_row("late", _late(survey))
    if survey.quarantined:
        kept = "the lake's _quarantine" if survey.is_copy else f"{lake}/_quarantine"
        facts.add_row("bad rows", f"{survey.quarantined:,}, kept in {kept}")
    return facts


def _late(survey: Survey) -> str:
    delays = sorted(delay for partition in survey.partitions for delay in partition.delays)
    if not delays:
        return "not known: the files' names hold no time"
    late = [delay for delay in delays if delay > LATE_AFTER]
    usual = (
        f"half came within {_span(delays[len(delays) // 2])}, the last after {_span(delays[-1])}"
    )
    return f"{plural(len(late), 'file')} after more than {LATE_AFTER // HOUR} h; {usual}"


def _map(survey: Survey, against: Comparison | None, account: str, console: Console) -> Text:
    rows: dict[datetime, int] = {}
    for partition in survey.partitions:
        for hour, count in partition.rows_by_hour.items():
            rows[hour] = rows.get(hour, 0) + count
    calendar = Calendar(rows)
    calendar.mark((hour for gap in survey.gaps for hour in _drawn(gap)), Mark.GAP)
    if against is not None and against.account == account:
        calendar.mark((plan.partition.hour for plan in against.lacking), Mark.MISSING)
    damaged = (hour for p in survey.partitions if p.damages for hour in p.rows_by_hour)
    calendar.mark(damaged, Mark.DAMAGED)
    asked = survey.selection.start is not None
    return draw(
        calendar,
        bold=is_bold(console),
        width=console.width,
        days_at_most=None if asked else _DAYS_SHOWN,
    )


def _drawn(gap: Gap) -> Iterator[datetime]:
    if gap.hours <= _DRAWN_WHOLE:
        yield from (gap.start + n * HOUR for n in range(gap.hours))
    else:
        yield from (gap.start + n * HOUR for n in range(24 - gap.start.hour))
        yield from (gap.end - n * HOUR for n in range(1, gap.end.hour + 1))


def _accounts(survey: Survey) -> RenderableType:
    table = _table("account", "hours", "files", "rows", "gaps", "last hour")
    for account in survey.accounts:
        part = survey.of(account)
        last = to_minute(part.partitions[-1].partition.hour) if part.partitions else "-"
        table.add_row(
            account,
            f"{len(part.partitions):,}",
            f"{part.files:,}",
            f"{part.rows:,}",
            f"{sum(gap.hours for gap in part.gaps):,}",
            last,
        )
    return Group(table, Text("--account ID shows one account's hours"))


def _hours(partitions: Sequence[PartitionSurvey], *, several: bool) -> RenderableType:
    whose = ("account",) if several else ()
    table = _table("hour", "files", "rows", "bytes", "bad", "loaded", "late", *whose)
    for each in partitions:
        table.add_row(
            f"{each.partition.hour:{'%m-%d' if each.partition.length > HOUR else '%m-%d %H'}}",
            f"{each.files:,}",
            f"{each.rows:,}",
            decimal(each.bytes),
            f"{each.quarantined:,}",
            f"{each.loaded[1]:%m-%d %H:%M}" if each.loaded else "-",
            _span(each.delays[-1]) if each.delays else "-",
            *((each.partition.account,) if several else ()),
        )
    return table


def _gaps(gaps: Sequence[Gap], *, several: bool, asked: bool) -> RenderableType:
    hours = sum(gap.hours for gap in gaps)
    entries = [
        f"{to_minute(gap.start)} to {to_minute(gap.end)}, {plural(gap.hours, 'hour')}"
        + (f", account {gap.account}" if several else "")
        for gap in reversed(gaps)
    ]
    advice = "Nobody worked, or it is not loaded: --against api asks the vendor."
    newest = ", the newest first" if len(gaps) > 1 else ""
    title = f"{plural(hours, 'hour')} with nothing in {plural(len(gaps), 'gap')}{newest}"
    return _listed(title, entries, *(() if asked else (advice,)))


def _damages(survey: Survey) -> RenderableType:
    damages = survey.damages
    title = (
        f"{plural(len(damages), 'part or folder', 'parts or folders')} cannot be read: restore "
        "from a backup, or delete and run again"
    )
    return _listed(title, [one_line(damage.message) for damage in damages])


def _compared(against: Comparison) -> RenderableType:
    window = against.window
    title = (
        f"API: {plural(against.listed, 'file')} listed of {to_minute(window.start)} to "
        f"{to_minute(window.end)}, {against.loaded:,} loaded, {against.missing:,} missing"
    )
    entries = [
        f"{to_minute(lacking.partition.hour)}  {lacking.missing:,} of {lacking.listed:,} missing"
        + (", a part is damaged" if lacking.damage else "")
        for lacking in against.lacking
    ]
    return _listed(title, entries, *against.remarks())


def _listed(title: str, entries: Sequence[str], *more: str) -> RenderableType:
    """Return a title with its first entries, indented."""
    shown = list(entries[:_LINES_SHOWN])
    if len(entries) > _LINES_SHOWN:
        shown.append(f"and {len(entries) - _LINES_SHOWN:,} more; --json has them all")
    return Group(
        Text(title),
        *(Padding(Text(entry), (0, 0, 0, 2)) for entry in shown),
        *(Text(line) for line in more),
    )


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for number, column in enumerate(columns):
        # Numbers are never cut off, however narrow the terminal is.
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    return table


def _span(length: timedelta) -> str:
    minutes = max(0, round(length.total_seconds() / 60))
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h" if hours < 72 else f"{hours // 24} d"
