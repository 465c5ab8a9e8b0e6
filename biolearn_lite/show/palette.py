"""Colours that colour-blind readers can tell apart on white pages and on dark ones, and the plotly template with them.

Four hues of Okabe and Ito's set have a contrast of at least 3 : 1 against both backgrounds (the others vanish on
white); `GREY` is for reference lines. Where two curves meet, their dashes or markers differ too: colour is never alone.
"""

from typing import Any

BLUE, VERMILLION, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7F7F7F"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE)
DASHES = ("solid", "dash", "dot", "dashdot")
MARKERS = ("circle", "diamond", "square", "x", "triangle-up", "cross", "star")
SEQUENTIAL, DIVERGING = "Cividis", "PuOr"

_AXIS = {
    "gridcolor": "rgba(127,127,127,0.25)",
    "linecolor": GREY,
    "zerolinecolor": "rgba(127,127,127,0.6)",
    "ticks": "outside",
    "tickcolor": GREY,
    "automargin": True,
}
TEMPLATE: dict[str, Any] = {
    "layout": {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": list(PALETTE),
        "font": {"color": GREY, "size": 14},
        "margin": {"l": 60, "r": 20, "t": 40, "b": 55},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "shapedefaults": {"line": {"color": GREY}},
        "hovermode": "closest",
    }
}
