"""The page behind `aht-etl status --html`: what a lake holds, for people, in one HTML file.

The file needs no network and no server: it can be mailed, archived, opened in ten years. It is
drawn with Vega-Altair, chosen among the libraries that can draw without a network because
- it draws SVG whose marks are elements with labels of their own: the heat map can be walked by
  keyboard and read aloud, and follows light and dark by the style sheet's variables; plotly, Bokeh
  and ECharts label the picture as a whole at most;
- its scripts (Vega, BSD-3-Clause) take 0.9 MB of the page; plotly's take 4.8 MB, Bokeh's 1.3 MB and
  a numpy beside them; ECharts' and uPlot's come in no maintained Python package;
- it runs without `eval`, so the page's own policy can forbid all but its two scripts;
- a picture without scripts (pygal, matplotlib) has neither hover nor a layout that fits a phone.

Its price is vl-convert, 34 MB to download, which brings those scripts: hence the extra,
`aht-etl[html]`. Without JavaScript the page shows the same numbers as tables.
"""

from datetime import UTC, datetime, tzinfo
from pathlib import Path

from etl.audit.comparison import Comparison
from etl.audit.survey import Survey
from etl.model.errors import UsageError
from etl.storage.store import LakeError, Store


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

    Raises UsageError, before anything is read, as `require_page` does; LakeError for a coarse copy;
    OSError if `file` cannot be written.
    """
    require_page(file)
    from etl.audit.page.document import document  # noqa: PLC0415
    from etl.audit.page.facts import gather  # noqa: PLC0415
    from etl.audit.page.formats import Clock  # noqa: PLC0415
    from etl.audit.page.view import view  # noqa: PLC0415
    from etl.storage.disk import write_whole  # noqa: PLC0415

    if survey.is_copy:
        raise LakeError(f"{lake.place} is a coarse copy: the page is drawn of the lake itself")
    clock = Clock(zone)
    facts = gather(lake, survey, clock)
    write_whole(document(view(facts, against, lake.place, now, clock)), file)
