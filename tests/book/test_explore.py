"""Explorables: the HTML fragment alone in an empty page, the live controls, and what bad input says."""

import itertools
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import plotly
import plotly.graph_objects as go
import pytest
from explorables import move_every_control
from playwright.sync_api import Browser, Page, Route, expect

from biolearn_lite.show.explore import Control, Explorable, explore
from biolearn_lite.show.figures import heatmap, panels, show
from biolearn_lite.show.fragment import encode

PLOTLY_JS = Path(plotly.__file__).with_name("package_data") / "plotly.min.js"
NOISES = np.linspace(0, 1, 16).round(2)


def draw(shape: str, noise: float, seed: int) -> tuple[go.Figure, dict[str, float]]:
    """Forty points and their two Gram matrices: a typical explorable."""
    generator = np.random.default_rng(seed)
    a = np.linspace(-1, 1, 40)
    b = {"line": a, "parabola": a**2}[shape] + noise * generator.normal(size=40)
    K, L = (np.exp(-((z[:, None] - z) ** 2)) for z in (a, b))
    points = go.Scatter(x=a, y=b, mode="markers")
    figure = panels([[points], [heatmap(K, low=0, high=1)], [heatmap(L, low=0, high=1)]], titles=["points", "K", "L"])
    return figure, {"pHSIC": (K * L).mean() - K.mean() * L.mean(), "correlation": np.corrcoef(a, b)[0, 1]}


def example(**options: Any) -> Explorable:
    controls = {"shape": ["line", "parabola"], "noise": Control(NOISES, unit="mV")}
    return explore(draw, controls, alt="Points & their <similarities>.", seed=0, **options)


@cache
def example_html() -> str:
    return example().html()


# the fragment in a browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page whose only way out is the one file of plotly, answered from the installed wheel."""
    page = browser.new_page()
    page.set_default_timeout(30_000)
    page.requests, page.errors = [], []  # type: ignore[attr-defined]

    def answer(route: Route) -> None:
        page.requests.append(route.request.url)  # type: ignore[attr-defined]
        if route.request.url.startswith("https://cdn.plot.ly/"):
            route.fulfill(path=PLOTLY_JS, content_type="text/javascript; charset=utf-8")
        else:
            route.abort()

    page.route(re.compile("^https?:"), answer)
    page.on("pageerror", lambda error: page.errors.append(str(error)))  # type: ignore[attr-defined]
    page.on("console", lambda message: page.errors.append(message.text))  # type: ignore[attr-defined]
    yield page
    assert page.errors == []  # type: ignore[attr-defined]
    page.close()


def load(page: Page, folder: Path, *fragments: str, head: str = "") -> None:
    path = folder / "page.html"
    path.write_text(f"<!doctype html><meta charset=utf-8>{head}" + "".join(fragments), encoding="utf-8")
    page.goto(path.as_uri())
    expect(page.locator(".plot .main-svg").first).to_be_visible()


def drawn(page: Page, trace: int, key: str = "y", *, plot: int = 0) -> Any:
    """What plotly has drawn: one array of one trace of a plot."""
    return page.evaluate(
        "([plot, trace, key]) => Array.from(document.querySelectorAll('.plot')[plot]._fullData[trace][key],"
        " (row) => row.length ? Array.from(row) : row)",
        [plot, trace, key],
    )


def test_a_fragment_draws_alone(page: Page, tmp_path: Path) -> None:
    load(page, tmp_path, example_html())
    figure, readout = draw("line", 0.0, 0)
    assert page.requests == [f"https://cdn.plot.ly/plotly-{plotly.offline.get_plotlyjs_version()}.min.js"]
    np.testing.assert_allclose(drawn(page, 0), figure.data[0].y, atol=1e-4)
    np.testing.assert_allclose(drawn(page, 2, "z"), figure.data[2].z, atol=0.5 / 255 + 1e-6)
    expect(page.locator("output")).to_have_text(f"pHSIC {readout['pHSIC']:.3g} · correlation 1")


