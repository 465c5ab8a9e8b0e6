"""Pictures of reports: what is drawn is what the runs say, and what is missing is said to be."""

import numpy as np
import pytest

from biolearn_lite.recipes import plots
from biolearn_lite.recipes.report import Report


def cell(row, column="digits", *, values=(), paper=None, histories=(), failed=()):
    seeds = list(range(len(values) + len(failed)))
    return {
        "row": row,
        "column": column,
        "values": list(values),
        "paper": paper,
        "seeds": seeds,
        "history": list(histories),
        "failed": dict.fromkeys(failed, "why"),
    }


def history(*tests, **lists):
    return [{"test_accuracy": t} | {key: values[i] for key, values in lists.items()} for i, t in enumerate(tests)]


def by_name(figure):
    return {trace.name: trace for trace in figure.data if trace.name}


def test_papers_numbers_stand_beside_ours():
    report = Report("toy", [cell("a", values=[1.0, 3.0], paper=2.5), cell("b", paper=7.0), cell("c", failed=[0])])
    figure = plots.beside_paper(report)
    drawn = by_name(figure)
    assert list(figure.layout.yaxis.ticktext) == ["a", "b (not run yet)", "c (diverged)"]
    assert [x for x in drawn["ours"].x if not np.isnan(x)] == [1.0, 3.0]
    assert [x for x in drawn["paper"].x if not np.isnan(x)] == [2.5, 7.0]
    assert [trace.x[0] for trace in figure.data if trace.name is None] == [2.5, 2.0]  # the means


def test_cells_of_several_columns_are_told_apart():
    report = Report("toy", [cell("a", "x", values=[1.0]), cell("a", "y", values=[2.0])])
    assert list(plots.beside_paper(report).layout.yaxis.ticktext) == ["x", "y"]
    report.rows.append(cell("b", "y", values=[2.0]))
    assert list(plots.beside_paper(report).layout.yaxis.ticktext) == ["x, a", "y, a", "y, b"]


def test_learning_curves_are_means_over_seeds_with_their_range():
    runs = [history(10.0, 20.0, running_accuracy=[5.0, 6.0]), history(30.0, 40.0, running_accuracy=[7.0, 9.0])]
    report = Report("toy", [cell("a", values=[20.0, 40.0], histories=runs), cell("b")])
    figure = plots.learning_curves(report)
    drawn = by_name(figure)
    assert list(drawn["a"].x) == [1, 2]
    assert list(drawn["a"].y) == [20.0, 30.0]
    assert list(drawn["a, training"].y) == [6.0, 7.5]
    assert drawn["a, training"].line.color == drawn["a"].line.color
    low, high = (trace for trace in figure.data[:2])
    assert (list(low.y), list(high.y)) == ([10.0, 20.0], [30.0, 40.0])
    assert np.isnan(drawn["b (not run yet)"].y).all()


def test_shorter_runs_end_earlier():
    report = Report(
        "toy",
        [cell("a", values=[1.0], histories=[history(1.0, 2.0)]), cell("b", values=[3.0], histories=[history(3.0)])],
    )
    drawn = by_name(plots.learning_curves(report))
    assert drawn["b"].y[0] == 3.0
    assert np.isnan(drawn["b"].y[1])
    assert "a, training" not in drawn


def test_curves_by_layer():
    runs = [history(0.0, 0.0, gap=[[0.4, 0.1], [0.2, None]]), history(0.0, 0.0, gap=[[0.6, 0.3], [0.4, 0.5]])]
    drawn = by_name(plots.layer_curves(cell("a", values=[1.0, 2.0], histories=runs), y_title="Eq. 71"))
    np.testing.assert_allclose(drawn["layer 1"].y, [0.5, 0.3])
    assert drawn["layer 2"].y[0] == pytest.approx(0.2)
    assert np.isnan(drawn["layer 2"].y[1])


def test_nothing_to_draw_is_said():
    with pytest.raises(ValueError, match="toy: no run with a history yet"):
        plots.learning_curves(Report("toy", [cell("a"), cell("b", failed=[0], histories=[[]])]))
    with pytest.raises(ValueError, match="digits, a: no run with 'gap' in its history"):
        plots.layer_curves(cell("a", values=[1.0], histories=[history(1.0)]), y_title="")
