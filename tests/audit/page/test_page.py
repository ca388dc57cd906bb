"""The file of the page: atomic, without raw texts, and a clear error without the extra."""

import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from etl.audit.page import write_page
from etl.audit.survey import Survey, survey
from etl.lake.layout import Selection
from etl.model.errors import UsageError
from etl.storage.local import LocalStore
from tests.audit.page.conftest import NOW, put, row

HOUR = datetime(2022, 6, 1, 6, tzinfo=UTC)


def surveyed(lake: Path) -> tuple[LocalStore, Survey]:
    store = LocalStore(lake)
    return store, survey(store, Selection(), NOW)


def test_a_missing_library_is_one_line_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the extra nothing is read or written, and the error names it."""
    monkeypatch.delitem(sys.modules, "etl.audit.page.document", raising=False)
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(UsageError) as caught:
        write_page(*surveyed(tmp_path), tmp_path / "page.html", now=NOW)
    assert str(caught.value) == (
        "--html needs vl_convert, which is not installed; install the extra: "
        "pip install '.[html]' in a clone, else pip install 'aht-etl[html]'"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["", "none/page.html"])
def test_a_place_for_no_file_is_wrong_usage(tmp_path: Path, place: str) -> None:
    """A folder, or a folder that does not exist, is refused before the parts are read."""
    with pytest.raises(UsageError, match=r"--html .*: not a file in a folder that exists"):
        write_page(*surveyed(tmp_path / "lake"), tmp_path / place, now=NOW)


def test_the_page_is_replaced_in_one_step(tmp_path: Path) -> None:
    """The new page replaces an older one, and leaves no other file."""
    put(tmp_path / "lake", HOUR, [row()])
    file = tmp_path / "page.html"
    file.write_text("older")
    write_page(*surveyed(tmp_path / "lake"), file, now=NOW)
    assert file.read_text().endswith("</html>")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["lake", "page.html"]


def title_of(page: Path) -> str:
    text = page.read_text()
    found = re.search(
        r'<section id="summary".*?class="verdict (\w+)">\s*<h2 [^>]*>(.*?)</h2>', text, re.DOTALL
    )
    assert found
    return f"{found[1]}: {found[2].strip()}"


def days_of(page: Path) -> list[str]:
    """Return the mark and the verdict of each day."""
    cells = re.findall(r'<span class="mark \w+"[^>]*>(.)</span> (.*?)</td>', page.read_text())
    return [f"{mark} {re.sub('<.*?>', '', said)}" for mark, said in cells]


def test_the_edges_of_the_lake_are_open(tmp_path: Path, page_of: Callable[..., Path]) -> None:
    """A day is complete with all its hours. At the lake's edges a day has no tick."""
    for number in range(2, 67):
        put(tmp_path, datetime(2022, 6, 1, tzinfo=UTC) + timedelta(hours=number), [row()])
    page = page_of(tmp_path, now=NOW + timedelta(days=9))
    assert title_of(page) == "open: No gaps so far"
    assert days_of(page) == [
        "… 22 of 24 hours so far; not known at 00:00 to 02:00",
        "✓ every hour has files",
        "… 19 of 24 hours so far; not known at 19:00 to 24:00",
    ]


def test_a_window_says_which_hours_are_expected(
    tmp_path: Path, page_of: Callable[..., Path]
) -> None:
    """All its hours without files are gaps, also outside of the lake's hours."""
    start = datetime(2022, 6, 1, tzinfo=UTC)
    for number in range(2, 24):
        put(tmp_path, start + timedelta(hours=number), [row()])
    page = page_of(tmp_path, selection=Selection(None, start, start + timedelta(days=1)))
    assert title_of(page) == "no: 2 hours of 24 are missing"
    assert days_of(page) == ["✕ 22 of 24 hours; a gap at 00:00 to 02:00"]
    held = Selection(None, start + timedelta(hours=2), start + timedelta(hours=9))
    page = page_of(tmp_path, selection=held)
    assert title_of(page) == "yes: Every hour has files"
    assert days_of(page) == ["… 7 of 24 hours so far; not known at 00:00 to 02:00, 09:00 to 24:00"]
    # Nobody can expect files of hours that have not come.
    later = Selection(None, start + timedelta(hours=2), start + timedelta(days=9))
    page = page_of(tmp_path, selection=later, now=start + timedelta(hours=25))
    assert title_of(page) == "no: 1 hour of 23 is missing"


