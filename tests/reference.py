"""The reference of all commands, flags and keys, written from the program itself.

`python -m tests.reference > configs/docs/reference.md`; a test compares file and program.
"""

import sys
from collections.abc import Iterator
from typing import Any

import typer
from typer.main import get_command

from etl.cli import app, load_command
from etl.config.keys import KEYS, variable
from etl.config.values import yaml_text, yaml_value

_HEAD = """\
# Reference

All commands, their flags, and the configuration's keys. The program writes this page. After a
change:

```sh
python -m tests.reference > configs/docs/reference.md
```

`configs/daily.yaml` has each key with a comment. How sources of configuration rank:
[getting started](getting-started.md#configure). Exit codes and the report:
[operations](operations.md#exit-codes).
"""


def reference() -> str:
    """Return the reference as Markdown; it depends on nothing but the program."""
    return "\n".join([_HEAD, *_command(get_command(app), "aht-etl"), *_keys()]) + "\n"


def _command(command: Any, name: str, parent: typer.Context | None = None) -> Iterator[str]:
    """Describe a command and those below it."""
    context = typer.Context(command, info_name=name, parent=parent)
    yield f"## `{context.command_path}`\n"
    for paragraph in (command.help or "").replace("\f", "").split("\n\n"):
        text = " ".join(paragraph.split())
        example = text.removeprefix("Example: ")
        yield f"```sh\n{example}\n```\n" if example != text else f"{text}\n"
    records = [
        record
        for parameter in command.get_params(context)
        if parameter.name != "help" and (record := parameter.get_help_record(context))
    ]
    if records:
        yield "| flag | |\n|---|---|"
        yield from (f"| `{_cell(flag)}` | {_cell(text)} |" for flag, text in records)
        yield ""
    for below in getattr(command, "commands", {}).values():
        whole = below if parent else load_command(below.name)
        yield from _command(whole, below.name, context)


def _keys() -> Iterator[str]:
    yield "## Keys\n"
    example = "fetch.concurrency"
    yield f"As an environment variable, `{example}` is `{variable(example)}`, and so on.\n"
    yield "| key | default | |\n|---|---|---|"
    for key, field in KEYS.items():
        default = yaml_value(field.get_default(call_default_factory=True))
        shown = "" if default is None else f"`{yaml_text(default)}`"
        description = _cell(field.description or "")
        yield f"| `{key}` | {shown} | {description} |"


def _cell(text: str) -> str:
    """Return text that stays in one cell of a table."""
    return " ".join(text.split()).replace("|", r"\|")


if __name__ == "__main__":
    sys.stdout.write(reference())
