"""The retry policy: what is sent again, after how long, how often."""

import pytest

from etl.api.errors import UnauthorizedError
from etl.api.retry import Attempts
from etl.model.errors import FailureKind, FileError


async def send(errors: list[FileError], delays: list[float], throttles: int) -> list[float]:
    """Send one request that meets these errors in turn; return the sleeps before retries."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    left = list(errors)
    async for attempt in Attempts(delays, throttles, sleep, lambda _e, _n: None):
        with attempt:
            if left:
                raise left.pop(0)
    return slept


def fault(kind: FailureKind, status: int | None = None) -> FileError:
    return FileError(kind, "said", status=status)


@pytest.mark.parametrize(
    "kind",
    [
        FailureKind.TIMEOUT,
        FailureKind.CONNECTION,
        FailureKind.TRUNCATED,
        FailureKind.CORRUPT,
    ],
)
async def test_retryable_errors_wait_the_vendors_delays(kind: FailureKind) -> None:
    """There is one retry for each delay."""
    assert await send([fault(kind)] * 3, [5, 10, 15], 0) == [5, 10, 15]


async def test_server_errors_are_retryable() -> None:
    """A 5xx is retried; the last error has the number of requests."""
    with pytest.raises(FileError) as caught:
        await send([fault(FailureKind.HTTP, 503)] * 4, [5, 10, 15], 0)
    assert caught.value.attempts == 4


@pytest.mark.parametrize(
    "error",
    [
        fault(FailureKind.HTTP, 400),
        fault(FailureKind.HTTP, 302),
        fault(FailureKind.NOT_FOUND, 404),
        fault(FailureKind.MALFORMED),
        fault(FailureKind.TOO_LARGE),
        UnauthorizedError("", 0),
    ],
)
async def test_final_errors_are_not_retried(error: FileError) -> None:
    """An error that would come again is raised at the first attempt."""
    with pytest.raises(FileError) as caught:
        await send([error], [5, 10, 15], 20)
    assert caught.value.attempts == 1


async def test_throttling_has_its_own_count() -> None:
    """429s do not count as retries of server errors; one more than allowed is an error."""
    throttled = FailureKind.THROTTLED
    mixed = [fault(throttled, 429)] * 3 + [fault(FailureKind.TIMEOUT)]
    assert await send(mixed, [5], 3) == [0, 0, 0, 5]
    with pytest.raises(FileError) as caught:
        await send([fault(throttled, 429) for _ in range(4)], [5], 3)
    assert caught.value.attempts == 4


async def test_a_token_is_renewed_once() -> None:
    """After a 401, the request is sent once more with a new token, without delay."""
    assert await send([UnauthorizedError("", 1)], [], 0) == [0]
    with pytest.raises(UnauthorizedError):
        await send([UnauthorizedError("", 1) for _ in range(2)], [5], 20)


async def test_a_token_that_was_replaced_in_flight_is_tried_again_with_the_newer_one() -> None:
    """The newer token may be accepted. After three such 401s the request fails."""
    newer, renewed = (UnauthorizedError("", resends) for resends in (3, 1))
    assert await send([renewed, newer, newer], [], 0) == [0, 0, 0]
    finals: list[list[FileError]] = [[newer, renewed], [renewed, renewed], [newer] * 4]
    for final in finals:
        with pytest.raises(UnauthorizedError):
            await send(final, [5], 20)
