"""The lake's hours as months of days, as the page's heat map and tables show them.

First, how the page writes days, hours, numbers and durations.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from enum import StrEnum
from itertools import groupby
from typing import Any, Final

from etl.audit.page.facts import Facts, Hour
from etl.audit.survey import LATE_AFTER, Comparison, is_hidden
from etl.model.paths import DAY, HOUR
from etl.model.text import plural


@dataclass(frozen=True, slots=True)
class Clock:
    """A time zone. The lake's hours stay whole hours of UTC, at whatever local time they start."""

    zone: tzinfo = UTC

    @property
    def name(self) -> str:
        """The name of the zone: `UTC`, `Europe/Amsterdam`."""
        return str(self.zone)

    def local(self, at: datetime) -> datetime:
        """Return an instant in the zone; unchanged where a datetime cannot hold the local time."""
        try:
            return at.astimezone(self.zone)
        except OverflowError:
            return at

    def date_of(self, at: datetime) -> date:
        """Return the local day of an instant."""
        return self.local(at).date()

    def hours_of(self, day: date) -> list[datetime]:
        """Return the hours, in UTC, that start on a day: 24, or 23 or 25 when clocks change."""
        first = datetime(day.year, day.month, day.day, tzinfo=UTC)
        hours = []
        for number in range(-15, 39):  # zones differ by at most 14 hours from UTC
            with suppress(OverflowError):  # a datetime holds the years 1 to 9999
                hour = first + number * HOUR
                if self.date_of(hour) == day:
                    hours.append(hour)
        return hours

    def column(self, hour: datetime) -> str:
        """Return the hour of the day: `06`, or `02b` for the second one when clocks go back."""
        local = self.local(hour)
        return f"{local.hour:02d}{'b' if local.fold else ''}"

    def time(self, at: datetime) -> str:
        """Return `06:00`."""
        return f"{self.local(at):%H:%M}"

    def end(self, hour: datetime) -> str:
        """Return when an hour ends: `07:00`, `24:00`."""
        try:
            end = self.time(hour + HOUR)
        except OverflowError:
            end = "00:00"
        return "24:00" if end == "00:00" else end

    def day(self, at: datetime) -> str:
        """Return `Wed 1 June 2022`."""
        return day_name(self.date_of(at))

    def moment(self, at: datetime) -> str:
        """Return `1 June 2022, 06:00`."""
        local = self.local(at)
        return f"{local.day} {local:%B %Y, %H:%M}"

    def hours(self, first: datetime, last: datetime) -> str:
        """Return a span of whole hours, both included: `Wed 1 June 2022, 03:00 to 05:00`."""
        end = self.end(last)
        # In a zone with half an hour of offset, an hour may end on the day after it starts.
        day = self.day(last if end == "24:00" else last + HOUR)
        start = self.day(first)
        return f"{start}, {self.time(first)} to {'' if day == start else f'{day}, '}{end}"

    def gap(self, start: datetime, end: datetime) -> str:
        """Return a span of whole hours without its end, as `hours` does."""
        return self.hours(start, end - HOUR)


def day_name(day: date) -> str:
    """Return `Wed 1 June 2022`."""
    return f"{day:%a} {day.day} {day:%B %Y}"


def number(count: float) -> str:
    """Return a whole number with commas."""
    return f"{count:,.0f}"


def share(part: int, whole: int) -> str:
    """Return a share in percent; only zero reads as 0 %."""
    percent = 100 * part / whole if whole else 0.0
    return "< 0.01 %" if 0 < percent < 0.01 else f"{percent:.2f} %" if part else "0 %"


def percent(part: float, whole: float) -> str:
    """Return a share in whole percents; only zero reads as 0 %."""
    value = 100 * part / whole if whole else 0.0
    return "< 1 %" if 0 < value < 1 else f"{value:.0f} %"


def duration(seconds: float) -> str:
    """Return a duration with about two figures: `850 ms`, `22 s`, `3.5 min`, `1.2 h`."""
    for longest, unit, name in ((1, 0.001, "ms"), (60, 1, "s"), (3600, 60, "min")):
        if abs(seconds) < longest:
            value = seconds / unit
            return f"{value:.1f} {name}" if name != "ms" and value < 10 else f"{value:.0f} {name}"
    return f"{seconds / 3600:,.1f} h"


