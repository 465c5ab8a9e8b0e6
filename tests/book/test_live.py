"""Every explorable of every chapter, live: move each control, compare what is shown with a fresh computation."""

from pathlib import Path

import pytest
from explorables import explorables_of, move_every_control, needed

CHAPTERS = sorted((Path(__file__).parents[2] / "book" / "chapters").glob("*.ipynb"))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_every_control_of_a_chapter(chapter: Path) -> None:
    explorables = explorables_of(chapter)
    assert len(explorables) >= 3, f"{chapter.name} has {len(explorables)} explorables, a chapter has three"
    for explorable in explorables:
        longest = max(len(control.values) for control in explorable.controls.values() if control.is_slider)
        assert longest >= 15, f"{explorable.alt!r}: its longest slider has {longest} positions, 15 are the least"
        assert move_every_control(explorable) >= 3


def test_only_the_cells_that_matter_run() -> None:
    cells = ["import math", "rate = 2", "train_for_an_hour()", "def draw(n):\n    return rate * n", "explore(draw, {})"]
    assert needed(cells) == [cells[0], cells[1], cells[3], cells[4]]
