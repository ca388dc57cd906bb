"""Each of the analyst's queries gives the same result as a count in Python of the loaded rows."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import fmean, median
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest

from etl.emulator import Dataset, EmulatorOptions, run_in_thread
from etl.emulator.dataset import pack
from etl.model.paths import BreakdownPath
from tests.conftest import load
from tests.documents import blocks, page, section
from tests.lakes import COLUMNS

PAGE = page("analyst")
QUERIES = section(PAGE, "Queries")
TITLES = re.findall(r"^### (.+)$", QUERIES, re.MULTILINE)
GENERATED = Dataset.generate(
    7,
    datetime(2022, 6, 1, 3, tzinfo=UTC),
    datetime(2022, 6, 3, tzinfo=UTC),
    account="le79344075",
    rows_per_file=8,
    files_per_hour=1,
    late_share=0.3,
)


def _with(rows: Iterator[tuple[str, dict[str, Any]]]) -> Dataset:
    """Add an undocumented field to some rows, and a file that repeats rows of another file."""
    files: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path, row in rows:
        files[path].append({**row, "site": 1, "note": {"a": 1}} if row["sequence"] == 1 else row)
    first = next(path for path, content in files.items() if content)
    files[first.replace("/sequences.", "/sequences.1654113886437.")] = [
        {**row, "insertTimestamp": row["insertTimestamp"] + 1} for row in files[first]
    ]
    text = {path: "".join(json.dumps(row) + "\n" for row in rows) for path, rows in files.items()}
    ROWS.extend((BreakdownPath.parse(path), row) for path, rows in files.items() for row in rows)
    return Dataset.of({path: pack(lines) for path, lines in text.items()})


ROWS: list[tuple[BreakdownPath, dict[str, Any]]] = []
DATA = _with(GENERATED.rows())


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("queries")
    with run_in_thread(DATA, EmulatorOptions(oldest=None)) as emulator:
        assert load(emulator, folder / "lake")["rows"]["loaded"] == len(ROWS)
    return folder


@pytest.fixture
def ask(lake: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Run the query below a heading (the last statement that makes no view), in UTC."""
    monkeypatch.chdir(lake)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for view in re.findall(r"```sql\n(CREATE VIEW.*?)```", PAGE, re.DOTALL):
            connection.execute(view)

        def answer(title: str, number: int = -1) -> list[tuple[Any, ...]]:
            queries = [q for q in blocks(section(PAGE, title), "sql") if not q.startswith("CREATE")]
            return connection.execute(queries[number]).fetchall()

        yield answer


def by_day(value: str = "handleTimeMillis") -> dict[tuple[int, int, int], dict[str, list[int]]]:
    """Return the segments of each day with their values."""
    days: dict[tuple[int, int, int], dict[str, list[int]]] = {}
    for path, row in ROWS:
        hour = path.partition.hour
        segments = days.setdefault((hour.year, hour.month, hour.day), {})
        segments.setdefault(row["segmentId"], []).append(row[value])
    return dict(sorted(days.items()))


def test_the_page_has_at_least_eight_queries() -> None:
    """Each query has its own heading."""
    assert len(TITLES) >= 8
    assert all(blocks(section(PAGE, title), "sql") for title in TITLES)


def test_average_handle_time(ask: Any) -> None:
    """The average is per segment, not per unit."""
    wanted = [
        (*day, len(segments), sum(map(sum, segments.values())) / 1000 / len(segments))
        for day, segments in by_day().items()
    ]
    assert ask("Average handle time per segment and day") == [
        (*row[:4], pytest.approx(row[4])) for row in wanted
    ]


def test_median_and_percentile(ask: Any) -> None:
    """Both are of the sums per segment."""
    for (year, month, day, middle, p90), (wanted, segments) in zip(
        ask("Median and 90th percentile"), by_day().items(), strict=True
    ):
        sums = sorted(sum(units) / 1000 for units in segments.values())
        assert ((year, month, day), middle) == (wanted, pytest.approx(median(sums)))
        assert sum(value <= p90 for value in sums) >= 0.9 * len(sums) - 1


