"""What the `emulator` command makes of its flags."""

import pytest

from etl.emulator import Fault, serve
from etl.model.errors import UsageError


def test_faults() -> None:
    """Endpoint, kind or status, how often."""
    texts = ["file:503", "listing:429:2", "file:reset_middle:always", "token:hang:0"]
    options = serve.options("a1", "none", "0.5s", None, None, texts)
    assert (
        Fault("file", "status", times=1, status=503),
        Fault("listing", "status", times=2, status=429),
        Fault("file", "reset_middle", times=None),
        Fault("token", "hang", times=0),
    ) == options.faults
    assert 0.5 == options.latency_s


@pytest.mark.parametrize(
    "text", ["", "file", "file:", "file:no", "files:503", "file:503:-1", "file:5٠3"]
)
def test_faults_that_are_none(text: str) -> None:
    """Wrong usage says what may be written."""
    with pytest.raises(UsageError, match="ENDPOINT:KIND"):
        serve.options("a1", "none", "0s", None, None, [text])


@pytest.mark.parametrize(
    ("account", "start", "end"),
    [("a-b", None, None), ("a1", "yesterday", None), ("a1", "2022-06-02", "2022-06-01")],
)
def test_data_that_cannot_be(account: str, start: str | None, end: str | None) -> None:
    """Wrong usage, not an empty emulator."""
    with pytest.raises(UsageError, match="--"):
        serve.dataset(account, start, end, 1, 1, 1, mixed_shapes=False)


def test_data_without_a_window_is_of_these_days() -> None:
    """So that a run with its own default window finds it."""
    assert len(serve.dataset("a1", None, None, 1, 1, 1, mixed_shapes=True).files) >= 72