def span(late: timedelta) -> str:
    """Return a delay: `3 h`, `17 d 4 h`."""
    hours = round(late / timedelta(hours=1))
    return f"{hours // 24} d {hours % 24} h" if hours >= 24 else f"{hours} h"


_EMPTY: Final = Hour()
# The longest run of days without files that is shown. The list of gaps names longer ones.
_LONGEST_GAP: Final = timedelta(days=62)


class State(StrEnum):
    """The state of an hour; if several are true, the last one counts."""

    #: Nothing is known and nothing is expected.
    OUTSIDE = "outside"
    HELD = "held"
    #: An account should have files and has none.
    GAP = "gap"
    #: The vendor lists files that the lake lacks.
    MISSING = "missing"
    DAMAGED = "damaged"


class Complete(StrEnum):
    """Whether a day is complete."""

    YES = "yes"
    NO = "no"
    #: Nothing is known to be missing, but not every hour has files.
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Cell:
    """One hour of a day.

    `accounts` should have files and have none. The vendor lists `lacking` files that the lake
    lacks. `unlisted`: the vendor was asked, and lists no files of this gap.
    """

    at: datetime
    clock: Clock
    state: State
    hour: Hour
    accounts: tuple[str, ...] = ()
    lacking: int = 0
    unlisted: bool = False

    @property
    def column(self) -> str:
        """The hour of the day."""
        return self.clock.column(self.at)

    def label(self) -> str:
        """Return a line with everything that the page knows of the hour."""
        when = self.clock.hours(self.at, self.at)
        hour = self.hour
        if self.state is State.OUTSIDE:
            return f"{when}: not known, outside of what the lake covers"
        warned = []
        if self.state is State.DAMAGED:
            warned.append("a part is damaged")
        if self.lacking:
            warned.append(f"the vendor lists {plural(self.lacking, 'file')} that the lake lacks")
        if self.state is State.GAP:
            names = ", ".join(self.accounts[:3])
            more = f" and {len(self.accounts) - 3} more" if len(self.accounts) > 3 else ""
            whose = f" of account {names}{more}" if hour.files else ""
            listed = ", and the vendor lists none" if self.unlisted else ""
            warned.append(f"gap, no files{whose}{listed}")
        if not hour.files and warned:
            return f"{when}: {'; '.join(warned)}"
        said = [
            plural(hour.files, "file"),
            plural(hour.rows, "row"),
            f"{duration(hour.handle_ms / 1000)} handled",
        ]
        if hour.quarantined:
            said.append(f"{plural(hour.quarantined, 'row')} quarantined")
        if hour.late:
            said.append(f"{plural(hour.late, 'file')} more than a day late")
        if hour.loaded_at:
            said.append(f"last loaded {self.clock.moment(hour.loaded_at)}")
        there = f"{'; '.join(warned)}; there are: " if warned else ""
        return f"{when}: {there}{', '.join(said)}"

    def as_json(self) -> dict[str, Any]:
        """Return the data from which the script draws the hour."""
        return {
            "column": self.column,
            "state": self.state,
            "files": self.hour.files,
            "rows": self.hour.rows,
            "handle": round(self.hour.handle, 3),
            "quarantined": self.hour.quarantined,
            "label": self.label(),
        }


@dataclass(frozen=True, slots=True)
class Day:
    """The hours that start on a day: 24, or 23 or 25 when clocks change."""

    date: date
    cells: tuple[Cell, ...]
    segments: int
    settled: bool

    @property
    def name(self) -> str:
        """`Wed 1 June 2022`."""
        return day_name(self.date)

    def total(self, name: str) -> float:
        """Return the sum of one of the hours' numbers."""
        return sum(float(getattr(cell.hour, name)) for cell in self.cells)

    @property
    def mean_ms(self) -> float:
        """The mean handle time of a segment."""
        return self.total("handle_ms") / self.segments if self.segments else 0.0

    @property
    def complete(self) -> Complete:
        """Whether every hour has readable files, and no listed file is missing."""
        states = {cell.state for cell in self.cells if not cell.unlisted}
        if states & {State.GAP, State.MISSING, State.DAMAGED}:
            return Complete.NO
        return Complete.YES if all(c.state is State.HELD for c in self.cells) else Complete.OPEN

    @property
    def verdict(self) -> str:
        """The completeness of the day in words."""
        if self.complete is Complete.YES:
            return "every hour has files"
        held = sum(cell.state is State.HELD for cell in self.cells)
        said = []
        if gap := self._spans(lambda cell: cell.state is State.GAP and not cell.unlisted):
            said.append(f"a gap at {gap}")
        if missing := self._spans(lambda cell: cell.state is State.MISSING):
            lacking = plural(sum(cell.lacking for cell in self.cells), "listed file")
            said.append(f"{lacking} missing at {missing}")
        if damaged := self._spans(lambda cell: cell.state is State.DAMAGED):
            said.append(f"damaged at {damaged}")
        if unlisted := self._spans(lambda cell: cell.unlisted):
            said.append(f"the vendor lists nothing at {unlisted}")
        if unknown := self._spans(lambda cell: cell.state is State.OUTSIDE):
            said.append(f"not known at {unknown}")
        so_far = " so far" if self.complete is Complete.OPEN else ""
        return f"{held} of {len(self.cells)} hours{so_far}; {'; '.join(said)}"

    def _spans(self, fits: Callable[[Cell], bool]) -> str:
        """Return the hours that fit as text: `03:00 to 05:00, 09:00 to 10:00`."""
        spans = [list(cells) for fit, cells in groupby(self.cells, key=fits) if fit]
        return ", ".join(
            f"{cells[0].clock.time(cells[0].at)} to {cells[-1].clock.end(cells[-1].at)}"
            for cells in spans
        )


