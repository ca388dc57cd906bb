"""The page for a new user: its commands run in their order."""

import configparser
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from etl.emulator import Dataset
from tests.conftest import Serve
from tests.documents import ROOT, blocks, in_shell, page

PAGE = page("getting-started")


def test_its_commands_run_one_after_another(tmp_path: Path, serve: Serve) -> None:
    """Keys, check, run, a look at the lake, the configuration, with an emulator that needs keys."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    now = datetime.now(UTC)
    data = Dataset.generate(1, now - timedelta(days=1), now, account="12345678", rows_per_file=5)
    emulator = serve(data, auth="oauth1")
    commands = "".join(blocks(PAGE, "sh"))
    for name, value in emulator.keys.items():
        commands = commands.replace(f"'your {name.replace('_', ' ')}'", f"'{value}'")
    said = in_shell(commands, tmp_path, AHT_ETL_API__BASE_URL=emulator.base_url)
    # `check` also reads a file.
    assert f"rows of {emulator.count('file', 200) - 1} files read" in said
    assert re.search(r"consumer_secret: set +# secret file auth__consumer_secret", said)
    assert (tmp_path / "report.json").exists()
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


def test_its_systemd_units_are_valid() -> None:
    """The service and the timer have systemd's sections, and the stop timeout exceeds the grace."""
    service, timer = (configparser.ConfigParser() for _ in range(2))
    for unit, text in zip((service, timer), blocks(PAGE, "ini"), strict=True):
        unit.read_string(text)
    assert "oneshot" == service["Service"]["Type"]
    assert service["Service"]["ExecStart"].endswith("aht-etl run --config configs/daily.yaml")
    assert 20 + 5 < int(service["Service"]["TimeoutStopSec"])
    assert "timers.target" == timer["Install"]["WantedBy"]
