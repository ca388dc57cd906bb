"""Draw results.json as results.svg: `python -m tests.bench.plot`; needs the extra `html`."""

import json
from pathlib import Path
from typing import Any

import altair as alt

_FOLDER = Path(__file__).parent


def main() -> None:
    """Draw a bar for each program on each workload. Ours are darker."""
    lines: list[dict[str, Any]] = json.loads((_FOLDER / "results.json").read_text())
    shade = alt.condition("datum.name == 'aht-etl'", alt.value("#1f5fa8"), alt.value("#9db4cc"))
    data = alt.Data(values=lines)  # type: ignore[no-untyped-call]
    bars = alt.Chart(data).encode(
        x=alt.X("wall_s:Q", title="wall time, seconds (less is better)"),
        y=alt.Y("name:N", title=None, sort="x", axis=alt.Axis(labelLimit=220)),
    )
    labels = bars.mark_text(align="left", dx=3, color="#444").encode(
        text=alt.Text("wall_s:Q", format=".1f")
    )
    layers = alt.layer(bars.mark_bar().encode(color=shade), labels).properties(width=420, height=90)
    chart = (
        layers.facet(row=alt.Row("test:N", title=None))
        .resolve_scale(x="independent", y="independent")
        .configure(background="white")
    )
    chart.save(str(_FOLDER / "results.svg"))


if __name__ == "__main__":
    main()
