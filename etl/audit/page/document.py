"""One HTML document that holds all it needs: style, scripts, charts, data. It fetches nothing.

The charts are written with Altair, compiled to Vega and drawn in the reader's browser. Each chart's
data set is named `data`, and the page's script fills it. Colours are variables of the style sheet,
so the charts follow the page from light to dark. A mark shows its `label` on hover.
"""

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any, Final

import altair as alt
import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

#: All that the page's own script calls of the library.
_SNIPPET: Final = "window.vegaEmbed = vegaEmbed;"
#: The version of Vega-Lite that Altair writes, as vl-convert names it.
_VEGA_LITE: Final = alt.SCHEMA_VERSION.removeprefix("v").rpartition(".")[0]

# The colours of the heat map's cells: of the levels of a number, of marks, and outside the lake.
_MARKS: Final = ("gap", "missing", "damaged")
_LEVELS: Final = (*"012345", *_MARKS, "outside")
_BORDER: Final = {mark: f"var(--{mark})" for mark in _MARKS}
_FILL: Final = {
    **{level: f"var(--level-{level})" for level in "012345"},
    **{mark: f"url(#hatch-{mark})" for mark in _MARKS},
    "outside": "transparent",
}
_INK: Final = {
    **{level: f"var(--ink-{level})" for level in "012345"},
    **_BORDER,
    "outside": "var(--muted)",
}
#: The width of the labels at the left: charts below each other start at one line.
_LEFT_PX: Final = 52
_NAMES_PX: Final = 120
#: Where a log axis of seconds is labelled.
_SECONDS: Final = [0.01, 0.1, 1, 5, 10, 30, 60, 300, 600, 1800, 3600, 36_000, 360_000]
_SECONDS_LABEL: Final = (
    "datum.value < 60 ? datum.value + ' s' : datum.value < 3600 ? datum.value / 60 + ' min' "
    ": datum.value / 3600 + ' h'"
)
_COUNT_LABEL: Final = (
    "datum.value >= 1e6 ? format(datum.value / 1e6, ',~f') + ' M' "
    ": datum.value >= 1e4 ? format(datum.value / 1e3, ',~f') + ' k' : format(datum.value, ',~f')"
)
#: A day by its date, an hour within it by its time.
_TIME_LABEL: Final = (
    "utchours(datum.value) ? utcFormat(datum.value, '%H:%M') : utcFormat(datum.value, '%-d %b')"
)
_CONFIG: Final[dict[str, Any]] = {
    "background": "transparent",
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif",
    "view": {"stroke": "transparent"},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
    },
}


_Chart = alt.LayerChart | alt.FacetChart  # as Altair declares its `properties`


