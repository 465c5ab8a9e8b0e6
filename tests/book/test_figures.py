"""Figures and tables: colours by computation, and what the helpers draw."""

import numpy as np
import plotly.graph_objects as go
import pytest

from biolearn_lite.show.figures import curves, dots, heatmap, panels, show, table
from biolearn_lite.show.palette import GREY, PALETTE


def luminance(colour: str) -> float:
    """Relative luminance of an sRGB colour (WCAG 2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("background", ["#FFFFFF", "#121212", "#14181E"])
@pytest.mark.parametrize("colour", [*PALETTE, GREY])
def test_contrast_on_light_and_dark_pages(colour: str, background: str) -> None:
    light, dark = sorted((luminance(colour), luminance(background)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 3


def test_curves_show_the_mean_and_the_seeds_range() -> None:
    figure = curves({"a": [[1, 2], [3, 6]], "b": [5, 5]}, x=[0, 1], x_title="epoch", y_title="accuracy (%)")
    low, high, mean, single = figure.data
    assert (list(low.y), list(high.y), list(mean.y), list(single.y)) == ([1, 2], [3, 6], [2, 4], [5, 5])
    assert mean.line.dash != single.line.dash
    assert mean.line.color != single.line.color
    with pytest.raises(ValueError, match=r"series 'a' has shape \(1, 3\)"):
        curves({"a": [1, 2, 3]}, x=[0, 1], x_title="", y_title="")


def test_dots_show_every_seed_and_the_mean() -> None:
    figure = dots({"p": {"layer 1": [90, 92], "layer 2": [95]}, "q": {"layer 2": [70, 80]}}, x_title="accuracy (%)")
    seeds, means, other, other_mean = figure.data
    assert list(seeds.x) == [90, 92, 95]
    assert list(means.x) == [91, 95]
    assert list(other_mean.x) == [75]
    assert abs(other.y[0] - seeds.y[2]) > 0.2, "two methods of one row must not overlap"
    assert seeds.marker.symbol != other.marker.symbol
    assert figure.layout.yaxis.ticktext == ("layer 1", "layer 2")
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1], "the first row is on top"


def test_heat_maps_are_square_with_the_first_row_on_top() -> None:
    figure = panels([[go.Scatter(y=[1])], [heatmap(np.eye(3), low=-1, high=1)]], titles=["points", "weights"])
    assert (figure.layout.yaxis2.autorange, figure.layout.yaxis2.scaleanchor) == ("reversed", "x2")
    assert figure.layout.yaxis.autorange is None
    colours = dict(figure.data[1].colorscale)
    assert colours[0.5] == "rgb(247,247,247)", "zero is neutral where low = −high"


def test_a_figure_is_never_bare() -> None:
    bundle = show(go.Figure(go.Scatter(y=[1, 2])), alt="Two <points>.")._repr_mimebundle_()
    assert 'role="img" aria-label="Two &lt;points&gt;."' in bundle["text/html"]
    assert bundle["text/plain"] == "Figure: Two <points>."
    assert len(bundle["text/html"]) < 8000, "the template and the script of one figure stay small"


def test_a_table_reads_by_ear_and_in_a_terminal() -> None:
    shown = table([{"rule": "HSIC", "value": 0.25}, {"rule": "pHSIC", "value": 1}], caption="Two & more")
    assert "<caption>Two &amp; more</caption>" in shown.html
    assert '<th scope="col">value</th>' in shown.html
    assert "<th scope=row>HSIC</th><td>0.25</td>" in shown.html
    assert shown.text == "Two & more\nrule   value\nHSIC   0.25\npHSIC  1"
    for rows in ([], [{"a": 1}, {"b": 1}]):
        with pytest.raises(ValueError, match="at least one, all with the same keys"):
            table(rows, caption="none")


def test_a_table_of_measurements_keeps_them_out_of_the_compared_text():
    bundle = table([{"rule": "pHSIC", "accuracy": 96.1}], caption="Digits", measured=True)._repr_mimebundle_()
    assert "96.1" in bundle["text/html"]
    assert bundle["text/plain"] == "Digits"
