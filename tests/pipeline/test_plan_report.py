"""Estimates of a plan come from the lake's data; without data there is no estimate."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from etl import load_settings, run
from etl.emulator import Dataset
from etl.model.text import as_json, duration, size
from etl.pipeline.plan_report import Estimate, estimate
from etl.storage.local import LocalStore
from tests.conftest import Serve, load
from tests.lakes import receipts

START = datetime(2022, 6, 1, tzinfo=UTC)
DATA = Dataset.generate(3, START, START + timedelta(hours=5), rows_per_file=20, files_per_hour=6)


def test_without_data_there_is_no_estimate(tmp_path: Path) -> None:
    """An empty or missing lake gives no estimate. A configured rate gives the shortest time."""
    store = LocalStore(tmp_path / "lake")
    assert Estimate() == estimate(store, 100, None)
    assert Estimate(seconds=50) == estimate(store, 100, 2.0)
    assert {"sampled_files": 0, "bytes": None, "rows": None, "seconds": None} == as_json(Estimate())
    assert not store.root.exists()


def test_the_estimate_uses_means_and_pace_of_the_lake(serve: Serve, tmp_path: Path) -> None:
    """Bytes and rows per file, and the time of the newest run from its first part to its last.

    Parts that cannot be read are skipped.
    """
    lake = tmp_path / "lake"
    load(serve(DATA), lake)
    parts = sorted(lake.rglob("part-*.parquet"))
    for number, part in enumerate(parts):
        os.utime(part, (1000 + 10 * number, 1000 + 10 * number))
    sources = receipts(lake)
    count = len(sources)
    first = sum(source["part"] == str(parts[0].relative_to(lake)) for source in sources)
    seconds = 10 * (len(parts) - 1) / (count - first)
    (lake / "year=2022" / "month=6" / "part-00000.parquet").write_text("no part")
    (lake / "year=x").mkdir()
    (lake / "_quarantine" / "year=2022").mkdir(parents=True)
    made = estimate(LocalStore(lake), 1000, None)
    assert (
        Estimate(
            count,
            sum(source["bytes"] for source in sources) * 1000 // count,
            sum(source["rows"] for source in sources) * 1000 // count,
            round(1000 * seconds),
        )
        == made
    )
    assert 20_000 == estimate(LocalStore(lake), 1000, 0.05).seconds
    for part in parts:
        os.utime(part, (1000, 1000))
    # All parts have the same time: a copied lake, or too little data for a pace.
    assert None is estimate(LocalStore(lake), 1000, None).seconds


def test_the_newest_hours_are_the_sample(serve: Serve, tmp_path: Path) -> None:
    """They are compared as numbers: hour 10 is newer than hour 9, month 12 than month 2."""
    lake = tmp_path / "lake"
    hours = [datetime(2022, month, 1, hour, tzinfo=UTC) for month in (2, 12) for hour in (9, 10)]
    for _ in range(30):
        hours.append(hours[-1] + timedelta(hours=1))
    paths = {}
    for at in [*hours, *(hours[0] - timedelta(hours=hour) for hour in range(1, 80))]:
        folder = f"year={at.year}/month={at.month}/day={at.day}/hour={at.hour}/accountId=le79344075"
        paths[f"/{folder}/x.json.gz"] = b'{"segmentId": "a"}\n' * (2 if at.month == 12 else 1)
    listed = tmp_path / "paths.txt"
    listed.write_text("\n".join(paths))
    settings = load_settings(
        environ={},
        account="le79344075",
        api={"base_url": serve(Dataset.of(paths)).base_url},
        lake={"uri": str(lake)},
    )
    assert len(paths) == run(settings, paths=listed).raise_for_status().files.loaded
    made = estimate(LocalStore(lake), 96, None)
    newest = 32
    assert (96, newest * 2 + (96 - newest)) == (made.sampled_files, made.rows)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (3599, "1 h 00 min"), (90000, "1 d 1 h")],
)
def test_spans_of_time_for_people(seconds: float, said: str) -> None:
    """They are in the largest units that matter."""
    assert said == duration(seconds)


def test_sizes_for_people() -> None:
    """Units are powers of 1000."""
    assert ["0 B", "1.5 kB", "2.0 TB"] == [size(0), size(1500), size(2 * 10**12)]
