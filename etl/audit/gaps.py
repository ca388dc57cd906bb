"""Which hours of an account should have files, and which of them have none."""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from etl.lake.layout import Selection
from etl.model.paths import Partition

HOUR: Final = timedelta(hours=1)

#: The first and the last hour, both included, in which an account should have files.
Span = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True, order=True)
class Gap:
    """Hours [start, end) in which an account should have files and has no part."""

    account: str
    start: datetime
    end: datetime

    @property
    def hours(self) -> int:
        """How long it is."""
        return (self.end - self.start) // HOUR


def held_hours(partitions: Iterable[Partition]) -> dict[str, set[datetime]]:
    """Return the hours of these partitions by account."""
    held: dict[str, set[datetime]] = {}
    for partition in partitions:
        held.setdefault(partition.account, set()).add(partition.hour)
    return held


def expected_spans(
    held: Mapping[str, Collection[datetime]], selection: Selection, now: datetime
) -> dict[str, Span]:
    """Return in which hours each account should have files; `held` are the hours that it has.

    A selection's start and end say so where they are given, up to `now`. Without them an account's
    own first and last hour do: what lies beyond the lake's edges is not known. Accounts without
    such hours are left out.
    """
    accounts = {*held} if selection.account is None else {selection.account}
    spans = {}
    for account in sorted(accounts):
        hours = held.get(account, ())
        first = min(hours, default=None)
        last = max(hours, default=None)
        if selection.start is not None:
            first = whole_hour(selection.start)
        if selection.end is not None:
            last = whole_hour(min(selection.end, now) - timedelta(microseconds=1))
        if first is not None and last is not None and first <= last:
            spans[account] = first, last
    return spans


def find_gaps(
    held: Mapping[str, Collection[datetime]],
    spans: Mapping[str, Span],
    hidden: Sequence[tuple[int, ...]] = (),
) -> Iterator[Gap]:
    """Yield the hours of the spans that are not held, account by account, oldest first.

    `hidden` are the year, month, day and hour, as far as they are known, of folders that cannot be
    read: what they hold is not known, so it is no gap.
    """
    for account, (first, last) in sorted(spans.items()):
        for start, end in _not_held(sorted(held.get(account, ())), first, last):
            for gap_start, gap_end in _less_hidden(start, end, hidden):
                yield Gap(account, gap_start, gap_end)


def is_hidden(at: datetime, hidden: Sequence[tuple[int, ...]]) -> bool:
    """Tell whether an hour lies in one of these folders, as `find_gaps` takes them."""
    numbers = (at.year, at.month, at.day, at.hour)
    return any(numbers[: len(prefix)] == prefix for prefix in hidden)


def whole_hour(at: datetime) -> datetime:
    """Return the begin of the hour that a moment lies in."""
    return at.replace(minute=0, second=0, microsecond=0)


def _not_held(hours: Sequence[datetime], first: datetime, last: datetime) -> Iterator[Span]:
    """Yield the spans [start, end) from the first hour to the last that are not among `hours`."""
    start = first
    for hour in hours[bisect_left(hours, first) : bisect_right(hours, last)]:
        if start < hour:
            yield start, hour
        if hour == last:  # the hour after the last that there is cannot be named
            return
        start = hour + HOUR
    yield start, last + HOUR


def _less_hidden(
    start: datetime, end: datetime, hidden: Sequence[tuple[int, ...]]
) -> Iterator[Span]:
    if hidden:
        at = start
        while at < end:
            if is_hidden(at, hidden):
                if start < at:
                    yield start, at
                start = at + HOUR
            at += HOUR
    if start < end:
        yield start, end
