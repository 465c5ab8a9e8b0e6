"""Recipes: runs that resume and split, results that are whole and untouched, reports that invent nothing."""

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path

import pytest
import torch
from sklearn.svm import SVC
from torch import nn

from biolearn_lite.__main__ import _parser, main
from biolearn_lite.data import sets
from biolearn_lite.recipes import bottleneck, dense, engine, papers, results
from biolearn_lite.recipes.report import outcome, report
from biolearn_lite.rules.hsic import bottleneck_objective
from biolearn_lite.rules.kernels import label_kernel
from biolearn_lite.training.checkpoint import Checkpoints
from biolearn_lite.training.fit import Batch

MLP, SWEEP, SMALL = bottleneck.RECIPES


@dataclass(frozen=True, kw_only=True)
class ToySettings:
    row: str
    column: str
    epochs: int = 100
    drops: tuple[int, ...] = engine.setting("when", default=(50, 75, 90), in_epochs=True)


calls: list[tuple] = []


def toy_train(settings, data, seed, progress, checkpoints):
    calls.append((settings.row, settings.column, seed))
    if len(calls) == interrupted_at:
        raise KeyboardInterrupt
    score = {"good": 90.0, "bad": 10.0}[settings.row] + seed + settings.epochs / 100
    return {"score": score, "history": [{"epoch": 1, "score": score}]}


interrupted_at = None

