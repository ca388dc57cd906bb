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

from datetime import datetime
from pathlib import Path

from etl.errors import UsageError
from etl.lake.store import Store


def write_page(lake: Store, file: Path, *, now: datetime, account: str | None = None) -> None:
    """Write the page of a lake, or of one account in it, whole or not at all, over an older one.

    All is read from the lake, some parts at a time; those that cannot be read are shown damaged,
    and an empty lake makes a page that says so. `now` is what the page calls the present. Blocking.

    Raises UsageError, before anything is read, where the libraries are missing or `file` is no
    place for a file; LakeError where the lake is no folder that can be read; OSError where `file`
    cannot be written.
    """
    try:
        from etl.page.document import document  # noqa: PLC0415 - only here is the extra needed
    except ImportError as error:
        raise UsageError(
            f"--html needs {error.name}, which is not installed; install the extra: "
            "pip install 'aht-etl[html]' (in a clone: pip install '.[html]')"
        ) from None
    from etl.page.survey import survey  # noqa: PLC0415
    from etl.page.view import view  # noqa: PLC0415
    from etl.report import write_whole  # noqa: PLC0415

    if file.is_dir() or not file.resolve().parent.is_dir():
        raise UsageError(f"--html {file}: not a file in a folder that exists")
    facts = survey(lake, account)
    write_whole(document(view(facts, lake.place, now, account)), file)
