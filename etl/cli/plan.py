"""`aht-etl plan`."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Final, Literal

import typer

from etl.cli.command import Call, command, run_async
from etl.cli.flags import (
    ACCOUNT,
    BASE_URL,
    CONCURRENCY,
    LAKE,
    RAW,
    WINDOW,
    ArchiveOnly,
    FromArchive,
    Json,
    Paths,
    Shard,
)
from etl.model.text import duration, one_line, plural, size
from etl.pipeline.plan_report import PlannedPartition, PlanReport, plan_report


@command(
    "plan.failed", ACCOUNT, BASE_URL, *WINDOW, LAKE, RAW, CONCURRENCY, default_log_level="warning"
)
def plan(
    call: Call,
    paths: Paths = None,
    shard: Shard = None,
    from_archive: FromArchive = False,
    archive_only: ArchiveOnly = False,
    by: Annotated[
        Literal["auto", "hour", "day"],
        typer.Option("--by", help="auto: by hour; by day if there are more than 200 hours."),
    ] = "auto",
    json_: Json = False,
) -> None:
    """Show what `run` would load, hour by hour, without fetching or writing anything.

    The exit code is 0 even if files would fail: the plan names them. Files of a damaged partition
    count as to load. With --paths nothing is sent.

    Example: aht-etl plan --account 12345678 --lake ./lake --lookback 48h
    """
    job = call.job(paths, shard, from_archive=from_archive, archive_only=archive_only)
    report = run_async(plan_report(job))
    if json_:
        call.print_json(report.as_json())
        return
    ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
    width = shutil.get_terminal_size().columns
    typer.echo(to_text(report, by, width, ascii_only=ascii_only), nl=False)


Fold = Literal["auto", "hour", "day"]

# By default, more hours than this (8 days) are folded into days.
_HOURS_SHOWN: Final = 200
_SHOWN_PROBLEMS: Final = 10
_LABEL: Final = 16
_BAR_LEAST, _BAR_MOST = 8, 40


def to_text(report: PlanReport, fold: Fold, width: int, *, ascii_only: bool) -> str:
    """Return what a run would do. Only long names make a line wider than `width` columns."""
    window = report.window
    when = str(window) if window else "listed paths"
    whose = f"account {report.account}" if report.account else "all accounts"
    where = f"archive {report.archive}" if report.archive else f"lake {report.lake}"
    lines = [f"plan: {whose}, {when}", one_line(where)]
    if report.partitions:
        lines += ["", *_table(report, fold, width, ascii_only=ascii_only)]
    else:
        lines += ["", "nothing is listed"] if not report.listed else []
    lines += ["", *_remarks(report)]
    lines += _estimate(report)
    return "\n".join(lines) + "\n"


def _table(report: PlanReport, fold: Fold, width: int, *, ascii_only: bool) -> list[str]:
    by_day = fold == "day" or (fold == "auto" and len(report.partitions) > _HOURS_SHOWN)
    shown = "%Y-%m-%d" if by_day else "%Y-%m-%d %H:%M"
    whole = replace(report, invalid_paths=(), skipped_paths=())
    partitions: dict[str, list[PlannedPartition]] = {}
    for partition in report.partitions:
        partitions.setdefault(f"{partition.hour:{shown}}", []).append(partition)
    shares = {label: replace(whole, partitions=group) for label, group in partitions.items()}
    unit = "day" if by_day else "hour"
    head = f"{unit + ' (UTC)':<{_LABEL}}{'listed':>9}{'loaded':>9}{'to load':>9}"
    bar_width = min(_BAR_MOST, width - len(head) - 3)
    most = max(share.listed for share in shares.values())
    marked = any(share.blocked for share in shares.values())
    text = [head]
    for label, share in shares.items():
        bar = ""
        if bar_width >= _BAR_LEAST:
            bar = _bar(share, most, bar_width, ascii_only=ascii_only)
        mark = " !" if share.blocked else ("  " if marked else "")
        text.append(f"{_numbers(label, share)}{mark}{'  ' if bar else ''}{bar}".rstrip())
    return [*text, _numbers(plural(len(shares), unit), whole)]


def _numbers(label: str, share: PlanReport) -> str:
    to_load = f"{share.to_load:,}" if share.to_load else "-"
    return f"{label:<{_LABEL}}{share.listed:>9,}{share.already_loaded:>9,}{to_load:>9}"


def _bar(share: PlanReport, most: int, width: int, *, ascii_only: bool) -> str:
    full, empty = "#." if ascii_only else "█░"
    whole = max(1, round(share.listed / most * width))
    done = whole * share.already_loaded // share.listed
    return full * done + empty * (whole - done)


def _remarks(report: PlanReport) -> list[str]:
    lines = [f"{report.to_load:,} of {report.listed:,} listed files to load"]
    if report.skipped:
        lines.append(f"{report.skipped:,} skipped, by fetch.skip")
    for window in report.partial_windows:
        lines.append(f"{window}: the vendor misses paths")
    for window in report.unanswered_windows:
        lines.append(f"! {window}: not answered by the API; what it lists there is unknown")
    if report.invalid:
        lines.append(f"{report.invalid:,} invalid, never requested:")
        shown = [(f"{entry.path[:200]!r}", entry.message) for entry in report.invalid_paths]
        lines += _problems(shown)
    damaged = [partition for partition in report.damaged if partition.to_load]
    if damaged:
        lines.append(f"! {report.blocked:,} cannot be loaded, their partition is damaged:")
        lines += _problems([_damage(partition) for partition in damaged])
    if report.invalid or damaged or report.unanswered_windows:
        lines.append("a run loads all the others and ends with exit code 3")
    return lines


def _damage(partition: PlannedPartition) -> tuple[str, str]:
    directory = partition.partition.directory
    return directory, (partition.damage or "").removeprefix(f"{directory}/")


def _problems(problems: Sequence[tuple[str, str]]) -> list[str]:
    lines = [f"  {one_line(where)}: {one_line(what)}" for where, what in problems[:_SHOWN_PROBLEMS]]
    if len(problems) > _SHOWN_PROBLEMS:
        lines.append(f"  … and {len(problems) - _SHOWN_PROBLEMS:,} more; --json has them all")
    return lines


def _estimate(report: PlanReport) -> list[str]:
    estimate = report.estimate
    if report.to_load == report.blocked:
        return []
    if estimate.bytes is None or estimate.rows is None:
        amount = "size: no estimate, this lake holds nothing yet to judge by"
    else:
        amount = (
            f"size: about {size(estimate.bytes)} to download, {estimate.rows:,} rows; by the "
            f"newest {estimate.sampled_files:,} files here"
        )
    if estimate.seconds is None:
        return [amount, "time: no estimate, no run here took long enough to judge by"]
    return [amount, f"time: about {duration(estimate.seconds)}"]
