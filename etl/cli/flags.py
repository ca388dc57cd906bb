"""The command line's flags that several commands share: names, types and help."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="YAML with the configuration.")
]
Account = Annotated[
    str | None, typer.Option("--account", metavar="ID", help="The vendor's account (site) id.")
]
BaseUrl = Annotated[
    str | None,
    typer.Option("--base-url", metavar="URL", help="The API's host; else it is looked up."),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="T",
        help="Begin of the window: 2022-06-01T00:00:00Z, 2022-06-01 or epoch milliseconds.",
    ),
]
To = Annotated[str | None, typer.Option("--to", metavar="T", help="End of the window, else now.")]
Lookback = Annotated[
    str | None,
    typer.Option(
        "--lookback", metavar="DURATION", help="Window without --from: 90s, 48h, 7d (default)."
    ),
]
Paths = Annotated[
    str | None,
    typer.Option(
        "--paths",
        metavar="FILE|-",
        help="Saved Breakdown answers, or one path a line, instead of a listing; - is stdin.",
    ),
]
Lake = Annotated[
    str | None, typer.Option("--lake", metavar="URI", help="The lake's folder (default ./lake).")
]
Concurrency = Annotated[
    str | None,
    typer.Option("--concurrency", metavar="N", help="Requests in flight at most (default 16)."),
]
ShardOption = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Load the I-th (from 0) of N disjoint shares."),
]
ReportFile = Annotated[
    str | None,
    typer.Option("--report", metavar="FILE", help="Write the JSON report here; - is stdout."),
]
Progress = Annotated[
    Literal["auto", "on", "off"], typer.Option("--progress", help="Show how far the run is.")
]
LogFormat = Annotated[
    Literal["auto", "console", "json"],
    typer.Option("--log-format", help="auto: readable on a terminal, JSON elsewhere."),
]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"],
    typer.Option("--log-level", help="The least that is logged."),
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON instead, for programs.")]
