"""The vendor's retry policy, request by request."""

import pytest

from etl.api.auth import Resend
from etl.api.retry import Attempts, UnauthorizedError
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
async def test_passing_faults_wait_the_vendors_delays(kind: FailureKind) -> None:
    """As many retries as there are delays, each after its own."""
    assert await send([fault(kind)] * 3, [5, 10, 15], 0) == [5, 10, 15]


async def test_server_errors_are_passing() -> None:
    """A 5xx is tried again; the error that lasts says how many requests were sent."""
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
        UnauthorizedError("", Resend.NO),
    ],
)
async def test_final_answers_are_not_asked_again(error: FileError) -> None:
    """What would be the same again is raised at the first attempt."""
    with pytest.raises(FileError) as caught:
        await send([error], [5, 10, 15], 20)
    assert caught.value.attempts == 1


async def test_throttling_has_its_own_count() -> None:
    """So many 429s are survived, without using up the server's retries; one more is not."""
    throttled = FailureKind.THROTTLED
    mixed = [fault(throttled, 429)] * 3 + [fault(FailureKind.TIMEOUT)]
    assert await send(mixed, [5], 3) == [0, 0, 0, 5]
    with pytest.raises(FileError) as caught:
        await send([fault(throttled, 429) for _ in range(4)], [5], 3)
    assert caught.value.attempts == 4


async def test_a_token_is_renewed_once() -> None:
    """A 401 that a new token may mend is tried again once, at once."""
    assert await send([UnauthorizedError("", Resend.WITH_NEW)], [], 0) == [0]
    with pytest.raises(UnauthorizedError):
        await send([UnauthorizedError("", Resend.WITH_NEW) for _ in range(2)], [5], 20)


async def test_a_token_that_was_replaced_in_flight_is_tried_again_with_the_newer_one() -> None:
    """A 401 to it says nothing about the newer one; without end it is no accident."""
    newer, renewed = (
        UnauthorizedError("", resend) for resend in (Resend.WITH_NEWER, Resend.WITH_NEW)
    )
    assert await send([renewed, newer, newer], [], 0) == [0, 0, 0]
    finals: list[list[FileError]] = [[newer, renewed], [renewed, renewed], [newer] * 4]
    for final in finals:
        with pytest.raises(UnauthorizedError):
            await send(final, [5], 20)
