"""The flags that several commands share: names, types and help.

The help of each flag with a value has an example; a test checks it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag that sets a configuration key; a command lists its flags in its decorator."""

    key: str
    name: str
    metavar: str | None
    help: str
    type: Any = str

    @property
    def parameter(self) -> str:
        """The name of the parameter that receives the value."""
        return self.key.replace(".", "_")

    @property
    def annotation(self) -> Any:
        """The annotation of this parameter, from which typer makes the flag."""
        option = typer.Option(self.name, metavar=self.metavar, help=self.help)
        return Annotated[self.type | None, option]


ACCOUNT: Final = Flag(
    "account", "--account", "ID", "The vendor's account (site) id, for example 12345678."
)
BASE_URL: Final = Flag(
    "api.base_url",
    "--base-url",
    "URL",
    "The API's host, for example https://va.example.net (default: looked up).",
)
#: The window that is listed.
WINDOW: Final = (
    Flag(
        "window.from",
        "--from",
        "T",
        "Start of the window, for example 2022-06-01T00:00:00Z, 2022-06-01 (midnight UTC) or "
        "1654041600000 (epoch milliseconds).",
    ),
    Flag("window.to", "--to", "T", "End of the window, for example 2022-06-02 (default: now)."),
    Flag(
        "window.lookback",
        "--lookback",
        "DURATION",
        "The window's length without --from, for example 90s, 48h or 7d (default 7d).",
    ),
)
#: The hours of the lake that a command reads. The keys are the window's, the defaults are not.
HOURS: Final = (
    Flag(
        "window.from",
        "--from",
        "T",
        "Only hours from here on, for example 2022-06-01, midnight UTC (default: all).",
    ),
    Flag("window.to", "--to", "T", "Only hours before, for example 2022-06-02 (default: all)."),
    Flag(
        "window.lookback",
        "--lookback",
        "DURATION",
        "Only the last hours, for example 48h or 7d (default: all).",
    ),
)
LAKE: Final = Flag(
    "lake.uri",
    "--lake",
    "URI",
    "The lake's folder or object store, for example s3://bucket/lake (default ./lake).",
)
RAW: Final = Flag(
    "raw.uri",
    "--raw",
    "URI",
    "Where to keep the downloaded files, byte for byte, for example ./raw.",
)
CONCURRENCY: Final = Flag(
    "fetch.concurrency",
    "--concurrency",
    "N",
    "Requests in flight at most, for example 4 (default 16).",
)
ENGINE: Final = (
    Flag(
        "engine.kind",
        "--engine",
        None,
        "Where files are loaded: on this machine (local, the default) or with Dask.",
        Literal["local", "dask"],
    ),
    Flag(
        "engine.scheduler",
        "--dask-scheduler",
        "ADDRESS",
        "The Dask scheduler, for example tls://dask:8786; implies --engine dask.",
    ),
    Flag(
        "engine.workers",
        "--dask-workers",
        "N",
        "Dask tasks at once, for example 8 (default: one per worker).",
    ),
)
#: All configuration flags of a run.
RUN: Final = (ACCOUNT, BASE_URL, *WINDOW, LAKE, RAW, CONCURRENCY, *ENGINE)

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="YAML with the configuration, for example configs/daily.yaml.",
    ),
]
Paths = Annotated[
    str | None,
    typer.Option(
        "--paths",
        metavar="FILE|-",
        help=(
            "Load these paths instead of a listing: saved Breakdown API responses, or one path per "
            "line, for example paths.txt; - is standard input."
        ),
    ),
]
Shard = Annotated[
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
