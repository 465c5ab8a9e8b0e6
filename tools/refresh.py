"""Run chapters in place and store their outputs and execution counts.

What would differ from one run to the next is left out or normalised (times, progress bars, random widget ids), so that
running an unchanged chapter again gives the same bytes.
"""

import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

CHAPTERS = Path(__file__).resolve().parent.parent / "book" / "chapters"
WIDGET = "application/vnd.jupyter.widget-view+json"


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
    """The file's text for an executed notebook.

    Widgets are left out: their state would show as dead sliders. Their HTML, with controls of its own, is stored.
    """
    notebook.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata.language_info = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET, None)
    return nbformat.writes(notebook) + "\n"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for chapter in [Path(name) for name in sys.argv[1:]] or sorted(CHAPTERS.glob("*.ipynb")):
        start = time.perf_counter()
        run(chapter)
        print(f"{chapter.name}: {time.perf_counter() - start:.0f} s")
