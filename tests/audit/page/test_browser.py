"""The page in a real browser: by pointer, by keyboard, on a phone, in dark colours."""

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from etl.emulator import Dataset, EmulatorOptions, run_in_thread
from etl.model.paths import BreakdownPath
from tests.audit.page.conftest import Browser, put, row
from tests.conftest import COMMAND, environment, load
from tests.lakes import receipts

PageOf = Callable[..., Path]
CELLS = "#chart-coverage path[role=graphics-symbol]"
TUESDAY = datetime(2022, 6, 7, tzinfo=UTC)


@pytest.fixture(scope="module")
def gaps(tmp_path_factory: pytest.TempPathFactory, page_of: PageOf) -> Path:
    """Return the page of three days with a gap, a damaged part, late files and bad rows."""
    lake = tmp_path_factory.mktemp("gaps") / "lake"
    for number in range(72):
        hour = TUESDAY + timedelta(hours=number)
        if number in {27, 28}:
            continue
        written = int((hour + timedelta(hours=30 if number == 5 else 2)).timestamp() * 1000)
        name = f"sequences.{written}.20220607000000.{number:05d}.json.gz"
        reasons = ["no segmentId"] * 20 if number < 50 else []
        put(lake, hour, [row(60_000)] * (number + 1), name=name, reasons=reasons)
    broken = put(lake, TUESDAY + timedelta(hours=40))
    broken.write_bytes(b"PAR1 and no more")
    return page_of(lake, now=TUESDAY + timedelta(days=3))


@pytest.fixture(scope="module")
def missing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """Return the page of two days that lack some hours, compared with the vendor, and their files.

    A gap in the middle, and the last hours.
    """
    folder = tmp_path_factory.mktemp("missing")
    start, end = datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 6, 3, tzinfo=UTC)
    dataset = Dataset.generate(1, start, end, files_per_hour=2, rows_per_file=5, late_share=0)
    with run_in_thread(dataset, EmulatorOptions(oldest=None)) as emulator:
        load(emulator, folder / "lake")
        for day, hour in ((1, 3), *((2, hour) for hour in range(19, 24))):
            shutil.rmtree(folder / f"lake/year=2022/month=6/day={day}/hour={hour}")
        command = [
            *(COMMAND, "status", "--lake", "lake", "--against", "api", "--html", "page.html"),
            *("--account", "le79344075", "--base-url", emulator.base_url),
        ]
        window = {"AHT_ETL_WINDOW__FROM": "2022-06-01", "AHT_ETL_WINDOW__TO": "2022-06-03"}
        subprocess.run(
            command, env=environment(**window), cwd=folder, check=True, capture_output=True
        )
    hours = [start + timedelta(hours=n) for n in (3, *range(43, 48))]
    lost = Counter(BreakdownPath.parse(path).partition.hour for path in dataset.files)
    return folder / "page.html", {f"{hour:%H:%M}": lost[hour] for hour in hours}


def labels(browser: Browser) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.ariaLabel)"
    found: list[str] = browser.js(script, CELLS)
    return found


def test_each_cell_says_what_the_lake_holds(
    browser: Browser, loaded: Path, page_of: PageOf
) -> None:
    """The heat map's files and rows, hour by hour, are those of its receipts."""
    browser.open(page_of(loaded))
    seen = []
    for label in labels(browser):
        match = re.match(
            r"\w+ (\d+) June 2022, (\d\d):00 to \d\d:00: ([\d,]+) files?, ([\d,]+) rows?, ", label
        )
        assert match, label
        day, hour, files, rows = (int(text.replace(",", "")) for text in match.groups())
        seen.append((day, hour, files, rows))
    held: dict[tuple[int, int], list[int]] = {(d, h): [0, 0] for d in (1, 2) for h in range(24)}
    for receipt in receipts(loaded):
        partition = BreakdownPath.parse(receipt["path"]).partition
        numbers = held[partition.hour.day, partition.hour.hour]
        numbers[0] += 1
        numbers[1] += receipt["rows"]
    assert [(*hour, *numbers) for hour, numbers in sorted(held.items())] == seen


def test_nothing_is_requested_and_nothing_complains(
    browser: Browser, loaded: Path, page_of: PageOf
) -> None:
    """The page loads itself alone, under a policy that forbids all else, without a warning."""
    page = page_of(loaded)
    browser.open(page)
    assert browser.requests() == [page.as_uri()]
    assert browser.complaints() == []


