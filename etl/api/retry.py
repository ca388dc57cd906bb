"""The vendor's documented retry policy for one request."""

import email.utils
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from etl.errors import FailureKind, FileError
from etl.stop import StoppedError


class Unauthorized(FileError):  # noqa: N818 - the status's own name
    """The server said 401; `renewable` if a new token may help."""

    def __init__(self, message: str, *, renewable: bool) -> None:
        super().__init__(FailureKind.HTTP, message, status=401)
        self.renewable = renewable


@dataclass(slots=True)
class Spent:
    """What was spent on a request so far, for whoever goes on with it."""

    attempts: int = 0
    retries: int = 0
    throttles: int = 0
    renewals: int = 0
    delay_s: float = 0.0


class Attempts:
    """The attempts of one request, used as `async for attempt in attempts: with attempt:`.

    After a passing fault there are as many retries as `server_delays` has entries (seconds), after
    a 429 as many as `throttle_attempts`, and one after a token was renewed; any other error is
    raised at once; what was `spent` before counts. FileErrors leave with `attempts` set. `number`
    counts from 1. `on_retry` hears of each error that is tried again and its attempt's number.
    """

    # Of its own: a library for retries takes 0.06 ms a file, half of what it takes to download a
    # small one, and the policy is the vendor's, not one that it knows.

    def __init__(
        self,
        server_delays: Sequence[float],
        throttle_attempts: int,
        sleep: Callable[[float], Awaitable[None]],
        on_retry: Callable[[FileError, int], None],
        spent: Spent | None = None,
    ) -> None:
        self._delays = server_delays
        self._throttle_attempts = throttle_attempts
        self._sleep = sleep
        self._on_retry = on_retry
        self.spent = spent or Spent()
        self._done = False

    @property
    def number(self) -> int:
        """Which attempt this is."""
        return self.spent.attempts

    @property
    def last(self) -> bool:
        """Whether a passing fault of this attempt would be the end of them."""
        return self.spent.retries >= len(self._delays)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Self:
        if self._done:
            raise StopAsyncIteration
        if self.spent.attempts:
            await self._sleep(self.spent.delay_s)
        self.spent.attempts += 1
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if error is None:
            self._done = True
        if isinstance(error, StoppedError):
            self.spent.attempts -= 1  # it was none
        if not isinstance(error, FileError):
            return False
        error.attempts = self.spent.attempts
        delay_s = self._delay_after(error)
        if delay_s is None:
            return False
        self.spent.delay_s = delay_s
        self._on_retry(error, self.spent.attempts)
        return True

    def _delay_after(self, error: FileError) -> float | None:
        """Return the seconds after which to try again; None if that is not to be done."""
        spent = self.spent
        if isinstance(error, Unauthorized) and error.renewable:
            spent.renewals += 1
            return 0.0 if spent.renewals <= 1 else None
        if error.kind is FailureKind.THROTTLED:
            # No delay of its own: the limiter holds back every request, this one too.
            spent.throttles += 1
            return 0.0 if spent.throttles <= self._throttle_attempts else None
        if not error.passing or self.last:
            return None
        spent.retries += 1
        return self._delays[spent.retries - 1]


def retry_after_s(header: str | None, now: datetime) -> float:
    """Return the seconds that a Retry-After header asks for (RFC 9110 section 10.2.3), else 0."""
    if not header:
        return 0.0
    header = header.strip()
    if header.isascii() and header.isdigit():
        return float(header[:9])
    try:
        at = email.utils.parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return 0.0
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - now).total_seconds())
