"""The page's file: whole or not at all, without raw texts, with the extra or a clear refusal."""

import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from etl.errors import UsageError
from etl.lake.local import LocalStore
from etl.page import write_page
from tests.page.conftest import NOW, put, row

HOUR = datetime(2022, 6, 1, 6, tzinfo=UTC)


def test_a_missing_library_is_one_line_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the extra nothing is read or written, and the error names it."""
    monkeypatch.delitem(sys.modules, "etl.page.document", raising=False)
    monkeypatch.delitem(sys.modules, "etl.page.charts", raising=False)
    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(UsageError) as caught:
        write_page(LocalStore(tmp_path), tmp_path / "page.html", now=NOW)
    assert str(caught.value) == (
        "--html needs altair, which is not installed; install the extra: "
        "pip install 'aht-etl[html]' (in a clone: pip install '.[html]')"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["", "none/page.html"])
def test_a_place_for_no_file_is_wrong_usage(tmp_path: Path, place: str) -> None:
    """A folder, or a folder that does not exist, is refused before the lake is read."""
    with pytest.raises(UsageError, match=r"--html .*: not a file in a folder that exists"):
        write_page(LocalStore(tmp_path / "lake"), tmp_path / place, now=NOW)


def test_the_page_is_replaced_in_one_step(tmp_path: Path) -> None:
    """An older page is replaced by the new one, and nothing else is left beside it."""
    put(tmp_path / "lake", HOUR, [row()])
    file = tmp_path / "page.html"
    file.write_text("older")
    write_page(LocalStore(tmp_path / "lake"), file, now=NOW)
    assert file.read_text().endswith("</html>")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["lake", "page.html"]


def test_raw_texts_stay_in_the_quarantine(tmp_path: Path, page_of: Callable[..., Path]) -> None:
    """Of a bad row its reason and its file are shown, never its text."""
    put(tmp_path, HOUR, reasons=["no segmentId"] * 3)
    page = page_of(tmp_path).read_text()
    assert "no segmentId" in page
    assert "Jane Doe" not in page


def test_the_page_refers_to_nothing_outside(tmp_path: Path, page_of: Callable[..., Path]) -> None:
    """No element of the page has an address but its own sections."""
    put(tmp_path, HOUR, [row()])
    page = re.sub(r"<script>.*?</script>", "", page_of(tmp_path).read_text(), flags=re.DOTALL)
    addresses = re.findall(r"(?:href|src|srcset|action)\s*=\s*\"([^\"]*)\"", page)
    assert addresses
    assert all(address.startswith("#") for address in addresses)
    assert set(re.findall(r"url\(([^)]*)\)", page)) == {"#hatch-gap", "#hatch-damaged"}


def test_years_between_hours_do_not_make_a_page_of_empty_days(
    tmp_path: Path, page_of: Callable[..., Path]
) -> None:
    """An hour at the end of time is shown, the millennia before it are one gap."""
    put(tmp_path, HOUR, [row()])
    put(tmp_path, datetime(9999, 12, 31, 23, tzinfo=UTC), [row(2**62)])
    put(tmp_path, datetime(1, 1, 1, tzinfo=UTC), [row(-(2**62))])
    page = page_of(tmp_path)
    assert page.stat().st_size < 2_000_000
    assert page.read_text().count('data-month="') == 2 * 3


def test_years_of_hours_stay_a_page(tmp_path: Path, page_of: Callable[..., Path]) -> None:
    """Of a lake of years the latest two are shown by the hour, all by the month."""
    for month in range(40):
        put(tmp_path, HOUR + timedelta(days=30 * month), [row()])
    text = page_of(tmp_path).read_text()
    assert text.count('data-month="') == 2 * 24
    assert '<th scope="row" class="text">June 2022</th>' in text