def test_every_chart_is_drawn_and_described(browser: Browser, gaps: Path) -> None:
    """Each chart is an SVG with marks, a text alternative and a table beside it."""
    browser.open(gaps)
    # Of one month there is nothing to choose.
    assert not browser.driver.find_element(By.ID, "month").is_displayed()
    drawn = browser.js(
        "return [...document.querySelectorAll('.chart')].map(e => [e.id, "
        "e.querySelectorAll('svg path, svg text').length, e.ariaLabel, "
        "e.closest('section').querySelectorAll('table').length])"
    )
    assert [name for name, *_ in drawn] == [
        "chart-coverage", "chart-segments", "chart-mean", "chart-rows", "chart-handle",
        "chart-starts", "chart-ends", "chart-lateness", "chart-quarantine",
    ]  # fmt: skip
    for name, marks, label, tables in drawn:
        assert marks > 5, name
        assert label, name
        assert tables, name


def test_gaps_and_damage_are_marked_not_by_colour_alone(browser: Browser, gaps: Path) -> None:
    """Missing and damaged hours have a hatching, a sign, and words."""
    browser.open(gaps)
    cells = browser.js(
        "return [...document.querySelectorAll(arguments[0])]"
        ".map(e => [e.ariaLabel, e.getAttribute('fill')])",
        CELLS,
    )
    hatched = {label.split(": ")[0]: fill for label, fill in cells if "hatch" in fill}
    assert hatched == {
        "Wed 8 June 2022, 03:00 to 04:00": "url(#hatch-gap)",
        "Wed 8 June 2022, 04:00 to 05:00": "url(#hatch-gap)",
        "Wed 8 June 2022, 16:00 to 17:00": "url(#hatch-damaged)",
    }
    signs = browser.js(
        "return [...document.querySelectorAll('#chart-coverage .mark-text text')]"
        ".map(e => e.textContent).filter(t => '×!'.includes(t) && t)"
    )
    assert sorted(signs) == ["!", "×", "×"]
    heading = browser.driver.find_element(By.ID, "summary-title").text
    assert heading == "2 hours of 72 are missing, 1 part cannot be read"
    days = browser.driver.find_elements(By.CSS_SELECTOR, ".days tbody tr")
    assert [day.find_elements(By.TAG_NAME, "td")[0].text for day in days] == [
        "✓ every hour has files",
        "✕ 21 of 24 hours; a gap at 03:00 to 05:00; damaged at 16:00 to 17:00",
        "✓ every hour has files · files may still come",
    ]


def test_hovering_tells_the_details(browser: Browser, gaps: Path) -> None:
    """The pointer over an hour shows its numbers, near the pointer and below the map."""
    browser.open(gaps)
    cell = browser.driver.find_elements(By.CSS_SELECTOR, CELLS)[5]
    browser.js("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", cell)
    ActionChains(browser.driver).move_to_element(cell).perform()
    browser.until("return !!document.querySelector('#vg-tooltip-element.visible')")
    said = browser.js("return document.getElementById('vg-tooltip-element').innerText")
    assert said.startswith(
        "Tue 7 June 2022, 05:00 to 06:00: 1 file, 6 rows, 6.0 min handled, 20 rows quarantined, "
        "1 file more than a day late, last loaded "
    )
    assert browser.driver.find_element(By.ID, "readout").text == said


def test_the_keyboard_walks_the_heat_map(browser: Browser, gaps: Path) -> None:
    """Tab reaches the skip link first, later one cell; arrows, Home and End move among cells."""
    browser.open(gaps)
    body = browser.driver.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.TAB)
    assert browser.js("return document.activeElement.className") == "skip"
    for _ in range(40):
        if browser.js("return document.activeElement.matches(arguments[0])", CELLS):
            break
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
    walked = []
    for key in (None, Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.END, Keys.ARROW_LEFT, Keys.HOME):
        if key:
            browser.driver.switch_to.active_element.send_keys(key)
        label = browser.js("return document.activeElement.ariaLabel")
        assert browser.driver.find_element(By.ID, "readout").text in {
            label,
            "Point at an hour, tap it, or walk with Tab and the arrow keys.",
        }
        walked.append(label.split(":00 to")[0])
    assert walked == [
        "Tue 7 June 2022, 00",
        "Tue 7 June 2022, 01",
        "Wed 8 June 2022, 01",
        "Wed 8 June 2022, 23",
        "Wed 8 June 2022, 22",
        "Wed 8 June 2022, 00",
    ]
    width = browser.js("return getComputedStyle(document.activeElement).strokeWidth")
    assert width == "3px"
    assert browser.js("return document.querySelectorAll(arguments[0] + '[tabindex=\"0\"]').length",
                      CELLS) == 1  # fmt: skip


