"""Foreign text is safe to show; values have one JSON form."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from etl.model.errors import FailureKind
from etl.model.paths import Partition
from etl.model.text import as_json, one_line
from etl.model.times import Window


@given(st.text(st.characters(categories=None)))
def test_foreign_text_becomes_one_line_of_printable_characters(text: str) -> None:
    assert one_line(text).isprintable()
    assert [c for c in one_line(text) if c != " "] == [
        c for c in text if c.isprintable() and c != " "
    ]


def test_control_and_bidirectional_characters_become_one_space() -> None:
    assert one_line("a\x1b[2J\r\n\0b\u202ec\u2028d\ud800") == "a [2J b c d"


AT = datetime(2022, 6, 1, 6, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Found:
    """A value with all that a report has."""

    where: Partition
    window: Window | None
    kinds: tuple[FailureKind, ...]
    counts: dict[str, int]

    @property
    def files(self) -> int:
        return sum(self.counts.values())


def test_a_value_is_an_object_of_its_fields() -> None:
    """Nested, with times as RFC 3339; a window has `from` and `to`. Attributes can be chosen."""
    directory = "year=2022/month=6/day=1/hour=6/accountId=a1"
    found = Found(
        Partition.parse(directory), Window(AT, AT), (FailureKind.HTTP,), {"loaded": 1, "failed": 2}
    )
    at = "2022-06-01T06:00:00Z"
    assert {
        "where": directory,
        "window": {"from": at, "to": at},
        "kinds": ["http"],
        "counts": {"loaded": 1, "failed": 2},
    } == json.loads(json.dumps(as_json(found)))
    assert {"files": 3, "where": directory} == as_json(found, "files", "where")
    assert [{"files": 3}, None] == [as_json(found, "files"), as_json(None)]
