"""The report in a few lines, for people."""

from typing import Final

from etl.cli.causes import by_cause
from etl.model.printable import one_line, size
from etl.model.times import rfc3339
from etl.pipeline.report import Report

_SHOWN_CAUSES: Final = 10
_SHOWN_WINDOWS: Final = 10


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
    lines += _windows(report)
    causes = by_cause((each.kind.value, each.path, each.message) for each in report.failures)
    lines += [f"  {cause}" for cause in causes[:_SHOWN_CAUSES]]
    if len(causes) > _SHOWN_CAUSES:
        more = sum(cause.count for cause in causes[_SHOWN_CAUSES:])
        lines.append(f"  … and {more:,} more files; --report FILE has them all")
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
        lines += [
            f"  {name:<14} {rfc3339(window.start)} to {rfc3339(window.end)}: {words}"
            for window in windows[:_SHOWN_WINDOWS]
        ]
        if len(windows) > _SHOWN_WINDOWS:
            more = len(windows) - _SHOWN_WINDOWS
            lines.append(f"  … and {more:,} more such windows; --report FILE has them all")
    return lines