def test_the_heat_map_shows_other_numbers(browser: Browser, gaps: Path) -> None:
    """The buttons change what the cells show, their legend, and which button is pressed."""
    browser.open(gaps)
    text = "return document.querySelector('#chart-coverage .mark-text text:nth-child(6)').innerHTML"
    assert browser.js(text) == "1"
    before = browser.driver.find_element(By.ID, "legend").text
    browser.driver.find_element(By.CSS_SELECTOR, "[data-metric=rows]").click()
    browser.until(f"{text} === '6'")
    pressed = browser.driver.find_elements(By.CSS_SELECTOR, "[data-metric][aria-pressed=true]")
    assert [button.text for button in pressed] == ["Rows"]
    assert browser.driver.find_element(By.ID, "legend").text != before


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_in_light_and_dark(browser: Browser, gaps: Path, dark: bool) -> None:
    """Every text colour stands out from its ground by 4.5 to 1 (WCAG AA), numbers in cells too."""
    browser.open(gaps, dark=dark)
    pairs = [(f"--ink-{n}", f"--level-{n}") for n in range(6)]
    pairs += [(name, "--card") for name in ("--text", "--muted", "--accent", "--good")]
    pairs += [("--gap", "--gap-wash"), ("--damaged", "--damaged-wash"), ("--muted", "--paper")]
    pairs += [("--card", "--accent"), ("--gap", "--card"), ("--damaged", "--card")]
    ratios = browser.js(
        """
        const probe = document.body.appendChild(document.createElement("i"));
        const light = (name) => {
          probe.style.color = `var(${name})`;
          const parts = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map((part) => {
            const c = part / 255;
            return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
          });
          return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2] + 0.05;
        };
        return arguments[0].map(([a, b]) =>
          Math.max(light(a), light(b)) / Math.min(light(a), light(b)));
        """,
        pairs,
    )
    assert [pair for pair, ratio in zip(pairs, ratios, strict=True) if ratio < 4.5] == []


