"""One HTML document that holds all it needs: style, scripts, charts, data. It fetches nothing.

The charts are written in Vega-Lite (charts.json.jinja), compiled to Vega and drawn in the reader's
browser. Colours are variables of the style sheet, so the charts follow the page from light to dark.
A mark shows its `label` on hover.
"""

import base64
import hashlib
import json
from functools import cache
from importlib import resources
from typing import Any, Final

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

#: All that the page's own script calls of the library.
_SNIPPET: Final = "window.vegaEmbed = vegaEmbed;"
#: The version of Vega-Lite in which charts.json.jinja is written, as vl-convert names it.
_VEGA_LITE: Final = "6.4"

# The colours of a cell of the heat map, of its border and of its text: for the levels of a number,
# for marks, and for hours outside the lake.
_COLOURS: Final = {
    **{n: (f"var(--level-{n})", "transparent", f"var(--ink-{n})") for n in "012345"},
    **{
        mark: (f"url(#hatch-{mark})", f"var(--{mark})", f"var(--{mark})")
        for mark in ("gap", "missing", "damaged")
    },
    "outside": ("transparent", "transparent", "var(--muted)"),
}


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
        charts=_specifications(environment, context["clock"].name),
        fills={level: (fill, border) for level, (fill, border, _) in _COLOURS.items()},
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


def _specifications(environment: Environment, zone: str) -> dict[str, dict[str, Any]]:
    """Return the Vega specification of each chart by name; hours are those of `zone`."""
    template = environment.get_template("charts.json.jinja")
    charts = json.loads(template.render(zone=zone, colours=_COLOURS))
    common = charts.pop("common")
    return {
        name: vl_convert.vegalite_to_vega({**chart, **common}, vl_version=_VEGA_LITE)
        for name, chart in charts.items()
    }
