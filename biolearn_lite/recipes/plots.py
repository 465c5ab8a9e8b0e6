"""A report as pictures: the paper's numbers beside ours, curves over epochs (001, Figure 3) and by layer (Figures 5-8).

Nothing is drawn that no run has made: what is missing stands in the legend or on the axis as *not run yet*.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from biolearn_lite.recipes.report import DIVERGED, NOT_RUN, Report
from biolearn_lite.show import figures

Curves = NDArray[np.float64]


def beside_paper(report: Report, *, x_title: str = "test accuracy, %") -> go.Figure:
    """Every seed as a dot beside the number the paper prints, a line of the picture per cell of the table."""
    names = _names(report)
    ours = {name: row["values"] for name, row in zip(names, report.rows, strict=True)}
    paper = {name: [] if row["paper"] is None else [row["paper"]] for name, row in zip(names, report.rows, strict=True)}
    return figures.dots({"paper": _drawn(paper), "ours": _drawn(ours)}, x_title=x_title)


def learning_curves(report: Report, *, y_title: str = "accuracy, %") -> go.Figure:
    """Test accuracy over epochs, mean and range of seeds; dotted, the mean over the training batches as they went by.

    Raises ValueError if the report has no run with a history.
    """
    histories = {name: row["history"] for name, row in zip(_names(report), report.rows, strict=True)}
    epochs = max((len(run) for runs in histories.values() for run in runs), default=0)
    if not epochs:
        raise ValueError(f"{report.recipe}: no run with a history yet; make one with `python -m biolearn_lite run`")
    x = list(range(1, epochs + 1))
    test = {name: _over_epochs(runs, "test_accuracy", epochs) for name, runs in histories.items()}
    figure = figures.curves(test, x=x, x_title="epoch", y_title=y_title)
    for i, (name, runs) in enumerate(histories.items()):
        line = {"color": figures.PALETTE[i % len(figures.PALETTE)], "dash": "dot", "width": 1.5}
        training = _over_epochs(runs, "running_accuracy", epochs).mean(0)
        if not np.isnan(training).all():
            figure.add_scatter(x=x, y=training, mode="lines", line=line, name=f"{name}, training", showlegend=False)
    return figure


def layer_curves(cell: Mapping[str, Any], *, key: str = "gap", y_title: str) -> go.Figure:
    """What the history tells of every layer, over epochs: of one cell, a dict of `Report.rows`.

    key: "gap" is 001, Eq. 71. Raises ValueError if no run of the cell has it.
    """
    runs = [run for run in cell["history"] if run and key in run[0]]
    if not runs:
        raise ValueError(f"{cell['column']}, {cell['row']}: no run with {key!r} in its history yet")
    epochs, layers = max(map(len, runs)), len(runs[0][0][key])
    series = {
        f"layer {i + 1}": _over_epochs([[{key: epoch[key][i]} for epoch in run] for run in runs], key, epochs)
        for i in range(layers)
    }
    return figures.curves(series, x=list(range(1, epochs + 1)), x_title="epoch", y_title=y_title)


def _names(report: Report) -> list[str]:
    """Of the cells: what tells them apart, and whether there is something to see."""
    rows, columns = ({cell[key] for cell in report.rows} for key in ("row", "column"))
    alone = (len(columns) == 1, len(rows) == 1)
    return [_name(cell, *alone) for cell in report.rows]


def _name(cell: Mapping[str, Any], one_column: bool, one_row: bool) -> str:
    name = cell["row"] if one_column else cell["column"] if one_row else f"{cell['column']}, {cell['row']}"
    failed = cell["seeds"] and len(cell["failed"]) == len(cell["seeds"])
    return f"{name} ({DIVERGED if failed else NOT_RUN})" if failed or not cell["seeds"] else str(name)


def _drawn(cells: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    """Cells without a number still take their line of the picture."""
    return {name: values or [np.nan] for name, values in cells.items()}


def _over_epochs(runs: Sequence[Sequence[Mapping[str, Any]]], key: str, epochs: int) -> Curves:
    """One line per run, (runs, epochs); not a number where a run has none, shorter runs at their end."""
    lines = [[epoch.get(key) for epoch in run] + [None] * (epochs - len(run)) for run in runs]
    return np.array(lines or [[None] * epochs], dtype=float)
