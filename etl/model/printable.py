"""Foreign text made safe for people: for a terminal, a log line, a page, a termination message."""


def one_line(text: str) -> str:
    """Return the text as one line of printable characters.

    Each run of white space and of characters that are not printable (str.isprintable: control
    characters, bidirectional controls, half surrogate pairs) becomes one space.
    """
    shown = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(shown.split())
