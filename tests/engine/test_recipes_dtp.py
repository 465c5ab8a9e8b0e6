"""The recipes of chapter 09: rows that differ in one thing each, runs of the true size, tables that count."""

from dataclasses import fields, replace

import pytest
import torch
from sklearn.svm import SVC

from biolearn_lite.nets.targets import Activities, DifferenceTargets
from biolearn_lite.recipes import by_targets as page
from biolearn_lite.recipes import dtp, engine, papers, two_views
from biolearn_lite.recipes.report import report

PAIRS, LABELS = dtp.RECIPES
CELLS = [
    (recipe, row, column)
    for recipe in dtp.RECIPES
    for column in dict.fromkeys(c for scale in recipe.scales.values() for c in scale.columns)
    for row in recipe.rows
    if (row, column) not in recipe.without
]


def differences(recipe, row, other, column):
    """The settings in which two rows differ, rates aside: those are chosen row by row."""
    one, two = recipe.settings(row, column), recipe.settings(other, column)
    names = [f.name for f in fields(one) if getattr(one, f.name) != getattr(two, f.name)]
    return {name: getattr(one, name) for name in names if name not in ("rate", "inverse_rate")}


@pytest.mark.parametrize(("recipe", "row", "column"), CELLS, ids=lambda part: getattr(part, "name", part))
def test_every_run_takes_two_steps_at_its_true_size(recipe, row, column):
    metrics = engine.rehearse(recipe, engine.Run(row, column, 0))
    assert set(recipe.measures) <= set(metrics)
    assert [line["epoch"] for line in metrics["history"]] == ([] if row == "random encoder" else [1])


@pytest.mark.parametrize("column", ["digits", "cifar10"])
def test_rows_differ_in_what_they_say(column):
    assert differences(PAIRS, "DTP", "backprop", column) == {"credit": "targets"}
    assert differences(PAIRS, "DTP, strided", "DTP", column) == {"downsampling": "stride"}
    assert differences(PAIRS, "backprop, strided", "DTP, strided", column) == {"credit": "backprop"}
    assert differences(PAIRS, "top block only", "DTP", column) == {"credit": "top block"}
    blocked = {"stop_first_view": True} | ({} if column == "digits" else {"negatives": 5})
    assert differences(PAIRS, "DTP, blocked, 5 negatives", "DTP", column) == blocked
    assert differences(LABELS, "DTP", "backprop", column) == {"credit": "targets"}
    assert differences(LABELS, "DTP as printed", "DTP", column) == {"reading": "printed"}
    assert differences(LABELS, "DTP, no difference", "DTP", column) == {"corrected": False}
    assert differences(LABELS, "DTP, means", "DTP", column) == {"reduction": "mean"}
    assert differences(LABELS, "DTP, frozen inverses", "DTP", column) == {}
    assert LABELS.settings("DTP, frozen inverses", column).inverse_rate == 0


@pytest.mark.parametrize(("recipe", "column"), [(PAIRS, "digits"), (LABELS, "digits"), (PAIRS, "fashion")])
def test_rows_start_from_the_same_weights(recipe, column):
    rows = [row for row in recipe.rows if (row, column) not in recipe.without]
    networks = {row: page.build(recipe.settings(row, column), 3)[:2] for row in rows}
    reference, objectives = networks["backprop"]
    for row, (network, own) in networks.items():
        assert all(torch.equal(a, b) for a, b in zip(network.parameters(), reference.parameters(), strict=True))
        head, other = (list(top[-1].head.parameters()) for top in (own, objectives))
        if not row.startswith("top") and "strided" not in row:  # a head of another size, or one of two that are drawn
            assert all(torch.equal(a, b) for a, b in zip(head, other, strict=True))
        assert isinstance(own[-1], DifferenceTargets) == row.startswith(("DTP", "SimCLR, DTP"))


@pytest.mark.parametrize("row", LABELS.rows)
def test_what_learns(row, monkeypatch):
    """The control moves the top layer and the head alone; frozen inverses stay, others do not."""
    made = []
    monkeypatch.setattr(page, "build", lambda *a: made.append(build(*a)) or made[-1])
    engine.rehearse(LABELS, engine.Run(row, "digits", 5))
    (network, (*_, top), _), (born, (*_, other), _) = made[0], build(LABELS.settings(row, "digits"), 5)
    moved = [
        not torch.equal(now.op.weight, then.op.weight) for now, then in zip(network.layers, born.layers, strict=True)
    ]
    assert moved == [not row.startswith("top"), not row.startswith("top"), True]
    assert not torch.equal(top.head[1].weight, other.head[1].weight)
    if isinstance(top, DifferenceTargets):
        pairs = zip(top.inverses.parameters(), other.inverses.parameters(), strict=True)
        assert all(torch.equal(*pair) for pair in pairs) == (row == "DTP, frozen inverses")


