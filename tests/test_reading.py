"""The page about tables and the coarse copy: its commands and its query run unchanged."""

import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from etl.audit.ddl import Engine
from etl.emulator import Dataset
from tests.conftest import COMMAND, Serve, environment, load

PAGE = Path(__file__).parent.parent.joinpath("configs", "docs", "reading.md").read_text()


def test_its_commands_and_its_query_run_unchanged(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this order, on a lake called `lake`: a table, a copy, a query of the copy, its check."""
    start, end = datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 6, 1, 6, tzinfo=UTC)
    load(serve(Dataset.generate(1, start, end, rows_per_file=10)), tmp_path / "lake")
    monkeypatch.chdir(tmp_path)
    path = f"{Path(COMMAND).parent}:/usr/bin:/bin"
    commands = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    said = [
        subprocess.run(
            ["bash", "-euc", command],
            env=environment(PATH=path),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for command in commands
    ]
    for text, begin in zip(said, ("CREATE SCHEMA", "ok: 1 days in", "ok: "), strict=True):
        assert text.startswith(begin), text
    (query,) = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    with duckdb.connect() as connection:
        connection.execute(said[0])
        wanted = connection.sql(
            "SELECT year, month, count(DISTINCT segmentId) FROM aht.units GROUP BY ALL"
        ).fetchall()
        assert wanted == connection.sql(query.strip("; \n")).fetchall()


def test_every_engine_is_on_the_page() -> None:
    """The page says for each how new hours appear, and how its statement was checked."""
    table = PAGE.partition("| `--engine` |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE)
    assert sorted(Engine) == sorted(re.findall("`([a-z]+)`", " ".join(rows)))
