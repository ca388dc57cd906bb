"""Numbers and durations as the page writes them."""

from datetime import timedelta


def number(count: float) -> str:
    """Return a whole number with commas."""
    return f"{count:,.0f}"


def plural(count: int, noun: str) -> str:
    """Return a number with its noun: `1 file`, `2 files`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def share(part: int, whole: int) -> str:
    """Return a share in percent; what is not nothing never reads as 0 %."""
    percent = 100 * part / whole if whole else 0.0
    return "< 0.01 %" if 0 < percent < 0.01 else f"{percent:.2f} %" if part else "0 %"


def percent(part: float, whole: float) -> str:
    """Return a share in whole percents; what is not nothing never reads as 0 %."""
    value = 100 * part / whole if whole else 0.0
    return "< 1 %" if 0 < value < 1 else f"{value:.0f} %"


def size(count: float) -> str:
    """Return bytes: `1.9 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def duration(seconds: float) -> str:
    """Return a duration with about two figures: `850 ms`, `22 s`, `3.5 min`, `1.2 h`."""
    for longest, unit, name in ((1, 0.001, "ms"), (60, 1, "s"), (3600, 60, "min")):
        if abs(seconds) < longest:
            value = seconds / unit
            return f"{value:.1f} {name}" if name != "ms" and value < 10 else f"{value:.0f} {name}"
    return f"{seconds / 3600:,.1f} h"


def span(late: timedelta) -> str:
    """Return how late something was: `3 h`, `17 d 4 h`."""
    hours = round(late / timedelta(hours=1))
    return f"{hours // 24} d {hours % 24} h" if hours >= 24 else f"{hours} h"
