"""The state of a run: listing, plan, outcomes so far, and the source's traffic."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from etl.api.listing import Listing
from etl.api.transport import Traffic
from etl.pipeline.job import Job
from etl.pipeline.outcomes import Outcomes
from etl.pipeline.plan import Plan


class Limits(Protocol):
    """The limits of requests at this moment: those of one limiter, or of several together."""

    @property
    def allowed(self) -> int:
        """How many requests may be in flight now."""

    @property
    def rate(self) -> float:
        """How many requests a second may start now; infinity if no limit is known."""

    @property
    def in_flight(self) -> int:
        """How many requests are in flight."""

    @property
    def paused_s(self) -> float:
        """How long no request may start because the server asked to wait; 0 if it did not."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What other processes have done that the run's own counts lack; for the display."""

    outcomes: Outcomes = field(default_factory=Outcomes)
    traffic: Traffic = field(default_factory=Traffic)


@dataclass(slots=True)
class RunState:
    """The state of a run. `listing`, `plan` and `limits` are each set once.

    `limits` is None until requests are sent. `started_s` is on a monotonic clock, so a change of
    the system's clock changes no duration.
    """

    job: Job
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started_s: float = field(default_factory=time.monotonic)
    listing: Listing = field(default_factory=Listing)
    plan: Plan = field(default_factory=lambda: Plan((), (), ()))
    outcomes: Outcomes = field(default_factory=Outcomes)
    traffic: Traffic = field(default_factory=Traffic)
    limits: Limits | None = None
    elsewhere: Elsewhere = field(default_factory=Elsewhere)