def document(context: dict[str, Any]) -> str:
    """Return the page of a view.

    All texts from the lake are escaped, in HTML and in the data island. The document's own policy
    lets a browser run only the page's two scripts, by their hashes, and load nothing. So a script
    in a text would not run even if escaping failed.
    """
    environment = Environment(
        loader=PackageLoader("etl.audit.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _own("page.js")
    library = _library() if context["months"] else ""
    page = environment.get_template("page.html").render(
        **context,
        charts=_specifications(context["clock"].name),
        fills={level: (_FILL[level], _BORDER.get(level, "transparent")) for level in _LEVELS},
        style=Markup(_own("page.css")),  # noqa: S704 - our own files
        library=Markup(library),  # noqa: S704
        script=Markup(script),  # noqa: S704
        policy=(
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
            f"script-src {_hash(library)} {_hash(script)}"
        ),
    )
    # A name or a reason can hold half a surrogate pair, which UTF-8 cannot.
    return page.encode("utf-8", "replace").decode()


def _own(name: str) -> str:
    return (resources.files("etl.audit.page") / name).read_text(encoding="utf-8")


@cache
def _library() -> str:
    """Return Vega and Vega-Embed in the version of the charts. Bundling takes a second."""
    return _for_script(vl_convert.javascript_bundle(_SNIPPET, vl_version=_VEGA_LITE))


def _for_script(text: str) -> str:
    """Return a script with the line ends of a browser, for its hash, and without an end tag."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script")


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _specifications(zone: str) -> dict[str, dict[str, Any]]:
    """Return the Vega specification of each chart by name; hours are those of `zone`."""
    return {
        "coverage": _specification(_coverage(zone)),
        "rows": _specification(_timeline("rows", "rows an hour")),
        "handle": _specification(_timeline("handle", "hours handled in an hour")),
        "segments": _specification(_timeline("segments", "segments a day", border="var(--card)")),
        "mean": _specification(_timeline("mean", "minutes a segment", border="var(--card)")),
        "reasons": _specification(_reasons()),
        "counts": _specification(_counts()),
    }


def _specification(chart: _Chart) -> dict[str, Any]:
    specification = chart.to_dict()
    specification["config"] = _CONFIG
    specification["autosize"] = {"type": "fit-x", "contains": "padding"}
    compiled: dict[str, Any] = vl_convert.vegalite_to_vega(specification, vl_version=_VEGA_LITE)
    return compiled


def _base() -> alt.Chart:
    return alt.Chart(alt.NamedData("data"))


def _scale(colours: dict[str, str], default: str = "transparent") -> alt.Scale:
    return alt.Scale(domain=list(_LEVELS), range=[colours.get(level, default) for level in _LEVELS])


def _coverage(zone: str) -> _Chart:
    cells = _base().encode(
        x=alt.X(
            "hour:O",
            title=f"hour of the day ({zone})",
            axis=alt.Axis(orient="top", labelAngle=0, labelOverlap="parity", domain=False,
                          ticks=False),
            scale=alt.Scale(paddingInner=0.08),
        ),
        y=alt.Y(
            "day:N",
            sort=None,
            title=None,
            axis=alt.Axis(domain=False, ticks=False, labelPadding=6),
            scale=alt.Scale(paddingInner=0.12),
        ),
    )  # fmt: skip
    rectangles = cells.mark_rect(cornerRadius=2, strokeWidth=1).encode(
        color=alt.Color("level:N", scale=_scale(_FILL), legend=None),
        stroke=alt.Stroke("level:N", scale=_scale(_BORDER), legend=None),
        tooltip="label:N",
        description="label:N",
    )
    # Numbers where there is room; what is no number is marked on every screen.
    texts = cells.mark_text(fontSize=11, aria=False, clip=True).encode(
        text="text:N",
        color=alt.Color("level:N", scale=_scale(_INK), legend=None),
        opacity=alt.when("datum.mark || width > 640").then(alt.value(1)).otherwise(alt.value(0)),
    )
    # The texts let the pointer through to their cells: the style sheet's doing.
    layers = alt.layer(rectangles, texts).properties(width="container", height=alt.Step(25))
    chart: _Chart = layers.resolve_scale(color="independent")
    return chart


def _timeline(field: str, title: str, border: str = "transparent") -> _Chart:
    span = _base().encode(
        x=alt.X(
            "from:T",
            title=None,
            scale=alt.Scale(type="utc"),
            axis=alt.Axis(
                labelExpr=_TIME_LABEL,
                grid=False,
                tickCount=alt.ExprRef("ceil(width / 90)"),
                labelBound=True,
            ),
        ),
        x2="to:T",
    )
    gaps = span.transform_filter("datum.gap").mark_rect(color="var(--gap-wash)", aria=False)
    bars = span.mark_bar(color="var(--bar)", aria=False, stroke=border).encode(
        y=alt.Y(
            f"{field}:Q",
            title=title,
            axis=alt.Axis(
                tickCount=4, labelExpr=_COUNT_LABEL, minExtent=_LEFT_PX, maxExtent=_LEFT_PX
            ),
        ),
        y2=alt.datum(0),
        tooltip="label:N",
    )
    return alt.layer(gaps.encode(tooltip="label:N"), bars).properties(width="container", height=150)


def _reasons() -> _Chart:
    # Room for the share at the right.
    scale = alt.Scale(type="log", nice=False, rangeMax=alt.ExprRef("width - 44"))
    axis = alt.Axis(values=_SECONDS, labelExpr=_SECONDS_LABEL, labelOverlap=True)

    def at(field: str) -> alt.X:
        return alt.X(f"{field}:Q", scale=scale)

    reasons = _base().encode(
        y=alt.Y("name:N", sort=None, title=None, axis=_names(_NAMES_PX)), tooltip="label:N"
    )
    whole = reasons.mark_rule(opacity=0, aria=False).encode(
        x=alt.X("low:Q", title=None, scale=scale, axis=axis), x2="high:Q"
    )
    whiskers = reasons.mark_rule(color="var(--muted)", strokeWidth=1.5, aria=False)
    boxes = reasons.mark_bar(color="var(--bar-soft)", size=16, aria=False)
    medians = reasons.mark_tick(color="var(--bar)", thickness=3, size=20, aria=False)
    means = reasons.mark_point(
        color="var(--text)", fill="var(--card)", size=36, strokeWidth=1.5, opacity=1, aria=False
    )
    shares = reasons.mark_text(align="right", fontSize=11, color="var(--muted)", aria=False)
    layers = alt.layer(
        whole,
        whiskers.encode(x=at("p10"), x2="p90:Q"),
        boxes.encode(x=at("p25"), x2="p75:Q"),
        medians.encode(x=at("p50")),
        means.encode(x=at("mean")),
        shares.encode(x=alt.value("width"), text="share:N"),
    )
    return layers.properties(width="container", height=alt.Step(30))


def _names(px: int) -> alt.Axis:
    return alt.Axis(
        domain=False, ticks=False, labelLimit=px, labelPadding=6, minExtent=px, maxExtent=px
    )


def _counts() -> _Chart:
    counts = _base().encode(
        y=alt.Y(
            "name:N",
            sort=None,
            title=None,
            axis=alt.Axis(domain=False, ticks=False, labelLimit=170, labelPadding=6),
        ),
        x=alt.X(
            "count:Q",
            title=None,
            # Room for the number behind the longest bar.
            scale=alt.Scale(rangeMax=alt.ExprRef("width - 48")),
            axis=alt.Axis(tickCount=4, format=",d", tickMinStep=1, labelOverlap=True),
        ),
        tooltip="label:N",
    )
    bars = counts.mark_bar(cornerRadius=2, aria=False).encode(
        color=alt.when("datum.stress")
        .then(alt.value("var(--gap)"))
        .otherwise(alt.value("var(--bar)"))
    )
    texts = counts.mark_text(
        align="left", dx=4, fontSize=11, color="var(--muted)", aria=False
    ).encode(text="text:N")  # fmt: skip
    return alt.layer(bars, texts).properties(width="container", height=alt.Step(26))
