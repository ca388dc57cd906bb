"""The report in a few lines, for people."""

from collections.abc import Sequence
from typing import Final

from etl.cli.process.log import cause_of
from etl.model.text import one_line, size
from etl.pipeline.outcomes import FailedFile
from etl.pipeline.report import Report

_SHOWN_CAUSES: Final = 10
_SHOWN_WINDOWS: Final = 10
_LONGEST_PATH: Final = 300


def to_text(report: Report, lake: str, archive: str | None = None) -> str:
    """Return what a run did and what to do next; `archive` is what it filled instead of a lake."""
    files, rows, moved = report.files, report.rows, report.bytes
    lines = [f"{report.status} in {report.duration_seconds:.1f} s: {_counted(report)}"]
    lines.append(f"  {'archive' if archive else 'lake':<14} {one_line(archive or lake)}")
    if not files.listed:
        return "\n".join(lines + _windows(report)) + "\n"
    lines += [
        f"  loaded         {files.loaded:>12,} files  "
        + (
            "kept; run --from-archive loads them into the lake"
            if archive
            else f"{rows.loaded:,} rows in {len(report.parts):,} parts"
        ),
        f"  already loaded {files.already_loaded:>12,} files",
    ]
    for key, words in (
        ("failed", "will be tried again by the next run"),
        ("invalid", "not a path of the API, never requested"),
        ("skipped", "by fetch.skip"),
        ("not_attempted", "left to the next run"),
    ):
        if count := getattr(files, key):
            lines.append(f"  {key.replace('_', ' '):<14} {count:>12,} files  {words}")
    if rows.quarantined:
        lines.append(
            f"  bad rows       {rows.quarantined:>12,}        in {one_line(lake)}/_quarantine"
        )
    lines.append(
        f"  moved          {size(moved.downloaded):>12}  came down, "
        f"{size(moved.decompressed)} unpacked, {size(moved.written)} of Parquet written"
    )
    lines += _windows(report) + _causes(report.failures)
    return "\n".join(lines) + "\n"


def _counted(report: Report) -> str:
    files = report.files
    if not files.listed:
        return "nothing is listed" if report.status == "ok" else "nothing was listed yet"
    counted = [f"{files.listed:,} files listed", f"{files.loaded:,} loaded"]
    if files.failed:
        counted.append(f"{files.failed:,} failed")
    return ", ".join(counted)


def _windows(report: Report) -> list[str]:
    """Return a line for each window whose listing is not whole."""
    lines = []
    for name, windows, words in (
        ("partial", report.listing.partial_windows, "the vendor misses paths"),
        (
            "unanswered",
            report.listing.unanswered_windows,
            "not answered by the API; the next run asks again",
        ),
    ):
        lines += [f"  {name:<14} {window}: {words}" for window in windows[:_SHOWN_WINDOWS]]
        if len(windows) > _SHOWN_WINDOWS:
            more = len(windows) - _SHOWN_WINDOWS
            lines.append(f"  … and {more:,} more such windows; --report FILE has them all")
    return lines


def _causes(failures: Sequence[FailedFile]) -> list[str]:
    """Return a line for each cause, the most frequent first, with one file as an example."""
    by_cause: dict[tuple[str, str], list[FailedFile]] = {}
    for failure in failures:
        by_cause.setdefault((failure.kind, cause_of(failure.message)), []).append(failure)
    causes = sorted(by_cause.values(), key=len, reverse=True)
    lines = []
    for files in causes[:_SHOWN_CAUSES]:
        first = files[0]
        many = f"{len(files):,} files, for example " if len(files) > 1 else ""
        path = one_line(first.path[:_LONGEST_PATH])
        lines.append(f"  {first.kind}: {many}{path}: {one_line(first.message)}")
    if len(causes) > _SHOWN_CAUSES:
        more = sum(map(len, causes[_SHOWN_CAUSES:]))
        lines.append(f"  … and {more:,} more files; --report FILE has them all")
    return lines
