"""The pages render correctly, their links work, and their code can run.

A test of the page runs its `sh` blocks. `shell` blocks need root, a cluster or a store, so they are
only parsed. So are SQL, YAML, JSON and Python blocks that no test of a page runs.
"""

import json
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import duckdb
import pytest
import sqlglot
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token
from typer.main import get_command

from etl.cli import app
from etl.config.keys import KEYS
from etl.model.errors import FailureKind

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    file.relative_to(ROOT)
    for pattern in ("*.md", "configs/**/*.md", "etl/**/*.md", "tests/**/*.md")
    for file in ROOT.glob(pattern)
)

#: Documents whose `sh` blocks a test runs: that of the page's name, of README, or of the help.
RUN: Final = {"README", "getting-started", "operations", "archive", "reading", "reference"}


def rendered(text: str) -> list[Token]:
    """Parse a text as GitHub does, and return the tokens."""
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)


@cache
def anchors(file: Path) -> frozenset[str]:
    """Return the anchors of a document's headings, as GitHub names them."""
    tokens = rendered(file.read_text())
    titles = [
        "".join(child.content for child in inline.children or () if child.type != "image")
        for heading, inline in pairwise(tokens)
        if heading.type == "heading_open"
    ]
    seen: Counter[str] = Counter()
    found = set()
    for title in titles:
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return frozenset(found)


def broken_tables(text: str) -> Iterator[str]:
    """Yield lines that only look like a table, and rows with too few or too many cells."""
    lines = text.splitlines()
    for token in rendered(text):
        if token.type == "inline":
            # The parser gives the cells of a table without the bars between them.
            yield from re.findall(r"^\|.*", token.content, re.MULTILINE)
        if token.type == "table_open" and token.map:
            rows = lines[token.map[0] : token.map[1]]
            bars = [len(re.findall(r"(?<!\\)\|", row)) for row in rows]
            yield from (row for row, count in zip(rows, bars, strict=True) if count != bars[0])


def dead_links(file: Path) -> Iterator[str]:
    """Yield links to missing files or headings, and text that was meant as a link."""
    for token in rendered(file.read_text()):
        for child in token.children or ():
            if child.type == "text" and re.search(r"\]\(|\]\[", child.content):
                yield child.content
            target = child.attrGet("href") or child.attrGet("src")
            if target is None or urlsplit(str(target)).scheme:
                continue
            path, _, anchor = unquote(str(target)).partition("#")
            there = (file.parent / path).resolve() if path else file
            if not there.is_relative_to(ROOT) or not there.exists():
                yield str(target)
            if anchor and there.is_file() and anchor not in anchors(there):
                yield str(target)


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_table_renders(document: Path) -> None:
    """Each table has a delimiter row, and each row has as many cells as the head."""
    assert [] == list(broken_tables((ROOT / document).read_text()))


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_link_works(document: Path) -> None:
    """The files and headings that links name exist."""
    assert [] == list(dead_links(ROOT / document))


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_named_file_of_the_repository_exists(document: Path) -> None:
    """`tests/…`, `etl/…` and `configs/…` in code font name existing files or folders."""
    text = (ROOT / document).read_text()
    named = re.findall(r"`((?:tests|etl|configs)/[\w/.-]+)`", text)
    assert [] == [name for name in named if not (ROOT / name).exists()]


def code(document: Path) -> Iterator[tuple[str, str]]:
    """Yield the language and the text of each code block."""
    for token in rendered((ROOT / document).read_text()):
        if token.type == "fence":
            yield token.info, token.content


