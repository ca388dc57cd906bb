"""The lake's hours as months of days: what the heat map and the tables next to it show."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from itertools import groupby
from typing import Any, Final

from etl.audit.comparison import Comparison
from etl.audit.gaps import is_hidden
from etl.audit.page.facts import Facts, Hour
from etl.audit.page.formats import Clock, day_name, duration
from etl.audit.survey import LATE_AFTER
from etl.model.paths import DAY, HOUR
from etl.model.text import plural

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
