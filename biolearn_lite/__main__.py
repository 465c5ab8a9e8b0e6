"""The recipes from the command line: `python -m biolearn_lite list | show R | run R | report R`."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence

import torch

from biolearn_lite.recipes import engine, results
from biolearn_lite.recipes.report import outcome, report
from biolearn_lite.training import distributed


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, do, and turn what the user can mend (a wrong name, missing data) into one line that says how."""
    options = _parser().parse_args(arguments)
    try:
        with distributed.processes():
            _list() if options.command == "list" else _with_recipe(options)
    except (ValueError, OSError) as problem:
        print(f"biolearn_lite: {problem}", file=sys.stderr)
        return 2
    return 0


def _list() -> None:
    for recipe in engine.recipes().values():
        print(f"{recipe.name}: {recipe.about}")
        for scale in recipe.scales:
            runs = engine.plan(recipe, scale)
            made = {(r["row"], r["column"], r["seed"]) for r in engine.records(recipe, runs)}
            print(f"  {scale}: {len(made)} of {len(runs)} runs made")


def _with_recipe(options: argparse.Namespace) -> None:
    recipe = engine.find(options.recipe)
    part = {"rows": options.row, "columns": options.column, "seeds": options.seeds}
    if not engine.plan(recipe, options.scale, **part):
        raise ValueError(f"{recipe.name} has no such cell: `show {recipe.name}` lists rows and columns")
    runs = engine.plan(recipe, options.scale, **part, shard=options.shard)
    if options.command == "show":
        _show(recipe, runs)
    elif options.command == "report":
        print(report(recipe, runs))
    else:
        _run(recipe, runs, options)


def _show(recipe: engine.AnyRecipe, runs: list[engine.Run]) -> None:
    """What the recipe is; each setting, with its values over the chosen runs."""
    print(f"{recipe.name}: {recipe.about}\nrows: {', '.join(recipe.rows)}")
    for scale, part in recipe.scales.items():
        print(f"{scale}: {', '.join(part.columns)}; seeds {', '.join(map(str, part.seeds))}")
    chosen = [engine.settings_of(recipe, run) for run in runs]
    for field in dataclasses.fields(chosen[0]) if chosen else ():
        values = dict.fromkeys(getattr(settings, field.name) for settings in chosen)
        print(f"  {field.name} = {' | '.join(map(str, values))}: {field.metadata.get('about', '')}")


def _run(recipe: engine.AnyRecipe, runs: list[engine.Run], options: argparse.Namespace) -> None:
    def tell(record: results.Record) -> None:
        run = engine.Run(record["row"], record["column"], record["seed"])
        print(f"{run}: {outcome(recipe, record)} ({record['seconds']} s)", flush=True)

    todo = engine.missing(recipe, runs, options.epochs)
    if distributed.is_first():
        print(f"{len(todo)} of {len(runs)} runs to do; results go to {results.folder()}", flush=True)
    engine.run(
        recipe,
        todo,
        scale=options.scale,
        epochs=options.epochs,
        device=options.device,
        progress=sys.stderr.isatty(),
        done=tell,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="biolearn_lite", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="all recipes, and how many of their runs are made")
    for name, about in {
        "show": "what a recipe does, its rows and columns, its settings",
        "run": "make the runs that are missing",
        "report": "the paper's numbers beside ours",
    }.items():
        command = commands.add_parser(name, help=about)
        command.add_argument("recipe", help="its name, as `list` shows it")
        command.add_argument("--scale", default="lite", help="lite (default), colab or full")
        command.add_argument("--row", action="append", help="only this row; may be repeated")
        command.add_argument("--column", action="append", help="only this column; may be repeated")
        command.add_argument("--seeds", type=_numbers, help="seeds, as 0,1,2; default: those of the scale")
        command.add_argument("--shard", type=_shard, default=(1, 1), help="i/n: every n-th run from the i-th on")
        if name == "run":
            command.add_argument("--epochs", type=_epochs, help="fewer or more epochs; rate drops move along")
            command.add_argument("--device", type=_device, help="cpu, cuda, cuda:1; default: a GPU if there is one")
    return parser


def _numbers(text: str) -> list[int]:
    try:
        return list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give whole numbers, as 0,1,2") from None


def _shard(text: str) -> tuple[int, int]:
    try:
        i, n = map(int, text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give i/n, as 1/4") from None
    return i, n


def _epochs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give 1 or more")
    return int(text)


def _device(text: str) -> str:
    """The name as it is: of several processes each has a GPU of its own, which only they know by "cuda"."""
    try:
        device = torch.device(text)
        here = device.type != "cuda" or (device.index or 0) < torch.cuda.device_count()
    except RuntimeError:
        here = False
    if not here:
        raise argparse.ArgumentTypeError(f"{text!r}: not here; give cpu, or cuda where there is a GPU")
    return text


if __name__ == "__main__":
    sys.exit(main())
