"""The recipe of chapter 11: tasks that ask what they say, rows that differ in their road alone, a table that counts."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from biolearn_lite.data import sets
from biolearn_lite.recipes import engine
from biolearn_lite.recipes import through_time as page
from biolearn_lite.recipes.report import report
from biolearn_lite.training.fit import Batch
from biolearn_lite.training.probes import linear_probe

(RECIPE,) = page.RECIPES
DIGITS, RECALL, COMPARE = page.TASKS


@pytest.mark.parametrize("column", page.TASKS)
def test_rows_differ_in_their_road_alone(column):
    """The same settings but for the road and its rate; the same weights, the readout's too."""
    settings = {row: page.settings(row, column) for row in RECIPE.rows}
    assert len({replace(s, through="", learns="", rate=0) for s in settings.values()}) == 1
    assert [s.through for s in settings.values()] == ["bptt", "eprop", "cut", "cut"]
    born = [weights(one, 3) for one in settings.values()]
    assert all(torch.equal(a, b) for parts in born for a, b in zip(parts, born[0], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(weights(settings["BPTT"], 4), born[0], strict=True))


def weights(settings, seed):
    return [weight for part in page.build(settings, seed) for weight in part.parameters()]


@pytest.mark.parametrize("row", RECIPE.rows)
@pytest.mark.parametrize("column", page.TASKS)
def test_every_run_takes_two_steps_at_its_true_size(row, column, monkeypatch):
    made = []
    monkeypatch.setattr(page, "build", lambda *a: made.append(build(*a)) or made[-1])
    metrics = engine.rehearse(RECIPE, engine.Run(row, column, 5))
    assert set(RECIPE.measures) <= set(metrics)
    assert [line["epoch"] for line in metrics["history"]] == [0, 1]
    for line in metrics["history"]:
        assert ("angle" in line) == (row != "untrained")
        assert row == "untrained" or (line["angle"] < 0.1) == (row == "BPTT")
    ((network, objective),), (born, first) = made, build(page.settings(row, column), 5)
    moved = [not torch.equal(a, b) for a, b in zip(network.parameters(), born.parameters(), strict=True)]
    assert moved == [row != "untrained"] * 4
    assert not torch.equal(objective.readout.weight, first.readout.weight)
    assert network.blocks[0].through == page.ROWS[row]


build = page.build


def test_recall_shows_its_cue_once():
    x, y = page.recall(4000, ticks=5, noise=0.3, seed=1)
    assert x.shape == (4000, 5, 4)
    assert torch.equal(x[:, 0], nn.functional.one_hot(y, 4).float())
    assert (y.bincount(minlength=4) / 4000 - 0.25).abs().max() < 0.03
    later = x[:, 1:]
    assert later.mean().abs() < 0.01
    assert later.std().item() == pytest.approx(0.3, abs=0.005)
    assert linear_probe((later[:3000], y[:3000]), (later[3000:], y[3000:]), num_classes=4) < 0.3


def test_compare_needs_both_its_cues():
    """The answer is theirs together, and neither alone says anything about it, nor does any sum of all inputs."""
    x, y = page.compare(4000, ticks=5, noise=0.3, seed=1)
    first, last = x[:, 0].argmax(1), x[:, -1].argmax(1)
    assert torch.equal(x[:, [0, -1]], nn.functional.one_hot(torch.stack([first, last], 1), 2).float())
    assert torch.equal(y, (first == last).long())
    for cue in (first, last):
        assert (torch.stack([y[cue == kind].double().mean() for kind in (0, 1)]) - 0.5).abs().max() < 0.03
    assert x[:, 1:-1].std().item() == pytest.approx(0.3, abs=0.005)
    assert linear_probe((x[:3000], y[:3000]), (x[3000:], y[3000:]), num_classes=2) < 0.55


def test_digits_come_row_by_row_from_the_top():
    data, digits = page.load(page.settings("BPTT", DIGITS), torch.device("cpu")), sets.load("digits")
    for (x, y), (images, labels) in zip(data, (digits.train(), digits.test()), strict=True):
        assert torch.equal(y, labels)
        for t in range(8):
            assert torch.equal(x[:, t], images[:, 0, t])


@pytest.mark.parametrize("column", [RECALL, COMPARE])
def test_sequences_are_the_same_in_every_run_and_new_in_the_test(column):
    one, two = (page.load(page.settings(row, column), torch.device("cpu")) for row in ("BPTT", "untrained"))
    assert all(torch.equal(a, b) for a, b in zip((*one.train, *one.test), (*two.train, *two.test), strict=True))
    assert (len(one.train[0]), len(one.test[0])) == (2000, 1000)
    assert one.train[0].shape[1:] == (page.TASKS[column].ticks, page.TASKS[column].inputs)
    assert not torch.equal(one.train[0][:1000, 0], one.test[0][:, 0])  # two streams of random numbers


def test_the_angle_against_pytorchs_gru():
    network, objective = page.build(page.settings("e-prop", COMPARE), 0)
    x, y = page.compare(20, seed=3)
    found = page.angle_to_bptt(network, objective, Batch(x, y))
    gru = nn.GRU(2, 32, batch_first=True)
    for weight, same in zip(gru.parameters(), network.blocks[0].weights, strict=True):
        weight.data.copy_(same)
    losses = {
        "exact": (objective(gru(x)[0], Batch(x, y)), gru),
        "own": (objective(network(x), Batch(x, y)), network),
    }
    exact, own = (
        torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(module.parameters()))])
        for loss, module in losses.values()
    )
    angle = torch.rad2deg(torch.acos(torch.cosine_similarity(exact.double(), own.double(), dim=0))).item()
    assert 5 < angle == pytest.approx(found, abs=0.05)
    assert network.blocks[0].through == "eprop"


