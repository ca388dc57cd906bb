"""The facts of a lake: its numbers, and damage that is shown instead of raised."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.audit.page.facts import CLASSES, UNKNOWN, Facts, class_of, gather
from etl.audit.page.months import Clock
from etl.audit.survey import delay_of, survey
from etl.lake.layout import Selection
from etl.storage.local import LocalStore
from etl.storage.store import StoreError
from tests.audit.page.conftest import NOW, directory, put, row

HOUR = datetime(2022, 6, 1, 6, tzinfo=UTC)


def facts_of(lake: Path, account: str | None = None) -> Facts:
    store = LocalStore(lake)
    return gather(store, survey(store, Selection(account), NOW), Clock().date_of)


def test_numbers_are_the_lakes_own(loaded: Path) -> None:
    """Rows and handle time of each hour, and rows by reason, are those that DuckDB counts."""
    facts = facts_of(loaded)
    source = (
        f"read_parquet('{loaded}/year=*/**/*.parquet', hive_partitioning = true, hive_types = "
        "{'year': INT, 'month': INT, 'day': INT, 'hour': INT, 'accountId': VARCHAR})"
    )
    with duckdb.connect() as connection:
        hours = connection.sql(
            f"SELECT year, month, day, hour, count(*), sum(handleTimeMillis) FROM {source} "
            "GROUP BY ALL"
        ).fetchall()
        reasons = dict(
            connection.sql(f"SELECT endReason, count(*) FROM {source} GROUP BY ALL").fetchall()
        )
        days = dict(
            connection.sql(
                f"SELECT make_date(year, month, day), count(DISTINCT segmentId) FROM {source} "
                "GROUP BY ALL"
            ).fetchall()
        )
    assert {
        (datetime(y, m, d, h, tzinfo=UTC), rows, int(ms)) for y, m, d, h, rows, ms in hours
    } == {(at, hour.rows, int(hour.handle_ms)) for at, hour in facts.hours.items() if hour.rows}
    assert days == facts.segments
    assert reasons == {name: found.rows for name, found in facts.durations.by_end.items()}
    assert sum(facts.delays.values()) == facts.survey.files
    assert facts.delays[UNKNOWN] == 0
    assert not facts.survey.gaps


def test_damage_is_a_fact_among_others(tmp_path: Path) -> None:
    """A cut part, a part without receipts, damaged rows, a file where a folder should be."""
    put(tmp_path, HOUR, [row()])
    put(tmp_path, HOUR).write_bytes(b"PAR1")
    naked = tmp_path / directory(HOUR) / "part-00002.parquet"
    pq.write_table(pa.table({"a": [1]}), naked)
    rotten = put(tmp_path, HOUR + timedelta(hours=1), [row(n) for n in range(1000)])
    content = bytearray(rotten.read_bytes())
    footer = int.from_bytes(content[-8:-4], "little") + 8
    content[4:-footer] = bytes(len(content) - footer - 4)
    rotten.write_bytes(content)
    (tmp_path / "year=2023").write_text("no folder")
    facts = facts_of(tmp_path)
    assert [(damage.name.rpartition("/")[2], damage.message.split(":")[0])
            for damage in facts.damage] == [
        ("part-00001.parquet", "no readable Parquet file"),
        ("part-00002.parquet", "a Parquet file without receipts"),
        ("part-00000.parquet", "its rows cannot be read"),
        ("year=2023", "listing year=2023"),
    ]  # fmt: skip
    assert [(hour.rows, hour.damaged) for _, hour in sorted(facts.hours.items())] == [
        (1, True),
        (1000, True),
    ]
    assert facts.durations.total_ms == 1000


def test_one_account_among_several(tmp_path: Path) -> None:
    """You can choose one account of several, with its quarantine."""
    put(tmp_path, HOUR, [row()] * 3, account="123", reasons=["no segmentId"])
    put(tmp_path, HOUR, [row()] * 5, account="12345", reasons=["not JSON: x at character 7"] * 2)
    both, one = facts_of(tmp_path), facts_of(tmp_path, "123")
    assert both.survey.accounts == ("123", "12345")
    assert (both.survey.rows, both.survey.quarantined) == (8, 3)
    assert one.survey.accounts == ("123",)
    assert (one.survey.rows, one.survey.quarantined) == (3, 1)
    assert both.quarantine.by_reason == {"no segmentId": 1, "not JSON: x": 2}
    assert one.quarantine.by_reason == {"no segmentId": 1}


def test_lines_of_the_quarantine_that_are_damaged(tmp_path: Path) -> None:
    """Lines that the job did not write have a reason of their own, however long they are."""
    put(tmp_path, HOUR, reasons=["no segmentId"])
    file = next((tmp_path / "_quarantine").rglob("*.ndjson"))
    with file.open("ab") as stream:
        stream.write(b'[1]\n{"reason": \xff}\n' + b"[" * 100_000 + b"\n")
    reasons = facts_of(tmp_path).quarantine.by_reason
    assert sorted(reasons.values()) == [1, 3]


def test_texts_of_the_lake_are_printable(tmp_path: Path) -> None:
    """Reasons, runs and quarantined reasons never have control characters."""
    odd = "a\x1b[31m\u202e\n b"
    put(tmp_path, HOUR, [row(start=odd)], run=odd, reasons=[odd, "\ud800"])
    facts = facts_of(tmp_path)
    assert set(facts.durations.by_start) == {"a [31m b"}
    assert set(facts.runs) == {"a [31m b"}
    assert set(facts.quarantine.by_reason) == {
        "a [31m b",
        "(the quarantine's own line cannot be read)",
    }


def test_runs_are_told_apart(tmp_path: Path) -> None:
    """Each run's parts, files, rows and bad rows are summed by its id."""
    put(tmp_path, HOUR, [row()] * 3, run="a")
    put(tmp_path, HOUR, [row()] * 4, run="b", reasons=["no segmentId"])
    put(tmp_path, HOUR + timedelta(hours=1), [row()], run="b")
    runs = facts_of(tmp_path).runs
    assert {name: (run.parts, run.files, run.rows, run.quarantined)
            for name, run in runs.items()} == {"a": (1, 1, 3, 0), "b": (2, 2, 5, 1)}  # fmt: skip


