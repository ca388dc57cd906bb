"""The snippets of the page about Python run."""

import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from etl.emulator import Dataset, Emulator
from tests.conftest import Serve
from tests.documents import ROOT, blocks, page

FIRST, LOGS, TASK = blocks(page("python"), "python")


@pytest.fixture
def emulator(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """Serve the last day of the snippets' account; work in a temporary folder."""
    now = datetime.now(UTC)
    data = Dataset.generate(1, now - timedelta(days=1), now, account="12345678", rows_per_file=10)
    monkeypatch.chdir(tmp_path)
    return serve(data)


def test_the_first_snippet(emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """It plans and loads. The test changes only the host."""
    assert "Settings(account=" in FIRST
    url = f'Settings(api={{"base_url": "{emulator.base_url}"}}, account='
    exec(FIRST.replace("Settings(account=", url), {})
    loaded = emulator.count("file", 200)
    assert loaded > 10
    out = capsys.readouterr().out
    assert f"{loaded} files to load" in out
    assert re.search(r"^[0-9,]+ rows in [0-9]+ parts, [0-9.]+ s$", out, re.MULTILINE)


def test_the_task(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call loads all files; a repeated call loads none."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.setenv("AHT_ETL_ACCOUNT", "12345678")
    monkeypatch.setenv("AHT_ETL_API__BASE_URL", emulator.base_url)
    found: dict[str, Any] = {}
    exec(TASK, found)
    assert emulator.count("file", 200) == 0
    loaded = found["load_handle_times"]()
    assert loaded == emulator.count("file", 200) > 10
    assert found["load_handle_times"]() == 0
