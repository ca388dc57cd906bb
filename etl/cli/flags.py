"""The command line's flags that several commands share: names, types and help.

Each that takes a value has an example in its help; a test sees to it.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="YAML with the configuration, for example configs/daily.yaml.",
    ),
]
Account = Annotated[
    str | None,
    typer.Option(
        "--account", metavar="ID", help="The vendor's account (site) id, for example 12345678."
    ),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        metavar="URL",
        help="The API's host, for example https://va.example.net (default: looked up).",
    ),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="T",
        help=(
            "Begin of the window, for example 2022-06-01T00:00:00Z, 2022-06-01 (midnight UTC) or "
            "1654041600000 (epoch milliseconds)."
        ),
    ),
]
To = Annotated[
    str | None,
    typer.Option(
        "--to", metavar="T", help="End of the window, for example 2022-06-02 (default: now)."
    ),
]
Lookback = Annotated[
    str | None,
    typer.Option(
        "--lookback",
        metavar="DURATION",
        help="The window's length without --from, for example 90s, 48h or 7d (default 7d).",
    ),
]
ShownFrom = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="T",
        help="Only hours from here on, for example 2022-06-01, midnight UTC (default: all).",
    ),
]
ShownTo = Annotated[
    str | None,
    typer.Option(
        "--to", metavar="T", help="Only hours before, for example 2022-06-02 (default: all)."
    ),
]
ShownLookback = Annotated[
    str | None,
    typer.Option(
        "--lookback",
        metavar="DURATION",
        help="Only the last hours, for example 48h or 7d (default: all).",
    ),
]
Paths = Annotated[
    str | None,
    typer.Option(
        "--paths",
        metavar="FILE|-",
        help=(
            "Load these instead of a listing: saved Breakdown answers, or one path a line, for "
            "example paths.txt; - is standard input."
        ),
    ),
]
Lake = Annotated[
    str | None,
    typer.Option(
        "--lake",
        metavar="URI",
        help="The lake's folder or object store, for example s3://bucket/lake (default ./lake).",
    ),
]
Raw = Annotated[
    str | None,
    typer.Option(
        "--raw",
        metavar="URI",
        help="Where to keep the downloaded files, byte for byte, for example ./raw.",
    ),
]
Concurrency = Annotated[
    str | None,
    typer.Option(
        "--concurrency",
        metavar="N",
        help="Requests in flight at most, for example 4 (default 16).",
    ),
]
Engine = Annotated[
    Literal["local", "dask"] | None,
    typer.Option("--engine", help="Who loads: this machine (local, the default) or Dask."),
]
DaskScheduler = Annotated[
    str | None,
    typer.Option(
        "--dask-scheduler",
        metavar="ADDRESS",
        help=(
            "The Dask scheduler, for example tls://dask:8786; implies --engine dask. Without it "
            "Dask's workers are processes on this machine."
        ),
    ),
]
DaskWorkers = Annotated[
    str | None,
    typer.Option(
        "--dask-workers",
        metavar="N",
        help="Dask tasks at once, for example 8 (default: one per worker, or one per core).",
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Load only share I (from 0) of N disjoint shares, for example 0/4.",
    ),
]
FromArchive = Annotated[
    bool,
    typer.Option(
        "--from-archive",
        help="Load files from the raw archive (raw.uri) instead of the API; needs no network.",
    ),
]
ArchiveOnly = Annotated[
    bool,
    typer.Option("--archive-only", help="Fill the raw archive (raw.uri) and write no lake."),
]
ReportFile = Annotated[
    str | None,
    typer.Option(
        "--report",
        metavar="FILE",
        help="Write the JSON report here, for example report.json; - is standard output.",
    ),
]
Progress = Annotated[
    Literal["auto", "on", "off"], typer.Option("--progress", help="Whether to show progress.")
]
LogFormat = Annotated[
    Literal["auto", "console", "json"],
    typer.Option("--log-format", help="auto: readable on a terminal, JSON elsewhere."),
]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"],
    typer.Option("--log-level", help="The lowest level that is logged."),
]
RunLogLevel = Annotated[
    Literal["debug", "info", "warning", "error"] | None,
    typer.Option(
        "--log-level",
        help="The lowest level that is logged (default: warning on a terminal, else info).",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]
