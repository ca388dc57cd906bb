"""`aht-etl docs`: the pages of `configs/docs`, in the terminal."""

import re
import sys
from pathlib import Path
from typing import Annotated, ClassVar, Final

import typer
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown, MarkdownElement, TableElement
from rich.table import Table

import etl

_WIDEST: Final = 100
_LINK: Final = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")
# A first column that is no wider holds names of keys, flags or kinds; a wider one holds prose.
_NAMES_AT_MOST: Final = 32


def pages() -> dict[str, Path]:
    """Return the pages of the installed package, or else of the checkout, sorted by name."""
    package = Path(etl.__file__).parent
    folder = package / "docs"
    if not folder.is_dir():
        folder = package.parent / "configs" / "docs"
    return {file.stem: file for file in sorted(folder.glob("*.md"))}


def _names() -> list[str]:
    return list(pages())


def docs(
    page: Annotated[
        str | None,
        typer.Argument(
            metavar="PAGE",
            help="The page, for example operations; without it the pages are listed.",
            autocompletion=_names,
        ),
    ] = None,
) -> None:
    """Show the documents: one page, or the list of pages.

    On a terminal a page is formatted. Into a file or a pipe it is written as Markdown.

    Example: aht-etl docs operations
    """
    found = pages()
    if page is None:
        for name, file in found.items():
            title = file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
            typer.echo(f"{name:<16} {title}")
        typer.echo("\nRead one with, for example: aht-etl docs getting-started")
        return
    if page not in found:
        raise typer.BadParameter(f"there is no page {page!r}; the pages are {', '.join(found)}")
    text = found[page].read_text(encoding="utf-8")
    if sys.stdout.isatty():
        _print_formatted(for_terminal(text))
    else:
        typer.echo(text, nl=False)


def for_terminal(text: str) -> str:
    """Return a page with links that a reader at a terminal can follow.

    A link to another page becomes the command that shows it. A link inside the page becomes text.
    """
    # Code stays as it is: it has no links, only text that looks like one.
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
    in_checkout = name.removeprefix("../../")  # else relative to `configs`
    return f"{text} (`{in_checkout if in_checkout != name else name.replace('..', 'configs')}`)"


def _print_formatted(text: str) -> None:
    class WholeTable(TableElement):
        """A table that cuts no text off and wraps no names in the first column."""

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            for table in super().__rich_console__(console, options):
                if isinstance(table, Table):
                    for column in table.columns:
                        column.overflow = "fold"
                    first = table.columns[0]
                    first.no_wrap = all(len(str(cell)) <= _NAMES_AT_MOST for cell in first.cells)
                yield table

    class Page(Markdown):
        elements: ClassVar[dict[str, type[MarkdownElement]]] = {
            **Markdown.elements,
            "table_open": WholeTable,
        }

    console = Console()
    console.print(Page(text), width=min(console.width, _WIDEST))
