"""Helpers that read the pages of the documentation and run their commands."""

import os
import re
import subprocess
from pathlib import Path
from typing import Final

from tests.conftest import COMMAND, environment

ROOT: Final = Path(__file__).parent.parent
PAGES: Final = ROOT / "configs" / "docs"
README: Final = (ROOT / "README.md").read_text()


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text()


def section(text: str, title: str) -> str:
    """Return the text below a heading, up to the next heading of its level or higher."""
    match = re.search(rf"^(#+) {re.escape(title)}\n", text, re.MULTILINE)
    assert match is not None, title
    return re.split(rf"^#{{1,{len(match[1])}}} ", text[match.end() :], flags=re.MULTILINE)[0]


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def column(text: str, number: int) -> list[str]:
    """Return the text in code font in one column of the first table, without the table's head."""
    found = re.search(r"^\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert found is not None
    cells = (row.split("|")[number] for row in found[1].splitlines())
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def in_shell(commands: str, folder: Path, **more: str) -> str:
    """Run commands as a reader would, with `aht-etl` on the PATH; return their output."""
    path = f"{Path(COMMAND).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env=environment(PATH=path, **more),
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{commands}{done.stdout}{done.stderr}"
    return done.stdout
