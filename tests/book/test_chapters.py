"""Every chapter is a finished one: run, compared, checked, accessible, and free of machinery that belongs elsewhere.

nbval passes a notebook without outputs, so `problems` insists on outputs; the second half of this file shows that it
finds each kind of problem.
"""

import json
import re
from pathlib import Path

import address
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]

CHAPTERS = sorted((ROOT / "book" / "chapters").glob("*.ipynb"))
FEWEST_COMPARED, FEWEST_CHECKED = 10, 5
LARGEST = 3_000_000
CHECKED = re.compile(r"^(.+): relative error < 1e-10$", re.MULTILINE)
MACHINE = re.compile(r"(?<![\w.:/])/(?:home|root|work|Users|tmp|content|mnt)/")
MACHINERY = re.compile(r"\.backward\(|optimi[sz]er\.step|\bfor epoch\b|\(nn\.Module\)|\bloss\.\w+\(")
TAGS = {"hide-input", "hide-output", "hide-cell", "remove-input", "remove-output", "exercise", "solution"}


def printed(cell) -> str:
    """What nbval compares of a cell: its standard output and its plain text."""
    plain = [output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return "\n".join([*(o.text for o in cell.outputs if o.get("name") == "stdout"), *plain])


def problems(notebook, name: str) -> list[str]:
    """Everything that keeps this notebook from being a finished chapter."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    found = []
    for number, cell in enumerate(code, start=1):
        found += [f"{name}, code cell {number}: {problem}" for problem in cell_problems(cell)]
    if code[0].source != address.first_cell(address.read()):
        found.append(f"{name}: the first code cell is not the common one; `make address` writes it")
    title = notebook.cells[0].source
    if ("[Open in Colab](" in title) != bool(address.badge(address.read(), name)):
        found.append(f"{name}: the badge under the title does not follow the address")
    compared = sum(bool(printed(cell).strip()) for cell in code)
    if compared < FEWEST_COMPARED:
        found.append(f"{name}: {compared} cells have an output to compare, at least {FEWEST_COMPARED} are expected")
    checked = [line for cell in code for line in CHECKED.findall(printed(cell)) if line.startswith("Eq. ")]
    if len(checked) < FEWEST_CHECKED:
        found.append(f"{name}: {len(checked)} equations are checked, at least {FEWEST_CHECKED} are expected")
    if "widgets" in notebook.metadata:
        found.append(f"{name}: stores the state of widgets, which show as dead sliders; `make refresh` leaves it out")
    exercises = {key for cell in code for key in re.findall(r'check\("(\d\d-\d+)"', cell.source)}
    if not 3 <= len(exercises) <= 6 or any(not name.startswith(key[:2]) for key in exercises):
        found.append(f"{name}: exercises {sorted(exercises)}; expected 3 to 6 of this chapter")
    if len(nbformat.writes(notebook)) > LARGEST:
        found.append(f"{name}: the file is larger than {LARGEST / 1e6:.0f} MB")
    return found


def cell_problems(cell) -> list[str]:
    found = []
    if cell.execution_count is None:
        found.append("was not run")
    if any(output.output_type == "error" for output in cell.outputs):
        found.append("stores an error")
    if MACHINE.search(cell.source + json.dumps(cell.outputs)):
        found.append("names a path of one machine")
    if re.search(r"\d%\|", json.dumps(cell.outputs)):
        found.append("stores a progress bar; that of `from tqdm import tqdm` goes to stderr and is not stored")
    if found_loop := MACHINERY.search(cell.source):
        found.append(f"{found_loop[0]!r} belongs in the package")
    if "NBVAL_" in cell.source or not TAGS.issuperset(cell.metadata.get("tags", [])):
        found.append(f"tags {cell.metadata.get('tags')} hide it from the tests; known: {sorted(TAGS)}")
    if "verify(" in cell.source and not CHECKED.search(printed(cell)):
        found.append("checks an equation and prints no '…: relative error < 1e-10'")
    if "check(" in cell.source and re.search(r'check\("\d', cell.source) and "not answered yet" not in printed(cell):
        found.append("holds an exercise that is already answered")
    return found + figure_problems(cell)


def figure_problems(cell) -> list[str]:
    found = []
    described = bool(cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "").strip())
    for output in cell.outputs:
        data = output.get("data", {})
        if any(kind.startswith("image/") for kind in data) and not described:
            found.append("shows an image without alt text in its metadata (mystnb: image: alt)")
        if "application/vnd.plotly.v1+json" in data:
            found.append("shows a bare plotly figure, which the page drops; use show.figures.show")
        for plot in re.findall(r'<div class="plot"[^>]*>', data.get("text/html", "")):
            if not re.search(r'aria-label="[^"]{20,}"', plot):
                found.append("shows a figure without a description of 20 characters or more")
    return found


def read(path: Path):
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_is_finished(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert problems(notebook, path.name) == []


def test_there_are_chapters():
    assert CHAPTERS


# The checker itself: a finished chapter with one thing broken must be found out.


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def strip(notebook):
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None


def strip_outputs_only(notebook):
    for cell in code_cells(notebook):
        cell.outputs = []


def not_run(notebook):
    code_cells(notebook)[3].execution_count = None


def error(notebook):
    code_cells(notebook)[2].outputs.append(nbformat.v4.new_output("error", ename="E", evalue="", traceback=[]))


def machine_path(notebook):
    code_cells(notebook)[2].outputs.append(nbformat.v4.new_output("stream", name="stdout", text="see /home/me/data\n"))


def other_first_cell(notebook):
    code_cells(notebook)[0].source = "!pip install biolearn-lite"


def badge_without_address(notebook):
    title = notebook.cells[0]
    title.source = title.source.replace("[Open in Colab](", "") + "[Open in Colab](x)" * (not address.read())


def equation_fails(notebook):
    cell = next(cell for cell in code_cells(notebook) if "verify(" in cell.source)
    for output in cell.outputs:
        output.text = output.text.replace("1e-10", "1e-3")


def no_alt(notebook):
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if 'aria-label="' in output.get("data", {}).get("text/html", ""):
                output.data["text/html"] = re.sub(r'aria-label="[^"]*"', 'aria-label=""', output.data["text/html"])


def image_without_alt(notebook):
    code_cells(notebook)[2].outputs.append(nbformat.v4.new_output("display_data", data={"image/png": "aGk="}))


def bare_plotly(notebook):
    data = {"application/vnd.plotly.v1+json": {"data": [], "layout": {}}}
    code_cells(notebook)[2].outputs.append(nbformat.v4.new_output("display_data", data=data))


def hidden_from_nbval(notebook):
    code_cells(notebook)[2].metadata["tags"] = ["nbval-ignore-output"]


def progress_bar(notebook):
    data = {"text/plain": "  0%|          | 0/6 [00:00<?, ?it/s]"}
    code_cells(notebook)[2].outputs.append(nbformat.v4.new_output("display_data", data=data))


def training_loop(notebook):
    code_cells(notebook)[2].source += "\nfor epoch in range(3):\n    loss.backward()"


def widget_state(notebook):
    notebook.metadata["widgets"] = {}


def answered_exercise(notebook):
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if "not answered yet" in output.get("text", ""):
                output.text = "✓ correct"


def no_exercises(notebook):
    notebook.cells = [cell for cell in notebook.cells if "check(" not in cell.source]


def too_large(notebook):
    notebook.cells[0].source += "x" * LARGEST


BREAKS = [strip, strip_outputs_only, not_run, error, machine_path, other_first_cell, badge_without_address]
BREAKS += [equation_fails, no_alt, image_without_alt, bare_plotly, hidden_from_nbval, training_loop, progress_bar]
BREAKS += [widget_state, answered_exercise, no_exercises, too_large]


@pytest.mark.parametrize("damage", BREAKS, ids=lambda damage: damage.__name__)
def test_a_broken_chapter_is_found(damage):
    notebook = read(CHAPTERS[0])
    before = problems(notebook, CHAPTERS[0].name)
    damage(notebook)
    assert set(problems(notebook, CHAPTERS[0].name)) - set(before)
