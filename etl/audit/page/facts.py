"""What the page shows of a lake: its survey, the rows of its parts and the quarantine's reasons."""

import heapq
import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import groupby
from typing import Final

from etl.audit.page.rows import Durations, PartRows, Segments, counted_as, read_rows
from etl.audit.survey import LATE_AFTER, Gap, PartitionSurvey, PartSurvey, Survey, delay_of
from etl.audit.verify import in_order
from etl.lake.layout import QUARANTINE, Damage, Selection, to_partition
from etl.model.machine import cores
from etl.model.text import one_line
from etl.storage.store import Store, StoreError

#: The classes of delays: a delay falls in the first class whose end it does not exceed.
CLASSES: Final[tuple[tuple[timedelta, str], ...]] = (
    (timedelta(0), "before the hour ended"),
    (timedelta(hours=1), "up to 1 hour"),
    (timedelta(hours=6), "1 to 6 hours"),
    (LATE_AFTER, "6 to 24 hours"),
    (timedelta(days=3), "1 to 3 days"),
    (timedelta(days=7), "3 to 7 days"),
    (timedelta(days=14), "7 to 14 days"),
    (timedelta.max, "more than 14 days"),
)
UNKNOWN: Final = "unknown: no time in the name"
_UNREADABLE: Final = "(the quarantine's own line cannot be read)"

_THREADS_MAX: Final = 8
_LATEST_NAMED: Final = 10
_WORST_NAMED: Final = 50
# The position in a row says nothing about the reason: without it, such reasons count as one.
_POSITION: Final = re.compile(r" at character [0-9]+")
# `raw` is cut at 64 KiB, each byte at most six characters of JSON. The job writes no longer line.
_LINE_MAX_BYTES: Final = 2**20


@dataclass(slots=True)
class Hour:
    """One hour of the lake, all accounts together."""

    files: int = 0
    rows: int = 0
    quarantined: int = 0
    late: int = 0
    handle_ms: float = 0.0
    loaded_at: datetime | None = None
    damaged: bool = False

    @property
    def handle(self) -> float:
        """Hours of handle time."""
        return self.handle_ms / 3_600_000


@dataclass(slots=True)
class Run:
    """What the lake holds of one run of the job."""

    id: str
    first_at: datetime
    last_at: datetime
    version: str = ""
    parts: int = 0
    files: int = 0
    rows: int = 0
    quarantined: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Quarantine:
    """The rows in the quarantine by reason, and the errors of files that cannot be read.

    Only reasons and numbers: the texts of the rows may be personal.
    """

    by_reason: Counter[str] = field(default_factory=Counter)
    files: int = 0
    damage: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """The number of rows in the quarantine."""
        return self.by_reason.total()


@dataclass(slots=True)
class Facts:
    """All that the page shows of a lake; days are those of `gather`'s `date_of`."""

    survey: Survey
    hours: dict[datetime, Hour]
    damage: list[Damage]
    quarantine: Quarantine
    #: Distinct segments of a day, all accounts together.
    segments: dict[date, int] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    durations: Durations = field(default_factory=Durations)
    delays: Counter[str] = field(default_factory=Counter)
    #: The latest files and the files with most bad rows, worst first.
    latest: list[tuple[timedelta, str]] = field(default_factory=list)
    worst: list[tuple[int, str]] = field(default_factory=list)
    bad_files: int = 0
    #: Each account's gaps, oldest first.
    gaps: dict[str, list[Gap]] = field(init=False)

    def __post_init__(self) -> None:
        by_account = groupby(self.survey.gaps, key=lambda gap: gap.account)
        self.gaps = {account: list(gaps) for account, gaps in by_account}

    def missing(self, at: datetime) -> tuple[str, ...]:
        """Return the accounts that have a gap in an hour."""
        return tuple(account for account, gaps in self.gaps.items() if _is_in(gaps, at))


def _is_in(gaps: Sequence[Gap], at: datetime) -> bool:
    before = bisect_right(gaps, at, key=lambda gap: gap.start)
    return before > 0 and at < gaps[before - 1].end


