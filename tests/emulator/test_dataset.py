"""The generated data: the same for the same seed, and similar to the vendor's."""

import gzip
from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise
from statistics import median

from etl.emulator import Dataset
from etl.model.paths import BreakdownPath
from etl.model.times import to_millis
from tests.decode.oracle import truth

START, END = datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 6, 3, tzinfo=UTC)
DAYS = Dataset.generate(1, START, END)


def test_the_same_seed_gives_the_same_bytes() -> None:
    """Another seed gives other bytes."""
    assert Dataset.generate(1, START, END) == DAYS
    assert Dataset.generate(2, START, END).files.keys() != DAYS.files.keys()


def test_paths_are_of_every_hour_and_as_documented() -> None:
    """Each hour of the window has files, under paths that parse."""
    hours = {BreakdownPath.parse(path).partition.hour for path in DAYS.files}
    assert {START + timedelta(hours=hour) for hour in range(48)} == hours


def test_units_follow_each_other_and_add_up() -> None:
    """A segment's HTUs are in sequence, do not overlap, and end when it closes, in its hour."""
    for file in DAYS.files.values():
        assert file.rows is not None
        for _, units in groupby(file.rows, lambda row: row["segmentId"]):
            last_end, count = 0, 0
            for count, unit in enumerate(units, start=1):
                assert unit["sequence"] == count
                assert unit["startTimestamp"] >= last_end
                last_end = unit["endTimestamp"]
                assert unit["handleTimeMillis"] == last_end - unit["startTimestamp"]
                assert last_end <= unit["insertTimestamp"] <= file.available_from_ms
            assert file.closed_ms[0] <= last_end <= file.closed_ms[1]
            assert count > 0


def test_each_reason_has_a_distribution_of_its_own() -> None:
    """No two start reasons, and no two end reasons, have medians within a tenth of each other."""
    for reason in ("startReason", "endReason"):
        durations: dict[str, list[int]] = {}
        for _, row in DAYS.rows():
            durations.setdefault(row[reason], []).append(row["handleTimeMillis"])
        medians = sorted(median(each) for each in durations.values())
        assert len(medians) >= 4
        assert all(low * 1.1 < high for low, high in pairwise(medians)), (reason, medians)


def test_sizes_differ_and_some_files_are_late() -> None:
    """Sizes go from empty to many times the median; a few files come after days."""
    sizes = sorted(len(file.rows or ()) for file in DAYS.files.values())
    assert sizes[0] == 0
    assert sizes[-1] > 5 * sizes[len(sizes) // 2]
    day_ms = 86_400_000
    late = [f for f in DAYS.files.values() if f.available_from_ms - f.closed_ms[1] > day_ms]
    assert 0 < len(late) < len(DAYS.files) / 10


def test_all_shapes_hold_the_same_rows() -> None:
    """An independent reader finds the rows of a file in each shape."""
    mixed = Dataset.generate(1, START, END, rows_per_file=20, mixed_shapes=True)
    texts = {path: gzip.decompress(file.content) for path, file in mixed.files.items()}
    for path, file in mixed.files.items():
        found = truth(texts[path])
        assert found.bad == []
        assert [row["segmentId"] for row in file.rows or ()] == [
            row["segmentId"] for row in found.rows
        ]
    starts = {text.lstrip(b"\xef\xbb\xbf \r\n")[:1] for text in texts.values()}
    assert {b"{", b"["} <= starts


def test_given_bytes_are_served_as_they_are() -> None:
    """Their hour is that of the path; an invalid path belongs to every window."""
    path = "/year=2022/month=6/day=1/hour=6/accountId=a1/x.json.gz"
    data = Dataset.of({path: b"1", "../x": b"2"})
    hour = to_millis(datetime(2022, 6, 1, 6, tzinfo=UTC))
    assert (hour, hour + 3_599_999) == data.files[path].closed_ms
    assert data.files["../x"].closed_ms[0] < 0 < data.files["../x"].closed_ms[1]