@dataclass(frozen=True, slots=True)
class Month:
    """The days of a month that have something to show."""

    id: str
    name: str
    days: tuple[Day, ...]

    def total(self, name: str) -> float:
        """Return the sum of one of the hours' numbers."""
        return sum(day.total(name) for day in self.days)

    @property
    def gaps(self) -> int:
        """The number of missing hours."""
        return sum(
            cell.state in {State.GAP, State.MISSING} and not cell.unlisted
            for day in self.days
            for cell in day.cells
        )

    @property
    def columns(self) -> list[str]:
        """The hours of the day, with those that exist only on days on which clocks change."""
        return sorted({cell.column for day in self.days for cell in day.cells})

    def rows(self) -> Iterator[tuple[Day, list[Cell | None]]]:
        """Yield each day with its cells by column; None if the day has no such hour."""
        columns = self.columns
        for day in self.days:
            cells = {cell.column: cell for cell in day.cells}
            yield day, [cells.get(column) for column in columns]


def months(facts: Facts, against: Comparison | None, now: datetime, clock: Clock) -> list[Month]:
    """Return the months from the first hour to the last, newest first."""
    by_month: dict[str, list[Day]] = {}
    for day in _days(facts, against, now, clock):
        by_month.setdefault(f"{day.date:%Y-%m}", []).append(day)
    return [
        Month(month, f"{days[0].date:%B %Y}", tuple(days))
        for month, days in sorted(by_month.items(), reverse=True)
    ]


def _days(facts: Facts, against: Comparison | None, now: datetime, clock: Clock) -> Iterator[Day]:
    survey = facts.survey
    hidden = tuple(survey.damaged_folders.values())
    lacking: Counter[datetime] = Counter()
    if against is not None:
        for listed in against.lacking:
            lacking[listed.partition.hour] += listed.missing

    def cell(at: datetime) -> Cell:
        hour, accounts = facts.hours.get(at), facts.missing(at)
        if (hour is not None and hour.damaged) or is_hidden(at, hidden):
            state = State.DAMAGED
        elif lacking[at]:
            state = State.MISSING
        elif accounts:
            state = State.GAP
        else:
            state = State.OUTSIDE if hour is None else State.HELD
        unlisted = (
            state is State.GAP
            and against is not None
            and accounts == (against.account,)
            and against.answered(at)
        )
        return Cell(at, clock, state, hour or _EMPTY, accounts, lacking[at], unlisted)

    def day(at: date) -> Day:
        cells = tuple(map(cell, clock.hours_of(at)))
        settled = now - cells[-1].at >= HOUR + LATE_AFTER
        return Day(at, cells, facts.segments.get(at, 0), settled)

    edges = [edge for span in survey.expected.values() for edge in span]
    previous: date | None = None
    for there in sorted({clock.date_of(hour) for hour in (*facts.hours, *lacking, *edges)}):
        # A path may name any year: hours that are years apart must not make a page of empty days.
        joined = previous is not None and there - previous <= _LONGEST_GAP
        start = previous + DAY if previous is not None and joined else there
        for offset in range((there - start).days + 1):
            yield day(start + offset * DAY)
        previous = there
