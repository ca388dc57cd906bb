"""The vendor's documented retry policy for one request."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Self

from etl.api.auth import Hope
from etl.model.errors import FailureKind, FileError

# Tokens that end while a request with them is in flight, one after another: more is no accident.
_NEWER_TOKENS: Final = 3


class Unauthorized(FileError):  # noqa: N818 - the status's own name
    """The server said 401; `hope` tells what another attempt would be sent with."""

    def __init__(self, message: str, hope: Hope) -> None:
        super().__init__(FailureKind.HTTP, message, status=401)
        self.hope = hope


class Attempts:
    """The attempts of one request, used as `async for attempt in attempts: with attempt:`.

    After a passing fault there are as many retries as `server_delays` has entries (seconds), after
    a 429 as many as `throttle_attempts`, and one after a 401 if a new token can be had; any other
    error is raised at once. A 401 to a token that was replaced while the request was in flight is
    tried again with the newer one. FileErrors leave with `attempts` set. `on_retry` hears of each
    error that is tried again and its attempt's number.
    """

    # Of its own: a library for retries takes 0.06 ms a file, half of what it takes to download a
    # small one, and the policy is the vendor's, not one that it knows.

    def __init__(
        self,
        server_delays: Sequence[float],
        throttle_attempts: int,
        sleep: Callable[[float], Awaitable[None]],
        on_retry: Callable[[FileError, int], None],
    ) -> None:
        self._delays = server_delays
        self._throttle_attempts = throttle_attempts
        self._sleep = sleep
        self._on_retry = on_retry
        #: Which attempt this is, from 1.
        self.number = 0
        self._retries = 0
        self._throttles = 0
        self._renewals = 0
        self._delay_s = 0.0
        self._done = False

    @property
    def last(self) -> bool:
        """Whether a passing fault of this attempt would be the end of them."""
        return self._retries >= len(self._delays)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Self:
        if self._done:
            raise StopAsyncIteration
        if self.number:
            await self._sleep(self._delay_s)
        self.number += 1
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if error is None:
            self._done = True
        if not isinstance(error, FileError):
            return False
        error.attempts = self.number
        delay_s = self._delay_after(error)
        if delay_s is None:
            return False
        self._delay_s = delay_s
        self._on_retry(error, self.number)
        return True

    def _delay_after(self, error: FileError) -> float | None:
        """Return the seconds after which to try again; None if that is not to be done."""
        if isinstance(error, Unauthorized):
            self._renewals += 1
            most = {Hope.NONE: 0, Hope.RENEWED: 1, Hope.NEWER: _NEWER_TOKENS}[error.hope]
            return 0.0 if self._renewals <= most else None
        if error.kind is FailureKind.THROTTLED:
            # No delay of its own: the limiter holds back every request, this one too.
            self._throttles += 1
            return 0.0 if self._throttles <= self._throttle_attempts else None
        if not error.passing or self.last:
            return None
        self._retries += 1
        return self._delays[self._retries - 1]
