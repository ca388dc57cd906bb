"""`aht-etl docs`: the pages of `configs/docs`, in the terminal."""

import re
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

import etl

_WIDEST: Final = 100
_LINK: Final = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")


def folder() -> Path:
    """Return where the pages are: in the installed package, else in the checkout."""
    package = Path(etl.__file__).parent
    installed = package / "docs"
    return installed if installed.is_dir() else package.parent / "configs" / "docs"


def pages() -> dict[str, Path]:
    """Return the pages by name, in the order of the alphabet."""
    return {file.stem: file for file in sorted(folder().glob("*.md"))}


def for_terminal(text: str) -> str:
    """Return a page with links that a terminal's reader can follow.

    A link to another page becomes the command that shows it. A link inside the page is only text.
    """

    def readable(link: re.Match[str]) -> str:
        text, target = link.groups()
        if "://" in target:
            return link[0]
        name = target.partition("#")[0]
        if not name:
            return text
        if "/" not in name and name.endswith(".md"):
            return f"{text} (`aht-etl docs {name.removesuffix('.md')}`)"
        file = target.removeprefix("../")
        place = file if target.startswith("../../") else f"configs/{file}"
        return f"{text} (`{place.removeprefix('../')}`)"

    # Code stays as it is: a link in it would be none.
    blocks = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(
        block if block.startswith("```") else _LINK.sub(readable, block) for block in blocks
    )


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
    there = pages()
    if page is None:
        for name, file in there.items():
            typer.echo(f"{name:<16} {_title(file)}")
        typer.echo("\nRead one with, for example: aht-etl docs getting-started")
        return
    if page not in there:
        raise typer.BadParameter(f"there is no page {page!r}; the pages are {', '.join(there)}")
    text = there[page].read_text(encoding="utf-8")
    if not sys.stdout.isatty():
        typer.echo(text, nl=False)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    console.print(Markdown(for_terminal(text)), width=min(console.width, _WIDEST))


def _title(file: Path) -> str:
    return file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
