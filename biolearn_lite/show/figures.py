"""The book's figures: plotly figures in one palette, shown so that a page without a kernel or network draws them.

`show(figure, alt=...)` is a cell's last line; a bare plotly figure there would be dropped by the book's build. The
helpers cover the figures that return in many chapters: Gram matrices, learning curves and accuracies over seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from biolearn_lite.show.fragment import fragment, html_table
from biolearn_lite.show.palette import DASHES, DIVERGING, GREY, MARKERS, PALETTE, SEQUENTIAL

__all__ = ["DIVERGING", "GREY", "PALETTE", "SEQUENTIAL", "curves", "dots", "heatmap", "panels", "show", "table"]


@dataclass(frozen=True)
class Shown:
    """Something to see: HTML for a page or a notebook, text for a terminal."""

    html: str
    text: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}


def show(figure: go.Figure, *, alt: str) -> Shown:
    """A figure as a cell's last line; `alt` says in one or two sentences what it shows."""
    return Shown(fragment([figure], alt=alt), f"Figure: {alt}")


def heatmap(matrix: Any, *, low: float | None = None, high: float | None = None, bar: bool = True) -> go.Heatmap:
    """A matrix as a trace, first row on top; `low` and `high` fix the colours across panels and frames.

    Colours are sequential, or diverging around zero when low = −high.
    """
    diverging = low is not None and high is not None and low == -high
    return go.Heatmap(
        z=np.asarray(matrix, dtype=float),
        zmin=low,
        zmax=high,
        colorscale=DIVERGING if diverging else SEQUENTIAL,
        showscale=bar,
        colorbar={"thickness": 12, "outlinewidth": 0},
        hovertemplate="row %{y}, column %{x}: %{z:.2f}<extra></extra>",
    )


def panels(columns: Sequence[Sequence[Any]], *, titles: Sequence[str], height: int = 300) -> go.Figure:
    """Panels side by side: one list of traces and one title each. Heat maps become squares without ticks."""
    figure = make_subplots(rows=1, cols=len(columns), subplot_titles=list(titles), horizontal_spacing=0.08)
    for i, traces in enumerate(columns, start=1):
        for trace in traces:
            figure.add_trace(trace, row=1, col=i)
        if any(isinstance(trace, go.Heatmap) for trace in traces):
            x = f"x{i}" if i > 1 else "x"
            figure.update_yaxes(
                autorange="reversed", scaleanchor=x, constrain="domain", showticklabels=False, ticks="", col=i
            )
            figure.update_xaxes(constrain="domain", showticklabels=False, ticks="", col=i)
    return figure.update_annotations(font_size=14).update_layout(height=height, showlegend=False)


def curves(
    series: Mapping[str, Any], *, x: Sequence[float], x_title: str, y_title: str, height: int = 360
) -> go.Figure:
    """Mean lines with a band from the lowest to the highest seed.

    series: name → (seeds, len(x)), or (len(x),) for a single run. Raises ValueError if a length differs from x.
    """
    figure, x = go.Figure(), list(x)
    for i, (name, values) in enumerate(series.items()):
        runs = np.atleast_2d(np.asarray(values, dtype=float))
        if runs.ndim != 2 or runs.shape[1] != len(x):
            raise ValueError(f"series {name!r} has shape {runs.shape}, must be (seeds, {len(x)}) like x")
        colour = PALETTE[i % len(PALETTE)]
        if len(runs) > 1:
            edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
            figure.add_scatter(x=x, y=runs.min(0), **edge)
            figure.add_scatter(x=x, y=runs.max(0), fill="tonexty", fillcolor=_transparent(colour), **edge)
        figure.add_scatter(
            x=x, y=runs.mean(0), mode="lines", name=name, line={"color": colour, "dash": DASHES[i % len(DASHES)]}
        )
    return figure.update_layout(
        xaxis_title=x_title, yaxis_title=y_title, height=height, legend_traceorder="normal", hovermode="x unified"
    )


def dots(groups: Mapping[str, Mapping[str, Sequence[float]]], *, x_title: str, height: int | None = None) -> go.Figure:
    """Every seed as a dot, its mean as a line: groups[method][row] is a list over seeds, rows from top to bottom."""
    rows = list(dict.fromkeys(row for values in groups.values() for row in values))
    figure = go.Figure()
    for i, (name, values) in enumerate(groups.items()):
        colour, offset = PALETTE[i % len(PALETTE)], (i - (len(groups) - 1) / 2) * 0.6 / len(groups)
        at = {row: rows.index(row) + offset for row in values}
        x = [value for seeds in values.values() for value in seeds]
        y = [at[row] for row, seeds in values.items() for _ in seeds]
        marker = {"color": colour, "symbol": MARKERS[i % len(MARKERS)], "size": 9}
        figure.add_scatter(x=x, y=y, mode="markers", name=name, marker=marker, hovertemplate="%{x:.3g}")
        means = [float(np.mean(seeds)) for seeds in values.values()]
        line = {"color": colour, "symbol": "line-ns", "size": 16, "line": {"color": colour, "width": 3}}
        hidden = {"showlegend": False, "hoverinfo": "skip"}
        figure.add_scatter(x=means, y=list(at.values()), mode="markers", marker=line, **hidden)
    figure.update_yaxes(
        tickvals=list(range(len(rows))), ticktext=rows, range=[len(rows) - 0.5, -0.5], zeroline=False, showgrid=False
    )
    return figure.update_layout(xaxis_title=x_title, height=height or 120 + 34 * len(rows) * len(groups))


def table(rows: Sequence[Mapping[str, Any]], *, caption: str, measured: bool = False) -> Shown:
    """Rows with the same keys as an accessible table; the first key's values head the rows.

    Numbers are shown as they are given: round them first. `measured` ones differ a little from machine to machine, so
    the text, which is compared when a chapter is tested, leaves them out. Raises ValueError for no rows or other keys.
    """
    if not rows or any(list(row) != list(rows[0]) for row in rows):
        raise ValueError(f"rows must be at least one, all with the same keys: {[list(row) for row in rows]}")
    heads, cells = list(rows[0]), [[str(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    text = [] if measured else ["  ".join(map(str.ljust, line, widths)).rstrip() for line in (heads, *cells)]
    return Shown(html_table(caption, heads, cells), "\n".join([caption, *text]))


def _transparent(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.2)"
