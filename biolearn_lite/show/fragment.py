"""A piece of HTML that draws one plotly figure, or a family of figures chosen by plain HTML controls, on its own.

A family is stored once: what all its figures share, the paths at which they differ, a pool of the values met there, and
for each frame the numbers of its values in the pool. Numbers keep five significant digits, long arrays become base64,
the cells of a heat map one byte each. `fragment.js`, which every fragment carries, puts a frame together and draws it.
Nothing is fetched where the page already has plotly; anywhere else the matching version is loaded, once per page.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs_version

from biolearn_lite.show.palette import TEMPLATE

Where = tuple[str | int, ...]
Array = np.ndarray[Any, np.dtype[np.float64]]

SCRIPT = re.sub(r"\n\s*", "\n", Path(__file__).with_name("fragment.js").read_text(encoding="utf-8").strip())
STYLE = """
.biolearn{margin:1rem 0;display:flow-root}
.biolearn .controls{display:flex;flex-wrap:wrap;gap:.5rem 1.5rem;align-items:center;margin-bottom:.5rem}
.biolearn label{display:inline-flex;flex-wrap:wrap;gap:.5rem;align-items:center;margin:0}
.biolearn label span{min-width:4rem;font-variant-numeric:tabular-nums}
.biolearn input{width:14rem;max-width:100%}
.biolearn output{display:block;margin:.5rem 0;font-weight:600;font-variant-numeric:tabular-nums}
.biolearn .scroll{max-height:20rem;overflow:auto}
.biolearn th,.biolearn td{padding:.1rem .6rem;text-align:right}
.biolearn .save{float:right;border:0;padding:0;background:none;color:inherit;font-size:.8em;text-decoration:underline}
@media (prefers-reduced-motion:reduce){.biolearn .play{display:none}}
"""
UNSEEN = "(The figure is drawn once scripts may run: trust this notebook, or run its cells.)"


def fragment(
    figures: Sequence[go.Figure],
    *,
    alt: str,
    controls: str = "",
    readout: str = "",
    table: str = "",
    name: str | None = None,
) -> str:
    """The HTML of a family of figures; `controls`, `readout` and `table` are HTML too, empty for a single figure.

    `name` becomes the id of the outer element; without one it is derived from the content, so that a notebook which is
    run again stores the same bytes. Raises ValueError for a missing alt text and for a name that is no HTML id.
    """
    if not alt.strip():
        raise ValueError("alt is empty: say in one or two sentences what the figure shows")
    frames = encode(figures)
    name = name or "figure-" + hashlib.sha256((alt + controls + table + frames).encode()).hexdigest()[:10]
    if not re.fullmatch(r"[A-Za-z][\w-]*", name):
        raise ValueError(f"id {name!r} must start with a letter and hold only letters, digits, - and _")
    height = figures[0].layout.height or 450
    text = html.escape(alt)
    return (
        f'<div class="biolearn" id="{name}"><style>{STYLE}</style>{controls}'
        f'<div class="plot" role="img" aria-label="{text}" style="min-height:{height}px">{text} {UNSEEN}</div>'
        f'<button type="button" class="save" style="display:none">Save as picture</button>{readout}{table}'
        f'<script class="frames" type="application/json">{frames}</script></div>'
        f'<script>{SCRIPT}("{name}", "{get_plotlyjs_version()}")</script>'
    )


def encode(figures: Sequence[go.Figure]) -> str:
    """JSON of a family of figures: {base, paths, pool, frames}, as described at the top of this page."""
    plain = [_plain(figure) for figure in figures]
    leaves = [dict(_leaves(figure)) for figure in plain]
    if any(other.keys() != leaves[0].keys() for other in leaves):  # not one shape: whole figures are the leaves
        leaves = [{("data",): figure["data"], ("layout",): figure["layout"]} for figure in plain]
    texts = [{path: _json(_compact(path, leaf)) for path, leaf in figure.items()} for figure in leaves]
    paths = [path for path in texts[0] if len({figure[path] for figure in texts}) > 1]
    pool = {text: i for i, text in enumerate(dict.fromkeys(figure[path] for figure in texts for path in paths))}
    frames = [[pool[figure[path]] for path in paths] for figure in texts]
    base: Any = plain[0]
    for path, text in texts[0].items():
        parent = base
        for key in path[:-1]:
            parent = parent[key]
        parent[path[-1]] = None if path in paths else json.loads(text)
    return (
        f'{{"base":{_json(base)},"paths":{_json(paths)},"pool":[{",".join(pool)}],"frames":{_json(frames)}}}'
    ).replace("</", "<\\/")


def _plain(figure: go.Figure) -> dict[str, Any]:
    """The figure as dictionaries and lists, with the book's template in place of plotly's (6 kB)."""
    plain: dict[str, Any] = figure.to_plotly_json()
    plain["layout"]["template"] = TEMPLATE
    return plain


def _leaves(node: Any, path: Where = ()) -> Iterator[tuple[Where, Any]]:
    """All (path, value) of a figure; arrays, and lists of anything but dictionaries, are values."""
    if isinstance(node, dict) and node and "bdata" not in node:
        for key, value in node.items():
            yield from _leaves(value, (*path, key))
    elif isinstance(node, (list, tuple)) and node and all(isinstance(item, dict) for item in node):
        for i, value in enumerate(node):
            yield from _leaves(value, (*path, i))
    else:
        yield path, node


def _compact(path: Where, leaf: Any) -> Any:
    """The smallest JSON value that draws the same."""
    if isinstance(leaf, float):
        return _round(leaf)
    array = _numbers(leaf)
    if array is None:
        return leaf
    if array.ndim == 2:
        small = array.size < 64 or path[-1] != "z" or not np.isfinite(array).all()
        return [[_round(value) for value in row] for row in array.tolist()] if small else _cells(array)
    values = [_round(value) for value in array.tolist()]
    if path[0] != "data" or None in values:
        return values
    packed = {"dtype": "f4", "bdata": base64.b64encode(np.array(values, dtype="<f4").tobytes()).decode()}
    return min(values, packed, key=lambda value: len(_json(value)))


def _numbers(leaf: Any) -> Array | None:
    """A list of numbers or one of plotly's typed arrays, as float64; None for anything else."""
    if isinstance(leaf, dict) and "bdata" in leaf:
        array = np.frombuffer(base64.b64decode(leaf["bdata"]), dtype=leaf["dtype"]).astype(float)
        return array.reshape([int(n) for n in leaf["shape"].split(",")]) if "shape" in leaf else array
    if isinstance(leaf, (list, tuple)) and leaf and all(type(value) in (int, float) for value in leaf):
        return np.array(leaf, dtype=float)
    return None


