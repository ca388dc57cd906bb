"""One run of the job: its settings, its window or saved listing, its share."""

import hashlib
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import BinaryIO, Final

from etl.config.keys import missing
from etl.config.settings import Redactor, Settings
from etl.model.errors import UsageError
from etl.model.times import Window, rfc3339

#: A longer window is a mistake: each day is a request, and the vendor keeps a month.
LONGEST_WINDOW: Final = timedelta(days=400)

_SHARD: Final = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


@dataclass(frozen=True, slots=True)
class Shard:
    """The I-th (from 0) of N disjoint shares."""

    index: int = 0
    count: int = 1

    def holds(self, text: str) -> bool:
        """Return whether a partition's directory belongs to this share, on any machine."""
        if self.count == 1:
            return True
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest) % self.count == self.index


@dataclass(frozen=True, slots=True)
class Job:
    """One run of the job: what it is to do. Nothing here changes.

    `now` is the clock by which a window is old. `saved_listing` replaces `window`. `from_archive`
    reads files from the raw archive instead of the API; `archive_only` fills the archive and no
    lake. `redactor` knows the settings' secrets.
    """

    settings: Settings
    window: Window | None
    now: datetime
    redactor: Redactor
    saved_listing: BinaryIO | None = None
    from_archive: bool = False
    archive_only: bool = False
    shard: Shard = field(default_factory=Shard)
    run_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def account(self) -> str:
        """The account that is asked for; empty where an archive's files of all are loaded."""
        return self.settings.account or ""

    def __post_init__(self) -> None:
        for secret in self.settings.secret_values():
            self.redactor.add(secret)


def make_job(
    settings: Settings,
    redactor: Redactor,
    *,
    open_listing: Callable[[], BinaryIO] | None,
    shard: str | None,
    from_archive: bool,
    archive_only: bool,
) -> Job:
    """Return the job that the settings and flags describe. Raises UsageError.

    With a saved listing there is no window: a configured one is for other runs.
    """
    require(settings, from_archive=from_archive, archive_only=archive_only)
    now = datetime.now(UTC)
    longest = None if from_archive else LONGEST_WINDOW
    return Job(
        settings,
        None if open_listing else settle_window(settings, now, longest=longest),
        now,
        redactor,
        shard=parse_shard(shard),
        from_archive=from_archive,
        archive_only=archive_only,
        saved_listing=open_listing() if open_listing else None,
    )


def require(settings: Settings, *, from_archive: bool, archive_only: bool) -> None:
    """Raise UsageError where the settings lack what a job of this kind needs."""
    if from_archive and archive_only:
        raise UsageError(
            "--from-archive and --archive-only exclude each other: the first reads the archive, "
            "the second fills it"
        )
    if (from_archive or archive_only) and settings.raw.uri is None:
        flag = "--from-archive" if from_archive else "--archive-only"
        raise missing("raw.uri", "--raw", flag)
    if archive_only and settings.engine.kind != "local":
        raise UsageError(
            "engine.kind: --archive-only is for the engine local; share its work with --shard"
        )
    require_engine(settings)
    if not archive_only:
        require_lake(settings)
    if not from_archive:
        require_account(settings)


def require_engine(settings: Settings) -> None:
    """Raise UsageError where Dask is asked for, and is not installed or has no scheduler."""
    if settings.engine.kind != "dask":
        return
    if settings.engine.scheduler is None:
        raise UsageError(
            "engine.scheduler: is missing, and the engine dask needs it; start a scheduler "
            "(dask scheduler) and workers (dask worker ADDRESS), and set --dask-scheduler ADDRESS"
        )
    if find_spec("distributed") is None:
        raise UsageError(
            "engine.kind: Dask is not installed; install the extra: pip install '.[dask]' in a "
            "clone, else pip install 'aht-etl[dask]'"
        )


def require_lake(settings: Settings) -> None:
    """Raise UsageError where lake and coarse copy have the same place."""
    if settings.lake_is_the_copy:
        raise UsageError(
            "lake.uri: is the place of the coarse copy, compact.uri; give each its own"
        )


def require_account(settings: Settings) -> None:
    """Raise UsageError where the settings name no account."""
    if settings.account is None:
        raise missing("account", "--account")


def settle_window(
    settings: Settings,
    now: datetime,
    *,
    lookback: timedelta | None = None,
    longest: timedelta | None = LONGEST_WINDOW,
) -> Window:
    """Return the window of the settings. Raises UsageError where it is none.

    `lookback` replaces the configured one. `longest` is for windows that are sent to the API: each
    of their days is at least one request.
    """
    end = whole_millis(settings.window.end or now)
    try:
        start = whole_millis(settings.window.start or end - (lookback or settings.window.lookback))
    except OverflowError:
        raise UsageError("--lookback: reaches back before the year 1") from None
    if start >= end:
        raise UsageError(f"--from {rfc3339(start)} is not before --to {rfc3339(end)}")
    if longest is not None and end - start > longest:
        raise UsageError(
            f"the window from {rfc3339(start)} to {rfc3339(end)} is {(end - start).days:,} days "
            f"long, and {longest.days} are allowed; the vendor keeps one month: check --from, --to "
            "and --lookback"
        )
    return Window(start, end)


def parse_shard(text: str | None) -> Shard:
    """Parse `I/N`. Raises UsageError."""
    if text is None:
        return Shard()
    match = _SHARD.fullmatch(text)
    if match is None or int(match[1]) >= int(match[2]):
        raise UsageError(f"--shard {text}: write I/N with I from 0 to N-1, for example 0/4")
    return Shard(int(match[1]), int(match[2]))


def whole_millis(at: datetime) -> datetime:
    """Return the time, cut to milliseconds, as the vendor has them."""
    return at.replace(microsecond=at.microsecond // 1000 * 1000)
