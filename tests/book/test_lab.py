"""A chapter opened in JupyterLab: its explorables appear with live controls, and a control moves its figure."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import nbformat
import plotly
import pytest
from explorables import needed
from playwright.sync_api import Browser, Route, expect

CHAPTERS = sorted((Path(__file__).parents[2] / "book" / "chapters").glob("*.ipynb"))
PLOTLY_JS = Path(plotly.__file__).with_name("package_data") / "plotly.min.js"
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # draw cells that are out of sight, too
    "apputils-extension/notification": {"fetchNews": "false"},
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A JupyterLab server on this machine, its address and its folder."""
    home = tmp_path_factory.mktemp("lab")
    work = home / "work"
    work.mkdir()
    for name, settings in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = {f"JUPYTER_{kind}_DIR": str(home / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    env = os.environ | folders | {"JUPYTERLAB_SETTINGS_DIR": str(home / "settings")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--IdentityProvider.token=", "--expose-app-in-browser", f"--ServerApp.root_dir={work}"]
    with (home / "log").open("w") as log, subprocess.Popen(command, env=env, stdout=log, stderr=log) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}/api", server)
            yield f"http://127.0.0.1:{port}", work
        finally:
            server.terminate()


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    """Until the server answers; RuntimeError if it stops or stays silent for a minute."""
    for _ in range(240):
        try:
            urlopen(url, timeout=5).close()
            return
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.25)
    raise RuntimeError("JupyterLab did not start")


def answer(route: Route) -> None:
    """No network: only plotly's own script is answered, from the installed wheel."""
    if "cdn.plot.ly" in route.request.url:
        route.fulfill(path=PLOTLY_JS, content_type="text/javascript; charset=utf-8")
    else:
        route.abort()


def explorables_only(chapter: Path, target: Path) -> int:
    """A notebook of the cells that the chapter's explorables need; returns how many explorables there are."""
    cells = [cell.source for cell in nbformat.read(chapter, as_version=4).cells if cell.cell_type == "code"]
    kept = needed(cells)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in kept])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, target)
    return sum(len(re.findall(r"(?<![\w.])explore\(", source)) for source in kept)


def test_explorables_live_in_jupyterlab(browser: Browser, lab: tuple[str, Path]) -> None:
    address, folder = lab
    count = explorables_only(CHAPTERS[0], folder / "chapter.ipynb")
    assert count >= 3
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(60_000)
    page.route(re.compile("^https:"), answer)
    page.goto(f"{address}/lab/tree/chapter.ipynb")
    page.wait_for_function("window.jupyterapp?.shell?.currentWidget?.context?.sessionContext?.session?.kernel")
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => null)")

    figures = page.locator(".jp-Notebook .biolearn .plot:has(.main-svg)")
    expect(figures).to_have_count(count, timeout=90_000)
    live = page.locator(".jp-Notebook .widget-vbox").filter(has=page.locator(".noUi-handle")).first
    readout = live.locator(".biolearn output")
    before = readout.text_content() or ""
    live.locator(".noUi-handle").first.focus()
    page.keyboard.press("ArrowRight")
    expect(readout).not_to_have_text(before)
    expect(live.locator(".biolearn .plot .main-svg").first).to_be_visible()
    page.close()
