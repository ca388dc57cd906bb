"""A plan for people."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from etl import load_settings, plan
from etl.cli.plan import Fold, to_text
from etl.pipeline.plan_report import PlanReport

START = datetime(2022, 6, 1, tzinfo=UTC)
PATHS = [
    f"/year={at.year}/month={at.month}/day={at.day}/hour={at.hour}/accountId=a1/x.json.gz"
    for at in (START + timedelta(hours=hour) for hour in range(300))
]


def made(paths: list[str], lake: Path) -> PlanReport:
    settings = load_settings(environ={}, account="a1", lake={"uri": str(lake)})
    return plan(settings, paths=paths)


@pytest.mark.parametrize("width", [40, 60, 200])
def test_hours_and_days(tmp_path: Path, width: int) -> None:
    """Hour by hour; by day where there are very many; no wider than the terminal."""

    def table(count: int, fold: Fold = "auto") -> list[list[str]]:
        text = to_text(made(PATHS[:count], tmp_path / "lake"), fold, width, ascii_only=False)
        lines = text.split("\n\n")[1].splitlines()
        assert max(map(len, lines)) <= max(width, 43)
        assert ("░" in text) == (width > 50)
        return [line.rstrip("░ ").split() for line in lines]

    head, *rows, total = table(100)
    assert ["hour", "(UTC)", "listed", "loaded", "to", "load"] == head
    assert ["2022-06-01", "00:00", "1", "0", "1"] == rows[0]
    assert (100, ["100", "hours", "100", "0", "100"]) == (len(rows), total)
    assert [["2022-06-13", "12", "0", "12"], ["13", "days", "300", "0", "300"]] == table(300)[-2:]
    assert ["300", "hours", "300", "0", "300"] == table(300, "hour")[-1]
    assert ["1", "day", "10", "0", "10"] == table(10, "day")[-1]


def test_a_thousand_problems(tmp_path: Path) -> None:
    """Ten are shown; control characters of a listing do not reach the terminal."""
    text = to_text(
        made([f"\x1b[31m{number}" for number in range(1000)], tmp_path), "auto", 80, ascii_only=True
    )
    assert "1,000 invalid, never requested:" in text
    assert "  … and 990 more; --json has them all" in text
    assert "\x1b" not in text
    assert len(text.splitlines()) < 25


def test_no_estimate_is_said(tmp_path: Path) -> None:
    """If the lake holds nothing and no run was long enough."""
    text = to_text(made(PATHS[:1], tmp_path / "lake"), "auto", 80, ascii_only=False)
    assert "size: no estimate" in text
    assert "time: no estimate" in text
