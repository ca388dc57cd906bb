"""The flags that are settings, read together with all other sources of the configuration."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from etl.config.settings import Settings
    from etl.config.values import Origins

#: The flags by the keys that they set.
FLAGS: Final = {
    "account": "--account",
    "api.base_url": "--base-url",
    "window.from": "--from",
    "window.to": "--to",
    "window.lookback": "--lookback",
    "lake.uri": "--lake",
    "raw.uri": "--raw",
    "fetch.concurrency": "--concurrency",
    "engine.kind": "--engine",
    "engine.scheduler": "--dask-scheduler",
    "engine.workers": "--dask-workers",
}
#: Those of `compact` alone; there `--to` is also the end of the window.
COMPACT_FLAGS: Final = {"compact.uri": "--to", "compact.settle": "--settle"}


def by_key(*values: str | None) -> dict[str, str | None]:
    """Return the flags' values, in the order of FLAGS, by the keys that they set.

    A command need not have the last ones.
    """
    return dict(zip(FLAGS, values, strict=False))


@dataclass(frozen=True, slots=True)
class Configured:
    """The effective configuration, and where each value came from."""

    settings: "Settings"
    origins: "Origins"


def configured(config: Path | None, flags: dict[str, str | None]) -> Configured:
    """Read the configuration; `flags` are by dotted key, None where not given. UsageError."""
    from etl.config.sources import load_with_origins

    names = FLAGS | COMPACT_FLAGS
    given = _nested(flags)
    if flags.get("window.lookback") is not None and flags.get("window.from") is None:
        # A begin that stands in a weaker source must not make this flag a silent nothing.
        given["window"]["from"] = None
        names["window.from"] = "--lookback"
    for key in ("engine.scheduler", "engine.workers"):
        if flags.get(key) is not None and flags.get("engine.kind") is None:
            given["engine"]["kind"] = "dask"
            names["engine.kind"] = FLAGS[key]
    return Configured(*load_with_origins(given, config, os.environ, names))


def _nested(flags: dict[str, str | None]) -> dict[str, Any]:
    """Return the flags that were given, by dotted key, as nested sections."""
    nested: dict[str, Any] = {}
    for key, value in flags.items():
        if value is not None:
            section, _, name = key.rpartition(".")
            (nested.setdefault(section, {}) if section else nested)[name] = value
    return nested
