"""The built book, opened from disk in a real browser without a network, in light and in dark mode, by keyboard.

The pages are built from the outputs stored in the chapters: that those are what a chapter prints is nbval's to prove.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import make_book
import pytest
import yaml
from playwright.sync_api import Browser, Page, expect

ROOT = Path(__file__).resolve().parents[2]

TOC = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [TOC["root"], *(entry["file"] for part in TOC["parts"] for entry in part["chapters"])]
LARGEST = 1_500_000
KNOWN = "thebe"

# Ratio of the luminances of every visible text and what is behind it; WCAG asks 4.5, or 3 for large type.
LOW_CONTRAST = """() => {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return text.startsWith("color(srgb") ? [255 * r, 255 * g, 255 * b, a] : [r, g, b, a];
  };
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];
  const light = (colour) => {
    const [r, g, b] = colour.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    const layers = [];
    for (; node; node = node.parentElement) layers.push(parse(getComputedStyle(node).backgroundColor));
    return layers.reverse().reduce((under, layer) => over(layer, under), [255, 255, 255, 1]);
  };
  const low = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text; (text = walker.nextNode()); ) {
    const node = text.parentElement, style = getComputedStyle(node);
    if (!text.data.trim() || node.closest("script, style, dialog, mjx-assistive-mml, [aria-hidden=true]")) continue;
    if (!node.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    const back = behind(node), ink = node.closest("svg text") ? style.fill : style.color;
    const [a, b] = [light(over(parse(ink), back)), light(back)].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.6 && +style.fontWeight >= 700);
    const ratio = (a + 0.05) / (b + 0.05);
    const name = node.className.baseVal ?? node.className;
    if (ratio < (large ? 3 : 4.5)) low.push(`${ratio.toFixed(2)} ${name}: ${text.data.trim().slice(0, 40)}`);
  }
  return low;
}"""


@pytest.fixture(scope="module")
def site() -> Path:
    """The folder of pages, built with every warning an error."""
    return make_book.build(ROOT / "book" / "_build" / "stored", execute="off", quiet=True)


def open_page(browser: Browser, url: str) -> Page:
    """The page at `url`; `page.errors` and `page.requests` collect what it should not do."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page.set_default_timeout(15_000)
    page.errors, page.requests = [], []  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.errors.append(str(error)))  # type: ignore[attr-defined]
    page.on("console", lambda message: message.type == "error" and page.errors.append(message.text))  # type: ignore[attr-defined]
    page.on("requestfailed", lambda request: page.errors.append(f"failed: {request.url}"))  # type: ignore[attr-defined]
    page.on("request", lambda request: page.requests.append(request.url))  # type: ignore[attr-defined]
    page.context.set_offline(True)
    page.goto(url)
    page.wait_for_function("!document.querySelector('.math') || window.MathJax?.startup?.promise")
    page.evaluate("window.MathJax?.startup?.promise?.then(() => null)")
    page.wait_for_timeout(300)  # for scripts that start late
    return page


@pytest.fixture(scope="module", params=PAGES)
def page(request: Any, browser: Browser, site: Path) -> Iterator[Page]:
    page = open_page(browser, (site / f"{request.param}.html").as_uri())
    yield page
    page.close()


def test_no_error_and_nothing_from_outside(page: Page) -> None:
    assert [error for error in page.errors if KNOWN not in error.lower()] == []  # type: ignore[attr-defined]
    outside = [url for url in page.requests if urlsplit(url).scheme in ("http", "https", "ws")]  # type: ignore[attr-defined]
    assert outside == []


def test_every_equation_is_typeset(page: Page) -> None:
    left = "[...document.querySelectorAll('.math')].filter((e) => !e.querySelector('mjx-container')).length"
    assert page.evaluate(left) == 0
    wrong = "(all) => all.map((e) => [e.closest('.math').id, e.dataset.mjxError])"
    assert page.locator("[data-mjx-error]").evaluate_all(wrong) == []
    text = page.evaluate(
        "(() => { const copy = document.querySelector('article').cloneNode(true);"
        "copy.querySelectorAll('pre, code, script, style, mjx-container').forEach((e) => e.remove());"
        "return copy.textContent; })()"
    )
    assert re.findall(r".{0,30}(?:\$\$|\\\(|\\\[|\\begin|\\frac|(?<!\w)\$[^$ ]+\$).{0,30}", text) == []


