"""The README and the example configurations say what the program does."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
import yaml
from pydantic import BaseModel
from typer.main import get_command

from etl.cli import app
from etl.config.settings import Settings
from etl.config.sources import load
from etl.emulator import Dataset
from etl.emulator.dataset import DEFAULT_ACCOUNT
from tests.conftest import Serve
from tests.conftest import load as run_job
from tests.lakes import COLUMNS

ROOT = Path(__file__).parent.parent
README = ROOT.joinpath("README.md").read_text()
CONFIGS = sorted(ROOT.joinpath("configs").glob("*.yaml"))


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from keys(inner, f"{prefix}{name}.")
        else:
            yield prefix + (field.alias or name)


def section(title: str) -> str:
    return re.split(r"\n#+ ", README.partition(f"# {title}\n")[2])[0]


def test_every_key_is_in_the_readme_and_no_other() -> None:
    """The configuration's table names each key of the model."""
    rows = [line for line in section("Configuration").splitlines() if line.startswith("| `")]
    named = [key for row in rows for key in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert sorted(keys(Settings)) == sorted(named)


def test_every_key_is_in_the_daily_configuration_with_a_comment() -> None:
    """It is the reference that people copy from."""
    content = yaml.safe_load((ROOT / "configs" / "daily.yaml").read_text())
    there = {
        f"{name}.{key}" if isinstance(value, dict) else name
        for name, value in content.items()
        for key in (value if isinstance(value, dict) else [None])
    }
    assert set(keys(Settings)) == there


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_example_configurations_load_and_explain_each_key(file: Path) -> None:
    """Each is valid as it stands, and above each key stands what it does.

    An unedited file asks for nobody's account.
    """
    account = load({}, file, {}).account
    assert account == (DEFAULT_ACCOUNT if file.name == "demo.yaml" else None)
    above = ""
    for line in file.read_text().splitlines():
        if re.match(r" *[a-z_]+:", line) and not re.fullmatch(r"[a-z]+:", line):
            assert above.lstrip().startswith("#"), line
        above = line


def test_defaults_in_the_daily_configuration() -> None:
    """What it does not name as a choice is the program's default."""
    daily = load({}, ROOT / "configs" / "daily.yaml", {}).model_dump()
    default = Settings().model_dump()
    differs = {
        f"{name}.{key}" if isinstance(value, dict) else name
        for name, value in daily.items()
        for key in (value if isinstance(value, dict) else [None])
        if (value[key] if key else value) != (default[name][key] if key else default[name])
    }
    assert {"window.lookback"} == differs


def test_every_command_is_in_the_readme() -> None:
    """The table of commands names each that there is, and no other."""
    named = re.findall(r"^\| `aht-etl ([a-z-]+)", section("The job"), re.MULTILINE)
    assert sorted(named) == sorted(getattr(get_command(app), "commands"))  # noqa: B009 - untyped


def test_columns_in_the_readme() -> None:
    """The lake's table names each column in its order."""
    rows = [line for line in section("The lake").splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert list(COLUMNS) == named


def test_queries_in_the_readme(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB takes them as they stand, on a lake called `lake`."""
    start, end = datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 6, 1, 6, tzinfo=UTC)
    data = Dataset.generate(1, start, end, rows_per_file=10)
    run_job(serve(data), tmp_path / "lake")
    monkeypatch.chdir(tmp_path)
    queries = re.findall(r"```sql\n(.*?)```", README, re.DOTALL)
    with duckdb.connect() as connection:
        (days, parts) = [connection.sql(query.strip("; \n")).fetchall() for query in queries]
    assert [(2022, 6, 1)] == [day[:3] for day in days]
    assert [] == parts


def test_the_example_from_python(
    tmp_path: Path,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It runs as it stands, but for the host that it asks."""
    now = datetime.now(UTC)
    data = Dataset.generate(1, now - timedelta(days=1), now, account="12345678", rows_per_file=10)
    emulator = serve(data)
    example, _logs = re.findall(r"```python\n(.*?)```", section("From Python"), re.DOTALL)
    assert "Settings(account=" in example
    url = f'Settings(api={{"base_url": "{emulator.base_url}"}}, account='
    monkeypatch.chdir(tmp_path)
    exec(example.replace("Settings(account=", url), {})
    loaded = emulator.count("file", 200)
    assert loaded > 10
    out = capsys.readouterr().out
    assert f"{loaded} files to load" in out
    assert re.search(r"^[0-9,]+ rows in [0-9]+ parts, [0-9.]+ s$", out, re.MULTILINE)
