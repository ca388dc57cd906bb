"""The vendor's documented retry policy for one request."""

import email.utils
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from etl.errors import FailureKind, FileError


class Unauthorized(FileError):  # noqa: N818 - the status's own name
    """The server said 401; `renewable` if a new token may help."""

    def __init__(self, message: str, *, renewable: bool) -> None:
        super().__init__(FailureKind.HTTP, message, status=401)
        self.renewable = renewable


class _Policy:
    """Counts what one request has survived; says whether, and after how long, to try again."""

    def __init__(self, server_delays: Sequence[float], throttle_attempts: int) -> None:
        self._delays = list(server_delays)
        self._throttles_left = throttle_attempts
        self._renewals_left = 1
        self._delay_s = 0.0
        self._attempts = 0

    def again(self, error: BaseException) -> bool:
        self._delay_s = 0.0
        self._attempts += 1
        if isinstance(error, FileError):
            error.attempts = self._attempts
        if isinstance(error, Unauthorized) and error.renewable:
            self._renewals_left -= 1
            return self._renewals_left >= 0
        if not isinstance(error, FileError):
            return False
        if error.kind is FailureKind.THROTTLED:
            # No delay of its own: the limiter holds back every request, this one too.
            self._throttles_left -= 1
            return self._throttles_left >= 0
        if error.passing and self._delays:
            self._delay_s = self._delays.pop(0)
            return True
        return False

    def delay(self, _state: RetryCallState) -> float:
        return self._delay_s


def attempts(
    server_delays: Sequence[float],
    throttle_attempts: int,
    sleep: Callable[[float], Awaitable[None]],
    on_retry: Callable[[FileError, int], None],
) -> AsyncRetrying:
    """Return the attempts of one request, to be used as `async for attempt in …: with attempt:`.

    As many retries as `server_delays` has entries (seconds) after a passing fault, as many 429s as
    `throttle_attempts`, one renewal of a token; any other error is raised at once. Errors leave
    with `attempts` set. `on_retry` hears of each error that is tried again and its attempt number.
    """
    policy = _Policy(server_delays, throttle_attempts)

    def told(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, FileError):
            on_retry(error, state.attempt_number)

    return AsyncRetrying(
        retry=retry_if_exception(policy.again),
        wait=policy.delay,
        sleep=sleep,
        before_sleep=told,
        reraise=True,
    )


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
