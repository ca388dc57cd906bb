"""Text for people: foreign text that is safe in a terminal, a log, a page; sizes; durations."""


def one_line(text: str) -> str:
    """Return the text as one line of printable characters.

    One space replaces each run of white space and unprintable characters (str.isprintable: control
    characters, bidirectional controls, half surrogate pairs).
    """
    shown = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(shown.split())


def size(count: int) -> str:
    """Return a number of bytes for people, in powers of 1000."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def duration(seconds: float) -> str:
    """Return a duration for people: 45 s, 12 min, 3 h 05 min, 2 d 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02} min"
    return f"{hours // 24} d {hours % 24} h"


def plural(count: int, one: str, several: str | None = None) -> str:
    """Return a number with its noun: `1 file`, `2 files`."""
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"