def test_the_same_run_gives_the_same_numbers():
    """Whatever the global random state is."""
    found = []
    for state in (1, 2):
        torch.manual_seed(state)
        found.append(engine.rehearse(RECIPE, engine.Run("e-prop", RECALL, 7)))
    assert found[0] == found[1]


def test_the_lite_table_counts():
    """Five seeds everywhere; each task separates the rows as chapter 11 says it does."""
    rows = report(RECIPE, engine.plan(RECIPE, "lite")).rows
    assert all(row["seeds"] == [0, 1, 2, 3, 4] for row in rows)
    mean, probe = (
        {(row["row"], row["column"]): row["measures"][name]["mean"] for row in rows} for name in RECIPE.measures
    )
    bptt, eprop, cut, untrained = RECIPE.rows
    assert mean[bptt, DIGITS] > mean[eprop, DIGITS] + 0.5
    assert mean[eprop, DIGITS] > max(mean[cut, DIGITS], probe[untrained, DIGITS]) + 2
    assert mean[untrained, DIGITS] < probe[untrained, DIGITS] - 10  # its own readout is trained too briefly
    assert min(mean[bptt, RECALL], mean[eprop, RECALL], mean[bptt, COMPARE]) > 99.5
    assert mean[cut, RECALL] < 50 < probe[cut, RECALL]  # it keeps what its readout does not find
    assert abs(mean[eprop, COMPARE] - 50) < 3
    assert 50 < mean[cut, COMPARE] < 70
    for column, chance in ((RECALL, 25), (COMPARE, 50)):
        assert max(abs(mean[untrained, column] - chance), abs(probe[untrained, column] - chance)) < 3


@pytest.mark.parametrize("column", page.TASKS)
def test_the_lite_runs_turn_away_from_backprop_through_time(column):
    """At birth e-prop's gradient is nearer to BPTT's than that of the cut road; learning takes it away."""
    angles = {
        row: [
            record["metrics"]["history"]
            for record in engine.records(RECIPE, engine.plan(RECIPE, "lite", rows=[row], columns=[column]))
        ]
        for row in RECIPE.rows[:3]
    }
    mean = {
        row: [sum(line["angle"] for line in epoch) / 5 for epoch in zip(*runs, strict=True)]
        for row, runs in angles.items()
    }
    assert max(mean["BPTT"]) < 0.1
    assert mean["e-prop"][0] < 20 < mean["memory cut"][0] < 45
    assert mean["e-prop"][-1] > 45
