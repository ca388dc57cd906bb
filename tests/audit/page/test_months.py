"""Hours of UTC as days and hours of a time zone."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from etl.audit.page.months import Clock

AMSTERDAM, KOLKATA = Clock(ZoneInfo("Europe/Amsterdam")), Clock(ZoneInfo("Asia/Kolkata"))


@pytest.mark.parametrize(
    ("clock", "day", "hours", "columns"),
    [
        (Clock(), date(2022, 3, 27), 24, "00 01 02 03 04"),
        (AMSTERDAM, date(2022, 3, 26), 24, "00 01 02 03 04"),
        (AMSTERDAM, date(2022, 3, 27), 23, "00 01 03 04 05"),
        (AMSTERDAM, date(2022, 10, 30), 25, "00 01 02 02b 03"),
        (KOLKATA, date(2022, 6, 1), 24, "00 01 02 03 04"),
        (Clock(ZoneInfo("Australia/Lord_Howe")), date(2022, 4, 3), 25, "00 01 01b 02 03"),
    ],
)
def test_the_hours_of_a_day(clock: Clock, day: date, hours: int, columns: str) -> None:
    """Each hour that starts on it, once, also on days on which clocks change."""
    found = clock.hours_of(day)
    assert len(found) == hours
    assert {timedelta(hours=1)} == {b - a for a, b in pairwise(found)}
    assert {day} == {clock.date_of(hour) for hour in found}
    assert columns.split() == [clock.column(hour) for hour in found[:5]]


@pytest.mark.parametrize("clock", [Clock(), AMSTERDAM, KOLKATA, Clock(ZoneInfo("America/Lima"))])
@pytest.mark.parametrize("year", [1, 2022, 9999])
def test_no_hour_is_lost_between_days(clock: Clock, year: int) -> None:
    """The days of a year have all its hours, also in the first and the last year."""
    first = date(year, 1 if year == 1 else 12, 1)
    found = [hour for n in range(31) for hour in clock.hours_of(first + timedelta(days=n))]
    assert len(found) >= 31 * 24 - 13
    assert found == sorted(set(found))
    for hour in (found[0], found[-1]):
        assert clock.hours(hour, hour)
        assert clock.moment(hour)


def test_spans_in_words() -> None:
    """Midnight at the end of a day is 24:00; an end on another day names that day."""
    hour = datetime(2022, 6, 1, 21, tzinfo=UTC)
    assert Clock().hours(hour, hour) == "Wed 1 June 2022, 21:00 to 22:00"
    assert AMSTERDAM.hours(hour, hour) == "Wed 1 June 2022, 23:00 to 24:00"
    later = hour + timedelta(hours=3)
    assert Clock().hours(hour, later) == "Wed 1 June 2022, 21:00 to Thu 2 June 2022, 01:00"
    night = datetime(2022, 6, 1, 18, tzinfo=UTC)
    assert KOLKATA.hours(night, night) == "Wed 1 June 2022, 23:30 to Thu 2 June 2022, 00:30"
    assert (Clock().name, KOLKATA.name) == ("UTC", "Asia/Kolkata")
