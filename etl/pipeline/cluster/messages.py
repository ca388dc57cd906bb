"""What client and workers say to each other. No `repr` of these shows a secret."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from etl.api.transport import Traffic
from etl.config.settings import Settings
from etl.pipeline.outcomes import Outcomes
from etl.pipeline.state import Elsewhere, Limits


@dataclass(frozen=True, slots=True)
class Order:
    """A share of a plan for one task; `key` is Dask's name for it.

    `version` is the client's of this package, `level` the least that it logs. In `settings`
    stand this task's own limits. `from_archive` is the job's.
    """

    key: str
    version: str
    run_id: str
    settings: Settings
    paths: tuple[str, ...]
    level: int
    from_archive: bool = False


@dataclass(frozen=True, slots=True)
class EndRun:
    """The run is to end: by a signal, within the grace, or because of an error elsewhere."""

    signal: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Word:
    """How far an attempt of a task is, and what it logged since its last word."""

    key: str
    attempt: str
    worker: str
    done: Elsewhere
    traffic: Traffic
    decompressed_bytes: int
    in_flight: int
    allowed: int
    rate: float
    paused_s: float
    logs: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended: the outcomes of its files, and why it could not do its work, or None."""

    word: Word
    outcomes: Outcomes
    error: str | None


class Together:
    """The limits of several processes together."""

    def __init__(self, each: Callable[[], Sequence[Limits]]) -> None:
        self._each = each

    @property
    def allowed(self) -> int:
        """How many requests may be in flight now."""
        return sum(limits.allowed for limits in self._each())

    @property
    def rate(self) -> float:
        """How many requests a second may start now; infinity if no limit is known."""
        return sum(limits.rate for limits in self._each())

    @property
    def in_flight(self) -> int:
        """How many requests hold a place."""
        return sum(limits.in_flight for limits in self._each())

    @property
    def paused_s(self) -> float:
        """How long no request may start anywhere; 0 if one may."""
        return max((limits.paused_s for limits in self._each()), default=0.0)
