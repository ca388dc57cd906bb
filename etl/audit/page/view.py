"""The template's context: texts, tables and the data of the charts, from the facts of a lake."""

from datetime import datetime
from math import floor, log10
from typing import Any, Final

from etl.audit.page.facts import CLASSES, UNKNOWN, Facts
from etl.audit.page.months import (
    Clock,
    Complete,
    Day,
    Month,
    duration,
    months,
    number,
    percent,
    share,
    span,
)
from etl.audit.page.rows import Distribution
from etl.audit.survey import LATE_AFTER, Comparison
from etl.model import __version__
from etl.model.text import one_line, plural, size

# The months that are shown by the hour. Older months are only totals, to keep the page small.
_MONTHS_IN_FULL: Final = 24
# The days that are shown first.
_LATEST_DAYS: Final = 31
_ROWS_SHOWN: Final = 12
# The metrics of the heat map, with the texts of their legend.
_METRICS: Final[tuple[tuple[str, str], ...]] = (
    ("files", "Files"),
    ("rows", "Rows"),
    ("handle", "Handle time (h)"),
    ("quarantined", "Quarantined"),
)


def view(
    facts: Facts, against: Comparison | None, lake: str, now: datetime, clock: Clock
) -> dict[str, Any]:
    """Return the template's context."""
    survey = facts.survey
    all_months = months(facts, against, now, clock)
    full = all_months[:_MONTHS_IN_FULL]
    days = [day for month in all_months for day in month.days]
    gaps = sorted(survey.gaps, key=lambda gap: (gap.end, gap.account), reverse=True)
    held_hours = len({(p.partition.account, p.partition.hour) for p in survey.partitions})
    gap_hours = sum(gap.hours for gap in gaps)
    segments = sum(facts.segments.values())
    starts, ends = _reasons(facts.durations.by_start), _reasons(facts.durations.by_end)
    lateness = _lateness(facts)
    return {
        **{each.__name__: each for each in (number, share, duration, span, plural, size, one_line)},
        "clock": clock,
        "version": __version__,
        "now": now,
        "lake": lake,
        "lake_name": lake.rstrip("/").rpartition("/")[2] or lake,
        "accounts": sorted({*survey.accounts, *survey.expected}),
        "facts": facts,
        "survey": survey,
        "against": against,
        "verdict": _verdict(facts, against, days, held_hours, gap_hours),
        "first": min(facts.hours, default=None),
        "newest": max(facts.hours, default=None),
        "gaps": gaps,
        "held_hours": held_hours,
        "all_hours": held_hours + gap_hours,
        "segments": segments,
        "mean_ms": facts.durations.total_ms / segments if segments else 0.0,
        "all_months": all_months,
        "months": full,
        "metrics": [found for found in _METRICS if found[0] != "quarantined" or survey.quarantined],
        "by_start": starts,
        "by_end": ends,
        "lateness": lateness,
        "runs": sorted(facts.runs.values(), key=lambda run: run.last_at, reverse=True),
        "data": {
            **_hours(facts, full, all_months, clock),
            **_handle_times(starts, ends),
            "lateness": lateness,
            "quarantine": [
                {
                    "name": reason,
                    "count": count,
                    "text": number(count),
                    "label": f"{reason}: {plural(count, 'row')}",
                }
                for reason, count in facts.quarantine.by_reason.most_common(_ROWS_SHOWN)
            ],
        },
    }


def _verdict(
    facts: Facts, against: Comparison | None, days: list[Day], held_hours: int, gap_hours: int
) -> tuple[Complete, str]:
    """Return whether all expected files are there, and the heading that says so.

    Without a window or complete days, files before and after the lake's hours may be missing. An
    hour for which the vendor lists no files is not missing.
    """
    wrong = []
    unlisted = sum(cell.unlisted for day in days for cell in day.cells)
    if missing := gap_hours - unlisted:
        are = "is" if missing == 1 else "are"
        whole = number(gap_hours + held_hours)
        wrong.append(f"{plural(missing, 'hour')} of {whole} {are} missing")
    if against is not None and against.missing:
        are = "is" if against.missing == 1 else "are"
        wrong.append(f"{plural(against.missing, 'listed file')} {are} not loaded")
    if facts.damage:
        wrong.append(f"{plural(len(facts.damage), 'part')} cannot be read")
    if wrong:
        return Complete.NO, ", ".join(wrong)
    if unlisted:
        return Complete.OPEN, "All that the vendor lists is loaded"
    if facts.survey.selection.bounded or all(day.complete is Complete.YES for day in days):
        return Complete.YES, "Every hour has files"
    return Complete.OPEN, "No gaps so far"


