"""The switches of chapter 01's recipe: each takes away one demand of backprop and nothing else."""

from dataclasses import replace

import pytest
import torch

from biolearn_lite.recipes import demands
from biolearn_lite.training.fit import Batch

COLUMN = "digits anywhere"
TINY = {"batch_size": 8, "channels": (3, 4), "sheet": 6, "epochs": 2, "drops": (1,)}


def settings(row: str) -> demands.Settings:
    return replace(demands.settings(row, COLUMN), **TINY)


@pytest.fixture
def batches() -> list[Batch]:
    data = demands.random(settings("backprop"), 3)
    return [Batch(*pair) for pair in zip(data.train[0].split(8), data.train[1].split(8), strict=True)]


def gradients(network, batch):
    seen, _ = network.blocks[0](batch.inputs)
    return torch.autograd.grad(demands.cross_entropy(seen, batch), [layer.op.weight for layer in network.layers])


def test_late_errors_meet_the_activity_of_the_next_batch(batches):
    network, plain = (demands.build(settings(row), 0).train() for row in ("late errors", "backprop"))
    first, second = batches[:2]
    lower, upper, top = gradients(network, first)
    assert not lower.any()
    assert not upper.any()
    *late, prompt = gradients(network, second)
    z = plain.layers[1].after(plain.activities(first.inputs)[1]).detach().requires_grad_()
    (error,) = torch.autograd.grad(demands.cross_entropy(plain.layers[2](z), first), z)
    now = plain.layers[1].after(plain.activities(second.inputs)[1])
    weights = [layer.op.weight for layer in plain.layers[:2]]
    for got, expected in zip(late, torch.autograd.grad((now * error).sum(), weights), strict=True):
        torch.testing.assert_close(got, expected)
    torch.testing.assert_close(top, gradients(plain, first)[2])
    torch.testing.assert_close(prompt, gradients(plain, second)[2])


def test_late_but_remembered_is_the_update_of_the_batch_before(batches):
    network, plain = (demands.build(settings(row), 0).train() for row in ("late but remembered", "backprop"))
    found, exact = ([gradients(n, batch) for batch in batches] for n in (network, plain))
    for before, now, late in zip(exact, exact[1:], found[1:], strict=False):
        for got, expected in zip(late, (*before[:2], now[2]), strict=True):
            torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("row", ["late errors", "late but remembered"])
def test_nothing_is_late_in_evaluation(row, batches):
    network, plain = (demands.build(settings(row), 0).eval() for row in (row, "backprop"))
    for batch in batches[:2]:
        for got, expected in zip(gradients(network, batch), gradients(plain, batch), strict=True):
            torch.testing.assert_close(got, expected)


def test_without_copies_a_network_is_born_equal_and_hears_each_position_alone(batches):
    local, shared = (demands.build(settings(row), 0) for row in ("no copies", "backprop"))
    torch.testing.assert_close(local(batches[0].inputs), shared(batches[0].inputs))
    *unshared, _ = gradients(local, batches[0])
    for got, expected in zip(unshared, gradients(shared, batches[0])[:2], strict=True):
        torch.testing.assert_close(got.sum((0, 1)), expected)
        assert got.flatten(0, 1).std(0).max() > 0.1 * expected.abs().max() / len(got.flatten(0, 1))


def test_a_share_of_labels_is_shown_over_and_over():
    x, y = torch.arange(1344)[:, None], torch.arange(1344) % 10
    images, labels = demands.with_labels((x, y), 0.05, seed=3)
    assert len(images) == len(labels) == 1344
    assert len(images.unique()) == 67
    assert torch.equal(labels, images[:, 0] % 10)
    assert not torch.equal(images, demands.with_labels((x, y), 0.05, seed=4)[0])
    assert demands.with_labels((x, y), 1.0, seed=3)[0] is x


def test_digits_lie_anywhere_on_their_sheets():
    images = torch.rand(200, 1, 8, 8)
    images[0, 0, 0, 0] = -1.0
    sheets = demands.somewhere(images, 10, torch.Generator().manual_seed(0))
    places = set()
    for image, sheet in zip(images, sheets, strict=True):
        found = [(r, c) for r in range(3) for c in range(3) if torch.equal(sheet[:, r : r + 8, c : c + 8], image)]
        assert len(found) == 1
        assert (sheet == -1).sum() == 36 + (image == -1).sum()
        places.add(found[0])
    assert len(places) == 9


@pytest.mark.parametrize("row", ["redrawn wires", "late errors", "late but remembered", "no copies"])
def test_measuring_leaves_the_training_alone(row, monkeypatch):
    chosen = settings(row)
    data = demands.random(chosen, 4)
    measured = demands.train(chosen, data, 0, False, None)["history"]
    monkeypatch.setattr(demands, "_measure", lambda *args: {})
    assert [h["losses"] for h in demands.train(chosen, data, 0, False, None)["history"]] == [
        h["losses"] for h in measured
    ]
    assert all(0 <= h["angle"] <= 180 and h["snr"] > 0 for h in measured)


def test_the_yardstick_measures_against_backprop_with_copies(batches):
    local, shared = (demands.build(settings(row), 0).eval() for row in ("no copies", "backprop"))
    assert demands.yardstick(shared, batches, batches)["angle"] < 0.1
    assert 20 < demands.yardstick(local, batches, batches)["angle"] < 90
    random = demands.build(settings("redrawn wires"), 0).eval()
    assert demands.yardstick(random, batches, batches)["angle"] > 30


def test_frozen_layers_stay_as_they_were_drawn(monkeypatch):
    chosen, kept = settings("hidden frozen"), []
    build = demands.build
    monkeypatch.setattr(demands, "build", lambda *args: kept.append(build(*args)) or kept[0])
    demands.train(chosen, demands.random(chosen, 3), 0, False, None)
    born = build(chosen, 0)
    same = [torch.equal(a.op.weight, b.op.weight) for a, b in zip(kept[0].layers, born.layers, strict=True)]
    assert same == [True, True, False]


def test_an_unknown_lateness_is_refused():
    with pytest.raises(ValueError, match="late='never': choose 'nothing', 'error' or 'update'"):
        demands.build(replace(settings("backprop"), late="never"), 0)
