"""The page about the archive: its commands run in their order; its rules fit the stores."""

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from etl.audit.verify import FindingKind
from etl.emulator import Dataset
from tests.conftest import COMMAND, Serve, environment
from tests.lakes import assert_lake_holds

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "configs" / "docs" / "archive.md").read_text()
DATA = Dataset.generate(
    9,
    datetime(2022, 6, 1, 4, tzinfo=UTC),
    datetime(2022, 6, 1, 12, tzinfo=UTC),
    account="12345678",
    rows_per_file=5,
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_its_commands_run_one_after_another(serve: Serve, tmp_path: Path) -> None:
    """Fill the archive, load, rebuild, verify: no command fails, and the lake has all rows.

    The segment that the page erases does not exist, and `erase` reports that.
    """
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    emulator = serve(DATA)
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(lines) > 8
    for line in lines:
        # The page's month is replaced by the days of the emulator.
        command = line.replace("--lookback 30d", "--from 2022-06-01 --to 2022-06-03")
        command = command.replace("aht-etl ", f"{COMMAND} ", 1)
        env = environment(
            AHT_ETL_ACCOUNT="12345678",
            AHT_ETL_API__BASE_URL=emulator.base_url,
            AHT_ETL_RAW__URI="./raw",
            AHT_ETL_WINDOW__FROM="2022-06-01",
            AHT_ETL_WINDOW__TO="2022-06-03",
        )
        ended = subprocess.run(
            command, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        expected = (1, True) if " erase " in line else (0, False)
        said = "nothing mentions account:12345678:" in ended.stderr
        assert expected == (ended.returncode, said), (line, ended.stderr)
    for lake in ("lake", "rebuilt"):
        assert_lake_holds(tmp_path / lake, DATA)
    for path, file in DATA.files.items():
        assert file.content == (tmp_path / f"raw{path}").read_bytes()


def test_its_configuration_is_valid() -> None:
    """The example sets the key that the page describes."""
    (text,) = blocks("yaml")
    assert {"raw": {"uri": "./raw"}} == yaml.safe_load(text)


def test_its_rules_apply_to_the_archive_only() -> None:
    """Each store's rules move only files under `raw/`, to a colder class that can be read."""
    s3, google, azure = (json.loads(text) for text in blocks("json"))
    assert {"raw/"} == {
        rule["Filter"].get("Prefix") or rule["Filter"]["And"]["Prefix"] for rule in s3["Rules"]
    }
    assert "GLACIER_IR" == s3["Rules"][0]["Transitions"][0]["StorageClass"]
    conditions = [rule["condition"] for rule in google["lifecycle"]["rule"]]
    assert [["raw/"], ["raw/"]] == [condition["matchesPrefix"] for condition in conditions]
    definition: dict[str, Any] = azure["rules"][0]["definition"]
    assert ["container/raw/"] == definition["filters"]["prefixMatch"]
    assert "tierToCool" in definition["actions"]["baseBlob"]


def test_its_table_has_the_findings_of_the_archive() -> None:
    """The table names each kind of finding that `verify --deep` adds."""
    table = PAGE.partition("| finding |")[2].partition("\n\n")[0]
    named = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    assert {
        kind.value
        for kind in FindingKind
        if kind.value.startswith("archive_") or kind is FindingKind.NOT_LOADED
    } == named