def _hours(
    facts: Facts, full: list[Month], all_months: list[Month], clock: Clock
) -> dict[str, Any]:
    """Return the data of the heat map and of the charts by hour and by day."""
    return {
        "latestDays": _LATEST_DAYS,
        "months": [
            {
                "id": month.id,
                "days": [
                    {
                        "name": f"{day.date:%a} {day.date.day} {day.date:%b}",
                        "date": f"{day.date:%Y-%m-%d}",
                        "begins": clock.time(day.cells[0].at),
                        "cells": [cell.as_json() for cell in day.cells],
                    }
                    for day in month.days
                ],
            }
            for month in full
        ],
        "thresholds": {name: _thresholds(facts, name) for name, _ in _METRICS},
        "days": [
            {
                "date": f"{day.date:%Y-%m-%d}",
                "segments": day.segments,
                "mean": round(day.mean_ms / 60_000, 3),
                "gap": day.complete is Complete.NO,
                "label": (
                    f"{day.name}: {number(day.total('rows'))} rows, "
                    f"{plural(day.segments, 'segment')} of "
                    f"{duration(day.mean_ms / 1000)} on average; {day.verdict}"
                ),
            }
            for month in reversed(all_months)
            for day in month.days
        ],
    }


def _handle_times(starts: list[dict[str, Any]], ends: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the data of the two charts by reason, which have one axis."""
    drawn = [row for row in (*starts, *ends) if row["drawn"]]
    axis = {
        "low": min((row["p10"] for row in drawn), default=0.01),
        "high": max((row["p90"] for row in drawn), default=0.01),
    }
    return {
        name: [{**row, **axis} for row in rows if row["drawn"]]
        for name, rows in (("starts", starts), ("ends", ends))
    }


def _thresholds(facts: Facts, metric: str) -> list[float]:
    """Return the least values of the heat map's five levels.

    They are round numbers, with about as many hours in each level. All months have the same levels,
    so that you can compare them.
    """
    found = (float(getattr(hour, metric)) for hour in facts.hours.values())
    values = sorted(value for value in found if value > 0)
    if not values:
        return []
    whole = metric != "handle"
    ranks = (len(values) * fifth // 5 for fifth in range(5))
    return sorted({_round_down(values[rank], whole=whole) for rank in ranks})


def _round_down(value: float, *, whole: bool) -> float:
    unit = 10.0 ** (floor(log10(value)) - 1)
    if whole:
        return max(1, int(int(value / max(unit, 1)) * max(unit, 1)))
    return round(int(value / unit) * unit, 6)


def _reasons(distributions: dict[str, Distribution]) -> list[dict[str, Any]]:
    ordered = sorted(distributions.items(), key=lambda item: item[1].rows, reverse=True)
    rows = sum(found.rows for found in distributions.values())
    return [_reason(name, found, rank, rows) for rank, (name, found) in enumerate(ordered)]


def _reason(name: str, found: Distribution, rank: int, rows: int) -> dict[str, Any]:
    mean = found.total_ms / 1000 / found.rows
    part = percent(found.rows, rows)
    quantiles = {
        f"p{hundredths}": found.quantile_ms(hundredths / 100) / 1000
        for hundredths in (10, 25, 50, 75, 90)
    }
    said = {key: duration(seconds) for key, seconds in quantiles.items()}
    return {
        # A logarithmic axis has no zero: nothing shorter than a hundredth of a second is drawn.
        **{key: max(seconds, 0.01) for key, seconds in quantiles.items()},
        "mean": max(mean, 0.01),
        "name": name,
        "rows": found.rows,
        "share": part,
        "total": duration(found.total_ms / 1000),
        "said": {**said, "mean": duration(mean)},
        "drawn": rank < _ROWS_SHOWN,
        "label": (
            f"{name}: {plural(found.rows, 'row')}, {part} of all; mean "
            f"{duration(mean)}, median {said['p50']}, half between {said['p25']} and "
            f"{said['p75']}, nine of ten under {said['p90']}; "
            f"{duration(found.total_ms / 1000)} in all"
        ),
    }


def _lateness(facts: Facts) -> list[dict[str, Any]]:
    classes = [*((name, end > LATE_AFTER) for end, name in CLASSES), (UNKNOWN, False)]
    return [
        {
            "name": name,
            "count": count,
            "text": f"{count:,}",
            "stress": late,
            "label": f"{name}: {plural(count, 'file')}, {share(count, facts.survey.files)}",
        }
        for name, late in classes
        if (count := facts.delays[name]) or name is not UNKNOWN
    ]
