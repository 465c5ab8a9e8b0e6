"""Recipes: an experiment of a paper as something one can run, resume, split over machines and check.

A recipe is rows × columns × seeds of a table. Each such *run* is independent: it has settings, which the row and the
column decide; one function does it; one JSON file holds what came out (`recipes.results`). Nothing else is needed to
resume (runs already made are skipped, an interrupted one goes on from its checkpoint), to split a table over machines
(`shard`), or to add a seed a year later.

There is one code path. A *scale* only says which columns and seeds are meant: `lite` runs on bundled data in minutes,
`full` is the paper's setting, `colab` the part of it that fits a free GPU for 20 minutes. Fewer epochs than the paper's
are allowed everywhere; the drops of the learning rate move along, and both numbers of epochs are always shown.
"""

import dataclasses
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import numpy as np
import torch
from tqdm.auto import tqdm

import biolearn_lite
from biolearn_lite.recipes import results
from biolearn_lite.recipes.results import Record
from biolearn_lite.training import distributed
from biolearn_lite.training.checkpoint import Checkpoints

if TYPE_CHECKING:
    from biolearn_lite.recipes.report import Report

MODULES = (
    "bottleneck",
    "vgg",
    "feedback_depth",
    "demands",
    "hinge",
    "sleep",
    "sleep_dynamics",
    "clapp",
    "clapp_views",
    "dtp",
    "through_time",
)
"""The modules of recipes."""

S = TypeVar("S")
D = TypeVar("D")
Metrics = dict[str, Any]


def setting(
    about: str, *, default: Any = dataclasses.MISSING, in_epochs: bool = False, same_result: bool = False
) -> Any:
    """A field of a settings dataclass: one line of help; whether it is a time counted in epochs; whether a run gives
    the same result, to rounding, with any value of it.

    A field added later needs as default what was done before there was the field: so older records are read.
    """
    return dataclasses.field(
        default=default, metadata={"about": about, "in_epochs": in_epochs, "same_result": same_result}
    )


@dataclass(frozen=True)
class Run:
    """One cell of a table, once."""

    row: str
    column: str
    seed: int

    def __str__(self) -> str:
        return f"{self.column}, {self.row}, seed {self.seed}"


@dataclass(frozen=True)
class Scale:
    """Which part of a recipe is meant."""

    columns: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Recipe(Generic[S, D]):
    """One table of a paper.

    settings: row and column → a frozen dataclass with a field `epochs`, its values as JSON can hold them.
    load: settings and device → data, on that device. random: the same in random numbers of the true shapes, enough
    for that many training steps.
    train: settings, data, seed, whether to show progress, where to keep checkpoints → metrics: plain numbers, and
    `history`, a dict per epoch.
    measures: the metrics a report shows; the first is compared with the paper.
    paper: row and column → (table, row, column) of `recipes.papers`, or None where the paper has no such number.
    without: the cells (row, column) that the table has not.
    rehearsal_batch: examples per step of a rehearsal, where a whole batch would take a CPU too long.
    """

    name: str
    about: str
    rows: tuple[str, ...]
    scales: Mapping[str, Scale]
    settings: Callable[[str, str], S]
    load: Callable[[S, torch.device], D]
    random: Callable[[S, int], D]
    train: Callable[[S, D, int, bool, Checkpoints | None], Metrics]
    measures: tuple[str, ...]
    paper: Callable[[str, str], tuple[str, str, str] | None]
    without: Collection[tuple[str, str]] = ()
    rehearsal_batch: int | None = None


AnyRecipe = Recipe[Any, Any]


def recipes() -> dict[str, AnyRecipe]:
    """All recipes by name."""
    modules = (import_module(f"biolearn_lite.recipes.{name}") for name in MODULES)
    return {recipe.name: recipe for module in modules for recipe in module.RECIPES}


def find(name: str) -> AnyRecipe:
    """A recipe by name. Raises ValueError that lists the known ones."""
    return known("recipe", name, recipes())


