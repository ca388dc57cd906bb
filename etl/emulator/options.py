"""How the emulator behaves: by default as documented, on request slow, limited or faulty."""

import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from etl.emulator.faults import Fault
from etl.model.times import Window


@dataclass(frozen=True, slots=True)
class EmulatorOptions:
    """What can be asked of the emulator.

    `account` is the only one that it has (None: it answers for any). `now` is the clock by which
    windows are judged and late files appear (None: the real one). `oldest` None lists windows of
    any age. `partial` are windows for which a listing answers 206. `encoding` is how a file's gzip
    is sent: as it is, as it is but declared as Content-Encoding, with another gzip on top, or
    unpacked. `rate` is in requests a second, without bursts. `tls` makes it serve https.
    """

    account: str | None = None
    auth: Literal["none", "oauth1", "oauth2"] = "none"
    now: datetime | None = None
    max_window: timedelta = timedelta(days=1)
    oldest: timedelta | None = timedelta(days=31)
    partial: tuple[Window, ...] = ()
    numeric_timeframe: bool = False
    latency_s: float = 0.0
    rate: float | None = None
    max_concurrent: int | None = None
    retry_after: str | None = None
    encoding: Literal["as_is", "declared", "on_top", "plain"] = "as_is"
    token_life_s: float = 3600
    expires_in: bool = True
    tls: ssl.SSLContext | None = None
    faults: tuple[Fault, ...] = ()
