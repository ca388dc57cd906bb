"""The page of `aht-etl status --html`: what a lake holds, in one HTML file.

The file needs no network and no server: you can mail it, archive it, open it in ten years. Without
JavaScript it shows the same numbers as tables. Vega draws the charts, because
- its marks are SVG elements with labels of their own: you can walk through the heat map by keyboard
  and have it read aloud, and it follows light and dark by the style sheet's variables. plotly,
  Bokeh and ECharts can only label the picture as a whole;
- its scripts (Vega, BSD-3-Clause) add 0.9 MB to the page; plotly's add 4.8 MB, Bokeh's 1.3 MB and
  numpy. ECharts and uPlot have no maintained Python package;
- it runs without `eval`, so the page's own policy can forbid all but its two scripts;
- pictures without scripts (pygal, matplotlib) have no hover and do not fit a phone.

Its scripts come in vl-convert, a download of 34 MB. That is why the page is an extra,
`aht-etl[html]`.
"""

from datetime import UTC, datetime, tzinfo
from pathlib import Path

from etl.audit.page.facts import gather
from etl.audit.page.months import Clock
from etl.audit.page.view import view
from etl.audit.survey import Comparison, Survey
from etl.model.errors import UsageError
from etl.storage.disk import write_whole
from etl.storage.store import Store, StoreError


def require_page(file: Path) -> None:
    """Raise UsageError if the page's libraries are missing or `file` cannot be a file."""
    try:
        import etl.audit.page.document  # noqa: F401, PLC0415 - only here is the extra needed
    except ImportError as error:
        raise UsageError(
            f"--html needs {error.name}, which is not installed; install the extra: "
            "pip install '.[html]' in a clone, else pip install 'aht-etl[html]'"
        ) from None
    if file.is_dir() or not file.resolve().parent.is_dir():
        raise UsageError(f"--html {file}: not a file in a folder that exists")


def write_page(
    lake: Store,
    survey: Survey,
    file: Path,
    *,
    now: datetime,
    against: Comparison | None = None,
    zone: tzinfo = UTC,
) -> None:
    """Write the page of a survey of the lake, in one step, over an older one. Blocking.

    It reads the rows of all parts in bounded memory and shows damaged ones as damaged. An empty
    lake makes a page that says so. `now` is the present of the page; days and hours are those of
    `zone`. With `against`, the page shows which files the API lists and the lake lacks.

    Raises UsageError, before anything is read, as `require_page` does; StoreError for a copy;
    OSError if `file` cannot be written.
    """
    require_page(file)
    from etl.audit.page.document import document  # noqa: PLC0415 - as in require_page

    if survey.is_copy:
        raise StoreError(f"{lake.place} is a coarse copy: the page is drawn of the lake itself")
    clock = Clock(zone)
    facts = gather(lake, survey, clock.date_of)
    write_whole(document(view(facts, against, lake.place, now, clock)), file)