def gather(store: Store, survey: Survey, date_of: Callable[[datetime], date]) -> Facts:
    """Read the rows of all parts of a survey, some in parallel, and the quarantine. Blocking.

    `date_of` is the day on which an hour counts. Parts that cannot be read become damage; parts
    that are gone are left out.
    """
    facts = Facts(
        survey,
        {partition.partition.hour: Hour() for partition in survey.partitions},
        [_without_name(damage) for damage in survey.damages],
        _read_quarantine(store, survey.selection),
    )
    for partition in survey.partitions:
        hour = facts.hours[partition.partition.hour]
        hour.damaged = hour.damaged or bool(partition.damages)
        for part in partition.parts:
            if part.damage is None:
                _add_receipts(facts, hour, part)
    _add_files(facts)

    def read(item: tuple[PartitionSurvey, PartSurvey]) -> PartRows | None:
        return read_rows(store, item[1].name)

    todo = [(p, part) for p in survey.partitions for part in p.parts if part.damage is None]
    threads = max(min(_THREADS_MAX, cores()), store.readers)
    found = in_order(read, todo, threads=threads, ahead=2)
    # Parts come in the order of their hours: the segments of one day are in memory.
    for day, parts in groupby(found, key=lambda pair: date_of(pair[0][0].partition.hour)):
        segments = Segments()
        for (partition, part), rows in parts:
            if rows is not None:
                _add_rows(facts, facts.hours[partition.partition.hour], part, rows)
                segments.merge(rows.segments)
        facts.segments[day] = segments.count
    facts.damage.sort(key=lambda damage: damage.name)
    return facts


def _without_name(damage: Damage) -> Damage:
    """Return a damage whose message does not repeat the name, which the page shows before it."""
    return Damage(damage.name, damage.message.removeprefix(f"{damage.name} is "))


def _add_receipts(facts: Facts, hour: Hour, part: PartSurvey) -> None:
    at, name = part.committed_at, one_line(part.run)
    hour.loaded_at = max(hour.loaded_at or at, at)
    run = facts.runs.setdefault(name, Run(name, at, at))
    run.first_at = min(run.first_at, at)
    run.last_at = max(run.last_at, at)
    run.parts += 1
    run.bytes += part.bytes
    for tally in (hour, run):
        tally.files += len(part.sources)
        tally.rows += sum(source.rows for source in part.sources)
        tally.quarantined += sum(source.quarantined for source in part.sources)


def _add_files(facts: Facts) -> None:
    """Count how late the files are, and find the latest and the worst."""
    latest, worst = [], []
    for partition in facts.survey.partitions:
        at = partition.partition.hour
        facts.hours[at].late += partition.late
        for source in partition.sources:
            delay = delay_of(source.path, at)
            facts.delays[class_of(delay)] += 1
            if delay is not None and delay > LATE_AFTER:
                latest.append((delay, source.path))
            if source.quarantined:
                worst.append((source.quarantined, source.path))
    facts.bad_files = len(worst)
    facts.latest = heapq.nlargest(_LATEST_NAMED, latest)
    facts.worst = heapq.nlargest(_WORST_NAMED, worst)


def _add_rows(facts: Facts, hour: Hour, part: PartSurvey, rows: PartRows) -> None:
    if rows.damage is not None:
        hour.damaged = True
        facts.damage.append(Damage(part.name, rows.damage))
    hour.handle_ms += rows.durations.total_ms
    facts.durations.merge(rows.durations)
    run = facts.runs[one_line(part.run)]
    run.version = run.version or rows.version


def class_of(delay: timedelta | None) -> str:
    """Return the name of a delay's class."""
    if delay is None:
        return UNKNOWN
    return next(name for end, name in CLASSES if delay <= end)


def _read_quarantine(store: Store, selection: Selection) -> Quarantine:
    found = Quarantine()
    for name in _quarantined(store, selection, found.damage):
        try:
            with store.open(name) as stream:
                found.files += 1
                while line := stream.readline(_LINE_MAX_BYTES):
                    reason = _reason_of(line)
                    found.by_reason[counted_as(reason, found.by_reason)] += 1
        except FileNotFoundError:
            pass  # an operator deleted it
        except (StoreError, OSError) as error:
            found.damage.append(str(error))
    return found


def _quarantined(store: Store, selection: Selection, damage: list[str]) -> Iterator[str]:
    """Yield the names of the quarantine's files."""
    for file in store.walk(lambda _, error: damage.append(str(error)), QUARANTINE):
        folder = file.name.removeprefix(f"{QUARANTINE}/").rpartition("/")[0]
        partition = to_partition(folder)
        if file.name.endswith(".ndjson") and (
            selection.includes(partition) if partition else selection.everything
        ):
            yield file.name


def _reason_of(line: bytes) -> str:
    try:
        return one_line(_POSITION.sub("", str(json.loads(line)["reason"]))) or _UNREADABLE
    except (ValueError, TypeError, KeyError, RecursionError):
        return _UNREADABLE
