"""The lake's hours as months of days: what the heat map and the tables beside it show."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from etl.page import words
from etl.page.facts import Facts, Hour

_DAY: Final = timedelta(days=1)
#: Offline data is complete so long after a segment closed, the vendor says; files come later still.
_SETTLED_AFTER: Final = timedelta(hours=24)
_EMPTY: Final = Hour()
#: Days without files are shown up to so many in a row; the list of gaps names longer ones too.
_LONGEST_GAP: Final = timedelta(days=62)


class State(StrEnum):
    """What an hour is."""

    HELD = "held"
    GAP = "gap"
    DAMAGED = "damaged"
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True)
class Cell:
    """One hour of a day."""

    at: datetime
    state: State
    hour: Hour
    #: Accounts without files in it, between others of theirs.
    missing: tuple[str, ...] = ()

    def label(self) -> str:
        """Return all that is known of the hour, in one line."""
        when = f"{words.day(self.at)}, {self.at:%H:%M} to {self.at.hour + 1:02d}:00"
        hour = self.hour
        if self.state is State.OUTSIDE:
            return f"{when}: outside of what the lake covers"
        if self.state is State.GAP and not hour.files:
            return f"{when}: gap, no files"
        said = [
            words.plural(hour.files, "file"),
            words.plural(hour.rows, "row"),
            f"{words.duration(hour.handle_ms / 1000)} handled",
        ]
        if hour.quarantined:
            said.append(f"{words.plural(hour.quarantined, 'row')} quarantined")
        if hour.late:
            said.append(f"{words.plural(hour.late, 'file')} more than a day late")
        if hour.loaded_at:
            said.append(f"last loaded {words.moment(hour.loaded_at)}")
        warned = ""
        if self.state is State.DAMAGED:
            warned = "a part is damaged; what can be read: "
        elif self.missing:
            more = f" and {len(self.missing) - 3} more" if len(self.missing) > 3 else ""
            names = ", ".join(self.missing[:3])
            warned = f"gap, no files of account {names}{more}; of others: "
        return f"{when}: {warned}{', '.join(said)}"

    def as_json(self) -> dict[str, Any]:
        """Return what the script draws the hour from."""
        return {
            "state": self.state,
            "files": self.hour.files,
            "rows": self.hour.rows,
            "handle": round(self.hour.handle_ms / 3_600_000, 3),
            "quarantined": self.hour.quarantined,
            "label": self.label(),
        }


@dataclass(frozen=True, slots=True)
class Day:
    """Twenty-four hours."""

    date: date
    cells: tuple[Cell, ...]
    settled: bool

    @property
    def name(self) -> str:
        """`Wed 1 June 2022`."""
        return words.day(self.date)

    def total(self, name: str) -> float:
        """Return the sum of one of the hours' numbers."""
        return sum(float(getattr(cell.hour, name)) for cell in self.cells)

    @property
    def covered(self) -> list[Cell]:
        """The hours within what the lake covers."""
        return [cell for cell in self.cells if cell.state is not State.OUTSIDE]

    @property
    def complete(self) -> bool:
        """Whether each of the day's covered hours holds files, readable ones."""
        return all(cell.state is State.HELD for cell in self.covered)

    @property
    def verdict(self) -> str:
        """The answer to whether the day is there."""
        covered = self.covered
        held = sum(cell.state is State.HELD for cell in covered)
        said = []
        if missing := _spans(covered, State.GAP):
            said.append(f"a gap at {missing}")
        if damaged := _spans(covered, State.DAMAGED):
            said.append(f"damaged at {damaged}")
        if len(covered) < 24:
            ends = f"{covered[0].at:%H:%M} to {covered[-1].at.hour + 1:02d}:00"
            said.append(f"the lake covers {ends} of it")
        if not said:
            return "every hour has files"
        return f"{held} of {len(covered)} hours; {'; '.join(said)}"


@dataclass(frozen=True, slots=True)
class Month:
    """A month's days, as far as the lake covers them."""

    id: str
    name: str
    days: tuple[Day, ...]

    def total(self, name: str) -> float:
        """Return the sum of one of the hours' numbers."""
        return sum(day.total(name) for day in self.days)

    @property
    def gaps(self) -> int:
        """How many hours are missing."""
        return sum(cell.state is State.GAP for day in self.days for cell in day.cells)


def months(facts: Facts, now: datetime) -> list[Month]:
    """Return the months from the first hour to the last, newest first."""
    if not facts.hours:
        return []
    by_month: dict[str, list[Day]] = {}
    for day in _days(facts, now):
        by_month.setdefault(f"{day.date:%Y-%m}", []).append(day)
    return [
        Month(month, f"{days[0].date:%B %Y}", tuple(days))
        for month, days in sorted(by_month.items(), reverse=True)
    ]


def _days(facts: Facts, now: datetime) -> Iterator[Day]:
    first, last = min(facts.hours), max(facts.hours)
    missing = facts.missing()

    def day(at: date) -> Day:
        midnight = datetime(at.year, at.month, at.day, tzinfo=UTC)
        cells = []
        for number in range(24):
            moment = midnight.replace(hour=number)
            hour, missed = facts.hours.get(moment), tuple(missing(moment))
            if hour is not None and hour.damaged:
                state = State.DAMAGED
            elif missed or (hour is None and first < moment < last):
                state = State.GAP
            else:
                state = State.OUTSIDE if hour is None else State.HELD
            cells.append(Cell(moment, state, hour or _EMPTY, missed))
        return Day(at, tuple(cells), settled=now - midnight >= _DAY + _SETTLED_AFTER)

    previous: date | None = None
    for held in sorted({hour.date() for hour in facts.hours}):
        # An hour that is years off (a path may name any year) must not make a page of empty days.
        joined = previous is not None and held - previous <= _LONGEST_GAP
        start = previous + _DAY if previous is not None and joined else held
        for offset in range((held - start).days + 1):
            yield day(start + offset * _DAY)
        previous = held


def _spans(cells: Sequence[Cell], state: State) -> str:
    """Return the hours in a state as text: `03:00 to 05:00 and 09:00 to 10:00`."""
    spans: list[list[int]] = []
    for cell in cells:
        if cell.state is not state:
            continue
        if spans and spans[-1][1] == cell.at.hour:
            spans[-1][1] += 1
        else:
            spans.append([cell.at.hour, cell.at.hour + 1])
    return ", ".join(f"{begin:02d}:00 to {end:02d}:00" for begin, end in spans)
