"""README is short, and its commands and figures match the program."""

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from etl.emulator import Dataset
from tests.bench.compare import to_sentence
from tests.conftest import COMMAND, Serve, environment
from tests.documents import PAGES, README, ROOT, blocks, in_shell, section

VENV = "python3 -m venv .venv && .venv/bin/pip install "


def test_it_has_150_lines_at_most() -> None:
    """Everything else is on the pages."""
    assert len(README.splitlines()) <= 150


def test_it_links_to_every_page() -> None:
    """A reader can reach each page from README."""
    linked = set(re.findall(r"\]\(configs/docs/([a-z-]+\.md)", README))
    assert linked == {file.name for file in PAGES.glob("*.md")}


def test_the_two_commands_need_nothing_but_python() -> None:
    """Each installs into its own environment. `.ci/run` runs the second one unchanged."""
    demo, tests, _ = blocks(section(README, "Try it"), "sh")
    assert demo == f"{VENV}. && .venv/bin/aht-etl demo\n"
    assert tests == f"{VENV}-e '.[test]' && .venv/bin/pytest\n"


def test_what_to_try_next_and_the_picture_of_status(tmp_path: Path) -> None:
    """The commands run after the demo, and README has the real output of `status`."""
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(COMMAND).parent)
    subprocess.run(
        [COMMAND, "demo"], env=environment(), cwd=tmp_path, check=True, capture_output=True
    )
    said = in_shell(blocks(section(README, "Try it"), "sh")[2], tmp_path)
    assert "rows of 148 files read in 47 parts" in said
    assert re.search(r"already loaded +148 files", said)
    ((command, picture),) = re.findall(
        r"^\$ ([^\n]*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE
    )
    shown = in_shell(command, tmp_path, COLUMNS="100").splitlines()
    assert [] == [line for line in picture.splitlines() if line not in shown]


def test_a_real_account_is_twelve_lines_that_run(tmp_path: Path, serve: Serve) -> None:
    """The emulator accepts only the keys in these files."""
    (text,) = blocks(section(README, "A real account"), "sh")
    assert len(text.splitlines()) <= 12
    now = datetime.now(UTC)
    data = Dataset.generate(1, now - timedelta(days=1), now, account="12345678", rows_per_file=5)
    emulator = serve(data, auth="oauth1")
    for name, value in emulator.keys.items():
        example = f"'your {name.replace('_', ' ')}'"
        assert example in text
        text = text.replace(example, f"'{value}'")
    activate, *commands = text.splitlines(keepends=True)
    assert activate == ". .venv/bin/activate\n"
    said = in_shell("".join(commands), tmp_path, AHT_ETL_API__BASE_URL=emulator.base_url)
    # `check` also reads a file.
    assert f"rows of {emulator.count('file', 200) - 1} files read" in said


def test_the_sentence_about_speed_matches_the_measurement() -> None:
    """All its figures come from the benchmark's results."""
    results = json.loads((ROOT / "tests" / "bench" / "results.json").read_text())
    assert f"<!-- bench: sentence -->\n{to_sentence(results)}<!-- end: sentence -->" in README
