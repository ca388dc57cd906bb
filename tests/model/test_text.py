"""Foreign text is safe to show."""

from hypothesis import given
from hypothesis import strategies as st

from etl.model.text import one_line


@given(st.text(st.characters(categories=None)))
def test_foreign_text_becomes_one_line_of_printable_characters(text: str) -> None:
    assert one_line(text).isprintable()
    assert [c for c in one_line(text) if c != " "] == [
        c for c in text if c.isprintable() and c != " "
    ]


def test_control_and_bidirectional_characters_become_one_space() -> None:
    assert one_line("a\x1b[2J\r\n\0b\u202ec\u2028d\ud800") == "a [2J b c d"