def called(text: str) -> Iterator[list[str]]:
    """Yield the arguments of each call of `aht-etl` in shell commands."""
    for line in text.replace("\\\n", " ").splitlines():
        for call in re.findall(r"(?:^|[ /(])aht-etl ((?:[^|;&()>#\"]|\"[^\"]*\")*)", line):
            yield shlex.split(re.sub(r"\$share", "1", call))


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_code_block_runs_or_can_be_parsed(document: Path) -> None:
    """Calls of the program use only flags that exist."""
    command: Any = get_command(app)
    for language, text in code(document):
        if language == "sh":
            assert document.stem in RUN, f"no test runs the commands of {document}"
        if language in {"sh", "shell"}:
            subprocess.run(["bash", "-n"], input=text, text=True, check=True)
            for arguments in called(text):
                if arguments[:1] not in (["-t"], ["."], [], ["create"], ["patch"]):
                    parse(command, arguments)
        elif language == "sql":
            assert parsed_sql(text)
        elif language == "python":
            compile(text, str(document), "exec")
        elif language == "json":
            json.loads(text)
        elif language == "yaml":
            assert yaml.safe_load(text)
        else:
            assert language in {"text", "ini"}, document


def parse(group: Any, words: list[str]) -> None:
    """Raise if a command, a flag or a value does not exist."""
    while words and words[0] in getattr(group, "commands", {}):
        _, group, words = group.resolve_command(group.context_class(group), words)
    group.make_context("aht-etl", words, resilient_parsing=False)


def parsed_sql(text: str) -> bool:
    """Return whether DuckDB, or else ClickHouse's dialect, can parse this."""
    try:
        return bool(duckdb.extract_statements(text))
    except duckdb.ParserException:
        return bool(sqlglot.parse(text, dialect="clickhouse"))


def test_each_fact_is_on_one_page_only() -> None:
    """The facts are keys with their defaults, failure kinds, exit codes and measurements."""
    homes = {
        rf"^\| `({'|'.join(re.escape(key) for key in KEYS)})` \| `": "reference",
        rf"^\| `({'|'.join(FailureKind)})` \|": "operations",
        r"^\| 130, 143, 129 \|": "operations",
        r"^\| `newest_complete_hour` \|": "operations",
        r"^\| `segmentId` \|": "analyst",
        r"^\| `aht_etl.sources` \|": "how-it-works",
        r"^<!-- bench: (compared|goals|archive|dask) -->": "performance",
        r"^<!-- bench: (amounts|times|requests) -->": "scale",
    }
    for pattern, home in homes.items():
        found = [
            document.stem
            for document in DOCUMENTS
            if re.search(pattern, (ROOT / document).read_text(), re.MULTILINE)
        ]
        assert [home] == found, pattern


def test_all_documents_are_in_the_docs_folder() -> None:
    """`configs` itself has only YAML, manifests and monitoring."""
    there = {document.parent.as_posix() for document in DOCUMENTS}
    assert {".", "configs/docs", "tests/bench"} == there


def test_broken_tables_and_links_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables without a delimiter row, bars in cells, dead links and anchors, broken link syntax."""
    whole = "| a | b |\n|---|---|\n| 1 | `x\\|y` |\n"
    assert [] == list(broken_tables(whole))
    for before in ("", "text\n", "text\n\n"):
        rows = ["| a | b |", "| 1 | 2 |"]
        assert rows == list(broken_tables(before + "\n".join(rows)))
    assert ["| 1 | x|y |"] == list(broken_tables(whole.replace("`x\\|y`", "x|y")))
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    other, file = tmp_path / "other.md", tmp_path / "file.md"
    other.write_text("# What `verify` finds, in short\n\n# Again\n\n# Again\n")
    file.write_text(
        "# Here\n[a](other.md#what-verify-finds-in-short) [b](#here) [c](other.md#again-1)\n"
        "[d](other.md#gone) [e](gone.md) [f](#gone) ![g](gone.svg) [h](https://example.com/x)\n"
        "[i](a link.md) [j](../outside.md)\n"
    )
    assert [
        "other.md#gone", "gone.md", "#gone", "gone.svg", "[i](a link.md) ", "../outside.md",
    ] == list(dead_links(file))  # fmt: skip