def test_every_control_works_by_keyboard(page: Page, tmp_path: Path) -> None:
    load(page, tmp_path, example_html())
    slider = page.get_by_role("slider", name="noise", exact=True)
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    expect(slider).to_be_focused()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "0.33 mV")
    figure, readout = draw("parabola", 0.33, 0)
    np.testing.assert_allclose(drawn(page, 0), figure.data[0].y, atol=1e-4)
    np.testing.assert_allclose(drawn(page, 2, "z"), figure.data[2].z, atol=0.5 / 255 + 1e-6)
    said = [f"pHSIC {readout['pHSIC']:.3g}", f"correlation {readout['correlation']:.3g}".replace("-", "−")]
    expect(page.locator("output")).to_have_text(" · ".join(said))
    label = f"Points & their <similarities>. shape parabola, noise 0.33 mV, {', '.join(said)}."
    expect(page.locator(".plot")).to_have_accessible_name(label)


def test_play_runs_to_the_end_and_rests(page: Page, tmp_path: Path) -> None:
    load(page, tmp_path, example_html())
    slider, button = page.get_by_role("slider", name="noise", exact=True), page.get_by_role("button", name="Play")
    slider.fill("13")
    button.click()
    expect(page.locator("output")).to_have_attribute("aria-live", "off")
    expect(slider).to_have_value("15")
    expect(button).to_be_visible()
    expect(page.locator("output")).to_have_attribute("aria-live", "polite")
    page.emulate_media(reduced_motion="reduce")
    expect(button).to_be_hidden()


def test_a_figure_can_be_saved_for_a_slide(page: Page, tmp_path: Path) -> None:
    load(page, tmp_path, show(go.Figure(go.Scatter(y=[1, 3, 2])), alt="A line.").html)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as picture").click()
    assert download.value.path().read_bytes().startswith(b"\x89PNG")


def test_text_follows_the_colour_of_the_page(page: Page, tmp_path: Path) -> None:
    style = "<style>body{color:rgb(1,2,3)} html[data-theme=dark] body{color:rgb(250,251,252)}</style>"
    load(page, tmp_path, example_html(), head=style)
    tick = page.locator(".xtick text").first
    expect(tick).to_have_css("fill", "rgb(1, 2, 3)")
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    expect(tick).to_have_css("fill", "rgb(250, 251, 252)")
    assert page.evaluate("getComputedStyle(document.querySelector('.main-svg')).backgroundColor") == "rgba(0, 0, 0, 0)"


def test_many_fragments_share_one_load_and_a_page_that_has_plotly_asks_nobody(page: Page, tmp_path: Path) -> None:
    line = show(go.Figure(go.Scatter(y=[1, 3, 2])), alt="A line.").html
    load(page, tmp_path, line, line, example_html())
    expect(page.locator(".plot .main-svg:first-child")).to_have_count(3)
    assert len(page.requests) == page.locator("script[src]").count() == 1
    page.requests.clear()
    (tmp_path / "plotly.min.js").write_bytes(PLOTLY_JS.read_bytes())
    load(page, tmp_path, line, example_html(), head='<script defer src="plotly.min.js"></script>')
    expect(page.locator(".plot .main-svg:first-child")).to_have_count(2)
    assert page.requests == []


def test_without_plotly_the_text_stays(browser: Browser, tmp_path: Path) -> None:
    page = browser.new_page()
    page.route(re.compile("^https?:"), lambda route: route.abort())
    (tmp_path / "page.html").write_text(example_html(), encoding="utf-8")
    page.goto((tmp_path / "page.html").as_uri())
    expect(page.locator(".plot")).to_contain_text("Points & their <similarities>. (Not drawn")
    page.get_by_text("All values as a table").click()
    expect(page.get_by_role("row")).to_have_count(1 + 2 * 16)
    expect(page.get_by_role("slider")).to_have_count(0)  # controls that could do nothing are not shown
    page.close()


def test_figures_of_different_kinds_can_alternate(page: Page, tmp_path: Path) -> None:
    def either(kind: str, size: int) -> tuple[go.Figure, dict[str, float]]:
        trace = go.Bar(y=[size]) if kind == "bar" else go.Scatter(x=[0, 5], y=[0, size], mode="lines")
        return go.Figure(trace), {"size": size}

    load(page, tmp_path, explore(either, {"kind": ["bar", "line"], "size": range(1, 16)}, alt="Either.").html())
    page.get_by_role("combobox", name="kind", exact=True).select_option("line")
    page.get_by_role("slider", name="size", exact=True).fill("6")
    expect(page.locator(".scatterlayer .js-line")).to_have_count(1)
    assert [drawn(page, 0, "x"), drawn(page, 0)] == [[0, 5], [0, 7]]