def test_gaps_lie_between_the_first_and_the_last_hour(tmp_path: Path) -> None:
    """Each account has its own gaps, the oldest first."""
    for offset in (0, 1, 4, 5, 48):
        put(tmp_path, HOUR + timedelta(hours=offset))
    put(tmp_path, HOUR + timedelta(hours=3), account="123")
    put(tmp_path, HOUR + timedelta(hours=5), account="123")
    gaps = [
        ((gap.start - HOUR).total_seconds() / 3600, gap.hours, gap.account)
        for gap in facts_of(tmp_path).survey.gaps
    ]
    assert gaps == [(4, 1, "123"), (2, 2, "le79344075"), (6, 42, "le79344075")]


def test_a_lake_that_is_none_is_an_error(tmp_path: Path) -> None:
    """A lake that does not exist is empty; a file is refused in one line."""
    assert not facts_of(tmp_path / "none").hours
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"reading .*file: Not a directory"):
        facts_of(tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sequences.1654113886437.20220601160446.00066.json.gz", "6 to 24 hours"),
        ("sequences.1654067000000.20220601030320.1.json.gz", "up to 1 hour"),
        ("sequences.1654063200000.20220601020000.1.json.gz", "before the hour ended"),
        ("sequences.1672531200000.20230101000000.1.json.gz", "more than 14 days"),
        ("sequences.99999999999999.20230101000000.1.json.gz", UNKNOWN),
        ("sequences.1.json.gz", UNKNOWN),
        ("part-3.json.gz", UNKNOWN),
    ],
)
def test_lateness_by_the_time_in_a_files_name(name: str, expected: str) -> None:
    """The first number of the vendor's names is the time of writing; others say nothing."""
    assert expected == class_of(delay_of(f"/{directory(HOUR)}/{name}", HOUR))


def test_the_last_hour_that_there_is() -> None:
    """The last hour of a datetime is not an error, and each class has its own name."""
    last = datetime(9999, 12, 31, 23, tzinfo=UTC)
    late = delay_of("/x/sequences.1654113886437.20220601160446.1.json.gz", last)
    assert class_of(late) == "before the hour ended"
    assert len({name for _, name in CLASSES}) == len(CLASSES)


@pytest.mark.parametrize(
    ("name", "at"),
    [
        (
            "sequences.1654113886437.20220601160446.00066.json.gz",
            datetime(2022, 6, 1, 20, 4, 46, 437000, tzinfo=UTC),
        ),
        ("sequences.1654113886437.json.gz", None),
        ("1654113886437.20220601160446.00066.json.gz", None),
        ("sequences.99999999999999999.20220601160446.00066.json.gz", None),
        ("a.json.gz", None),
    ],
)
def test_when_a_file_was_written(name: str, at: datetime | None) -> None:
    """Names like the documented ones hold the time; other names do not."""
    delay = delay_of(f"/year=2022/month=6/day=1/hour=6/accountId=a1/{name}", HOUR)
    assert at == (None if delay is None else HOUR + timedelta(hours=1) + delay)