def test_every_figure_is_drawn_and_described(page: Page) -> None:
    for plot in page.locator(".biolearn .plot").all():
        expect(plot.locator(".main-svg").first).to_be_visible()
        box = plot.bounding_box()
        assert box is not None
        assert min(box["width"] / 2, box["height"]) > 100
        assert plot.evaluate("(e) => e._fullData.length") > 0
        assert plot.get_attribute("role") == "img"
        assert len(plot.get_attribute("aria-label") or "") >= 20
    for image in page.locator("article img").all():
        assert (image.get_attribute("alt") or "").strip()
        assert image.evaluate("(e) => e.complete && e.naturalWidth > 0")


def test_every_control_changes_its_figure_by_keyboard(page: Page) -> None:
    for control in page.locator(".biolearn input[type=range], .biolearn select").all():
        if not control.is_visible():
            continue
        plot = control.locator("xpath=ancestor::*[contains(@class, 'biolearn')][1]").locator(".plot")
        is_slider = control.get_attribute("type") == "range"
        seen, start = [], control.input_value()
        for key in ["Home", *(["ArrowRight"] * 3 if is_slider else ["ArrowDown"]), "End"]:
            control.focus()
            page.keyboard.press(key)
            page.wait_for_timeout(60)
            seen.append(plot.evaluate("(e) => JSON.stringify([e.data, e.layout])"))
        assert len(set(seen)) >= 2, f"{control.evaluate('(e) => e.closest(`label`).textContent')} changes nothing"
        control.evaluate("(e, start) => { e.value = start; e.oninput(); }", start)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_is_readable(page: Page, theme: str) -> None:
    button = page.locator("button.theme-switch-button").first
    for _ in range(3):
        if page.evaluate("document.documentElement.dataset.theme") == theme:
            break
        button.click()
    page.mouse.move(0, 0)
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    page.wait_for_timeout(400)
    assert page.evaluate(LOW_CONTRAST) == []


def test_every_link_leads_somewhere(page: Page, site: Path) -> None:
    hrefs = page.evaluate("[...document.querySelectorAll('a[href]')].map((a) => a.href)")
    for href in {href for href in hrefs if href.startswith("file:")}:
        parts = urlsplit(href)
        target = Path(unquote(parts.path))
        assert target.exists(), f"{href} does not exist"
        if parts.fragment and target.suffix == ".html":
            text = target.read_text(encoding="utf-8")
            assert re.search(rf'(id|name)="{re.escape(unquote(parts.fragment))}"', text), f"{href}: no such place"


def test_a_narrow_screen_does_not_scroll_sideways(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_timeout(300)
    width = page.evaluate("document.querySelector('article').scrollWidth")
    page.set_viewport_size({"width": 1280, "height": 900})
    assert width <= 390


@pytest.mark.parametrize("name", PAGES)
def test_page_is_small(site: Path, name: str) -> None:
    assert (site / f"{name}.html").stat().st_size <= LARGEST


def test_search_finds_pages_from_disk(browser: Browser, site: Path) -> None:
    page = open_page(browser, f"{(site / 'search.html').as_uri()}?q=kernel")
    expect(page.locator("#search-results ul.search li").first).to_be_visible()
    links = page.locator("#search-results ul.search li > a").evaluate_all("(links) => links.map((a) => a.href)")
    assert any("glossary" in link or "chapters/" in link for link in links)
    page.close()


def test_the_path_that_is_printed_opens_the_book(browser: Browser, site: Path) -> None:
    page = open_page(browser, (site / "index.html").as_uri())
    page.wait_for_url("**/intro.html")
    expect(page.locator("article h1")).to_contain_text("Learning Without Backprop")
    page.close()