def plan(
    recipe: AnyRecipe,
    scale: str,
    *,
    rows: Collection[str] | None = None,
    columns: Collection[str] | None = None,
    seeds: Collection[int] | None = None,
    shard: tuple[int, int] = (1, 1),
) -> list[Run]:
    """The runs of a recipe at a scale, or the given part of them, seed by seed.

    shard: (i, n) takes every n-th run from the i-th on; the n shards together are the whole, and none overlap.
    Raises ValueError for a scale, row or column the recipe has not, or a shard that is none of 1/n ... n/n.
    """
    chosen: Scale = known("scale", scale, recipe.scales)
    offered = dict.fromkeys(column for any_scale in recipe.scales.values() for column in any_scale.columns)
    for row in rows or ():
        known("row", row, dict.fromkeys(recipe.rows))
    for column in columns or ():
        known("column", column, offered)
    i, n = shard
    if not 1 <= i <= n:
        raise ValueError(f"shard {i}/{n}: give i/n with i from 1 to n")
    return [
        Run(row, column, seed)
        for seed in (chosen.seeds if seeds is None else seeds)
        for column in (dict.fromkeys(columns) if columns else chosen.columns)
        for row in recipe.rows
        if (not rows or row in rows) and (row, column) not in recipe.without
    ][i - 1 :: n]


def settings_of(recipe: Recipe[S, D], run: Run, epochs: int | None = None) -> S:
    """The settings of a run; with `epochs`, every time counted in epochs is scaled by epochs / the recipe's epochs."""
    settings = recipe.settings(run.row, run.column)
    whole = settings.epochs  # type: ignore[attr-defined]
    if epochs is None or epochs == whole:
        return settings
    if epochs < 1:
        raise ValueError(f"epochs={epochs}: give at least 1")
    scaled = {
        field.name: tuple(max(1, round(t * epochs / whole)) for t in getattr(settings, field.name))
        for field in dataclasses.fields(settings)  # type: ignore[arg-type]
        if field.metadata.get("in_epochs")
    }
    return dataclasses.replace(settings, epochs=epochs, **scaled)  # type: ignore[type-var]


def records(recipe: AnyRecipe, runs: Sequence[Run]) -> list[Record]:
    """The results there are of these runs, of any number of epochs; none whose settings are not the recipe's."""
    wanted = set(runs)
    return [
        record
        for record in results.read(recipe.name)
        if (run := Run(record["row"], record["column"], record["seed"])) in wanted
        and _same(record["settings"], settings_of(recipe, run, record["epochs"]["run"]))
    ]


def missing(recipe: AnyRecipe, runs: Sequence[Run], epochs: int | None = None) -> list[Run]:
    """The runs that have no result yet at this number of epochs."""
    made = {(r["row"], r["column"], r["seed"], r["epochs"]["run"]) for r in records(recipe, runs)}
    return [run for run in runs if (run.row, run.column, run.seed, _epochs(recipe, run, epochs)["run"]) not in made]


