"""The flags of the `emulator` command."""

import pytest

from etl.emulator import Fault, serve
from etl.model.errors import UsageError


def test_faults() -> None:
    """A fault has an endpoint, a kind or a status, and a count."""
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
def test_invalid_faults(text: str) -> None:
    """The usage error says what to write."""
    with pytest.raises(UsageError, match="ENDPOINT:KIND"):
        serve.options("a1", "none", "0s", None, None, [text])


@pytest.mark.parametrize(
    ("account", "start", "end"),
    [("a-b", None, None), ("a1", "yesterday", None), ("a1", "2022-06-02", "2022-06-01")],
)
def test_invalid_data_flags(account: str, start: str | None, end: str | None) -> None:
    """Invalid flags are a usage error, not an empty emulator."""
    with pytest.raises(UsageError, match="--"):
        serve.dataset(account, start, end, 1, 1, 1, mixed_shapes=False)


def test_data_without_a_window_is_of_these_days() -> None:
    """A run with its default window finds the data."""
    assert len(serve.dataset("a1", None, None, 1, 1, 1, mixed_shapes=True).files) >= 72