# bytes


def test_the_same_explorable_gives_the_same_bytes() -> None:
    assert example().html() == example_html()
    assert 'id="dependence"' in example(id="dependence").html()


def test_a_family_is_stored_without_repetition() -> None:
    figures = [draw(shape, noise, 0)[0] for shape, noise in itertools.product(["line", "parabola"], NOISES)]
    family = json.loads(encode(figures))
    assert family["paths"] == [["data", 0, "y"], ["data", 2, "z"]]
    assert family["base"]["data"][1]["z"]["symmetric"]
    assert len(family["frames"]) == 32
    assert len(encode(figures)) < 32 * 1500 + 4000  # a frame: 40 numbers of 4 bytes and half of 40 × 40, in base64


def test_heat_maps_survive_packing(page: Page, tmp_path: Path) -> None:
    matrices = [np.arange(100.0).reshape(10, 10), np.eye(9), np.zeros((8, 8)), np.full((8, 9), np.nan), np.eye(3) / 3]
    load(page, tmp_path, *(show(go.Figure(heatmap(matrix)), alt="A matrix.").html for matrix in matrices))
    expect(page.locator(".plot .main-svg:first-child")).to_have_count(5)
    for i, matrix in enumerate(matrices):
        cells = np.array(drawn(page, 0, "z", plot=i), dtype=float)
        np.testing.assert_allclose(cells, matrix, atol=np.ptp(matrix) / 510 + 1e-5)


# live


def test_every_live_control_recomputes() -> None:
    assert move_every_control(example()) == 9


def test_a_dead_control_is_noticed() -> None:
    def deaf(noise: float) -> tuple[go.Figure, dict[str, float]]:
        return go.Figure(), {"one": 1}

    with pytest.raises(AssertionError, match="control 'noise' changes nothing"):
        move_every_control(explore(deaf, {"noise": NOISES}, alt="Nothing."))


def test_the_bundle_carries_both_lives() -> None:
    explorable = example()
    bundle = explorable._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == explorable.live.model_id
    assert bundle["text/html"] == explorable.html()
    assert explorable.widgets["noise"].options[1] == ("0.07 mV", 0.07)


def test_a_start_other_than_the_first() -> None:
    explorable = explore(
        draw, {"shape": ["line", "parabola"], "noise": Control(NOISES, start=1.0)}, alt="Points.", seed=0
    )
    assert explorable.widgets["noise"].value == 1.0
    assert 'value="15"' in explorable.html()


# bad input


def nothing(noise: float) -> Any:
    return go.Figure()


def crash(noise: float) -> Any:
    raise ZeroDivisionError("no width")


@pytest.mark.parametrize(
    ("function", "controls", "error", "says"),
    [
        (nothing, {"noise": []}, ValueError, "give at least two"),
        (nothing, {"noise": [0.10001, 0.10002]}, ValueError, "read the same"),
        (nothing, {"noise": Control([1, 2], start=3)}, ValueError, "start 3 is none of its values"),
        (nothing, {}, ValueError, "at least one"),
        (nothing, {"noise": Control([1, 2], label="x"), "b": Control([1, 2], label="x")}, ValueError, "its own label"),
        (nothing, {"noise": range(401)}, ValueError, "more than 400 frames"),
        (nothing, {"nois": [1, 2]}, TypeError, r"nothing\(\) takes \['noise'\], the controls give \['nois'\]"),
        (nothing, {"noise": [1, 2]}, TypeError, r"must return \(plotly figure, readout\), not Figure"),
        (lambda noise: (go.Figure(), {}), {"noise": [1, 2]}, TypeError, "at least one name"),
        (lambda noise: (go.Figure(), {str(noise): 1}), {"noise": [1, 2]}, ValueError, "same names in every frame"),
        (crash, {"noise": [1, 2]}, RuntimeError, r"crash\(\) failed for \{'noise': 1\}: no width"),
    ],
)
def test_bad_input_is_named(function: Any, controls: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        explore(function, controls, alt="Nothing.").html()


def test_a_missing_alt_text_and_a_bad_id_are_named() -> None:
    with pytest.raises(ValueError, match="alt is empty"):
        show(go.Figure(), alt=" ")
    with pytest.raises(ValueError, match="id '1 2' must start with a letter"):
        example(id="1 2").html()
