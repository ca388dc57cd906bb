"""One run of the job: what to do it with, and what has come of it so far."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import BinaryIO

from etl.plan import Shard
from etl.redact import Redactor
from etl.report import Tally
from etl.settings import Settings
from etl.stop import Stop
from etl.times import Window


@dataclass(slots=True)
class Job:
    """One run of the job: what to do it with, and what has come of it so far (`tally`).

    `now` is the clock by which a window is old. `saved_listing` takes the place of `window`.
    """

    settings: Settings
    account: str
    window: Window | None
    tally: Tally
    now: datetime
    saved_listing: BinaryIO | None = None
    shard: Shard = field(default_factory=Shard)
    stop: Stop = field(default_factory=Stop)
    redactor: Redactor = field(default_factory=Redactor)
