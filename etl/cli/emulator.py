"""`aht-etl emulator`."""

import asyncio
import os
from typing import Annotated, Literal

import typer

from etl.cli.command import Call, command, own_name
from etl.emulator import serve
from etl.model.errors import RunError


@command("emulator.failed", default_log_level="warning")
def emulator(
    _call: Call,
    port: Annotated[
        int,
        typer.Option(
            "--port", min=0, max=65535, help="The port on 127.0.0.1; 0 means any free port."
        ),
    ] = 8080,
    account: Annotated[
        str,
        typer.Option(
            "--account", metavar="ID", help="The account with the data; others are refused."
        ),
    ] = "le79344075",
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="T",
            help="Start of the data, for example 2022-06-01 (default: 2 days ago).",
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="T", help="End of the data, for example 2022-06-03 (default: tomorrow)."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same data.")] = 1,
    files_per_hour: Annotated[
        float,
        typer.Option("--files-per-hour", min=0, help="The average; more by day than by night."),
    ] = 3,
    rows_per_file: Annotated[
        float, typer.Option("--rows-per-file", min=0, help="The median; sizes differ widely.")
    ] = 300,
    mixed_shapes: Annotated[
        bool,
        typer.Option("--mixed-shapes", help="Serve all documented forms of files, not only lines."),
    ] = False,
    auth: Annotated[
        Literal["none", "oauth1", "oauth2"],
        typer.Option("--auth", help="How callers must authenticate."),
    ] = "none",
    latency: Annotated[
        str, typer.Option("--latency", metavar="DURATION", help="The delay before each answer.")
    ] = "0s",
    rate: Annotated[
        float | None,
        typer.Option("--rate", help="Requests a second at most, for example 20; others get 429."),
    ] = None,
    at_once: Annotated[
        int | None,
        typer.Option("--at-once", help="Requests at once at most, for example 4; others get 429."),
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            "--fault",
            metavar="ENDPOINT:KIND[:TIMES]",
            help=(
                "A fault, once or TIMES times or 'always'; you may repeat the flag. For "
                "example file:503:2, listing:429, file:reset_middle:always."
            ),
        ),
    ] = None,
) -> None:
    """Serve an emulator of the vendor's API on loopback, to try things out.

    Example: aht-etl emulator --auth oauth1 --mixed-shapes --fault file:503:5
    """
    dataset = serve.dataset(
        account, from_, to, seed, files_per_hour, rows_per_file, mixed_shapes=mixed_shapes
    )
    options = serve.options(account, auth, latency, rate, at_once, fault or [])
    try:
        asyncio.run(serve.serve(dataset, options, port, account, own_name()))
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise RunError(f"port {port}: {reason}; try --port 0") from None