build = page.build


def test_the_loss_in_the_history_is_the_overall_one():
    """Figure 6 plots the hinge, whatever teaches the layers: with rates and noise 0 both rows tell the same."""
    told = []
    for row in ("backprop", "DTP"):
        settings = replace(PAIRS.settings(row, "digits"), rate=0.0, inverse_rate=0.0, noise=0.0, batch_size=8, epochs=1)
        metrics = page.train(settings, two_views.random(settings, 2), 0, False, None)
        told.append(metrics["history"][0]["losses"])
    (with_backprop,), (with_targets,) = told
    assert with_targets == pytest.approx(with_backprop, rel=1e-5)
    network, (objective,), _ = page.build(settings, 0)
    assert isinstance(network.blocks[0](torch.rand(2, 1, 16, 16))[0], Activities)
    assert objective.reduction == "sum"


def test_where_the_paper_has_a_number():
    def number(row, column):
        place = PAIRS.paper(row, column)
        return None if place is None else papers.number(*place)

    assert number("DTP", "cifar100") == 71.29
    assert number("DTP, blocked, 5 negatives", "cifar100") == 67.74
    assert number("backprop, blocked, 5 negatives", "cifar100") == 70.35
    assert number("SimCLR, DTP", "cifar100") == 71.0
    assert number("SimCLR, backprop", "cifar100") == 72.44
    assert number("random encoder", "cifar100") == 61.23
    assert [number(row, "emnist") for row in ("backprop", "DTP", "SimCLR, backprop")] == [80.2, 81.37, 81.96]
    assert number("random encoder", "emnist") == 62.66
    assert [number(row, "cifar100") for row in ("DTP, strided", "top block only")] == [None, None]
    assert number("SimCLR, DTP", "emnist") is None
    assert number("DTP", "cifar10") is None


def test_the_full_settings_are_the_paper_s():
    chosen = PAIRS.settings("DTP", "cifar100")
    assert (chosen.rate, chosen.inverse_rate, chosen.epochs, chosen.batch_size) == (1e-4, 1e-3, 400, 500)
    assert (chosen.margins, chosen.step, chosen.noise, chosen.reading) == ((1.0, 3.0), 0.5, 1.0, "published")
    letters = PAIRS.settings("DTP", "emnist")
    assert (letters.margins, letters.batch_size, letters.epochs, letters.stages) == ((1.0, 1.5), 1000, 400, "mnist")


def means(recipe):
    rows = [row for row in report(recipe, engine.plan(recipe, "lite")).rows if row["seeds"]]
    assert all(row["seeds"] == [0, 1, 2, 3, 4] for row in rows)
    assert len(rows) == len({(row, column) for row in recipe.rows for column in ["digits"]} - set(recipe.without))
    return {row["row"]: row["mean"] for row in rows}


def test_the_lite_table_of_labels_counts():
    """Backprop beats a support vector machine; DTP reaches below the top layer; what the chapter takes away is missed;
    and pools help backprop as much as they help DTP."""
    mean = means(LABELS)
    data = two_views.load(LABELS.settings("DTP", "digits"), torch.device("cpu"))
    (x, y), ((x_test, y_test),) = data.fitted, data.tests
    machine = 100 * SVC(C=10).fit(x.flatten(1), y).score(x_test.flatten(1), y_test)
    assert mean["backprop"] > machine - 1.5
    assert mean["top block only"] + 0.5 < mean["DTP"] < mean["backprop"] - 1
    assert mean["top block only, strided"] + 5 < mean["DTP, strided"] < mean["backprop, strided"] - 1
    assert mean["DTP, no difference"] < mean["DTP, means"] < mean["DTP, frozen inverses"] < mean["DTP"] - 3
    gains = [mean[row] - mean[f"{row}, strided"] for row in ("backprop", "DTP")]
    assert min(gains) > 4
    assert abs(gains[0] - gains[1]) < 2.5


def test_the_lite_table_of_pairs_counts():
    """Pooled encoders learn from pairs what a random one has not; strided ones end below a random pooled one."""
    mean = means(PAIRS)
    assert min(mean["backprop"], mean["DTP"], mean["DTP, blocked, 5 negatives"]) > mean["random encoder"] + 3
    assert abs(mean["backprop"] - mean["DTP"]) < 4
    assert max(mean["backprop, strided"], mean["DTP, strided"]) < mean["random encoder"] - 8