def perform(
    recipe: AnyRecipe,
    run: Run,
    *,
    scale: str,
    epochs: int | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Record:
    """Do one run, or the rest of one that was interrupted; write its result and return it.

    A run that diverges is a result, too: its metrics are `failed`, the reason, and an empty history.
    `seconds` of a resumed run are those since it was resumed.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    settings = settings_of(recipe, run, epochs)
    content: dict[str, Any] = {
        "recipe": recipe.name,
        **dataclasses.asdict(run),
        "scale": scale,
        "epochs": _epochs(recipe, run, epochs),
        "settings": _plain(settings),
        "device": _device_name(device),
        "versions": _versions(),
        "source": results.source_hash(recipe.train),
        "git": results.git_state(),
    }
    checkpoints = Checkpoints(results.unfinished(content))
    data = recipe.load(settings, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    try:
        metrics = recipe.train(settings, data, run.seed, progress, checkpoints)
    except FloatingPointError as reason:
        metrics = {"failed": str(reason), "history": []}
    content |= {
        "metrics": metrics,
        "seconds": round(time.perf_counter() - start, 2),
        "peak_memory": _peak_memory(device),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    stored = _store(content, checkpoints) if distributed.is_first() else None
    return cast(Record, distributed.from_first(stored))


def _store(content: dict[str, Any], checkpoints: Checkpoints) -> Record:
    path = results.write(content)
    shutil.rmtree(checkpoints.folder, ignore_errors=True)
    return results.load(path)


def run(
    recipe: AnyRecipe,
    runs: Sequence[Run],
    *,
    scale: str,
    epochs: int | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
    done: Callable[[Record], None] = lambda record: None,
) -> list[Record]:
    """Do the runs that have no result yet; call `done` after each. Returns the new results."""
    new, progress = [], progress and distributed.is_first()
    todo = distributed.from_first(missing(recipe, runs, epochs))
    for job in tqdm(todo, disable=not progress, desc=recipe.name, leave=False):
        new.append(perform(recipe, job, scale=scale, epochs=epochs, device=device, progress=progress))
        if distributed.is_first():
            done(new[-1])
    return new


def rehearse(recipe: AnyRecipe, run: Run, *, steps: int = 2) -> Metrics:
    """A run cut to a few steps on random numbers of its true shapes, on the CPU. Writes nothing, proves nothing."""
    settings = settings_of(recipe, run, 1)
    if recipe.rehearsal_batch:
        settings = dataclasses.replace(settings, batch_size=recipe.rehearsal_batch)
    return recipe.train(settings, recipe.random(settings, steps), run.seed, False, None)


def run_or_show(
    recipe: AnyRecipe | str,
    row: str | None = None,
    column: str | None = None,
    scale: str = "colab",
    *,
    epochs: int | None = None,
) -> "Report":
    """The one call of a chapter's GPU cell: train what is missing if there is a GPU, then show what there is.

    Interrupted, it goes on where it stopped, runs within half-trained ones included. Without a GPU nothing is
    trained; with the environment variable BIOLEARN_REHEARSE set, each run is rehearsed first (the book's tests do so).
    """
    from biolearn_lite.recipes.report import report

    recipe = find(recipe) if isinstance(recipe, str) else recipe
    runs = plan(recipe, scale, rows=[row] if row else None, columns=[column] if column else None)
    if torch.cuda.is_available():
        run(recipe, runs, scale=scale, epochs=epochs)
    elif os.environ.get("BIOLEARN_REHEARSE"):
        for job in runs:
            rehearse(recipe, job)
    return report(recipe, runs)


T = TypeVar("T")


def known(what: str, name: str, table: Mapping[str, T]) -> T:
    """The entry of that name. Raises ValueError that lists the names there are."""
    if name not in table:
        raise ValueError(f"unknown {what} {name!r}: choose from {', '.join(map(repr, table))}")
    return table[name]


def _plain(settings: Any) -> dict[str, Any]:
    """Settings as JSON gives them back: tuples as lists."""
    return {key: _json(value) for key, value in dataclasses.asdict(settings).items()}


def _json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _same(recorded: dict[str, Any], settings: Any) -> bool:
    """Whether a record's settings mean this run: what it has not is at its default, and some fields do not matter."""
    plain = _plain(settings)
    mattering = [field for field in dataclasses.fields(settings) if not field.metadata.get("same_result")]
    return recorded.keys() <= plain.keys() and all(
        recorded.get(field.name, _json(field.default)) == plain[field.name] for field in mattering
    )


def _epochs(recipe: AnyRecipe, run: Run, epochs: int | None) -> dict[str, int]:
    whole = recipe.settings(run.row, run.column).epochs
    return {"run": epochs or whole, "recipe": whole}


def _peak_memory(device: torch.device) -> dict[str, Any]:
    """Of this run's tensors on a GPU; on a CPU, of the whole process since it began."""
    if device.type == "cuda":
        return {"bytes": torch.cuda.max_memory_allocated(device), "of": "tensors of the run"}
    try:
        import resource
    except ImportError:  # not on Windows
        return {"bytes": None, "of": "process"}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "of": "process"}


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{_several()}{torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return f"{_several()}CPU ({platform.machine()}, {threads} thread{'s' * (threads > 1)})"


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "biolearn_lite": biolearn_lite.__version__,
    }


def _several() -> str:
    return f"{distributed.count()} × " if distributed.count() > 1 else ""
