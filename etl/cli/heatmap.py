"""The heat map of hours for the terminal: one line a day, one cell an hour."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import Enum
from typing import Final

from rich.console import Console
from rich.text import Text

_DAY: Final = timedelta(days=1)
_BLOCKS: Final = "░▒▓█"
_DIGITS: Final = "123456789"
_COLUMN: Final = 2
_LABEL: Final = len("2022-06-01 ")
_SUM: Final = 12
# A few very busy hours must not make all others look empty: this share of hours is below "full".
_FULL_SHARE: Final = 0.95


class Mark(Enum):
    """The mark of an hour that is shown instead of its rows: in ASCII, as blocks, and its colour.

    The colours are the terminal's own: you can see them on a light and on a dark background.
    """

    GAP = (".", "××", "red")  # noqa: RUF001 - a sign
    MISSING = ("?", "??", "bold magenta")
    DAMAGED = ("!", "!!", "bold red")


@dataclass(slots=True)
class Calendar:
    """Rows by hour, and the marks that replace them; hours are whole hours of UTC."""

    rows: Mapping[datetime, int]
    marks: dict[datetime, Mark] = field(default_factory=dict)

    def mark(self, hours: Iterable[datetime], mark: Mark) -> None:
        """Mark these hours; a later mark hides an earlier one."""
        self.marks.update(dict.fromkeys(hours, mark))


def is_bold(console: Console) -> bool:
    """Return whether the terminal shows blocks and colours; if not, the cells are digits."""
    return (
        console.is_terminal
        and not console.no_color
        and not console.is_dumb_terminal
        and console.encoding.lower().startswith("utf")
    )


def draw(calendar: Calendar, *, bold: bool, width: int, days_at_most: int | None) -> Text:
    """Draw the last days, one a line; days with nothing become one line.

    A line has 59 columns. If the `width` allows it, the day's rows follow.
    """
    by_day: dict[date, dict[int, tuple[str, str]]] = {}
    sums: Counter[date] = Counter()
    for hour, rows in calendar.rows.items():
        sums[hour.date()] += rows
    full = _full(calendar.rows.values())
    for hour in sorted({*calendar.rows, *calendar.marks}):
        cell = _cell(calendar.rows.get(hour), calendar.marks.get(hour), full, bold=bold)
        by_day.setdefault(hour.date(), {})[hour.hour] = cell
    picture = Text()
    hours = "".join(f"{number:02d}".ljust(3 * _COLUMN) for number in range(0, 24, 3))
    summed = width >= _LABEL + 24 * _COLUMN + _SUM
    total = f"{'rows':>{_SUM}}" if summed else ""
    picture.append(f"{'UTC':<{_LABEL}}{hours}{total}".rstrip() + "\n", "bold")
    days = sorted(by_day)
    shown = days if days_at_most is None else days[-days_at_most:]
    if len(shown) < len(days):
        picture.append(
            f"{'…' if bold else '...'} {len(days) - len(shown):,} earlier days: --from\n"
        )
    before: date | None = None
    for day in shown:
        if before is not None and day - before > _DAY:
            picture.append(f"{(day - before).days - 1:,} days with nothing\n", "red")
        before = day
        picture.append(f"{day.isoformat():<{_LABEL}}")
        cells = by_day[day]
        for number in range(24):
            text, style = cells.get(number, ("", ""))
            picture.append(f"{text:<{_COLUMN}}", style)
        if summed:
            picture.append(f"{sums[day]:>{_SUM},}")
        picture.rstrip()
        picture.append("\n")
    picture.append(_legend(calendar, full, bold=bold), "dim" if bold else "")
    return picture


def _full(rows: Iterable[int]) -> int:
    counts = sorted(count for count in rows if count)
    return counts[int(len(counts) * _FULL_SHARE)] if counts else 1


def _cell(rows: int | None, mark: Mark | None, full: int, *, bold: bool) -> tuple[str, str]:
    if mark is not None:
        plain, block, style = mark.value
        return (block, style) if bold else (plain, "")
    if not rows:
        return ("▁▁", "green") if bold else ("0", "")
    scale = _BLOCKS if bold else _DIGITS
    step = scale[min(len(scale), -(-rows * len(scale) // full)) - 1]
    return (step * _COLUMN, "green") if bold else (step, "")


def _legend(calendar: Calendar, full: int, *, bold: bool) -> str:
    """Return the meaning of the signs that are used."""
    steps = _BLOCKS if bold else _DIGITS
    scale = _BLOCKS if bold else f"{_DIGITS[0]}-{_DIGITS[-1]}"
    most = (len(steps) - 1) * full // len(steps) + 1
    entries = [f"{scale} rows, {steps[-1]} from {most:,} on"] if calendar.rows else []
    if any(not rows and hour not in calendar.marks for hour, rows in calendar.rows.items()):
        entries.append(f"{'▁' if bold else '0'} no rows")
    for mark, words in (
        (Mark.GAP, "gap"),
        (Mark.MISSING, "not all loaded"),
        (Mark.DAMAGED, "damaged"),
    ):
        if mark in calendar.marks.values():
            entries.append(f"{mark.value[1 if bold else 0][0]} {words}")
    return "   ".join(entries)
