"""The operator's page: its commands run, and its tables match the program."""

import gzip
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGKILL, SIGTERM
from typing import Any

import duckdb
import pytest
import yaml
from typer.main import get_command

from etl.audit.verify import FindingKind
from etl.cli import app
from etl.config.sources import load_settings
from etl.emulator import Dataset, Emulator
from etl.model.errors import FailureKind
from etl.pipeline import metrics
from etl.pipeline import report as reports
from tests.conftest import COMMAND, Serve, environment
from tests.conftest import load as load_into
from tests.lakes import assert_lake_holds, receipts
from tests.programs import program

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "configs" / "docs" / "operations.md").read_text()
COMMANDS: set[str] = set(getattr(get_command(app), "commands"))  # noqa: B009 - untyped
HOUR = "year=2022/month=6/day=1/hour={}/accountId=12345678"
GENERATED = Dataset.generate(
    9,
    datetime(2022, 6, 1, 4, tzinfo=UTC),
    datetime(2022, 6, 1, 12, tzinfo=UTC),
    account="12345678",
    rows_per_file=5,
    files_per_hour=2,
)
DATA = Dataset.of(
    {
        **{path: file.content for path, file in GENERATED.files.items()},
        **{
            f"/{HOUR.format(hour)}/sequences.{name}.json.gz": gzip.compress(
                b'{"segmentId": "a"}\n%b' % bad
            )
            for hour in (6, 9)
            for name, bad in (("1", b'{"sequence": 1}'), ("2", b'{"segmentId": 7'))
        },
    }
)


def section(title: str) -> str:
    """Return the text under a heading, up to the next heading of its level or higher."""
    match = re.search(rf"^(#+) {re.escape(title)}\n", PAGE, re.MULTILINE)
    assert match is not None, title
    ends = re.compile(rf"^#{{1,{len(match[1])}}} ", re.MULTILINE)
    return ends.split(PAGE[match.end() :])[0]


def blocks(title: str, language: str = "sh") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", section(title), re.DOTALL)


def cells(title: str, column: int) -> list[str]:
    """Return the text in code font in one column of a section's table, without the table's head."""
    found = re.search(r"^\|[-|]+\|\n((?:\|.*\n)+)", section(title), re.MULTILINE)
    assert found is not None, title
    rows = [line.split("|")[column] for line in found[1].splitlines()]
    return [name for cell in rows for name in re.findall(r"`([^`]+)`", cell)]


Shell = Callable[[str], str]


@pytest.fixture
def emulator(serve: Serve) -> Emulator:
    return serve(DATA)


@pytest.fixture
def shell(tmp_path: Path, emulator: Emulator) -> Shell:
    """Run the page's commands in a folder like the one on the page."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    env = environment(
        AHT_ETL_ACCOUNT="12345678",
        AHT_ETL_API__BASE_URL=emulator.base_url,
        PATH=f"{Path(COMMAND).parent}{os.pathsep}{os.environ['PATH']}",
    )

    def run(commands: str) -> str:
        known = [
            line
            for line in commands.splitlines(keepends=True)
            if not (called := re.match(r"\s*aht-etl ([a-z]+)", line)) or called[1] in COMMANDS
        ]
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "".join(known)],
            cwd=tmp_path,
            env=env,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{commands}{done.stdout}{done.stderr}"
        return done.stdout

    return run


def fill(shell: Shell) -> None:
    shell("aht-etl run --config configs/daily.yaml --from 2022-06-01 --to 2022-06-03")


def test_a_first_look(shell: Shell, tmp_path: Path) -> None:
    """Each command of the section succeeds on a good lake."""
    fill(shell)
    (commands,) = blocks("First look")
    shell(commands)
    assert (tmp_path / "report.json").exists()


def test_an_hour_is_loaded_again(shell: Shell, tmp_path: Path) -> None:
    """The whole hour comes from the vendor again, and the old parts are in their new folder."""
    fill(shell)
    before = {r["path"]: r for r in receipts(tmp_path / "lake")}
    part = tmp_path / "lake" / HOUR.format(6) / "part-00000.parquet"
    old = part.read_bytes()
    (commands,) = blocks("Load an hour again")
    assert f"loaded {sum('/hour=6/' in path for path in before):>20,} files" in shell(commands)
    assert_lake_holds(tmp_path / "lake", DATA)
    assert old == (tmp_path / "aside" / HOUR.format(6) / part.name).read_bytes()
    assert old != part.read_bytes()


def test_a_month_is_loaded(shell: Shell, tmp_path: Path) -> None:
    """One run loads it, and so do four shares at once."""
    whole, shares = blocks("Backfill a month")
    shell(whole)
    assert_lake_holds(tmp_path / "lake", DATA)
    shutil.rmtree(tmp_path / "lake")
    assert 4 == shell(shares).count('"status": "ok"')
    assert_lake_holds(tmp_path / "lake", DATA)


def test_a_damaged_part_is_replaced(shell: Shell, tmp_path: Path) -> None:
    """Its files are loaded again."""
    fill(shell)
    part = tmp_path / "lake" / HOUR.format(9) / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-5])
    with pytest.raises(AssertionError, match="no readable Parquet file"):
        fill(shell)
    (commands,) = blocks("A damaged part")
    shell(commands)
    assert_lake_holds(tmp_path / "lake", DATA)


def test_commands_for_a_full_disk(shell: Shell) -> None:
    """The folders that the section names exist."""
    fill(shell)
    (commands,) = blocks("A full disk")
    assert "lake/_staging" in shell(commands)


def test_the_quarantine_is_read(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB counts the bad rows by reason; other commands show them row by row."""
    fill(shell)
    (query,) = blocks("Bad rows", "sql")
    monkeypatch.chdir(tmp_path)
    with duckdb.connect() as connection:
        found = connection.sql(query.strip("; \n")).fetchall()
    assert [2, 2] == [rows for _, rows, *_ in found]
    assert ("no segmentId", 2, 2, '{"sequence": 1}') in found
    (commands,) = blocks("Bad rows")
    assert 4 == shell(commands).count('"sourcePath"')


