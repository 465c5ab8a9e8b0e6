"""Helpers for tests of explorables: move the live controls, and find the explorables of a chapter."""

import ast
import json
from pathlib import Path
from typing import Any

import torch
from IPython.core.interactiveshell import InteractiveShell

from biolearn_lite.show.explore import Explorable, number


def move_every_control(explorable: Explorable) -> int:
    """Set every live control to its first, middle and last value; return how often a new picture was compared.

    After each move the numbers shown in the `Output` must be those of a fresh call of `draw`, and every control must
    change what is shown at least once: a control that does nothing is a defect.
    """
    explorable.live  # noqa: B018 - builds the widgets and draws the first picture
    compared = 0
    for name, widget in explorable.widgets.items():
        seen = set()
        values = [0, 1, 2] if name == "seed" else list(explorable.controls[name].values)
        for value in (values[0], values[len(values) // 2], values[-1]):
            widget.value = value
            shown = _shown(explorable)
            _, readout = explorable.draw(**{key: control.value for key, control in explorable.widgets.items()})
            fresh = " · ".join(f"{key} {number(entry)}" for key, entry in readout.items())
            assert shown["text/plain"] == fresh, f"{name} = {value}: shown {shown['text/plain']}, computed {fresh}"
            assert fresh in shown["text/html"]
            seen.add(shown["text/html"])
            compared += 1
        assert len(seen) > 1, f"control {name!r} changes nothing"
    return compared


def _shown(explorable: Explorable) -> dict[str, str]:
    (output,) = explorable.output.outputs
    assert output["output_type"] == "display_data"
    data: dict[str, str] = output["data"]
    return data


def explorables_of(notebook: Path) -> list[Explorable]:
    """The explorables of a chapter, made by running only the code cells they depend on, in an IPython shell."""
    cells = [
        "".join(cell["source"])
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code"
    ]
    made: list[Explorable] = []
    original = Explorable.__init__

    def recording(self: Explorable, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        made.append(self)

    shell, dtype = InteractiveShell(history_manager=None), torch.get_default_dtype()
    Explorable.__init__ = recording  # type: ignore[method-assign]
    try:
        for source in needed(cells):
            result = shell.run_cell(source, silent=True)
            assert result.success, f"{notebook.name}: this cell stopped with {result.error_in_exec!r}:\n{source}"
    finally:
        Explorable.__init__ = original  # type: ignore[method-assign]
        torch.set_default_dtype(dtype)
    return made


def needed(cells: list[str]) -> list[str]:
    """The first cell, those that call `explore`, and every earlier cell that binds a name which a kept cell uses."""
    kept: list[str] = []
    wanted: set[str] = set()
    for i, source in reversed(list(enumerate(cells))):
        bound, used = _names(source)
        if i == 0 or "explore" in used or bound & wanted:
            kept.append(source)
            wanted |= used
    return kept[::-1]


def _names(source: str) -> tuple[set[str], set[str]]:
    """Names a cell binds at any depth, and names it reads; lines for IPython (%, !) are ignored."""
    plain = "\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))
    bound, used = set(), set()
    for node in ast.walk(ast.parse(plain)):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).split(".")[0])
    return bound, used
