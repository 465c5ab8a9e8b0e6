"""The papers' tables as printed, and how to read a number from them.

    papers.table("001-4")                       # a dict of printed cells per row
    papers.number("001-4", "MNIST", "backprop") # 98.6

One CSV file per table under data/papers, named by paper and table. Its first lines, marked #, say where it comes from
and what the text we have of the paper garbled or lost. Cells hold what is printed, also where a later table of the same
paper says otherwise; a cell that is empty is empty in print or cannot be read, and the header says which.
"""

import csv
from pathlib import Path

from biolearn_lite.recipes.results import committed


def names() -> list[str]:
    """The names of all tables, as "001-4" for table 4 of paper 001."""
    return sorted((path.stem for path in _folder().glob("*.csv")), key=lambda name: [int(n) for n in name.split("-")])


def table(name: str) -> list[dict[str, str]]:
    """The rows of a table, each a dict from column to printed cell. Raises ValueError for an unknown table."""
    _, rows = _read(name)
    header, *body = csv.reader(rows)
    return [dict(zip(header, cells, strict=True)) for cells in body]


def notes(name: str) -> str:
    """What stands above a table: its source, its caption in our words, and remarks on its text."""
    lines, _ = _read(name)
    return "\n".join(line.removeprefix("#").strip() for line in lines)


def number(name: str, row: str, column: str) -> float | None:
    """One printed number; None where the cell is empty. `row` is the first cell of a row, or, where first cells repeat,
    the first two or three: "Weight Sharing, LC - ws(1)", "SimCLR, GLL, RF".

    Raises ValueError if there is no such row or column, or the cell is no number.
    """
    for cells in table(name):
        values = list(cells.values())
        if row in {", ".join(values[:n]) for n in (1, 2, 3)} and column in cells:
            text = cells[column].removesuffix("%")
            return float(text) if text else None
    raise ValueError(f"table {name} has no row {row!r} with a column {column!r}")


def _folder() -> Path:
    return committed("papers")


def _read(name: str) -> tuple[list[str], list[str]]:
    path = _folder() / f"{name}.csv"
    if not path.is_file():
        raise ValueError(f"no table {name!r}: there are {', '.join(names())}")
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("#")], [line for line in lines if not line.startswith("#")]