def test_complete_or_not(ask: Any) -> None:
    """The first day has no files before 03:00, and the query reports that."""
    hours: dict[Any, set[int]] = defaultdict(set)
    for path, _ in ROWS:
        hour = path.partition.hour
        hours[hour.year, hour.month, hour.day].add(hour.hour)
    wanted = [(*day, len(found), len(found) == 24) for day, found in sorted(hours.items())]
    assert ask("Complete or not") == wanted
    assert wanted[0][3:] == (21, False)


def test_how_late_files_came(ask: Any) -> None:
    """The delay runs from the end of a file's hour to the time in its name."""
    classes: dict[str, list[int]] = {}
    for path, content in Counter(path for path, _ in ROWS).items():
        written = datetime.fromtimestamp(int(str(path).split("sequences.")[1][:13]) / 1000, UTC)
        late = written - path.partition.hour - timedelta(hours=1)
        name = "later" if late > timedelta(days=7) else "within a week"
        name = "within a day" if late <= timedelta(days=1) else name
        classes.setdefault(name, []).append(content)
    found = {name: (files, rows) for name, files, rows in ask("How late files came")}
    assert found == {name: (len(files), sum(files)) for name, files in classes.items()}
    assert len(found) == 3


def test_by_reason(ask: Any) -> None:
    """The shares add up to one."""
    reasons: dict[Any, list[int]] = defaultdict(list)
    for _, row in ROWS:
        reasons[row["startReason"], row["endReason"]].append(row["handleTimeMillis"])
    total = sum(map(sum, reasons.values()))
    found = ask("By reason")
    assert {row[:2]: row[2:] for row in found} == {
        pair: (len(ms), pytest.approx(fmean(ms) / 1000), pytest.approx(sum(ms) / total))
        for pair, ms in reasons.items()
    }
    assert sum(row[4] for row in found) == pytest.approx(1)


def test_by_local_day(ask: Any) -> None:
    """In June, Amsterdam is two hours ahead of UTC."""
    zone = ZoneInfo("Europe/Amsterdam")
    days: dict[date, int] = defaultdict(int)
    for _, row in ROWS:
        start = datetime.fromtimestamp(row["startTimestamp"] / 1000, zone)
        days[start.date()] += row["handleTimeMillis"]
    wanted = [(day, pytest.approx(ms / 3.6e6)) for day, ms in sorted(days.items())]
    assert ask("By local day") == wanted


def test_busiest_hours(ask: Any) -> None:
    """The busiest hour comes first."""
    found = ask("Busiest hours")
    assert {row[0] for row in found} == {path.partition.hour.hour for path, _ in ROWS}
    assert [row[2] for row in found] == sorted((row[2] for row in found), reverse=True)
    assert sum(row[2] for row in found) == pytest.approx(
        sum(row["handleTimeMillis"] for _, row in ROWS) / 3.6e6
    )


def test_undocumented_fields(ask: Any) -> None:
    """The query counts the rows that have each field."""
    count = sum("site" in row for _, row in ROWS)
    assert sorted(ask("Undocumented fields")) == [("note", count), ("site", count)]


def test_deduplicate(ask: Any) -> None:
    """The rows of one file occur twice. The later ones count."""
    keys = Counter((row["segmentId"], row["sequence"]) for _, row in ROWS)
    twice = [key for key, count in keys.items() if count > 1]
    assert twice
    assert ask("Deduplicate", 0) == [(len(twice), len(twice), 2)]
    sums: dict[str, dict[int, int]] = defaultdict(dict)
    for _, row in ROWS:
        sums[row["segmentId"]][row["sequence"]] = row["handleTimeMillis"]
    top = sorted((sum(units.values()) / 1000 for units in sums.values()), reverse=True)[:20]
    assert [row[2] for row in ask("Deduplicate")] == pytest.approx(top)


def test_which_part_holds_a_file(ask: Any) -> None:
    """The query finds the part into which the run loaded the file."""
    (part,) = ask("Which part holds a file")
    assert re.fullmatch(r"lake/year=2022/month=6/day=1/hour=\d+/.*/part-00000\.parquet", part[0])


def test_every_column_is_explained() -> None:
    """The page has the columns in the lake's order."""
    rows = re.findall(r"^\| (`.*?) \|", section(PAGE, "What a row is"), re.MULTILINE)
    assert list(COLUMNS) == [name for row in rows for name in re.findall(r"`(\w+)`", row)]
