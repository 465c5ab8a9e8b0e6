"""The recipe of chapter 02: rows that differ in their wires alone, an honest yardstick, a table that counts."""

import math
from dataclasses import replace

import pytest
import torch
from sklearn.svm import SVC

from biolearn_lite.data import sets
from biolearn_lite.recipes import engine
from biolearn_lite.recipes import feedback_depth as page
from biolearn_lite.recipes.report import report
from biolearn_lite.training.fit import Batch

(RECIPE,) = page.RECIPES
SHALLOW, THREE, SIX, TEN = page.DEPTHS


def batches(count, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, size, page.FEATURES, generator=generator)
    y = torch.randint(page.CLASSES, (count, size), generator=generator)
    return [Batch(*pair) for pair in zip(x, y, strict=True)]


@pytest.mark.parametrize("column", RECIPE.scales["lite"].columns)
def test_rows_differ_in_their_wires_alone(column):
    """The same forward weights, and random feedback of the same law: variance 1/fan_in."""
    settings = {row: page.settings(row, column) for row in RECIPE.rows}
    assert len({replace(s, feedback="", learns="", rate=0) for s in settings.values()}) == 1
    networks = {row: page.build(settings[row], 3) for row in RECIPE.rows}
    for layers in zip(*(network.layers for network in networks.values()), strict=True):
        weights = [layer.op.weight for layer in layers]
        assert all(torch.equal(weight, weights[0]) for weight in weights)
    for row in ("RF", "URF"):
        assert len(networks[row].layers) == page.DEPTHS[column] + 1
        for layer in networks[row].layers:
            for weight in (layer.op.weight, layer.op.feedback.weight):
                assert weight.std().item() * math.sqrt(weight.shape[1]) == pytest.approx(1, abs=0.06)
            assert not torch.equal(layer.op.weight, layer.op.feedback.weight)


@pytest.mark.parametrize("row", [*RECIPE.rows])
@pytest.mark.parametrize("column", RECIPE.scales["lite"].columns)
def test_every_run_takes_two_steps_at_its_true_size(row, column):
    metrics = engine.rehearse(RECIPE, engine.Run(row, column, 0))
    assert set(RECIPE.measures) <= set(metrics)
    assert [line["epoch"] for line in metrics["history"]] == [0, 1]
    assert len(metrics["probes"]) == page.DEPTHS[column]
    assert metrics["probe"] == metrics["probes"][-1]
    for line in metrics["history"]:
        if row == "last layer":
            assert not {"angles", "snrs"} & set(line)
        else:
            assert len(line["angles"]) == len(line["snrs"]) == page.DEPTHS[column] + 1
            assert line["angles"][-1] < 0.1  # no feedback enters the readout
            assert (max(line["angles"]) < 0.1) == (row == "backprop")


@pytest.mark.parametrize("row", [*RECIPE.rows])
def test_what_learns(row, monkeypatch):
    """With the last layer alone hidden weights stay; else all move. W − B stays in URF, B stays in RF."""
    made = []
    monkeypatch.setattr(page, "build", lambda *a: made.append(build(*a)) or made[-1])
    engine.rehearse(RECIPE, engine.Run(row, THREE, 5))
    (network,), born = made, build(page.settings(row, THREE), 5)
    for i, (now, then) in enumerate(zip(network.layers, born.layers, strict=True)):
        moved = not torch.equal(now.op.weight, then.op.weight)
        assert moved == (row != "last layer" or i == 3)
        if row == "RF":
            assert torch.equal(now.op.feedback.weight, then.op.feedback.weight)
        if row == "URF":
            gap = now.op.weight - now.op.feedback.weight
            torch.testing.assert_close(gap, then.op.weight - then.op.feedback.weight, atol=1e-6, rtol=0)
            assert not torch.equal(now.op.feedback.weight, then.op.feedback.weight)


build = page.build


@pytest.mark.parametrize("row", [*RECIPE.rows])
def test_only_redrawn_wires_change_from_pass_to_pass(row):
    network = page.build(page.settings(row, THREE), 0)
    x = torch.randn(5, page.FEATURES, generator=torch.Generator().manual_seed(0)).requires_grad_()
    first, again = (torch.autograd.grad(network(x).sum(), x)[0] for _ in range(2))
    assert torch.equal(first, again) == (row != "redrawn")


def test_the_yardstick_against_loops():
    """Two layers by hand: mean and variance over batches of the updates sent through B, against the mean through W."""
    network = page.build(page.settings("RF", SHALLOW), 0)
    (lower, upper), data = network.layers, batches(4)
    found = page.yardstick(network, data)
    updates = {"sent": [], "exact": []}
    for batch in data:
        hidden = torch.tanh(batch.inputs @ lower.op.weight.T)
        logits = hidden @ upper.op.weight.T + upper.op.bias
        delta = (logits.softmax(1) - torch.nn.functional.one_hot(batch.labels, page.CLASSES)) / len(batch.labels)
        for name, back in (("sent", upper.op.feedback.weight), ("exact", upper.op.weight)):
            below = (delta @ back) * (1 - hidden**2)
            updates[name].append((below.T @ batch.inputs).detach().double())
    mean, exact = (sum(updates[name]) / len(data) for name in ("sent", "exact"))
    scatter = sum(((update - mean) ** 2).sum() for update in updates["sent"]) / (len(data) - 1)
    angle = math.degrees(math.acos((mean * exact).sum() / (mean.norm() * exact.norm())))
    assert found["angles"] == [pytest.approx(angle, abs=0.01), pytest.approx(0, abs=0.1)]
    assert found["snrs"][0] == pytest.approx(((mean**2).sum() / scatter).item(), rel=1e-3)


@pytest.mark.parametrize("row", ["RF", "redrawn"])
def test_the_same_run_gives_the_same_numbers(row):
    """Whatever the global random state is: redrawn feedback is drawn from it, too."""
    found = []
    for state in (1, 2):
        torch.manual_seed(state)
        found.append(engine.rehearse(RECIPE, engine.Run(row, SHALLOW, 7)))
    assert found[0] == found[1]


def test_the_lite_table_counts():
    """Five seeds everywhere; backprop comes near a support vector machine; rows differ as chapter 02 says they do."""
    rows = report(RECIPE, engine.plan(RECIPE, "lite")).rows
    mean = {(row["row"], row["column"]): row["mean"] for row in rows}
    assert all(row["seeds"] == [0, 1, 2, 3, 4] for row in rows)
    digits = sets.load("digits")
    (x, y), (x_test, y_test) = digits.train(), digits.test()
    machine = 100 * SVC(C=10).fit(x.flatten(1), y).score(x_test.flatten(1), y_test)
    for column in page.DEPTHS:
        assert mean["backprop", column] > machine - (1.5 if column == SHALLOW else 3)
        assert mean["redrawn", column] < mean["last layer", column] < mean["backprop", column] - 2
    assert mean["RF", SHALLOW] > mean["backprop", SHALLOW] - 1.5
    assert mean["RF", TEN] < mean["backprop", TEN] - 4
    assert mean["last layer", TEN] < mean["backprop", TEN] - 5
    assert mean["sign symmetry", TEN] > mean["backprop", TEN] - 1.5
