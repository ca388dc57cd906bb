"""`aht-etl docs` shows the pages in the terminal, also from an installed package."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from etl.cli.docs import for_terminal
from tests.conftest import COMMAND, environment
from tests.decode.kernel.test_build import build
from tests.documents import PAGES, page
from tests.terminal import on_terminal

NAMES = sorted(file.stem for file in PAGES.glob("*.md"))


def docs(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "docs", *arguments],
        env=environment(),
        check=False,
        capture_output=True,
        text=True,
    )


def test_without_a_page_it_lists_all_pages() -> None:
    """The list has the titles."""
    out = docs().stdout
    assert [line.split()[0] for line in out.splitlines()[: len(NAMES)]] == NAMES
    assert re.search(r"^operations +Operations$", out, re.MULTILINE)


@pytest.mark.parametrize("name", ["operations", "reference"])
def test_a_pipe_gets_markdown(name: str) -> None:
    """The output is the unchanged page."""
    done = docs(name)
    assert (0, page(name), "") == (done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("name", NAMES)
def test_a_terminal_gets_formatted_text(name: str, tmp_path: Path) -> None:
    """It fits 80 columns, has no Markdown characters, and its links can be followed."""
    seen = on_terminal([COMMAND, "docs", name], environment(TERM="xterm"), tmp_path)
    assert seen.code == 0
    text = "\n".join(seen.lines)
    assert page(name).partition("\n")[0].removeprefix("# ") in text
    assert page(name).count("…") >= text.count("…"), "text is cut off"
    assert not re.search(r"\]\(|^ *(##+ |```|\|--)", text, re.MULTILINE)


def test_links_become_commands_and_files() -> None:
    """Links to pages, to headings, to files and to the web; text in code font is no link."""
    text = "[a](operations.md#exit-codes) [b](#here) [c](../daily.yaml) [d](https://example.com)"
    assert for_terminal(text) == (
        "a (`aht-etl docs operations`) b c (`configs/daily.yaml`) [d](https://example.com)"
    )
    assert for_terminal("[e](../../tests/bench/README.md)") == "e (`tests/bench/README.md`)"
    code = "```python\nx[0](y)\n```"
    assert for_terminal(code) == code


def test_an_unknown_page_is_wrong_usage() -> None:
    """The message lists the pages."""
    done = docs("../secrets")
    assert (2, "") == (done.returncode, done.stdout)
    assert "there is no page '../secrets'" in done.stderr
    assert all(name in done.stderr for name in NAMES)


def test_a_wheel_has_every_page_and_the_licence(tmp_path: Path) -> None:
    """The installed program finds them without a checkout."""
    wheel = build(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        said = archive.read(metadata).decode()
    assert {f"etl/docs/{name}.md" for name in NAMES} <= set(names)
    assert re.search(r"^License-File: etl/LICENSE$", said, re.MULTILINE)
    assert [name for name in names if name.endswith("licenses/etl/LICENSE")]
    shown = subprocess.run(
        [sys.executable, "-m", "etl", "docs", "security"],
        env=environment(PYTHONPATH=os.fspath(tmp_path / "installed")),
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert page("security") == shown.stdout
