"""A page of the documents as text for a terminal; imports rich."""

import re
from typing import Any, ClassVar, Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown, MarkdownElement, TableElement
from rich.table import Table

_LINK: Final = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")
# Names of keys, flags and kinds; wider columns are prose.
_NAME_COLUMNS: Final = 32


class _Table(TableElement):
    """A table in which no text is cut off, and names in the first column are not wrapped."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for table in super().__rich_console__(console, options):
            if isinstance(table, Table):
                for column in table.columns:
                    column.overflow = "fold"
                first = table.columns[0]
                first.no_wrap = all(len(str(cell)) <= _NAME_COLUMNS for cell in first.cells)
            yield table


class Page(Markdown):
    """A page; its links to other pages become the commands that show them."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "table_open": _Table,
    }

    def __init__(self, text: str, **options: Any) -> None:
        super().__init__(for_terminal(text), **options)


def for_terminal(text: str) -> str:
    """Return a page with links that a terminal's reader can follow.

    A link to another page becomes the command that shows it. A link inside the page is only text.
    """
    # Code stays as it is: what looks like a link there is none.
    blocks = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(
        block if block.startswith("```") else _LINK.sub(_link, block) for block in blocks
    )


def _link(link: re.Match[str]) -> str:
    text, target = link.groups()
    if "://" in target:
        return link[0]
    name = target.partition("#")[0]
    if not name:
        return text
    if "/" not in name:
        return f"{text} (`aht-etl docs {name.removesuffix('.md')}`)"
    below = name.removeprefix("../../")  # from the checkout's root, else from its `configs`
    return f"{text} (`{below if below != name else name.replace('..', 'configs')}`)"