TOY = engine.Recipe(
    name="toy",
    about="two rows that do nothing",
    rows=("good", "bad"),
    scales={"lite": engine.Scale(("mnist",), (0, 1, 2)), "full": engine.Scale(("mnist", "fashion"), (0, 1, 2, 3, 4))},
    settings=lambda row, column: ToySettings(row=row, column=column),
    load=lambda settings, device: None,
    random=lambda settings, steps: None,
    train=toy_train,
    measures=("score",),
    paper=lambda row, column: ("001-4", "MNIST", "backprop") if (row, column) == ("good", "mnist") else None,
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Results of a test go to an empty folder, and nothing committed is read."""
    monkeypatch.setenv("BIOLEARN_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(results, "committed", _committed(tmp_path, results.committed))
    monkeypatch.delenv("BIOLEARN_REHEARSE", raising=False)
    calls.clear()
    return tmp_path / "results"


def _committed(tmp_path, real):
    return lambda kind: tmp_path / "committed" if kind == "results" else real(kind)


def files(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def run_toy(scale="lite", **options):
    return engine.run(TOY, engine.plan(TOY, scale), scale=scale, progress=False, **options)


# Planning


@pytest.mark.parametrize("recipe", [TOY, MLP, SWEEP, SMALL], ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("n", [1, 2, 3, 7, 500])
def test_shards_partition_the_runs(recipe, n):
    whole = engine.plan(recipe, "full")
    parts = [engine.plan(recipe, "full", shard=(i, n)) for i in range(1, n + 1)]
    assert sorted(map(str, itertools.chain(*parts))) == sorted(map(str, whole))
    columns, seeds = vars(recipe.scales["full"]).values()
    cells = {(row, column) for row in recipe.rows for column in columns} - {*recipe.without}
    assert len(set(whole)) == len(whole) == len(cells) * len(seeds)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_part_of_a_recipe():
    runs = engine.plan(MLP, "full", rows=["backprop"], columns=["mnist", "digits"], seeds=[7, 9])
    assert [(run.column, run.seed) for run in runs] == [("mnist", 7), ("digits", 7), ("mnist", 9), ("digits", 9)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "huge"}, "unknown scale 'huge': choose from 'lite', 'colab', 'full'"),
        ({"rows": ["backdrop"]}, "unknown row 'backdrop': choose from 'backprop', 'backprop.div'"),
        ({"columns": ["imagenet"]}, "unknown column 'imagenet': choose from 'digits', 'mnist'"),
        ({"shard": (0, 3)}, "shard 0/3"),
        ({"shard": (4, 3)}, "shard 4/3"),
    ],
)
def test_a_wrong_name_lists_the_right_ones(options, message):
    with pytest.raises(ValueError, match=message):
        engine.plan(MLP, options.pop("scale", "lite"), **options)


@pytest.mark.parametrize(
    ("epochs", "drops"), [(100, (50, 75, 90)), (20, (10, 15, 18)), (200, (100, 150, 180)), (1, (1, 1, 1))]
)
def test_milestones_scale_with_the_epochs(epochs, drops):
    settings = engine.settings_of(TOY, engine.Run("good", "mnist", 0), epochs)
    assert (settings.epochs, settings.drops) == (epochs, drops)


def test_no_epochs_is_an_error():
    with pytest.raises(ValueError, match="epochs=0"):
        engine.settings_of(TOY, engine.Run("good", "mnist", 0), 0)


# Running and resuming


def test_a_recipe_run_twice_adds_nothing_and_loses_nothing(folder):
    assert len(run_toy()) == 6
    before = files(folder)
    assert run_toy() == []
    assert files(folder) == before
    assert len(before) == len(calls) == 6
    run_toy("full")  # holds the six
    assert len(calls) == len(files(folder)) == 20
    assert before.items() <= files(folder).items()


def test_other_epochs_are_another_run(folder):
    run_toy()
    run_toy(epochs=20)
    assert len(files(folder)) == len(calls) == 12


def test_an_interrupted_table_goes_on_where_it_stopped(folder, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "interrupted_at", 4)
    with pytest.raises(KeyboardInterrupt):
        run_toy()
    assert len(files(folder)) == 3
    run_toy()
    assert len(files(folder)) == 6
    assert len(calls) == 4 + 3
    assert sorted(set(calls)) == sorted((run.row, run.column, run.seed) for run in engine.plan(TOY, "lite"))


def test_a_run_killed_half_way_goes_on_from_its_checkpoint(folder, monkeypatch):
    """Killed after the second of three epochs: the rest is trained, the numbers are those of a run never killed."""
    run = engine.Run("pHSIC", "digits", 0)
    options = {"scale": "lite", "epochs": 3, "device": "cpu", "progress": False}
    whole = engine.perform(SMALL, run, **options)["metrics"]
    shutil.rmtree(folder)
    measured = []

    def percent(network, examples):
        measured.append(1)
        if len(measured) == 3:
            raise KeyboardInterrupt
        return real_percent(network, examples)

    with monkeypatch.context() as killed:
        killed.setattr(dense, "percent", percent)
        killed.setattr(engine, "Checkpoints", partial(Checkpoints, every=0))
        with pytest.raises(KeyboardInterrupt):
            engine.perform(SMALL, run, **options)
    assert list(folder.rglob("*.json")) == []
    measured.clear()
    monkeypatch.setattr(dense, "percent", lambda *a: measured.append(1) or real_percent(*a))
    assert engine.perform(SMALL, run, **options)["metrics"] == whole
    assert len(measured) == 1 + 2  # after the third epoch, and at the end
    assert len(files(folder)) == 1


def test_shards_on_several_machines_fill_one_table(folder):
    for i in (3, 1, 2):
        engine.run(TOY, engine.plan(TOY, "full", shard=(i, 3)), scale="full", progress=False)
    assert len(calls) == len(set(calls)) == 20
    assert engine.missing(TOY, engine.plan(TOY, "full")) == []


def test_results_are_read_from_the_package_and_from_the_chosen_folder(folder, tmp_path):
    run_toy()
    shutil.move(folder / "toy", tmp_path / "committed" / "toy")
    assert run_toy() == []
    assert len(run_toy("full")) == 14
    assert len(engine.records(TOY, engine.plan(TOY, "full"))) == 20


def test_where_new_results_go(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setenv("BIOLEARN_RESULTS", str(tmp_path))
    assert results.folder() == tmp_path
    monkeypatch.delenv("BIOLEARN_RESULTS")
    monkeypatch.setattr(results, "PACKAGE", tmp_path / "site-packages" / "biolearn_lite")  # installed, no checkout
    assert results.committed("papers") == tmp_path / "site-packages" / "biolearn_lite" / "_data" / "papers"
    assert results.folder() == Path("biolearn-results")
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "data" / "results").mkdir(parents=True)
    monkeypatch.setattr(results, "PACKAGE", tmp_path / "biolearn_lite")
    assert results.folder() == results.committed("results") == tmp_path / "data" / "results"


# One record


def test_a_record_tells_everything_but_whose_machine_it_was(folder):
    record = engine.perform(TOY, engine.Run("good", "mnist", 2), scale="lite", epochs=20, progress=False)
    assert record["metrics"]["score"] == 92.2
    assert record["settings"] == {"row": "good", "column": "mnist", "epochs": 20, "drops": [10, 15, 18]}
    assert record["epochs"] == {"run": 20, "recipe": 100}
    assert record["versions"]["torch"] == torch.__version__
    assert record["peak_memory"]["bytes"] > 10_000_000
    assert record["device"].startswith("CPU (")
    assert record["date"].endswith("+00:00")
    (path,) = folder.rglob("*.json")
    text = path.name + path.read_text()
    for private in (socket.gethostname(), str(Path.home()), os.getcwd(), str(folder)):
        assert private not in text


def test_git_state(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "PACKAGE", tmp_path / "biolearn_lite")
    git_state = results.git_state.__wrapped__
    assert git_state() is None
    (tmp_path / "biolearn_lite").mkdir()
    (tmp_path / "biolearn_lite" / "a.py").touch()
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    state = git_state()
    assert len(state["commit"]) == 40
    assert state["dirty"] is False
    (tmp_path / "a result").touch()
    assert git_state()["dirty"] is False
    (tmp_path / "biolearn_lite" / "a.py").write_text("changed")
    assert git_state()["dirty"] is True


@pytest.mark.parametrize("where", ["fdopen", "fsync", "replace"])
def test_a_failed_write_leaves_nothing(folder, monkeypatch, where):
    def fail(*arguments, **options):
        raise OSError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(os, where, fail)
        with pytest.raises(OSError, match="disk full"):
            run_toy()
    assert files(folder) == {}
    assert len(run_toy()) == 6


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_killed_write_leaves_no_half_record(folder, where):
    """The process ends in the middle of writing: what it leaves is not read, and does not stand in the way."""
    run = engine.perform(TOY, engine.Run("good", "mnist", 0), scale="lite", progress=False)
    (path,) = folder.rglob("*.json")
    whole = path.read_bytes()
    path.unlink()
    content = {key: value for key, value in run.items() if key != "digest"}
    code = (
        "import json, os, sys\nfrom biolearn_lite.recipes import results\n"
        f"os.{where} = lambda *a: os._exit(9)\nresults.write(json.load(sys.stdin))"
    )
    assert subprocess.run([sys.executable, "-c", code], input=json.dumps(content), text=True).returncode == 9
    assert list(folder.rglob("*.json")) == []
    assert results.read("toy") == []
    results.write(content)
    assert path.read_bytes() == whole


def _edit(change):
    def edit(path):
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return edit


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (_edit(lambda c: c["metrics"].update(score=99.9)), "changed after its run"),
        (_edit(lambda c: c["settings"].update(epochs=99)), "changed after its run"),
        (_edit(lambda c: c.update(seed=1)), "changed after its run"),
        (_edit(lambda c: c.update(source="0" * 64)), "changed after its run"),
        (_edit(lambda c: c.update(digest="0" * 64)), "changed after its run"),
        (_edit(lambda c: c.pop("digest")), "not a record"),
        (_edit(lambda c: c.update(remark="typed by hand")), "not a record"),
        (lambda path: path.write_text("[98.1]"), "not a record"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "not JSON"),
        (lambda path: path.write_text(""), "not JSON"),
    ],
)
def test_a_result_changed_or_typed_by_hand_is_not_shown(folder, tamper, message):
    run = engine.Run("good", "mnist", 0)
    engine.perform(TOY, run, scale="lite", progress=False)
    (path,) = folder.rglob("*.json")
    assert report(TOY, [run]).rows[0]["mean"] == 91.0
    tamper(path)
    with pytest.warns(UserWarning, match=message):
        shown = report(TOY, [run])
    assert shown.rows[0]["mean"] is None
    assert "not run yet" in repr(shown)
    with pytest.warns(UserWarning, match=message):
        engine.run(TOY, [run], scale="lite", progress=False)
    assert report(TOY, [run]).rows[0]["mean"] == 91.0


def test_reordering_keys_or_spaces_is_no_change(folder):
    run = engine.Run("good", "mnist", 0)
    engine.perform(TOY, run, scale="lite", progress=False)
    (path,) = folder.rglob("*.json")
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(content.items())), indent=7))
    assert report(TOY, [run]).rows[0]["mean"] == 91.0


def test_a_result_with_other_settings_is_not_shown_and_not_lost(folder):
    """Someone changed the recipe: its old results stay on disk, but they are not this recipe's."""
    run_toy()
    before = files(folder)
    changed = replace(TOY, settings=lambda row, column: ToySettings(row=row, column=column, drops=(10,)))
    assert len(engine.missing(changed, engine.plan(changed, "lite"))) == 6
    assert all(row["mean"] is None for row in report(changed, engine.plan(changed, "lite")).rows)
    engine.run(changed, engine.plan(changed, "lite"), scale="lite", progress=False)
    assert before.items() <= files(folder).items()
    assert len(files(folder)) == 12


def test_a_number_that_is_none_is_never_written(folder):
    broken = replace(TOY, train=lambda *arguments: {"score": float("nan"), "history": []})
    with pytest.raises(ValueError, match="JSON"):
        engine.perform(broken, engine.Run("good", "mnist", 0), scale="lite", progress=False)
    assert files(folder) == {}


def test_a_run_that_diverges_is_a_result_with_its_reason(folder, capsys):
    def train(settings, data, seed, progress, checkpoints):
        if seed == 1 or settings.row == "bad":
            raise FloatingPointError("block 2 diverged: its loss is nan at step 7; lower its learning rate")
        return toy_train(settings, data, seed, progress, checkpoints)

    shaky = replace(TOY, train=train)
    runs = engine.plan(shaky, "lite")
    assert len(engine.run(shaky, runs, scale="lite", progress=False)) == 6
    assert engine.missing(shaky, runs) == []  # not tried again
    shown = report(shaky, runs)
    good, bad = shown.rows
    assert (good["values"], good["seeds"], list(good["failed"])) == ([91.0, 93.0], [0, 1, 2], [1])
    assert (bad["mean"], bad["seeds"], list(bad["failed"])) == (None, [0, 1, 2], [0, 1, 2])
    assert "step 7" in bad["failed"][0]
    assert [row["ours"] for row in shown.table()] == ["92.0 ± 1.4 (1 diverged)", "diverged"]
    records = {record["seed"]: record for record in engine.records(shaky, runs) if record["row"] == "good"}
    assert outcome(shaky, records[0]) == "score 91.0"
    assert outcome(shaky, records[1]).startswith("diverged: block 2")


def test_a_real_run_that_diverges_says_which_layer_and_what_to_do(folder, monkeypatch):
    wild = replace(SMALL.settings("pHSIC", "digits"), activation="leaky relu", rate=1e20, epochs=2)
    recipe = replace(SMALL, settings=lambda row, column: wild)
    record = engine.perform(recipe, engine.Run("pHSIC", "digits", 0), scale="lite", device="cpu", progress=False)
    assert "diverged" in record["metrics"]["failed"]
    assert "lower its learning rate" in record["metrics"]["failed"]
    assert record["metrics"]["history"] == []


def test_a_wrong_argument_is_no_divergence():
    settings = replace(SMALL.settings("pHSIC", "digits"), grouped_objective=True, groups=7)
    with pytest.raises(ValueError, match="groups=7 must divide"):
        engine.perform(
            replace(SMALL, settings=lambda row, column: settings), engine.Run("pHSIC", "digits", 0), scale="lite"
        )


def test_a_setting_added_later_leaves_older_results_readable(folder):
    """They count as made with its default, and with any value of a setting that changes no result."""

    @dataclass(frozen=True, kw_only=True)
    class Later(ToySettings):
        shape: tuple[int, ...] = engine.setting("new", default=(1, 2))
        speed: str = engine.setting("how, not what", default="slow", same_result=True)

    def found(**options):
        recipe = replace(TOY, settings=lambda row, column: Later(row=row, column=column, **options))
        return len(engine.records(recipe, engine.plan(recipe, "lite")))

    run_toy()
    assert (found(), found(speed="fast"), found(shape=(1, 3)), found(epochs=50)) == (6, 6, 0, 0)
    later = replace(TOY, settings=lambda row, column: Later(row=row, column=column, speed="fast"))
    engine.run(later, engine.plan(later, "full"), scale="full", progress=False)
    assert (found(), found(shape=(1, 3))) == (6, 0)
    assert engine.records(TOY, engine.plan(TOY, "full", columns=["fashion"])) == []  # a setting it has not


def test_a_rehearsal_may_take_fewer_examples_than_a_batch(monkeypatch):
    sizes = []
    recipe = replace(
        SMALL, random=lambda settings, steps: sizes.append(settings.batch_size) or dense.random(settings, 2)
    )
    engine.rehearse(recipe, engine.Run("last layer", "digits", 0))
    engine.rehearse(replace(recipe, rehearsal_batch=8), engine.Run("last layer", "digits", 0))
    assert sizes == [64, 8]


# The source hash


def test_the_source_hash_covers_what_a_run_computes_with(tmp_path, monkeypatch):
    package = tmp_path / "biolearn_lite"
    shutil.copytree(results.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(results, "PACKAGE", package)
    train, source_hash = _defined_in(package / "recipes" / "vgg.py"), results.source_hash.__wrapped__
    first = source_hash(train)
    touched = {"recipes/dense.py", "rules/hsic.py", "rules/kernels.py", "nets/layers.py", "nets/networks.py"}
    touched |= {
        "training/fit.py",
        "recipes/vgg.py",
        "training/probes.py",
        "training/schedules.py",
        "data/sets.py",
        "data/_files.py",
    }
    for name in touched:
        text = (package / name).read_text()
        (package / name).write_text(text + "\nchanged = True\n")
        assert source_hash(train) != first, name
        (package / name).write_text('"""Changed.""" \n\n    # changed\n' + text.replace("\n\n", "\n\n\n"))
        assert source_hash(train) == first, name
        (package / name).write_text(text)
    for name in ("show/figures.py", "recipes/report.py", "recipes/engine.py", "training/checkpoint.py", "__main__.py"):
        (package / name).write_text("changed")
    assert source_hash(train) == first


REFUSALS = {
    "if not x > 0:\n        raise ValueError('x')": True,
    "if not x > 0:\n        raise ValueError(\n            'another message'\n        )": True,
    "try:\n        y = x\n    except KeyError:\n        raise ValueError": False,  # the `try` is new
    "if not x > 0:\n        x = 1": False,
    "if not x > 0:\n        raise ValueError('x')\n    else:\n        x = 1": False,
    "if (x := x + 1) < 0:\n        raise ValueError('x')": False,
    "if not x > 0:\n        x = 1\n        raise ValueError('x')": False,
}


@pytest.mark.parametrize("code", REFUSALS)
def test_what_only_refuses_is_left_out_of_the_hash(code, tmp_path):
    plain, with_code = tmp_path / "plain.py", tmp_path / "code.py"
    plain.write_text("def f(x):\n    return x\n")
    with_code.write_text(f"def f(x):\n    {code}\n    return x\n")
    assert (results._code(plain) == results._code(with_code)) == REFUSALS[code]


def test_results_of_code_that_computes_the_same_are_current(monkeypatch):
    run_toy()
    runs = engine.plan(TOY, "lite")
    recorded = results.source_hash(TOY.train)
    monkeypatch.setattr(results, "_equal_sources", lambda: {recorded: "by today's rule"})
    monkeypatch.setattr(results, "source_hash", lambda train: "by today's rule")
    assert all(row["current"] for row in report(TOY, runs).rows)
    monkeypatch.setattr(results, "source_hash", lambda train: "another")
    assert not any(row["current"] for row in report(TOY, runs).rows)


def _defined_in(path):
    space = {}
    exec(compile("def train(): pass", str(path), "exec"), space)
    return space["train"]


# Reports


def test_a_report_counts_right(folder):
    run_toy()
    good, bad = report(TOY, engine.plan(TOY, "lite")).rows
    assert (good["row"], good["column"], good["paper"], good["values"]) == ("good", "mnist", 98.6, [91.0, 92.0, 93.0])
    assert (good["mean"], good["low"], good["high"], good["deviation"]) == (92.0, 91.0, 93.0, 1.0)
    assert good["difference"] == pytest.approx(92.0 - 98.6)
    assert (good["seeds"], good["epochs"], good["recipe_epochs"]) == ([0, 1, 2], 100, 100)
    assert good["current"] is True
    assert good["history"][2] == [{"epoch": 1, "score": 93.0}]
    assert (bad["paper"], bad["difference"], bad["mean"]) == (None, None, 12.0)


def test_a_report_of_nothing_says_so():
    shown = report(TOY, engine.plan(TOY, "full"))
    assert len(shown.rows) == 4
    assert repr(shown).count("not run yet") == 4
    assert all(row["mean"] is None and row["seeds"] == [] for row in shown.rows)


def test_shorter_runs_are_shown_as_what_they_are_until_longer_ones_are_made():
    run_toy(epochs=20)
    (row, _) = report(TOY, engine.plan(TOY, "lite")).rows
    assert (row["mean"], row["epochs"], row["recipe_epochs"]) == (91.2, 20, 100)
    assert "20/100" in repr(report(TOY, engine.plan(TOY, "lite")))
    engine.perform(TOY, engine.Run("good", "mnist", 1), scale="lite", progress=False)
    (row, other) = report(TOY, engine.plan(TOY, "lite")).rows
    assert (row["mean"], row["seeds"], row["epochs"], row["deviation"]) == (92.0, [1], 100, None)
    assert other["epochs"] == 20


def test_results_of_earlier_sources_are_marked(monkeypatch):
    run_toy()
    assert "*" not in repr(report(TOY, engine.plan(TOY, "lite")))
    monkeypatch.setattr(results, "source_hash", lambda train: "today")
    engine.perform(TOY, engine.Run("bad", "mnist", 0), scale="lite", epochs=200, progress=False)
    shown = report(TOY, engine.plan(TOY, "lite"))
    assert [row["current"] for row in shown.rows] == [False, True]
    assert repr(shown).count("*") == 2
    assert repr(shown).endswith("* made by an earlier version of the code")


def test_run_or_show_shows_without_a_gpu_and_trains_with_one(folder, monkeypatch):
    assert "not run yet" in repr(engine.run_or_show(TOY, "good", "mnist", "lite"))
    assert calls == []
    monkeypatch.setenv("BIOLEARN_REHEARSE", "1")
    assert "not run yet" in repr(engine.run_or_show(TOY, "good", "mnist", "lite"))
    assert len(calls) == 3
    assert files(folder) == {}
    on_cpu = engine.perform
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(engine, "perform", lambda *a, **options: on_cpu(*a, **{**options, "device": "cpu"}))
    shown = engine.run_or_show(TOY, "good", "mnist", "lite", epochs=20)
    assert [(row["row"], row["seeds"], row["epochs"]) for row in shown.rows] == [("good", [0, 1, 2], 20)]
    assert len(calls) == 6
    assert engine.run_or_show(TOY, "good", "mnist", "lite", epochs=20).rows == shown.rows
    assert len(calls) == 6


# The dense networks


CELLS = [
    (recipe, row, column)
    for recipe in bottleneck.RECIPES
    for column in dict.fromkeys(c for scale in recipe.scales.values() for c in scale.columns)
    for row in recipe.rows
    if (row, column) not in recipe.without
]


@pytest.mark.parametrize(("recipe", "row", "column"), CELLS, ids=lambda value: getattr(value, "name", value))
def test_every_run_takes_two_steps_at_its_true_size(recipe, row, column, folder, monkeypatch):
    steps = []
    monkeypatch.setattr(dense, "fit", lambda *a, **o: steps.append(-(-len(a[2]) // o["batch_size"])) or fit(*a, **o))
    monkeypatch.setattr(dense, "layer_probes", lambda network, *a, **o: [0.5] * len(network.layers))
    settings = recipe.settings(row, column)
    metrics = engine.rehearse(recipe, engine.Run(row, column, 0))
    learning = row != "untrained"
    assert steps == [2]
    assert len(metrics["history"]) == learning
    assert set(recipe.measures) <= set(metrics)
    for epoch in metrics["history"]:
        hidden = 1 if settings.learns == "all" else len(settings.hidden) + 1
        scalars = settings.learns != "readout" and settings.update == "objective"
        assert [loss is not None for loss in epoch["losses"]] == [scalars] * (hidden - 1) + [True]
        assert ("gap" in epoch) == (settings.learns == "layers")
    assert files(folder) == {}


fit, real_percent = dense.fit, dense.percent


@pytest.mark.parametrize("column", bottleneck.IMAGES)
def test_the_true_shapes_are_those_of_the_data(column):
    if not sets.available(column):
        pytest.skip(f"{column} is not in BIOLEARN_DATA")
    settings = MLP.settings("backprop", column)
    data = sets.load(column, download=False)
    assert (data.shape, len(data.classes)) == (settings.shape, settings.classes)
    loaded, noise = dense.load(settings, torch.device("cpu")), dense.random(settings, 2)
    assert loaded.train[0].shape[1:] == noise.train[0].shape[1:] == (prod(settings.shape),)
    assert noise.train[0].dtype == loaded.train[0].dtype
    assert noise.train[1].dtype == loaded.train[1].dtype


@pytest.mark.parametrize(
    ("row", "column", "groups", "rate", "readout_rate", "power"),
    [
        ("backprop", "mnist", None, 0.0, 5e-2, None),
        ("backprop+div", "mnist", 16, 0.0, 5e-3, 0.2),
        ("last layer+div", "cifar10", 32, 0.0, 1e-2, 0.2),
        ("pHSIC cosine", "fashion", None, 1.0, 5e-3, None),
        ("pHSIC cosine grp", "kmnist", 16, 0.4, 5e-3, None),
        ("pHSIC gaussian", "mnist", None, 0.6, 5e-4, None),
        ("HSIC gaussian", "mnist", None, 0.6, 5e-4, None),
        ("pHSIC gaussian grp", "cifar10", 32, 0.6, 5e-4, None),
        ("pHSIC gaussian grp+div", "mnist", 32, 1.0, 1e-3, 0.2),
        ("pHSIC gaussian grp+div", "fashion", 32, 1.0, 5e-3, 0.2),
    ],
)
def test_settings_of_table_3(row, column, groups, rate, readout_rate, power):
    settings = MLP.settings(row, column)
    assert (settings.groups, settings.rate, settings.readout_rate) == (groups, rate, readout_rate)
    assert (settings.hidden, settings.batch_size, settings.epochs) == ((1024, 1024, 1024), 256, 100)
    assert (settings.drops, settings.drop_factor, settings.momentum) == ((50, 75, 90), 0.25, 0.95)
    assert settings.augment == (column == "cifar10")
    norms = [layer for layer in dense.build(settings, 0).modules() if hasattr(layer, "power")]
    assert [(norm.groups, norm.power) for norm in norms] == [(groups, power)] * (3 if power else 0)


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ("pHSIC gaussian", {}),
        ("HSIC gaussian", {"estimator": "hsic"}),
        ("pHSIC cosine", {"kernel": "cosine"}),
        ("pHSIC cosine grp+div", {"kernel": "cosine", "groups": 16, "power": 0.2}),
        ("pHSIC gaussian grp", {"groups": 32, "power": 0.5}),
        ("pHSIC gaussian grp+div", {"groups": 32, "power": 0.2}),
    ],
)
def test_what_a_hidden_layer_minimizes(row, options):
    """σ = 5, γ = 2; groups alone with power ½, with normalization 0.2; the readout has its own optimizer."""
    settings = replace(MLP.settings(row, "mnist"), update="objective")
    objectives, makers = dense.learning(settings)
    z, y = torch.randn(12, 64, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 10
    expected = bottleneck_objective(z, label_kernel(y, 10), sigma=5.0, balance=2.0, **options)
    torch.testing.assert_close(objectives[0](z, Batch(z, y)), expected)
    normalized_only, _ = dense.learning(replace(settings, groups=16, grouped_objective=False))
    plain = bottleneck_objective(
        z, label_kernel(y, 10), **{k: options[k] for k in options if k not in ("groups", "power")}
    )
    torch.testing.assert_close(normalized_only[0](z, Batch(z, y)), plain)
    groups = [make([nn.Parameter(torch.zeros(1))]).param_groups[0] for make in makers]
    assert [(g["lr"], g["weight_decay"], g["momentum"]) for g in groups] == [
        *[(settings.rate, 1e-7, 0.95)] * 3,
        (settings.readout_rate, 1e-6, 0.95),
    ]


def test_the_original_bottleneck_compares_with_the_input():
    """Eq. 2: HSIC(X, Z) - γ HSIC(Y, Z), by the trace formula."""
    settings = replace(MLP.settings("HSIC gaussian, Eq. 2", "digits"), sigma=2.0, balance=3.0)
    x, z = torch.randn(2, 12, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.arange(12) % 10
    (objective, *_), _ = dense.learning(settings)
    H = torch.eye(12, dtype=torch.float64) - 1 / 12
    Kx, Kz = (torch.exp(-torch.cdist(a, a).square() / 8) for a in (x, z))
    Ky = torch.where(y[:, None] == y, 1.0, -1 / 9).double()
    expected = ((Kx - 3 * Ky) @ H @ Kz @ H).trace() / 144
    torch.testing.assert_close(objective(z, Batch(x, y)), expected)
    with pytest.raises(ValueError, match="against='input' needs update='objective'"):
        dense.learning(replace(settings, update="explicit"))


@pytest.mark.parametrize("row", ["pHSIC gaussian grp+div", "pHSIC cosine", "HSIC gaussian"])
def test_the_explicit_update_gives_the_same_weights(row):
    settings = replace(MLP.settings(row, "digits"), epochs=1, dropout=0.0)
    data = dense.random(settings, 3)
    networks = []
    for update in ("objective", "explicit"):
        chosen = replace(settings, update=update)
        networks.append(dense.build(chosen, 0).double())
        inputs = dense.Data(*((x.double(), y) for x, y in data))
        dense.descend(networks[-1], *dense.learning(chosen), chosen, inputs, 0, False, None)
    born = dense.build(settings, 0).double()
    for a, b, start in zip(*(net.parameters() for net in (*networks, born)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
        assert not torch.equal(a, start)


def test_the_papers_dense_nets_use_the_explicit_update_where_they_can():
    chosen = {(row, column): MLP.settings(row, column).update for recipe, row, column in CELLS if recipe is MLP}
    explicit = {cell for cell, update in chosen.items() if update == "explicit"}
    grey = ("mnist", "fashion", "kmnist")
    assert explicit == {(row, c) for row in MLP.rows if "HSIC" in row and "Eq. 2" not in row for c in grey}


@pytest.mark.parametrize("row", ["pHSIC gaussian", "pHSIC cosine grp+div", "HSIC gaussian"])
def test_the_gap_between_phsic_and_hsic(row):
    """Eq. 71 of every hidden layer's kernel matrix, by its definition, on the first training batches."""
    settings = replace(MLP.settings(row, "digits"), batch_size=16)
    network, x = dense.build(settings, 0), torch.randn(100, 64, generator=torch.Generator().manual_seed(0))
    H = torch.eye(16, dtype=torch.float64) - 1 / 16
    for layer, found in enumerate(dense.gaps(network, settings, x)):
        shares = []
        for part in x[:64].split(16):
            K = dense.activity_kernel(network.eval().activities(part)[layer].double(), settings)
            shares.append(1 - (K @ H @ K @ H).trace() / 256 / (K.square().mean() - K.mean() ** 2))
        assert found == pytest.approx(sum(shares).item() / 4, rel=1e-6)
        assert 0 < found < 1
    same = torch.ones(64, 64)
    assert dense.gaps(network, settings, same) == [None] * 3


def test_running_accuracy_counts_the_training_batches():
    scores, y = dense.Scores(), torch.tensor([0, 1, 2, 3])
    right, wrong = torch.eye(4), torch.eye(4).roll(1, 0)
    assert scores(right, Batch(right, y)) == dense.cross_entropy(right, Batch(right, y))
    scores(wrong, Batch(wrong, y))
    scores(torch.cat([right, wrong]), Batch(right, y.repeat(2)))
    assert scores.read() == 50.0
    scores(right, Batch(right, y))
    assert scores.read() == 100.0


def test_the_sweep_changes_one_thing_of_the_digits_table():
    for column, name in {"plain": "pHSIC gaussian", "grp+div": "pHSIC gaussian grp+div"}.items():
        paper = MLP.settings(name, "digits")
        assert (paper.balance, paper.sigma) == (2.0, 5.0)
        for row in SWEEP.rows:
            what, value = row.split()
            assert SWEEP.settings(row, column) == replace(paper, **{what: float(value)}) != paper


def test_the_leaky_relu_leaks_one_hundredth():
    network = dense.build(MLP.settings("pHSIC gaussian", "mnist"), 0)
    assert [layer.activation(torch.tensor(-1.0)).item() for layer in network.layers[:-1]] == pytest.approx([-0.01] * 3)


def test_where_the_paper_has_a_number():
    printed = {(row, column) for recipe, row, column in CELLS if recipe is MLP and MLP.paper(row, column)}
    assert printed == {(r, c) for r in MLP.rows if not r.startswith("HSIC") for c in bottleneck.PAPER_SETS}
    assert papers.number(*MLP.paper("pHSIC gaussian grp+div", "kmnist")) == 91.1
    assert papers.number(*MLP.paper("last layer+div", "fashion")) == 85.7


def test_the_objective_does_not_see_normalization_and_dropout():
    """Layer 0's activity is the same with and without; what layer 1 receives is not. Dropout only while training."""
    x = torch.randn(8, 784, generator=torch.Generator().manual_seed(0))
    plain = dense.build(MLP.settings("pHSIC gaussian grp", "mnist"), 3).eval()
    normed = dense.build(MLP.settings("pHSIC gaussian grp+div", "mnist"), 3).eval()
    a, b = plain.activities(x), normed.activities(x)
    assert torch.equal(a[0], b[0])
    assert not torch.equal(a[1], b[1])
    z = a[0].reshape(8, 32, 32)
    z = z - z.mean(2, keepdim=True)
    r = z / (z.square().mean(2, keepdim=True) + 1 / 32) ** 0.2
    torch.testing.assert_close(normed.layers[0].after(a[0]), r.reshape(8, -1))
    assert torch.equal(plain.layers[0].after(a[0]), a[0])
    dropped = plain.train().layers[0].after(torch.ones(200, 1024)) == 0
    assert 0.005 < dropped.double().mean() < 0.015


def test_crops_and_flips_are_pieces_of_the_padded_image():
    x = torch.randn(400, 2 * 5 * 6, generator=torch.Generator().manual_seed(0))
    black = torch.tensor([-7.0, -9.0]).view(2, 1, 1)
    augment = dense.CropAndFlip((2, 5, 6), black=black, padding=2)
    torch.manual_seed(0)
    out = augment(x).reshape(-1, 2, 5, 6)
    places = {}
    for image, crop in zip(x.reshape(-1, 2, 5, 6), out, strict=True):
        padded = black.expand(2, 9, 10).clone()
        padded[:, 2:7, 2:8] = image
        windows = {(i, j): padded[:, i : i + 5, j : j + 6] for i in range(5) for j in range(5)}
        found = [
            (place, flipped)
            for place, window in windows.items()
            for flipped in (False, True)
            if torch.allclose(window.flip(2) if flipped else window, crop, atol=1e-5)
        ]
        (place,) = found
        places[place] = places.get(place, 0) + 1
    assert len(places) == 50
    assert 150 < sum(n for (_, flipped), n in places.items() if flipped) < 250
    assert torch.equal(augment.eval()(x), x)


def test_black_is_black():
    network = dense.build(MLP.settings("backprop", "cifar10"), 0)
    black = network.layers[0].op[0].get_buffer("black")
    data = sets.CARDS["cifar10"]
    expected = (torch.zeros(3) - torch.tensor(data.mean)) / torch.tensor(data.std)
    torch.testing.assert_close(black.flatten(), expected)


# The command line, on real digits


def test_the_command_line_trains_on_real_digits_and_reports(folder, capsys):
    command = ["run", "layer-objective", "--row", "pHSIC", "--row", "untrained", "--seeds", "0", "--device", "cpu"]
    assert main([*command, "--epochs", "5"]) == 0
    assert "2 of 2 runs to do" in capsys.readouterr().out
    rows = {row["row"]: row for row in report(SMALL, engine.plan(SMALL, "lite", seeds=[0])).rows}
    learned, untrained = rows["pHSIC"], rows["untrained"]
    assert learned["epochs"] == 5
    for i in (1, 2, 3):
        assert learned["measures"][f"probe_{i}"]["mean"] > untrained["measures"][f"probe_{i}"]["mean"] + 5
    assert len(learned["history"][0]) == 5
    assert learned["history"][0][-1]["test_accuracy"] == learned["mean"] > 75
    before = files(folder)
    assert main([*command, "--epochs", "5"]) == 0
    assert "0 of 2 runs to do" in capsys.readouterr().out
    assert files(folder) == before
    assert main(["report", "layer-objective"]) == 0
    table = capsys.readouterr().out
    assert table.count("not run yet") == 4
    assert "5/25" in table
    assert main(["list"]) == 0
    assert "lite: 2 of 30 runs made" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--device", "abacus"], "'abacus': not here"),
        (["--seeds", "0,x"], "'0,x': give whole numbers"),
        (["--shard", "1"], "'1': give i/n"),
        (["--epochs", "0"], "'0': give 1 or more"),
    ],
)
def test_bad_options_are_told_in_a_line(words, said, capsys):
    with pytest.raises(SystemExit):
        main(["run", "layer-objective", *words])
    assert said in capsys.readouterr().err


def test_a_device_stays_the_name_it_is(monkeypatch):
    """Each of several processes has set a GPU of its own; "cuda" made a device too early would be the first for all."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    parser = _parser()
    for name in ("cpu", "cuda", "cuda:1"):
        assert parser.parse_args(["run", "clapp", "--device", name]).device == name
    with pytest.raises(SystemExit):
        parser.parse_args(["run", "clapp", "--device", "cuda:2"])


def test_cells_that_a_table_leaves_out_are_no_empty_success(capsys):
    row, column = next(iter(engine.find("dtp").without))
    assert main(["run", "dtp", "--scale", "full", "--row", row, "--column", column]) == 2
    assert "no such cell" in capsys.readouterr().err


def test_what_is_named_twice_runs_once(folder, capsys):
    command = ["run", "layer-objective", "--row", "untrained", "--column", "digits", "--column", "digits"]
    assert main([*command, "--seeds", "0,0", "--epochs", "1", "--device", "cpu"]) == 0
    assert "1 of 1 runs to do" in capsys.readouterr().out


def test_the_same_run_gives_the_same_numbers(folder):
    run = engine.Run("HSIC", "digits", 1)
    metrics = []
    for _ in range(2):
        metrics.append(engine.perform(SMALL, run, scale="lite", epochs=2, device="cpu", progress=False)["metrics"])
        shutil.rmtree(folder)
    assert metrics[0] == metrics[1]


def test_show_explains_every_setting(capsys):
    assert main(["show", "bottleneck-mlp", "--row", "backprop", "--row", "pHSIC cosine"]) == 0
    out = capsys.readouterr().out
    for field in dense.Settings.__dataclass_fields__.values():
        assert f"{field.name} = " in out
        assert len(field.metadata["about"]) > 5
        assert field.metadata["about"] in out
    assert "learns = all | layers" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "bottleneck"], "unknown recipe 'bottleneck': choose from 'bottleneck-mlp', 'bottleneck-sweep'"),
        (["report", "bottleneck-mlp", "--row", "nothing"], "choose from 'backprop', 'backprop+div', 'last layer'"),
        (["show", "bottleneck-mlp", "--column", "cifar"], "'cifar10'"),
        (["run", "layer-objective", "--scale", "big"], "choose from 'lite', 'colab', 'full'"),
        (["run", "layer-objective", "--shard", "3/2"], "shard 3/2"),
    ],
)
def test_command_line_errors_name_the_cure(arguments, message, folder, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert files(folder) == {}


# What is committed


def test_the_lite_table_counts(monkeypatch):
    """Backprop is within 1.5 points of a support vector machine on the same split, as far as five seeds can tell (up to
    the standard error of their mean); readouts of untrained layers fall behind."""
    monkeypatch.undo()
    rows = {row["row"]: row for row in report(MLP, engine.plan(MLP, "lite")).rows}
    assert all(row["seeds"] == [0, 1, 2, 3, 4] for row in rows.values())
    (x, y), (x_test, y_test) = sets.load("digits").train(), sets.load("digits").test()
    machine = SVC(C=10).fit(x.flatten(1), y).score(x_test.flatten(1), y_test)
    error = rows["backprop"]["measures"]["test_accuracy"]["deviation"] / 5**0.5
    assert rows["backprop"]["mean"] + error > 100 * machine - 1.5
    assert rows["last layer"]["mean"] < rows["backprop"]["mean"] - 5
    for i in (2, 3):
        untrained = rows["last layer"]["measures"][f"probe_{i}"]["mean"]
        assert rows["pHSIC gaussian grp+div"]["measures"][f"probe_{i}"]["mean"] > untrained + 5


def test_every_committed_result_is_whole_and_belongs_to_a_recipe(monkeypatch):
    monkeypatch.undo()
    by_recipe: dict[str, list] = {}
    for path in sorted(results.committed("results").glob("*/*.json")):
        record = results.load(path)
        by_recipe.setdefault(record["recipe"], []).append(record)
    assert by_recipe
    for name, made in by_recipe.items():
        runs = [engine.Run(record["row"], record["column"], record["seed"]) for record in made]
        known = {record["digest"] for record in engine.records(engine.find(name), runs)}
        assert [str(run) for run, record in zip(runs, made, strict=True) if record["digest"] not in known] == [], name
