"""Which hours of an account should have files, and which of them have none."""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from etl.lake.layout import Selection
from etl.model.paths import HOUR

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
        """Its length."""
        return (self.end - self.start) // HOUR


def expected_spans(
    held: Mapping[str, Collection[datetime]], selection: Selection, now: datetime
) -> dict[str, Span]:
    """Return in which hours each account should have files; `held` are the hours that it has.

    The start and the end of the selection decide, up to `now`. Without them, an account's own first
    and last hour decide. Accounts without such hours are left out.
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
    hidden: Sequence[tuple[int, ...]],
) -> Iterator[Gap]:
    """Yield the hours of the spans that are not held, account by account, oldest first.

    `hidden` has the year, month, day and hour, as far as known, of each folder that cannot be read.
    Its content is unknown, so it is not a gap.
    """
    for account, (first, last) in sorted(spans.items()):
        for start, end in _not_held(sorted(held.get(account, ())), first, last):
            for gap_start, gap_end in _not_hidden(start, end, hidden):
                yield Gap(account, gap_start, gap_end)


def is_hidden(at: datetime, hidden: Sequence[tuple[int, ...]]) -> bool:
    """Return whether an hour lies in one of the hidden folders of `find_gaps`."""
    numbers = (at.year, at.month, at.day, at.hour)
    return any(numbers[: len(prefix)] == prefix for prefix in hidden)


def whole_hour(at: datetime) -> datetime:
    """Return the start of an instant's hour."""
    return at.replace(minute=0, second=0, microsecond=0)


def _not_held(hours: Sequence[datetime], first: datetime, last: datetime) -> Iterator[Span]:
    """Yield the spans [start, end) from the first hour to the last that are not among `hours`."""
    start = first
    for hour in hours[bisect_left(hours, first) : bisect_right(hours, last)]:
        if start < hour:
            yield start, hour
        if hour == last:  # a datetime cannot hold the hour after the last hour of year 9999
            return
        start = hour + HOUR
    yield start, last + HOUR


def _not_hidden(
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
