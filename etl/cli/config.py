"""`aht-etl config show` and `aht-etl config schema`."""

import json
from typing import Annotated

import typer

from etl.cli.command import Call, command
from etl.cli.flags import RUN
from etl.config.keys import config_schema, shown_values, to_yaml

config = typer.Typer(
    help="Show the configuration, or describe it.\n\nExample: aht-etl config show",
    no_args_is_help=True,
)


@config.command()
@command("command.failed", *RUN, default_log_level="warning")
def show(
    call: Call,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write JSON: a list of key, value and origin.")
    ] = False,
) -> None:
    """Show the configuration that a run would have, and where each value comes from.

    The output is YAML. The comment after a value is its origin: a flag, a variable, a secret file,
    a YAML file, or "default". A secret is shown as "set".

    Example: aht-etl config show --config configs/daily.yaml
    """
    values = list(shown_values(*call.read()))
    if as_json:
        found = [
            {"key": value.key, "value": value.value, "origin": value.origin} for value in values
        ]
        typer.echo(json.dumps(found, indent=2))
    else:
        typer.echo(to_yaml(values), nl=False)


@config.command()
def schema() -> None:
    """Print the JSON Schema of the YAML configuration, for editors and validators.

    An editor with a YAML language server finds it by a comment in the file's first line:
    # yaml-language-server: $schema=aht-etl.schema.json

    Example: aht-etl config schema > aht-etl.schema.json
    """
    typer.echo(json.dumps(config_schema(), indent=2))
