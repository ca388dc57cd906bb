"""Every document renders as it is meant to: tables are tables, links and anchors lead somewhere."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    file.relative_to(ROOT)
    for pattern in ("*.md", "configs/**/*.md", "etl/**/*.md", "tests/**/*.md")
    for file in ROOT.glob(pattern)
)


def rendered(text: str) -> list[Token]:
    """Return a text's tokens as GitHub reads it."""
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
    """Yield lines that look like a table and are none, or that have cells too few or too many."""
    lines = text.splitlines()
    for token in rendered(text):
        if token.type == "inline":
            # The cells of a table come without their bars.
            yield from re.findall(r"^\|.*", token.content, re.MULTILINE)
        if token.type == "table_open" and token.map:
            rows = lines[token.map[0] : token.map[1]]
            bars = [len(re.findall(r"(?<!\\)\|", row)) for row in rows]
            yield from (row for row, count in zip(rows, bars, strict=True) if count != bars[0])


def dead_links(file: Path) -> Iterator[str]:
    """Yield links to files or headings that are not there, and what was meant as a link."""
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
def test_every_table_is_one(document: Path) -> None:
    """It has a delimiter row, and each row has as many cells as its head."""
    assert [] == list(broken_tables((ROOT / document).read_text()))


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_link_leads_somewhere(document: Path) -> None:
    """Files exist, and headings in them."""
    assert [] == list(dead_links(ROOT / document))


def test_what_is_broken_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables without a delimiter row, a bar in a cell, dead links and anchors, what is no link."""
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
