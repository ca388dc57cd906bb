"""The lake from Python: `from etl import status, verify, Settings`."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from etl.audit.survey import Survey, survey
from etl.audit.verify import Verification
from etl.audit.verify_archive import ArchiveCheck
from etl.audit.verify_lake import verify as verify_lake
from etl.config.settings import Redactor, Settings, open_archive, open_lake
from etl.lake.layout import Selection
from etl.model.errors import RunError, UsageError
from etl.storage.store import Store, StoreError

P = ParamSpec("P")
T = TypeVar("T")


def status(
    settings: Settings,
    *,
    account: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
) -> Survey:
    """Return what the lake holds, like `aht-etl status`: partitions, gaps, damages, sums.

    The arguments choose an account and the hours from `start` to `end`. The account and the window
    of the settings do not matter: they are for runs. Blocking. Raises RunError, in one line without
    secrets, if there is no lake or it cannot be read.
    """
    found = _of_the_lake(
        settings, lambda lake: survey(lake, Selection(account, start, end), datetime.now(UTC))
    )
    if not found.exists:
        raise RunError(f"there is no lake at {settings.lake.uri}; check lake.uri")
    return found


def verify(
    settings: Settings,
    *,
    account: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    deep: bool = False,
) -> Verification:
    """Read and verify the lake, like `aht-etl verify`: `ok`, the findings, what was read.

    The arguments choose as those of `status` do. `deep` also compares with the raw archive. A lake
    with nothing to verify is not `ok`. Blocking. Raises UsageError if `deep` needs `raw.uri`, and
    RunError, in one line without secrets, if the lake cannot be read.
    """
    raw = open_archive(settings) if deep else None
    if deep and raw is None:
        raise UsageError("raw.uri: is missing, and deep=True needs it")
    archive = None if raw is None else ArchiveCheck(raw, settings.limits, settings.fetch.skip)
    selection = Selection(account, start, end)
    return _of_the_lake(
        settings, lambda lake: verify_lake(lake, selection, archive, lambda *_: None)
    )


def _in_a_thread(function: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    @wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(function, *args, **kwargs)

    return call


#: Do as `status` and `verify` do, in a thread.
status_async = _in_a_thread(status)
verify_async = _in_a_thread(verify)


def _of_the_lake(settings: Settings, look: Callable[[Store], T]) -> T:
    """Read the lake. Raises RunError without the settings' secrets."""
    try:
        return look(open_lake(settings))
    except StoreError as error:
        redactor = Redactor(settings.secret_values())
        raise RunError(redactor.text(str(error))) from None
