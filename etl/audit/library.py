"""The lake from Python: `from etl import status, verify, Settings`."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from etl.audit.findings import Verification
from etl.audit.survey import Survey, survey
from etl.audit.verify import verify as prove
from etl.audit.verify_archive import ArchiveCheck
from etl.config.redact import Redactor
from etl.config.settings import Settings, open_archive, open_lake
from etl.lake.layout import Selection
from etl.model.errors import RunError, UsageError
from etl.storage.store import LakeError, Store

T = TypeVar("T")


def status(
    settings: Settings,
    *,
    account: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
) -> Survey:
    """Return what the lake holds, like `aht-etl status`: partitions, gaps, damages, sums.

    Nothing but the lake is asked. The arguments choose what is looked at: one account, the hours
    from `start` on, those before `end`; the settings' account and window are for runs. Blocking.
    Raises RunError, in one line without secrets, where there is no lake or it cannot be read.
    """
    found = _of_the_lake(
        settings, lambda lake: survey(lake, Selection(account, start, end), datetime.now(UTC))
    )
    if not found.exists:
        raise RunError(f"there is no lake at {settings.lake.uri}; check lake.uri")
    return found


async def status_async(
    settings: Settings,
    *,
    account: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
) -> Survey:
    """Do as `status` does, in a thread."""
    return await asyncio.to_thread(status, settings, account=account, start=start, end=end)


def verify(
    settings: Settings,
    *,
    account: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    deep: bool = False,
) -> Verification:
    """Read the lake and prove it, like `aht-etl verify`: `ok`, the findings, what was read.

    The arguments choose the hours as those of `status` do; `deep` compares with the raw archive
    too. A lake with nothing to verify is not `ok`. Blocking. Raises UsageError where `deep` lacks
    `raw.uri`, and RunError, in one line without secrets, where the lake cannot be read.
    """
    raw = open_archive(settings) if deep else None
    if deep and raw is None:
        raise UsageError("raw.uri: is missing, and deep=True needs it")
    archive = None if raw is None else ArchiveCheck(raw, settings.limits, settings.fetch.skip)
    selection = Selection(account, start, end)
    return _of_the_lake(settings, lambda lake: prove(lake, selection, archive, lambda *_: None))


async def verify_async(
    settings: Settings,
    *,
    account: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    deep: bool = False,
) -> Verification:
    """Do as `verify` does, in a thread."""
    return await asyncio.to_thread(
        verify, settings, account=account, start=start, end=end, deep=deep
    )


def _of_the_lake(settings: Settings, look: Callable[[Store], T]) -> T:
    """Look at the lake. Raises RunError without the settings' secrets."""
    try:
        return look(open_lake(settings))
    except LakeError as error:
        redactor = Redactor(settings.secret_values())
        raise RunError(redactor.text(str(error))) from None
