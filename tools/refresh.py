"""Run chapters in place and store their outputs, execution counts and widget state.

What would differ from one run to the next is left out or normalised (times, progress bars, random widget ids), so that
running an unchanged chapter again gives the same bytes.
"""

import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

CHAPTERS = Path(__file__).resolve().parent.parent / "book" / "chapters"
WIDGETS = "application/vnd.jupyter.widget-state+json"


def run(path: Path) -> None:
    """Execute one chapter and store it, only if every cell ran."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    path.write_text(stored(notebook), encoding="utf-8")


def stored(notebook: nbformat.NotebookNode) -> str:
    """The file's text for an executed notebook."""
    notebook.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata.language_info = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return nbformat.writes(number_widgets(notebook)) + "\n"


def number_widgets(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with its widgets numbered in the order of their birth instead of their random ids."""
    models = notebook.metadata.get("widgets", {}).get(WIDGETS, {}).get("state", {})
    names = {model: f"{i:032x}" for i, model in enumerate(models)}
    text = nbformat.writes(notebook)
    text = re.sub(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])", lambda found: names.get(found[0], found[0]), text)
    return nbformat.reads(text, as_version=4)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for chapter in [Path(name) for name in sys.argv[1:]] or sorted(CHAPTERS.glob("*.ipynb")):
        start = time.perf_counter()
        run(chapter)
        print(f"{chapter.name}: {time.perf_counter() - start:.0f} s")
