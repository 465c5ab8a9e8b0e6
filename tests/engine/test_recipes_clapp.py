"""The recipe of 003: its tables' cells, the right rule in every row, steps of runs at their true sizes, a table that
counts."""

from dataclasses import asdict

import pytest
import torch
from torch import nn

from biolearn_lite.data import sets
from biolearn_lite.nets.clapp import FromAbove, GlanceReadout, Prediction
from biolearn_lite.recipes import clapp as page
from biolearn_lite.recipes import engine, glances, papers
from biolearn_lite.recipes.report import report

(RECIPE,) = page.RECIPES
LITE = engine.plan(RECIPE, "lite", seeds=[0])
STL = [run.row for run in engine.plan(RECIPE, "full", seeds=[0], columns=["stl10"])]


def test_every_printed_number_has_one_cell():
    places = [RECIPE.paper(row, "stl10") for row in STL]
    found = [papers.number(*place) for place in places if place]
    printed = [float(cells["VGG-6"]) for cells in papers.table("003-4")]
    printed += [float(cells["Test accuracy (%)"]) for cells in papers.table("003-6")]
    assert sorted(found) == sorted(printed)
    assert papers.number(*RECIPE.paper("GIM", "stl10")) == 78.3
    assert papers.number(*RECIPE.paper("CLAPP-s", "stl10")) == 74.0
    assert not any(RECIPE.paper(row, "imagenette") for row in STL)


def test_settings_of_the_paper():
    s = page.settings("CLAPP-s", "stl10")
    expected = {"rate": 2e-4, "epochs": 300, "batch_size": 32, "others": 16, "steps": 5, "skip": 1, "grid": (7, 7)}
    assert expected.items() <= asdict(s).items()
    assert (s.side, s.stages, s.partition, s.both, s.retro) == (64, "vgg6", "6 modules", True, False)
    clapp = page.settings("CLAPP", "stl10")
    assert (clapp.both, clapp.retro, clapp.independent, clapp.epochs) == (False, True, False, 600)
    assert page.settings("CLAPP, a saccade per layer", "stl10").independent
    assert page.settings("Hinge Loss CPC", "stl10").epochs == 600
    assert page.settings("CPC", "stl10").partition == "1 module"
    assert page.settings("GIM", "stl10").partition == "3 modules"
    assert {page.settings(row, "stl10").partition for row in STL} == {
        name for name in glances.PARTITIONS if not name.startswith("small")
    }


TWO_MATRICES = ("CLAPP", "CLAPP, a saccade per layer", "CLAPP, four times as long")


def test_one_case_at_a_time_takes_longer():
    epochs = {row: page.settings(row, "digits").epochs for row in page.ROWS}
    assert (epochs["CLAPP-s"], epochs["CLAPP"], epochs["CLAPP, four times as long"]) == (6, 12, 48)
    assert {row for row in page.ROWS if epochs[row] == 48} == set(page.ROWS) - page.SHOWN["stl10"]


@pytest.mark.parametrize("row", page.ROWS)
def test_what_each_row_asks_of_its_modules(row):
    """Built small; the full network has the same rows."""
    settings = page.settings(row, "digits")
    network, objectives = glances.build(settings, 0)
    assert len(network.blocks) == len(objectives)
    kind = type(objectives[0])
    if row == "random encoder":
        assert set(objectives) == {None}
        return
    assert kind is (GlanceReadout if "supervised" in row else FromAbove if "above" in row else Prediction)
    if kind is not Prediction:
        return
    module = objectives[0]
    assert {objective.eye for objective in objectives} == {module.eye}
    assert module.rule == ("info_nce" if row in ("CPC", "GIM") else "clapp")
    assert (module.W_retro is not None) == ("two matrices" in row or row in TWO_MATRICES)
    assert module.block == ("context" if "blocked" in row else None)
    coin = row.startswith(("CLAPP,", "Hinge")) or row == "CLAPP"
    assert (module.eye.others is None) == coin
    assert module.eye.independent == (row == "CLAPP, a saccade per layer")


@pytest.mark.parametrize("run", LITE, ids=str)
def test_lite_runs_take_two_steps(run):
    metrics = engine.rehearse(RECIPE, run)
    assert len(metrics["layers"]) == 3
    assert metrics["test_accuracy"] == metrics["layers"][-1]
    assert ("all_labels" in metrics) == (run.column == "digits")
    assert len(metrics["history"]) == 1


@pytest.mark.parametrize("row", ["CLAPP", "CPC"])
def test_full_runs_take_a_step_at_their_true_size(row):
    metrics = engine.rehearse(RECIPE, engine.Run(row, "imagenette", 0), steps=1)
    assert len(metrics["layers"]) == 6
    assert len(metrics["history"][0]["losses"]) == (1 if row == "CPC" else 6)


def test_stl10_learns_from_images_without_labels():
    images = torch.zeros(3, 3, 96, 96, dtype=torch.uint8)
    unlabeled = torch.zeros(5, 3, 96, 96, dtype=torch.uint8)
    stl = sets.DataSet("stl10", images, torch.arange(3), images[:2], torch.arange(2), (), (), (), 255, unlabeled)
    assert len(glances.prepare(page.settings("CLAPP", "stl10"), stl).shown[0]) == 5
    data = glances.prepare(page.settings("supervised", "stl10"), stl)
    assert (len(data.shown[0]), len(data.fitted[0]), len(data.test[0]), data.glances) == (3, 3, 2, 49)
    assert data.shown[0].still < data.fitted[0].still  # what is read out stands still


def test_few_labels_are_shared_fairly():
    labels = torch.arange(200) % 10
    chosen = glances.few(labels, 40, seed=0)
    assert labels[chosen].bincount().tolist() == [4] * 10
    assert len(set(chosen.tolist())) == 40
    assert not torch.equal(chosen.sort().values, glances.few(labels, 40, seed=1).sort().values)
    assert not torch.equal(labels[chosen], labels[chosen].sort().values)  # the last fifth holds all kinds


def test_features_do_not_depend_on_how_many_are_computed_at_a_time(monkeypatch):
    network, _ = glances.build(page.settings("CLAPP-s", "digits"), 0)
    seen = torch.randn(23, 1, 8, 8)
    whole = glances._features(network, seen, 1)
    monkeypatch.setattr(glances, "BATCH", 5)
    for one, two in zip(whole, glances._features(network, seen, 1), strict=True):
        torch.testing.assert_close(one, two)
    assert isinstance(network.layers[0].pool, nn.MaxPool2d)


def test_the_lite_table_counts():
    """On strips of digits the top layer learns what lasts: ten points above a random encoder, and more with depth."""
    rows = report(RECIPE, engine.plan(RECIPE, "lite", columns=["digits"])).rows
    mean = {row["row"]: row["mean"] for row in rows}
    assert all(row["seeds"] == [0, 1, 2, 3, 4] for row in rows)
    assert mean["CLAPP, four times as long"] > mean["random encoder"] + 15
    assert mean["CLAPP-s"] > mean["random encoder"] + 10
    assert mean["GIM"] > mean["random encoder"] + 10
    assert mean["supervised"] > mean["random encoder"] + 10
    for record in engine.records(RECIPE, engine.plan(RECIPE, "lite", rows=["CLAPP-s"], columns=["digits"])):
        losses = record["metrics"]["history"][-1]["losses"]
        assert losses == sorted(losses, reverse=True)  # falls with depth
        layers = record["metrics"]["layers"]
        assert layers == sorted(layers)
