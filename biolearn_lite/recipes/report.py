"""The paper's numbers beside ours: mean and spread over seeds, epochs run and epochs planned, the difference.

A cell no run has filled says *not run yet*; nothing is interpolated, carried over or typed. `Report.rows` are plain
dicts for a chapter to plot; printed, a report is a table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import fmean, stdev
from typing import Any

from biolearn_lite.recipes import papers, results
from biolearn_lite.recipes.engine import AnyRecipe, Run, known, records
from biolearn_lite.recipes.results import Record

NOT_RUN = "not run yet"
DIVERGED = "diverged"


@dataclass(frozen=True, repr=False)
class Report:
    """What there is of a recipe, a dict per row and column of its table.

    Keys: `row`, `column`; `paper`, the printed number or None; `mean`, `low`, `high`, `deviation` (over seeds, None for
    one seed) and `values` of the first measure; `measures`, the same for all of them; `seeds`; `epochs` and
    `recipe_epochs`; `difference` from the paper; `device`, `date`; `current`, whether today's code made it;
    `history`, per seed the metrics per epoch; `failed`, by seed why runs diverged, which are in `seeds` and `history`
    but in no number. Not run: `seeds` is empty, and numbers are None.
    """

    recipe: str
    rows: list[dict[str, Any]]

    def __repr__(self) -> str:
        rows = self.table()
        earlier = any(row["seeds"] and not row["current"] for row in self.rows)
        lines = [list(rows[0]), *(list(row.values()) for row in rows)] if rows else []
        return _aligned(lines) + ("\n* made by an earlier version of the code" if earlier else "")

    def table(self) -> list[dict[str, str]]:
        """The rows as text, ready for `show.figures.table`; what no run has filled is empty."""
        header = ["data", "row", "paper", "ours", *self._others(), "seeds", "epochs", "difference", "made"]
        return [dict(zip_longest(header, self._cells(row), fillvalue="")) for row in self.rows]

    def _others(self) -> list[str]:
        return list(self.rows[0]["measures"])[1:] if self.rows else []

    def _cells(self, row: dict[str, Any]) -> list[str]:
        paper = "" if row["paper"] is None else f"{row['paper']:.1f}"
        head = [row["column"], row["row"], paper]
        if not row["seeds"]:
            return [*head, NOT_RUN]
        return [
            *head,
            *(_spread(measure, len(row["failed"])) for measure in row["measures"].values()),
            str(len(row["seeds"])),
            f"{row['epochs']}/{row['recipe_epochs']}",
            "" if row["difference"] is None else f"{row['difference']:+.1f}",
            f"{row['date'][:10]}, {row['device']}" + ("" if row["current"] else " *"),
        ]


def outcome(recipe: AnyRecipe, record: Record) -> str:
    """One run in words: its measures, or why it diverged."""
    if reason := record["metrics"].get("failed"):
        return f"diverged: {reason}"
    return ", ".join(f"{name} {_measure(record, name):.1f}" for name in recipe.measures)


def report(recipe: AnyRecipe, runs: Sequence[Run]) -> Report:
    """Group these runs' results by row and column. Of runs with different epochs, those with most are shown."""
    found = records(recipe, runs)
    source = results.source_hash(recipe.train)
    cells = dict.fromkeys((run.column, run.row) for run in runs)
    return Report(recipe.name, [_cell(recipe, row, column, found, source) for column, row in cells])


def _cell(recipe: AnyRecipe, row: str, column: str, found: list[Record], source: str) -> dict[str, Any]:
    made = [record for record in found if (record["row"], record["column"]) == (row, column)]
    longest = max((record["epochs"]["run"] for record in made), default=None)
    by_seed = {record["seed"]: record for record in made if record["epochs"]["run"] == longest}
    shown = [by_seed[seed] for seed in sorted(by_seed)]
    place = recipe.paper(row, column)
    paper = papers.number(*place) if place else None
    finished = [record for record in shown if "failed" not in record["metrics"]]
    measures = {name: _summary([_measure(record, name) for record in finished]) for name in recipe.measures}
    first = measures[recipe.measures[0]]
    return {
        "row": row,
        "column": column,
        "paper": paper,
        **first,
        "measures": measures,
        "seeds": [record["seed"] for record in shown],
        "epochs": longest,
        "recipe_epochs": recipe.settings(row, column).epochs,
        "difference": None if paper is None or first["mean"] is None else first["mean"] - paper,
        "device": ", ".join(dict.fromkeys(record["device"] for record in shown)) or None,
        "date": max((record["date"] for record in shown), default=None),
        "current": bool(shown) and all(results.is_current(record, source) for record in shown),
        "history": [record["metrics"]["history"] for record in shown],
        "failed": {r["seed"]: r["metrics"]["failed"] for r in shown if "failed" in r["metrics"]},
    }


def _measure(record: Record, name: str) -> float:
    return float(known("measure", name, record["metrics"]))


def _summary(values: list[float]) -> dict[str, Any]:
    if not values:
        return {"mean": None, "low": None, "high": None, "deviation": None, "values": []}
    spread = stdev(values) if len(values) > 1 else None
    return {"mean": fmean(values), "low": min(values), "high": max(values), "deviation": spread, "values": values}


def _spread(summary: dict[str, Any], failed: int) -> str:
    if summary["mean"] is None:
        return DIVERGED
    spread = "" if summary["deviation"] is None else f" ± {summary['deviation']:.1f}"
    note = f" ({failed} {DIVERGED})" if failed else ""
    return f"{summary['mean']:.1f}{spread}{note}"


def _aligned(lines: list[list[str]]) -> str:
    """Columns padded to equal width."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