def test_it_follows_the_system_and_the_switch(browser: Browser, gaps: Path) -> None:
    """Light or dark is the system's choice until the reader makes one; charts follow."""
    ground = "return getComputedStyle(document.body).backgroundColor"
    cell = f"return getComputedStyle(document.querySelector('{CELLS}')).fill"
    browser.open(gaps)
    light = browser.js(ground), browser.js(cell)
    browser.open(gaps, dark=True)
    dark = browser.js(ground), browser.js(cell)
    assert light[0] == "rgb(246, 247, 249)"
    assert dark[0] == "rgb(17, 20, 24)"
    assert light[1] != dark[1]
    for theme, expected in (("light", light), ("dark", dark), ("auto", dark)):
        browser.driver.find_element(By.CSS_SELECTOR, f"button[data-theme={theme}]").click()
        assert (browser.js(ground), browser.js(cell)) == expected


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_reaches_beyond_the_screen(browser: Browser, gaps: Path, width: int) -> None:
    """The page itself never scrolls sideways, with its tables closed and open."""
    browser.open(gaps, width=width)
    wide = "return document.documentElement.scrollWidth <= window.innerWidth"
    assert browser.js(wide)
    assert browser.js("return document.querySelector('#chart-coverage svg').clientWidth") > 250
    browser.js("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert browser.js(wide)


def test_charts_under_each_other_begin_at_one_line(browser: Browser, gaps: Path) -> None:
    """Rows and handle time share their hours, reasons their axis of time, whatever the labels."""
    for width in (390, 1280):
        browser.open(gaps, width=width)
        marks = (
            "const box = (name) => document.querySelector(`#chart-${name} .mark-rect.role-mark path"
            ".background, #chart-${name} .role-axis-grid line`).getBoundingClientRect();"
            "return [box(arguments[0]).left, box(arguments[1]).left,"
            " box(arguments[0]).right, box(arguments[1]).right]"
        )
        left, other_left, right, other_right = browser.js(marks, "rows", "handle")
        assert (left, right) == (other_left, other_right)
        ticks = (
            "return arguments[0].map((name) => {"
            " const svg = document.querySelector(`#chart-${name} svg`);"
            " const left = svg.getBoundingClientRect().left;"
            " return [...svg.querySelectorAll('.role-axis-label text')].filter((text) =>"
            " /[0-9] (s|min|h)$/.test(text.textContent)).map((text) => [text.textContent,"
            " Math.round(text.getBoundingClientRect().left - left)]); })"
        )
        starts, ends = browser.js(ticks, ["starts", "ends"])
        assert starts == ends
        assert starts


def test_a_table_that_goes_on_says_so(browser: Browser, gaps: Path) -> None:
    """On a narrow screen its edge says that there is more, until it is scrolled to its end."""
    days = "document.querySelector('.days').closest('.scroll')"
    cue = f"getComputedStyle({days}.parentElement, '::after').content"
    browser.open(gaps, width=390)
    browser.until(f"return {cue}.includes('more')")
    browser.js(f"{days}.scrollLeft = 10000")
    browser.until(f"return {cue} === 'none'")
    assert browser.driver.find_element(By.CSS_SELECTOR, ".narrow").is_displayed()
    browser.open(gaps, width=1280)
    assert browser.js(f"return {cue}") == "none"
    assert not browser.driver.find_element(By.CSS_SELECTOR, ".narrow").is_displayed()


def test_local_hours_are_drawn_and_walked(
    browser: Browser, tmp_path: Path, page_of: PageOf
) -> None:
    """On days on which clocks change too: arrows go to the same hour of the next day."""
    start = datetime(2022, 10, 28, 22, tzinfo=UTC)
    for number in range(24 + 25 + 24):
        put(tmp_path, start + timedelta(hours=number), [row()])
    browser.open(page_of(tmp_path, zone=ZoneInfo("Europe/Amsterdam")))
    found = labels(browser)
    assert len(found) == 3 * 25
    assert found[3] == "Sat 29 Oct: clocks change, there is no such hour"
    assert [label.split(": ")[0] for label in found[27:29]] == [
        "Sun 30 October 2022, 02:00 to 02:00",
        "Sun 30 October 2022, 02:00 to 03:00",
    ]
    browser.driver.find_element(By.CSS_SELECTOR, f"{CELLS}:nth-child(5)").send_keys(Keys.ARROW_DOWN)
    assert browser.js("return document.activeElement.ariaLabel").startswith(
        "Sun 30 October 2022, 03:00 to 04:00: 1 file"
    )
    assert browser.complaints() == []


def test_what_the_vendor_lists_and_the_lake_lacks(
    browser: Browser, missing: tuple[Path, dict[str, int]]
) -> None:
    """Its hours have a sign, a legend and words, and a table says how many files."""
    page, lost = missing
    browser.open(page)
    said = dict(label.split(": ", 1) for label in labels(browser))
    count = lost["03:00"]
    files = f"{count} file{'' if count == 1 else 's'}"
    assert (
        said["Wed 1 June 2022, 03:00 to 04:00"] == f"the vendor lists {files} that the lake lacks"
    )
    assert said["Thu 2 June 2022, 23:00 to 24:00"].endswith("that the lake lacks")
    signs = browser.js(
        "return [...document.querySelectorAll('#chart-coverage .mark-text text')]"
        ".filter(e => e.textContent === '?').length"
    )
    assert signs == len(lost)
    assert "listed files are missing" in browser.driver.find_element(By.ID, "legend").text
    table = browser.driver.find_element(By.CSS_SELECTOR, "#missing tbody").text.splitlines()
    assert table[0] == f"Wed 1 June 2022, 03:00 to 04:00 {count} {count}"
    assert len(table) == len(lost)
    title = browser.driver.find_element(By.ID, "summary-title").text
    assert title == f"1 hour of 43 is missing, {sum(lost.values())} listed files are not loaded"
    days = browser.driver.find_elements(By.CSS_SELECTOR, ".days td:nth-child(2)")
    assert [day.text.partition(" ")[0] for day in days] == ["✕", "✕"]
    assert (
        f"{count} listed file{'' if count == 1 else 's'} missing at 03:00 to 04:00" in days[0].text
    )


def test_without_scripts_the_tables_stay(browser: Browser, gaps: Path) -> None:
    """Without JavaScript all tables are open, and elements that need it are hidden."""
    browser.open(gaps, drawn=False, scripts=False)
    try:
        shown = browser.driver.find_elements(By.CSS_SELECTOR, "table.grid")
        assert [table.is_displayed() for table in shown] == [True] * 3
        assert "gap" in shown[0].text
        hidden = browser.driver.find_elements(By.CSS_SELECTOR, ".chart, .metrics, .theme, select")
        assert not any(element.is_displayed() for element in hidden)
    finally:
        browser.screen()


def test_the_latest_days_and_each_month_can_be_chosen(
    browser: Browser, tmp_path: Path, page_of: PageOf
) -> None:
    """The latest days come first, across months; the selection shows one month and its tables."""
    lake = tmp_path / "lake"
    for day in range(70):
        put(lake, datetime(2022, 4, 1, 12, tzinfo=UTC) + timedelta(days=day), [row()])
    browser.open(page_of(lake))
    days = "return document.querySelectorAll(arguments[0]).length / 24"
    shown = (
        "return [...document.querySelectorAll('#coverage .month[data-month]')]"
        ".filter(e => !e.hidden).map(e => e.dataset.month)"
    )
    assert browser.js(days, CELLS) == 31
    assert browser.js(shown) == ["2022-06", "2022-05"]
    browser.driver.find_element(By.CSS_SELECTOR, "#month option[value='2022-04']").click()
    browser.until("return document.querySelectorAll(" + repr(CELLS) + ").length === 720")
    assert browser.js(shown) == ["2022-04"]
    assert not browser.driver.find_element(By.ID, "older").is_enabled()
    browser.driver.find_element(By.ID, "newer").click()
    browser.until("return document.querySelectorAll(" + repr(CELLS) + ").length === 744")
    assert browser.js("return document.getElementById('month').value") == "2022-05"
    assert browser.complaints() == []


def test_what_a_lake_holds_is_never_run(browser: Browser, tmp_path: Path, page_of: PageOf) -> None:
    """Reasons and names that contain markup or script are shown as text."""
    attack = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>'\"`${1}"
    lake = tmp_path / "lake <b>x</b>"
    put(lake, TUESDAY, [row(start=attack, end=attack)], run=attack, reasons=[attack, "\ud800"])
    browser.open(page_of(lake))
    assert browser.js("return window.hacked") is None
    assert browser.js("return document.querySelectorAll('img, b').length") == 0
    assert browser.complaints() == []
    reason = "return document.querySelector('#chart-quarantine ~ details tbody th').textContent"
    assert browser.js(reason) == attack


def test_one_accounts_gap_is_not_filled_by_another(
    browser: Browser, tmp_path: Path, page_of: PageOf
) -> None:
    """An hour that one account misses is marked, though another has files in it."""
    for number in range(3):
        put(tmp_path, TUESDAY + timedelta(hours=number), [row()], account="123")
        if number != 1:
            put(tmp_path, TUESDAY + timedelta(hours=number), [row()], account="456")
    browser.open(page_of(tmp_path))
    assert browser.driver.find_element(By.ID, "summary-title").text == "1 hour of 6 is missing"
    assert labels(browser)[1].startswith(
        "Tue 7 June 2022, 01:00 to 02:00: gap, no files of account 456; there are: 1 file, 1 row,"
    )
    verdict = browser.driver.find_element(By.CSS_SELECTOR, ".days tbody td").text
    assert verdict.startswith("✕ 2 of 24 hours; a gap at 01:00 to 02:00; not known at 03:00")


def test_hours_at_both_ends_of_time_are_drawn(
    browser: Browser, tmp_path: Path, page_of: PageOf
) -> None:
    """Absurd years, sums and quantiles are shown as they are."""
    put(tmp_path, datetime(1, 1, 1, tzinfo=UTC), [row(-(2**62)), row(0)])
    put(tmp_path, TUESDAY)
    put(tmp_path, datetime(9999, 12, 31, 23, tzinfo=UTC), [row(2**62)])
    browser.open(page_of(tmp_path))
    assert len(labels(browser)) == 72
    assert browser.complaints() == []


def test_an_empty_lake_says_so(browser: Browser, tmp_path: Path, page_of: PageOf) -> None:
    """The page of an empty lake says what to do, and has no charts."""
    page = page_of(tmp_path / "lake")
    browser.open(page, drawn=False, width=360)
    assert browser.driver.find_element(By.TAG_NAME, "h2").text == "This lake is empty"
    assert browser.js("return document.documentElement.scrollWidth") <= 360
    assert browser.complaints() == []
    assert browser.requests() == [page.as_uri()]
