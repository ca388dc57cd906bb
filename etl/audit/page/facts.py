"""What the page tells of a lake, gathered part by part."""

import heapq
from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final

from etl.audit.gaps import Gap, Span, find_gaps, is_hidden
from etl.audit.page.durations import Durations
from etl.audit.page.lateness import class_of, lateness
from etl.audit.page.part import PartFacts
from etl.audit.page.quarantine import Quarantine
from etl.audit.survey import LATE_AFTER
from etl.lake.layout import Damage

#: So many of the latest files, and of those with most bad rows, are named.
_NAMED: Final = 50


@dataclass(slots=True)
class Hour:
    """One hour of the lake, of all its accounts."""

    files: int = 0
    rows: int = 0
    quarantined: int = 0
    late: int = 0
    handle_ms: float = 0.0
    loaded_at: datetime | None = None
    damaged: bool = False


@dataclass(slots=True)
class Run:
    """What is left in the lake of one run of the job."""

    id: str
    first_at: datetime
    last_at: datetime
    version: str
    parts: int = 0
    files: int = 0
    rows: int = 0
    quarantined: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Facts:
    """All that is known of a lake.

    `held` are the hours of which each account has a part, or a folder that cannot be read; `spans`
    those in which it should have files. `hidden` are years, months, days and hours that cannot be
    read, as far as their numbers are known.
    """

    held: dict[str, set[datetime]] = field(default_factory=dict)
    spans: dict[str, Span] = field(default_factory=dict)
    hidden: tuple[tuple[int, ...], ...] = ()
    hours: dict[datetime, Hour] = field(default_factory=dict)
    #: Distinct segments of a day, all accounts together.
    segments: dict[date, int] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    durations: Durations = field(default_factory=Durations)
    lateness: Counter[str] = field(default_factory=Counter)
    #: The latest files with how late they were, in no order.
    latest: list[tuple[timedelta, str]] = field(default_factory=list)
    #: The files with most bad rows, in no order.
    worst: list[tuple[int, str]] = field(default_factory=list)
    bad_files: int = 0
    parts: int = 0
    bytes: int = 0
    damage: list[Damage] = field(default_factory=list)
    quarantine: Quarantine = field(default_factory=Quarantine)

    @property
    def files(self) -> int:
        """How many source files the lake holds."""
        return sum(hour.files for hour in self.hours.values())

    @property
    def rows(self) -> int:
        """How many rows the lake holds."""
        return sum(hour.rows for hour in self.hours.values())

    @property
    def quarantined(self) -> int:
        """How many rows the receipts say were set aside."""
        return sum(hour.quarantined for hour in self.hours.values())

    def add(self, part: PartFacts) -> None:
        """Take in what one part tells."""
        hour = self.hours.setdefault(part.partition.hour, Hour())
        if part.damage is not None:
            hour.damaged = True
            self.damage.append(Damage(f"{part.partition.directory}/{part.name}", part.damage))
        if part.written_at is None:
            return
        self.parts += 1
        self.bytes += part.bytes
        hour.loaded_at = max(hour.loaded_at or part.written_at, part.written_at)
        if part.durations is not None:
            hour.handle_ms += part.durations.total_ms
            self.durations.merge(part.durations)
        run = self.runs.get(part.run)
        if run is None:
            run = Run(part.run, part.written_at, part.written_at, part.version)
            self.runs[part.run] = run
        run.first_at = min(run.first_at, part.written_at)
        run.last_at = max(run.last_at, part.written_at)
        run.parts += 1
        run.bytes += part.bytes
        for receipt in part.receipts:
            for tally in (hour, run):
                tally.files += 1
                tally.rows += receipt.rows
                tally.quarantined += receipt.quarantined
            if receipt.quarantined:
                self.bad_files += 1
                _keep_largest(self.worst, (receipt.quarantined, receipt.path))
            late = lateness(receipt.path, part.partition.hour)
            self.lateness[class_of(late)] += 1
            if late is not None and late > LATE_AFTER:
                hour.late += 1
                _keep_largest(self.latest, (late, receipt.path))

    def gaps(self) -> list[Gap]:
        """Return each account's gaps, newest first."""
        found = find_gaps(self.held, self.spans, self.hidden)
        return sorted(found, key=lambda gap: (gap.end, gap.account), reverse=True)

    def missing(self, at: datetime) -> tuple[str, ...]:
        """Return the accounts that should have files in an hour and have none."""
        if is_hidden(at, self.hidden):
            return ()
        return tuple(
            account
            for account, (first, last) in self.spans.items()
            if first <= at <= last and at not in self.held.get(account, ())
        )


def _keep_largest(heap: list[Any], item: Any) -> None:
    if len(heap) < _NAMED:
        heapq.heappush(heap, item)
    else:
        heapq.heappushpop(heap, item)
