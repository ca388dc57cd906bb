"""Flags that choose what of the lake is looked at."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from etl.cli.configured import configured

if TYPE_CHECKING:
    from etl.config.settings import Settings
    from etl.lake.layout import Selection


def load_selected(
    config: Path | None,
    now: datetime,
    *,
    account: str | None,
    from_: str | None,
    to: str | None,
    lookback: str | None,
    **more: str | None,
) -> tuple["Settings", "Selection"]:
    """Return the configuration, and the hours that these flags choose of the lake.

    Only flags choose: a window or an account that is configured is for runs. `more` are flags by
    key, `__` for the dot. Raises UsageError.
    """
    from etl.lake.layout import Selection
    from etl.pipeline.job import settle_window

    settings = configured(
        config,
        {
            "account": account,
            "window.from": from_,
            "window.to": to,
            "window.lookback": lookback,
            **{key.replace("__", "."): value for key, value in more.items()},
        },
    ).settings
    start = None
    if from_ is not None or lookback is not None:
        start = settle_window(settings, now, longest=None).start
    return settings, Selection(account, start, settings.window.end if to is not None else None)
