"""How the page writes numbers, durations, days and hours."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo

from etl.audit.gaps import whole_hour
from etl.model.paths import HOUR


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
        midnight = datetime(day.year, day.month, day.day, tzinfo=self.zone)
        try:
            first = whole_hour(midnight.astimezone(UTC))
        except OverflowError:
            first = midnight.replace(tzinfo=UTC)
        hours = []
        for number in range(-1, 27):
            try:
                hour = first + number * HOUR
            except OverflowError:
                continue
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