def _round(value: float) -> float | None:
    """Five significant digits, whole numbers in full, nothing (a gap) for what is not finite."""
    if not np.isfinite(value):
        return None
    rounded = value if float(value).is_integer() else float(f"{value:.5g}")
    return int(rounded) if rounded.is_integer() else rounded


def _cells(array: Array) -> dict[str, Any]:
    """A heat map's cells as one byte each between the smallest and the largest value; a symmetric one as a triangle."""
    low, high = (float(f"{value:.5g}") for value in (array.min(), array.max()))
    cells = np.round((array - low) / ((high - low) or 1.0) * 255).clip(0, 255).astype(np.uint8)
    rows, columns = cells.shape
    symmetric = rows == columns and bool((cells == cells.T).all())
    packed = base64.b64encode((cells[np.triu_indices(rows)] if symmetric else cells).tobytes()).decode()
    return {"cells": packed, "low": low, "high": high, "rows": rows, "columns": columns, "symmetric": symmetric}


def html_table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], *, row_heads: int = 1) -> str:
    """A table with a caption and scoped headers; the first `row_heads` cells of each row head that row."""

    def cell(tag: str, text: str) -> str:
        return f"<{tag}>{html.escape(text)}</{tag.split()[0]}>"

    head = "".join(cell('th scope="col"', text) for text in heads)
    body = "".join(
        f"<tr>{''.join(cell('th scope=row' if i < row_heads else 'td', text) for i, text in enumerate(row))}</tr>"
        for row in rows
    )
    return (
        f'<table class="table"><caption>{html.escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