def test_configurations_on_the_page_are_valid() -> None:
    """The program accepts them unchanged."""
    for title in ("A file that stays broken", "Metrics and alerts"):
        flags: dict[str, Any] = yaml.safe_load(blocks(title, "yaml")[0])
        loaded = load_settings(None, {}, **flags).model_dump(mode="json")
        for name, keys in flags.items():
            assert keys == {key: loaded[name][key] for key in keys}


def test_prometheus_accepts_its_configuration(tmp_path: Path) -> None:
    """The alert rules are in the same folder."""
    (_, config) = blocks("Metrics and alerts", "yaml")
    (tmp_path / "prometheus.yml").write_text(config)
    shutil.copy(ROOT / "configs" / "monitoring" / "alerts.yaml", tmp_path)
    command = [program("promtool"), "check", "config", str(tmp_path / "prometheus.yml")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (0, 1) == (done.returncode, done.stdout.count("rules found")), done.stderr


def test_every_kind_of_failure_and_every_metric_is_on_the_page() -> None:
    """The page names no others."""
    assert sorted(FailureKind) == sorted(cells("Kinds of failures", 1))
    assert sorted(metrics.HELP) == sorted(cells("Metrics and alerts", 1))


def test_every_exit_code_is_on_the_page() -> None:
    """The page has each code of the program with its status, and the code of a kill."""
    rows = re.findall(r"^\| ([0-9, ]+) \| `?([a-z–]+)`? \|", section("Exit codes"), re.MULTILINE)
    signals = ", ".join(str(128 + int(number)) for number in (SIGINT, SIGTERM, SIGHUP))
    assert rows == [
        (str(reports.EXIT_OK), "ok"),
        (str(reports.EXIT_FAILED), "failed"),
        ("2", "–"),
        (str(reports.EXIT_PARTIAL), "partial"),
        (signals, "interrupted"),
        (str(128 + SIGKILL), "–"),
    ]


def test_every_key_of_the_report_is_on_the_page(emulator: Emulator, tmp_path: Path) -> None:
    """Nested keys too, if a report always has them. The page names no others."""
    written = load_into(emulator, tmp_path / "lake")
    rows = re.findall(r"^\| (`.*?) \|", section("The report"), re.MULTILINE)
    keys = [re.findall(r"`([a-z0-9_]+)`", row.partition("{")[0]) for row in rows]
    assert sorted(written) == sorted(key for named in keys for key in named)
    for row, named in zip(rows, keys, strict=True):
        below = re.findall(r"`([a-z0-9_]+)`", row.partition("{")[2])
        value = written[named[-1]]
        there = value[0] if isinstance(value, list) and value else value
        if below and there:
            assert sorted(below) == sorted(there), named


def test_every_finding_is_on_the_page() -> None:
    """So is every note of `verify`, with --deep and --copy."""
    named = re.findall(r"^\| `(\w+)` \|", section("What verify finds"), re.MULTILINE)
    assert sorted(FindingKind) == sorted(named)
