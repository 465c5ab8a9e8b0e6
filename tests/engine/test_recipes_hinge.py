"""The recipes of paper 002: rows that differ in one choice, layers that take turns, readouts that change nothing."""

import warnings
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn
from torch.optim import Adam

from biolearn_lite.data import sets
from biolearn_lite.data.views import Viewed
from biolearn_lite.nets.encoders import MemoryBlock
from biolearn_lite.nets.networks import layer_gradients
from biolearn_lite.recipes import engine, papers, two_views
from biolearn_lite.recipes import hinge as page
from biolearn_lite.recipes.report import report
from biolearn_lite.training.fit import Batch

HINGE, ROBUST = page.RECIPES
DIGITS = [row for row in HINGE.rows if (row, "digits") not in HINGE.without]
GREEDY, TURNS = "GLL BP blocked, 5 negatives", "RLL BP blocked, 5 negatives"


def weights(module):
    return [p.detach().clone() for p in module.parameters()]


def same(before, module):
    return all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def little(row, column="digits", **changes):
    """A lite run on 150 digits (the last batch is short), for two epochs, unless told otherwise."""
    settings = replace(HINGE.settings(row, column), **({"epochs": 2} | changes))
    digits = sets.load("digits").subset(150, 60)
    return settings, two_views.prepare(settings, digits, digits)


@pytest.fixture
def quick(monkeypatch):
    """Readouts that take no time: those are tested elsewhere."""
    read = {}

    def probe(train, test, **_):
        read[train[0].shape[1:]] = (len(train[0]), len(test[0]))
        return 0.5

    monkeypatch.setattr(two_views, "linear_probe", probe)
    monkeypatch.setattr(two_views, "adam_readout", lambda x, y, **_: nn.Linear(x.flatten(1).shape[1], 10))
    return read


CELLS = [
    *((HINGE, row, "digits") for row in DIGITS),
    *((HINGE, row, "cifar10") for row in ("E2E RF", GREEDY, "RLL URF", "SimCLR E2E BP, head 512", "supervised")),
    *((ROBUST, row, "digits") for row in ROBUST.rows),
    *((ROBUST, row, "fashion") for row in ("GLL RF", "supervised", "supervised on deformed", "random encoder")),
]


@pytest.mark.parametrize(("recipe", "row", "column"), CELLS, ids=lambda value: getattr(value, "name", value))
def test_runs_take_two_steps_at_their_true_shapes(recipe, row, column, quick):
    settings = recipe.settings(row, column)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = engine.rehearse(recipe, engine.Run(row, column, 0))
    assert set(recipe.measures) <= set(metrics)
    blocks = len(two_views.STAGES[settings.stages])
    turns = settings.schedule in ("greedy", "random layer")
    assert len(metrics["history"]) == (0 if settings.rule == "nothing" else blocks if turns else 1)
    assert len(metrics["layers"]) == (blocks if settings.layers == "all" else 1)
    losses = [epoch["losses"] for epoch in metrics["history"]]
    if settings.schedule == "greedy":
        assert [[loss is not None for loss in epoch] for epoch in losses] == torch.eye(blocks).bool().tolist()
    if settings.schedule == "top layer":
        assert [loss is None for loss in losses[0]] == [True, False]


@pytest.mark.parametrize("column", ["stl10", "imagenette"])
def test_large_images_fit_their_network(column):
    """A narrow VGG6: what the encoder sees are crops, what is read out are middles."""
    settings = replace(HINGE.settings("GLL RF blocked, 1 negative", column), batch_size=3)
    images = (255 * torch.rand(7, 3, 96, 96)).byte()
    data = sets.DataSet("large", images, torch.arange(7), images, torch.arange(7), (), (0.5,) * 3, (0.5,) * 3)
    shown, fitted, ((tested, _),) = two_views.prepare(settings, data, data)
    assert shown[0].shape == (7, 3, 96, 96)
    assert Viewed(shown[0], two_views.WORLDS[settings.world])[torch.tensor([0, 3])].shape == (4, 3, 64, 64)
    assert torch.equal(fitted[0], images[..., 16:80, 16:80].float() / 255)
    assert tested.shape == fitted[0].shape
    unlabelled = replace(data, unlabeled_images=(255 * torch.rand(20, 3, 96, 96)).byte())
    pool, _ = two_views.prepare(settings, data, unlabelled).shown
    assert pool.shape == (10, 3, 96, 96)
    assert all((unlabelled.unlabeled_images == image).flatten(1).all(1).any() for image in pool)


def test_greedy_layers_leave_those_below_untouched(quick, monkeypatch):
    """After every epoch, only the layer whose turn it was has moved; then its head goes, and features stay."""
    settings, data = little(GREEDY, epochs=1)
    network, objectives = two_views.build(settings, 0)
    moved, before = [], [weights(block) for block in network.blocks]

    def watch(*arguments, **options):
        def after_epoch(_):
            moved.append([not same(old, block) for old, block in zip(before, network.blocks, strict=True)])
            before[:] = [weights(block) for block in network.blocks]
            return {}

        return fit(*arguments, **options, after_epoch=after_epoch)

    fit = two_views.fit
    monkeypatch.setattr(two_views, "fit", watch)
    two_views.learn(settings, network, objectives, data.shown, 0, False, None)
    assert moved == torch.eye(3).bool().tolist()


