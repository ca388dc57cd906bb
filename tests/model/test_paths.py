"""The vendor's path: what is accepted and what is not."""

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.model.paths import BreakdownPath, InvalidPathError, Partition

GOOD = (
    "/year=2022/month=6/day=1/hour=6/accountId=le79344075/"
    "sequences.1654113886437.20220601160446.00066.json.gz"
)
# The pattern as the vendor documents it; here with Python's meaning of \d.
DOCUMENTED = (
    r"^/year=\d{4}/month=\d{1,2}/day=\d{1,2}/hour=\d{1,2}/accountId=[a-zA-Z0-9]+/"
    r"[a-zA-Z0-9_.-]+\.json\.gz$"
)


def test_documented_example() -> None:
    """The documentation's own example is parsed into its hour and its directory."""
    path = BreakdownPath.parse(GOOD)
    assert path.text == GOOD
    assert path.partition.hour == datetime(2022, 6, 1, 6, tzinfo=UTC)
    assert path.partition.directory == GOOD[1:].rpartition("/")[0]


def test_zero_padding_is_kept() -> None:
    """A zero-padded month is another directory, letter for letter."""
    path = BreakdownPath.parse(GOOD.replace("month=6", "month=06"))
    assert "month=06" in path.partition.directory


@pytest.mark.parametrize(
    "bad",
    [
        "",
        GOOD + "\n",
        GOOD[1:],
        "/" + GOOD,
        GOOD.replace("2022", "٢٠٢٢"),
        GOOD.replace("month=6", "month=13"),
        GOOD.replace("month=6", "month=0"),
        GOOD.replace("day=1", "day=31"),
        GOOD.replace("hour=6", "hour=24"),
        GOOD.replace("2022", "0000"),
        GOOD.replace("sequences", "../sequences"),
        GOOD.replace("sequences", "a/b"),
        GOOD + "?x=1",
        GOOD.replace(".json.gz", ".json"),
        GOOD.replace("le79344075", "le-1"),
        GOOD.replace("sequences", "seq\0"),
        GOOD.replace("sequences", "séquences"),
    ],
)
def test_other_paths_are_refused(bad: str) -> None:
    """Only the documented pattern with an hour that exists is accepted."""
    with pytest.raises(InvalidPathError):
        BreakdownPath.parse(bad)


@given(st.from_regex(DOCUMENTED, alphabet=st.characters(codec="utf-8")))
def test_accepts_only_documented_ascii(text: str) -> None:
    """Each accepted path is ASCII, matches the pattern and lies below its partition."""
    try:
        path = BreakdownPath.parse(text)
    except InvalidPathError:
        return
    assert text.isascii()
    assert re.fullmatch(DOCUMENTED.removesuffix("$"), text)
    assert text.startswith(f"/{path.partition.directory}/")
    assert ".." not in text.split("/")


def test_a_partition_from_its_folder() -> None:
    """The same partition as from a path in it; other folders of a lake are no partitions."""
    path = BreakdownPath.parse("/year=2022/month=6/day=1/hour=6/accountId=le79344075/a.json.gz")
    assert path.partition == Partition.parse("year=2022/month=6/day=1/hour=6/accountId=le79344075")
    assert "le79344075" == path.partition.account
    for folder in ("", "year=2022/month=6", "year=2022/month=2/day=30/hour=1/accountId=a", "x"):
        with pytest.raises(InvalidPathError):
            Partition.parse(folder)
