"""Put measurements into the pages that show them."""

from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]
README: Final = _ROOT / "README.md"
PERFORMANCE: Final = _ROOT / "configs" / "docs" / "performance.md"
SCALE: Final = PERFORMANCE.with_name("scale.md")


def put(page: Path, mark: str, text: str) -> None:
    """Put a text between the lines `<!-- bench: mark -->` and `<!-- end: mark -->`."""
    begin, end = f"<!-- bench: {mark} -->\n", f"<!-- end: {mark} -->"
    head, begun, rest = page.read_text().partition(begin)
    _, ended, behind = rest.partition(end)
    if not begun or not ended:
        raise ValueError(f"{page} has no place for {mark}")
    page.write_text(f"{head}{begin}{text}{end}{behind}")