def test_random_layers_have_optimizers_of_their_own_and_share_the_steps(monkeypatch):
    """Every batch, the short ones too, teaches exactly one layer and its head (002, section 3.2)."""
    made = []
    monkeypatch.setattr(two_views, "Adam", lambda parameters, lr: made.append(Adam(parameters, lr=lr)) or made[-1])
    settings, data = little(TURNS, epochs=4)
    network, objectives = two_views.build(settings, 0)
    two_views.learn(settings, network, objectives, data.shown, 0, False, None)
    counts = [{int(state["step"]) for state in optimizer.state.values()} for optimizer in made]
    assert [len(count) for count in counts] == [1, 1, 1]
    assert sum(count.pop() for count in counts) == 3 * 4 * 3  # layers, epochs, batches of 64, 64 and 22


@pytest.mark.parametrize("row", [GREEDY, "E2E BP", "supervised"])
def test_judging_leaves_the_encoder_as_it_is(row, quick):
    settings, data = little(row)
    network, objectives = two_views.build(settings, 0)
    before = weights(network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        two_views.judge(settings, network, objectives[-1], data, 0, False)
    assert same(before, network)
    assert {size.numel() for size in quick} >= {1024, 512, 256}
    assert set(quick.values()) == {(150, 60)}


def test_rows_differ_in_what_they_say_alone():
    for recipe, row, other, named in (
        (HINGE, "E2E BP", "E2E RF", {"feedback"}),
        (HINGE, "E2E BP", "GLL BP", {"schedule"}),
        (HINGE, "GLL RF", "RLL RF", {"schedule"}),
        (HINGE, "GLL BP", GREEDY, {"negatives", "stop_first_view"}),
        (HINGE, "E2E BP", "SimCLR E2E BP", {"rule"}),
        (HINGE, "SimCLR E2E BP", "SimCLR E2E BP, head 512", {"head"}),
        (ROBUST, "supervised", "supervised, read out", {"readout"}),
        (ROBUST, "supervised", "supervised on deformed", {"world"}),
    ):
        one, two = (asdict(recipe.settings(name, "cifar10")) for name in (row, other))
        assert {key for key in one if one[key] != two[key]} == named, (row, other)


def test_the_papers_settings():
    cifar, stl = HINGE.settings("GLL BP", "cifar100"), HINGE.settings("E2E RF blocked, 5 negatives", "stl10")
    assert (cifar.rate, cifar.epochs, cifar.batch_size, cifar.margins, cifar.head) == (1e-4, 400, 500, (1, 3), 64)
    assert (cifar.negatives, cifar.stop_first_view, cifar.labels) == (None, False, 45_000)
    assert (stl.epochs, stl.readout_rate, stl.readout_epochs, stl.average, stl.negatives) == (100, 5e-3, 200, 2, 5)
    letters = ROBUST.settings("E2E BP", "emnist")
    assert (letters.margins, letters.batch_size, letters.judged_on) == ((1.0, 1.5), 1000, "mnist")
    assert ROBUST.settings("supervised", "cifar100, 5000 labels").labels == 5000


@pytest.mark.parametrize(
    ("recipe", "row", "column", "number"),
    [
        (HINGE, "E2E BP", "cifar100", 71.44),
        (HINGE, "RLL URF blocked, 5 negatives", "cifar10", 71.17),
        (HINGE, "GLL RF", "cifar100", 67.83),
        (HINGE, "E2E URF", "cifar100", None),
        (HINGE, "SimCLR RLL BP", "cifar100", 68.99),
        (HINGE, "SimCLR E2E BP", "cifar10", 69.87),
        (HINGE, "SimCLR E2E BP, head 2048", "cifar10", 70.20),
        (HINGE, "RLL RF blocked, 5 negatives", "stl10", 55.14),
        (HINGE, "GLL RF blocked, 5 negatives", "stl10", None),
        (HINGE, "random encoder", "stl10", 46.78),
        (HINGE, "E2E BP blocked, 5 negatives", "imagenette", None),
        (HINGE, "E2E BP blocked, 5 negatives", "digits", None),
        (ROBUST, "supervised", "cifar100, 5000 labels", 43.27),
        (ROBUST, "E2E BP", "cifar100", 59.34),
        (ROBUST, "GLL BP", "cifar100", None),
        (ROBUST, "RLL RF", "emnist", 78.52),
        (ROBUST, "random encoder", "emnist", 62.66),
        (ROBUST, "SimCLR E2E BP", "emnist", 81.96),
        (ROBUST, "E2E BP", "fashion", None),
    ],
)
def test_numbers_in_print(recipe, row, column, number):
    place = recipe.paper(row, column)
    assert (papers.number(*place) if place else None) == number


def test_every_printed_place_exists():
    for recipe in page.RECIPES:
        for column in dict.fromkeys(column for scale in recipe.scales.values() for column in scale.columns):
            for place in (recipe.paper(row, column) for row in recipe.rows):
                assert place is None or papers.number(*place) is not None


def test_what_teaches_in_a_row():
    """Feedback reaches every layer and the heads; a blocked view runs without a graph; SimCLR and others see both."""
    network, (objective,) = two_views.build(HINGE.settings("E2E RF", "digits"), 0)
    wires = [module.op.feedback.kind for module in network.layers] + [objective.head[-1].feedback.kind]
    assert set(wires) == {"random"}
    assert not any(isinstance(block, MemoryBlock) for block in network.blocks)
    blocked, _ = two_views.build(HINGE.settings(GREEDY, "digits"), 0)
    assert all(isinstance(block, MemoryBlock) for block in blocked.blocks)
    a, b = torch.randn(6, 4), torch.randn(6, 4, requires_grad=True)
    rule = two_views.comparison(replace(HINGE.settings(GREEDY, "digits"), margins=(2.0, 50.0)))
    (gradient,) = torch.autograd.grad(rule(a, b), b)
    assert gradient.abs().max() > 1  # a view hears from five others, and from its partner
    only_top, objectives = two_views.build(HINGE.settings("top layer only", "digits"), 0)
    assert (only_top.partition, objectives[0]) == ((2, 1), None)


def test_end_to_end_credit_reaches_the_bottom_and_a_top_layer_s_does_not():
    images = torch.rand(8, 1, 16, 16)
    network, objectives = two_views.build(replace(HINGE.settings("E2E BP", "digits"), margins=(0.1, 9.0)), 0)
    gradients = layer_gradients(network, objectives, Batch(images, torch.zeros(4)))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    settings, data = little("top layer only", epochs=1)
    network, objectives = two_views.build(settings, 0)
    before = [weights(layer) for layer in network.layers]
    two_views.learn(settings, network, objectives, data.shown, 0, False, None)
    assert [same(old, layer) for old, layer in zip(before, network.layers, strict=True)] == [True, True, False]


def test_deformed_digits_are_the_same_in_every_run_and_only_where_they_should_be():
    (_, one), (_, two) = little("E2E BP"), little("supervised")
    assert torch.equal(one.fitted[0], two.fitted[0])
    assert torch.equal(one.tests[0][0], two.tests[0][0])
    assert len(one.tests) == 1
    settings = ROBUST.settings("E2E BP", "digits")
    digits = sets.load("digits").subset(150, 60)
    robust = two_views.prepare(settings, digits, digits)
    (deformed, _), (plain, labels) = robust.tests
    assert not torch.equal(deformed, plain)
    assert torch.equal(robust.fitted[0], robust.shown[0])
    assert torch.equal(labels, digits.test_labels)
    assert not torch.equal(one.fitted[0], robust.fitted[0])


def test_few_labels_are_few_for_readouts_and_supervised_networks_alone():
    few = "digits, 134 labels"
    hinge = two_views.load(ROBUST.settings("E2E BP", few), torch.device("cpu"))
    assert (len(hinge.shown[0]), len(hinge.fitted[0]), len(hinge.tests[0][0])) == (1347, 134, 450)
    supervised = two_views.load(ROBUST.settings("supervised", few), torch.device("cpu"))
    assert (len(supervised.shown[0]), len(supervised.fitted[0])) == (134, 134)
    whole, part = (ROBUST.settings("supervised", column) for column in ("digits", few))
    steps = [s.epochs * -(-n // s.batch_size) for s, n in ((whole, 1347), (part, 134))]
    assert steps[0] == steps[1]


def test_a_run_without_negatives_collapses_and_says_so(quick):
    settings, data = little("E2E BP blocked, 5 negatives", negatives=0)
    with pytest.warns(UserWarning, match="collapsed.* no more than 3"):
        metrics = two_views.train(settings, data, 0, False, None)
    assert metrics["same"] < metrics["other"] < 3


def test_the_lite_table_counts():
    """Means of five seeds: readouts of the top layer and of the embedding against those of a random encoder."""
    rows = {row["row"]: row for row in report(HINGE, engine.plan(HINGE, "lite")).rows}
    assert all(row["seeds"] == [0, 1, 2, 3, 4] for row in rows.values())
    accuracy = {name: row["measures"]["test_accuracy"]["mean"] for name, row in rows.items()}
    embedding = {name: row["measures"]["embedding"]["mean"] for name, row in rows.items()}
    random, e2e = "random encoder", "E2E BP blocked, 5 negatives"
    assert accuracy[e2e] > accuracy[random] + 2
    assert accuracy[GREEDY] > accuracy[random] + 5
    assert min(embedding[e2e], embedding[GREEDY]) > embedding[random] + 8
    for record in engine.records(HINGE, engine.plan(HINGE, "lite", rows=[e2e, GREEDY])):
        assert record["metrics"]["other"] > max(3, 1.5 * record["metrics"]["same"])  # nothing collapsed