def test_gaps_are_listed_newest_first(tmp_path: Path, page_of: Callable[..., Path]) -> None:
    """Of all accounts together, each with its account."""
    for offset in (0, 2, 5):
        put(tmp_path, HOUR + timedelta(hours=offset), [row()])
    for offset in (0, 2):
        put(tmp_path, HOUR + timedelta(hours=offset), [row()], account="123")
    found = re.findall(
        r"<li>Wed 1 June 2022, (\S+) to \S+ of (\w+) ", page_of(tmp_path).read_text()
    )
    assert found == [("09:00", "le79344075"), ("07:00", "le79344075"), ("07:00", "123")]


def test_what_is_nothing_is_not_shown(tmp_path: Path, page_of: Callable[..., Path]) -> None:
    """Without bad rows there is no share of them, no section, no button and no link to it."""
    put(tmp_path, HOUR, [row()])
    page = page_of(tmp_path).read_text()
    assert "<dt>Rows quarantined</dt><dd>none</dd>" in page
    assert "quarantine" not in re.sub(
        r"<(script|style).*?</\1>|quarantined", "", page, flags=re.DOTALL
    )
    put(tmp_path, HOUR, [row()], reasons=["no segmentId"])
    page = page_of(tmp_path).read_text()
    assert "<dd><span>1</span> <small>33.33 %</small></dd>" in page
    assert 'href="#quarantine"' in page


def test_days_and_hours_in_a_time_zone(tmp_path: Path, page_of: Callable[..., Path]) -> None:
    """Each hour counts on the local day on which it starts, also when clocks change."""
    start = datetime(2022, 10, 28, 22, tzinfo=UTC)  # midnight in Amsterdam
    for number in range(24 + 25):
        if number != 27:  # the second hour that is called 02:00
            put(tmp_path, start + timedelta(hours=number), [row()])
    page = page_of(tmp_path, zone=ZoneInfo("Europe/Amsterdam"), now=start + timedelta(days=9))
    assert days_of(page) == [
        "✓ every hour has files",
        "✕ 24 of 25 hours; a gap at 02:00 to 03:00",
    ]
    text = page.read_text()
    assert "days and hours in Europe/Amsterdam" in text
    assert "<li>Sun 30 October 2022, 02:00 to 03:00 <span>1 hour</span></li>" in text
    assert '<th scope="col">02</th><th scope="col">02b</th><th scope="col">03</th>' in text


def test_raw_texts_stay_in_the_quarantine(tmp_path: Path, page_of: Callable[..., Path]) -> None:
    """The page shows the reason and the file of a bad row, never its text."""
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
    assert set(re.findall(r"url\(([^)]*)\)", page)) == {
        "#hatch-gap",
        "#hatch-missing",
        "#hatch-damaged",
    }


def test_years_between_hours_do_not_make_a_page_of_empty_days(
    tmp_path: Path, page_of: Callable[..., Path]
) -> None:
    """An hour in year 9999 is shown; the millennia before it are one gap."""
    put(tmp_path, HOUR, [row()])
    put(tmp_path, datetime(9999, 12, 31, 23, tzinfo=UTC), [row(2**62)])
    put(tmp_path, datetime(1, 1, 1, tzinfo=UTC), [row(-(2**62))])
    page = page_of(tmp_path)
    assert page.stat().st_size < 2_000_000
    assert page.read_text().count('data-month="') == 2 * 3


def test_years_of_hours_stay_a_page(tmp_path: Path, page_of: Callable[..., Path]) -> None:
    """The latest two years are shown by the hour, all years by the month."""
    for month in range(40):
        put(tmp_path, HOUR + timedelta(days=30 * month), [row()])
    text = page_of(tmp_path).read_text()
    assert text.count('data-month="') == 2 * 24
    assert '<th scope="row" class="text">June 2022</th>' in text
