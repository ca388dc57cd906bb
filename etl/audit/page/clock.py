"""Days, hours and moments as the page writes them: in UTC, or in a time zone that is asked for."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo

from etl.audit.gaps import HOUR, whole_hour


@dataclass(frozen=True, slots=True)
class Clock:
    """A time zone. The hours of the lake stay whole hours of UTC, whenever they begin here."""

    zone: tzinfo = UTC

    @property
    def name(self) -> str:
        """What people call it: `UTC`, `Europe/Amsterdam`."""
        return str(self.zone)

    def local(self, at: datetime) -> datetime:
        """Return a moment in the zone; unchanged where that is before or after all time."""
        try:
            return at.astimezone(self.zone)
        except OverflowError:
            return at

    def date_of(self, at: datetime) -> date:
        """Return the day on which something begins."""
        return self.local(at).date()

    def hours_of(self, day: date) -> list[datetime]:
        """Return the hours, in UTC, that begin on a day: 24, or 23 or 25 where clocks change."""
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
        """Return the hour of the day in which an hour begins: `06`; `02b` when it comes again."""
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
        # An hour may end on the day after it begins, where a zone is half an hour off.
        day = self.day(last if end == "24:00" else last + HOUR)
        begin = self.day(first)
        return f"{begin}, {self.time(first)} to {'' if day == begin else f'{day}, '}{end}"

    def gap(self, start: datetime, end: datetime) -> str:
        """Return a span of whole hours, its end not included, as `hours` does."""
        return self.hours(start, end - HOUR)


def day_name(day: date) -> str:
    """Return `Wed 1 June 2022`."""
    return f"{day:%a} {day.day} {day:%B %Y}"
