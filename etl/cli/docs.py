"""`aht-etl docs`: the pages of `configs/docs`, in the terminal."""

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

import etl

_WIDEST: Final = 100


def folder() -> Path:
    """Return where the pages are: in the installed package, else in the checkout."""
    package = Path(etl.__file__).parent
    installed = package / "docs"
    return installed if installed.is_dir() else package.parent / "configs" / "docs"


def pages() -> dict[str, Path]:
    """Return the pages by name, in the order of the alphabet."""
    return {file.stem: file for file in sorted(folder().glob("*.md"))}


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

    from etl.cli.rendered import Page

    console = Console()
    console.print(Page(text), width=min(console.width, _WIDEST))


def _title(file: Path) -> str:
    return file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
