"""One run of the job: what to do it with, and what has come of it so far."""

import re
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import BinaryIO, Final, Protocol

from etl.config.redact import Redactor
from etl.config.settings import Settings
from etl.model.errors import UsageError
from etl.model.times import Window, rfc3339
from etl.pipeline.plan import Shard
from etl.pipeline.stop import Stop
from etl.pipeline.tally import Tally

#: A longer window is a mistake: each day is a request, and the vendor keeps a month.
LONGEST_WINDOW: Final = timedelta(days=400)

_SHARD: Final = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


class Limits(Protocol):
    """What requests are held to at this moment: a limiter's, or those of several together."""

    @property
    def allowed(self) -> int:
        """How many requests may be in flight now."""

    @property
    def rate(self) -> float:
        """How many requests a second may start now; infinity if no limit is known."""

    @property
    def in_flight(self) -> int:
        """How many requests hold a place."""

    @property
    def paused_s(self) -> float:
        """How long no request may start because the server asked to wait; 0 if it did not."""


@dataclass(frozen=True, slots=True)
class UnderWay:
    """What other processes have done for a job that its tally does not have yet: it is shown."""

    loaded: int = 0
    failed: int = 0
    brought_by_others: int = 0
    rows: int = 0
    downloaded_bytes: int = 0
    throttled: int = 0


@dataclass(slots=True)
class Job:
    """One run of the job: what to do it with, and what has come of it so far (`tally`).

    `now` is the clock by which a window is old. `saved_listing` takes the place of `window`.
    `from_archive` takes files from the raw archive instead of the API; `archive_only` fills that
    instead of the lake. `limiter` is there as soon as something is sent. `under_way` is for the
    display alone.
    """

    settings: Settings
    account: str
    window: Window | None
    tally: Tally
    now: datetime
    saved_listing: BinaryIO | None = None
    from_archive: bool = False
    archive_only: bool = False
    shard: Shard = field(default_factory=Shard)
    stop: Stop = field(default_factory=Stop)
    redactor: Redactor = field(default_factory=Redactor)
    limiter: Limits | None = None
    under_way: UnderWay = field(default_factory=UnderWay)


def new_job(settings: Settings, window: Window | None, now: datetime, redactor: Redactor) -> Job:
    """Return a job that has not begun; the settings' secrets become known to `redactor`."""
    for secret in settings.secret_values():
        redactor.add(secret)
    account = settings.account or ""
    tally = Tally(str(uuid.uuid4()), settings.account, window, datetime.now(UTC))
    return Job(settings, account, window, tally, now, redactor=redactor)


def require(settings: Settings, *, from_archive: bool, archive_only: bool) -> None:
    """Raise UsageError where the settings lack what a job of this kind needs."""
    if from_archive and archive_only:
        raise UsageError(
            "--from-archive and --archive-only exclude each other: the first reads the archive, "
            "the second fills it"
        )
    if (from_archive or archive_only) and settings.raw.uri is None:
        flag = "--from-archive" if from_archive else "--archive-only"
        raise UsageError(
            f"raw.uri: is missing, and {flag} needs it; set --raw, AHT_ETL_RAW__URI or the YAML's "
            "key"
        )
    if archive_only and settings.engine.kind != "local":
        raise UsageError(
            "engine.kind: --archive-only is for the engine local; share its work with --shard"
        )
    if not archive_only:
        require_lake(settings)
    if not from_archive:
        require_account(settings)


def require_lake(settings: Settings) -> None:
    """Raise UsageError where the lake's place is its coarse copy's."""
    if settings.lake_is_the_copy:
        raise UsageError(
            "lake.uri: is the place of the coarse copy, compact.uri; give each its own"
        )


def require_account(settings: Settings) -> None:
    """Raise UsageError where the settings name no account."""
    if settings.account is None:
        raise UsageError("account: is missing; set --account, AHT_ETL_ACCOUNT or the YAML's key")


def settle_window(
    settings: Settings,
    now: datetime,
    *,
    lookback: timedelta | None = None,
    longest: timedelta | None = LONGEST_WINDOW,
) -> Window:
    """Return the window that is listed. Raises UsageError where it is none.

    `lookback` takes the place of the configured one. `longest` is for windows that are sent to
    the API: each day of them is at least one request.
    """
    end = _whole_millis(settings.window.end or now)
    try:
        start = _whole_millis(settings.window.start or end - (lookback or settings.window.lookback))
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
    """Read `I/N`; UsageError where it is none."""
    if text is None:
        return Shard()
    match = _SHARD.fullmatch(text)
    if match is None or int(match[1]) >= int(match[2]):
        raise UsageError(f"--shard {text}: write I/N with I from 0 to N-1, for example 0/4")
    return Shard(int(match[1]), int(match[2]))


def _whole_millis(at: datetime) -> datetime:
    """Return the time, cut to the vendor's milliseconds."""
    return at.replace(microsecond=at.microsecond // 1000 * 1000)
