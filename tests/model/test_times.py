"""Times, durations and windows."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.model.times import Window, parse_duration, parse_instant, parse_rfc3339, rfc3339, to_millis

instants = st.datetimes(
    datetime(2015, 1, 1),
    datetime(2100, 1, 1),
    timezones=st.just(UTC),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2022-06-01T00:00:00Z", datetime(2022, 6, 1, tzinfo=UTC)),
        ("2022-06-01T02:00:00+02:00", datetime(2022, 6, 1, tzinfo=UTC)),
        ("2022-06-01t00:00:00.25z", datetime(2022, 6, 1, 0, 0, 0, 250_000, tzinfo=UTC)),
        ("2022-06-01", datetime(2022, 6, 1, tzinfo=UTC)),
        ("1654041600000", datetime(2022, 6, 1, tzinfo=UTC)),
        ("1420070400000", datetime(2015, 1, 1, tzinfo=UTC)),
    ],
)
def test_instants(text: str, expected: datetime) -> None:
    """The three forms of a time mean what the README says."""
    assert parse_instant(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "now", "2022-06-01T00:00:00", "2022-13-01", "20220601T00", "1e9", "9" * 30, "2022-6-1"],
)
def test_bad_instants(text: str) -> None:
    """Other text is refused, also a time without an offset; the message repeats the text."""
    with pytest.raises(ValueError, match="time") as caught:
        parse_instant(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1654041600", "1970-01-20, .* seconds instead of milliseconds. write 1654041600000"),
        ("20220601", "1970-01-01, .* a date without its hyphens. write 2022-06-01"),
        ("2022", "1970-01-01, .* a date without its hyphens. write 2022-01-01"),
        ("202206", "a date without its hyphens. write 2022-06-01"),
        ("20220601063000", "a date without its hyphens. write 2022-06-01T06:30:00Z"),
        ("1654041600000000", "microseconds instead of milliseconds. write 1654041600000"),
        ("1654041600000000000", "nanoseconds instead of milliseconds. write 1654041600000"),
        ("0", "1970-01-01, and the vendor has data from 2015 on"),
        ("-1", "1969-12-31, and the vendor has data from 2015 on"),
        ("2014-12-31", "the vendor has data from 2015 on"),
        ("2014-12-31T23:59:59.999Z", "the vendor has data from 2015 on"),
        ("2022-06-01T06:00", "the time zone are missing: write 2022-06-01T06:00:00Z"),
        ("2022-06-01 06:00:00.5", "the time zone is missing: write 2022-06-01T06:00:00.5Z"),
        ("2022-06-01T06:00Z", "the seconds are missing: write 2022-06-01T06:00:00Z"),
    ],
)
def test_a_wrong_instant_is_explained(text: str, said: str) -> None:
    """The message repeats the text and says what was probably meant."""
    with pytest.raises(ValueError, match=said) as caught:
        parse_instant(text)
    assert repr(text) in str(caught.value)


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)))
def test_rfc3339_of_any_year_is_parsed(at: datetime) -> None:
    """A report may hold an hour that no flag accepts."""
    in_millis = at.replace(microsecond=at.microsecond // 1000 * 1000)
    assert parse_rfc3339(rfc3339(in_millis)) == in_millis


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("48h", timedelta(hours=48)),
        ("7d", timedelta(days=7)),
        ("0.5s", timedelta(milliseconds=500)),
        ("10m", timedelta(minutes=10)),
    ],
)
def test_durations(text: str, expected: timedelta) -> None:
    """A duration is a number and its unit."""
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    "text", ["", "7", "d", "-1d", "1w", "1 d x", "1h30m", "9" * 20 + "d", "٧d"]
)
def test_bad_durations(text: str) -> None:
    """A number without a unit is no duration."""
    with pytest.raises(ValueError, match="duration") as caught:
        parse_duration(text)
    assert repr(text)[:20] in str(caught.value)


@given(instants, instants, st.timedeltas(timedelta(minutes=1), timedelta(days=400)))
def test_windows_cover_without_gap(a: datetime, b: datetime, longest: timedelta) -> None:
    """The pieces join without a gap, none is too long, and together they are the whole window."""
    whole = Window(min(a, b), max(a, b))
    if (whole.end - whole.start) / longest > 5000:
        return
    cut = list(whole.cut(longest))
    assert all(timedelta(0) < w.end - w.start <= longest for w in cut)
    assert [w.start for w in cut[1:]] == [w.end for w in cut[:-1]]
    if whole.start < whole.end:
        assert (cut[0].start, cut[-1].end) == (whole.start, whole.end)
    else:
        assert cut == []


@given(instants)
def test_millis_round_trip(at: datetime) -> None:
    """Epoch milliseconds and RFC 3339 are parsed back to the same millisecond."""
    in_millis = at.replace(microsecond=at.microsecond // 1000 * 1000)
    assert parse_instant(str(to_millis(at))) == in_millis
    assert parse_instant(rfc3339(in_millis)) == in_millis
