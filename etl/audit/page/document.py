"""One HTML document that holds all it needs: style, scripts, data; nothing is fetched."""

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any, Final

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from etl.audit.page.charts import fills, specifications, vega_lite

#: All that the page's own script calls of the library.
_SNIPPET: Final = "window.vegaEmbed = vegaEmbed;"


def document(context: dict[str, Any]) -> str:
    """Return the page of a view.

    Whatever comes from the lake is escaped, in HTML and in the data island. The document's own
    policy lets a browser run the two scripts that it was made with, known by their hashes, and
    load nothing: should an escape fail, what got through would still not run.
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
        charts=specifications(context["clock"].name),
        fills=fills(),
        style=Markup(_own("page.css")),  # noqa: S704 - our own files
        library=Markup(library),  # noqa: S704
        script=Markup(script),  # noqa: S704
        policy=(
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
            f"script-src {_hash(library)} {_hash(script)}"
        ),
    )
    # Half a surrogate pair, in a name or a reason, is no text that a file can hold.
    return page.encode("utf-8", "replace").decode()


def _own(name: str) -> str:
    return (resources.files("etl.audit.page") / name).read_text(encoding="utf-8")


@cache
def _library() -> str:
    """Return Vega and Vega-Embed, of the version that the charts are written for.

    Bundling takes a second: done once a process.
    """
    return _for_script(vl_convert.javascript_bundle(_SNIPPET, vl_version=vega_lite()))


def _for_script(text: str) -> str:
    """Return a script as a browser reads it: with one kind of line end, and no early end."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script")


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
