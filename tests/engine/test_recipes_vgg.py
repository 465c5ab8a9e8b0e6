"""The convolutional recipes of 001: settings as printed, the right rule in every row, two steps of every run."""

from dataclasses import asdict, replace

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from biolearn_lite.data import sets
from biolearn_lite.nets.layers import DivisiveNorm, Feedback, LocalReadout
from biolearn_lite.recipes import dense, engine, papers, vgg
from biolearn_lite.recipes.report import report
from biolearn_lite.rules.hsic import bottleneck_objective
from biolearn_lite.rules.kernels import label_kernel
from biolearn_lite.training.fit import Batch

(VGG,) = vgg.RECIPES
CELLS = [(run.row, run.column) for run in engine.plan(VGG, "full", seeds=[0])]
METHODS = set(vgg.ROWS) - {"last layer", "HSIC cosine", "HSIC gaussian"}


def test_the_cells_are_those_of_tables_8_and_9():
    """Every printed number has one cell; cells without a number are HSIC's and those where no rates worked."""
    places = {VGG.paper(*cell) for cell in CELLS} - {None}
    numbers = {place for place in places if papers.number(*place) is not None}
    printed = {
        (table, cells["network"], column)
        for table in ("001-8", "001-9")
        for cells in papers.table(table)
        for column in cells
        if column != "network" and cells[column]
    }
    assert numbers == printed
    assert len(places) == len([cell for cell in CELLS if VGG.paper(*cell)])  # no two cells share one
    failures = {(row, column[3:]) for row, column in CELLS if VGG.paper(row, column)} - {
        (row, column[3:]) for row, column in CELLS if VGG.paper(row, column) in numbers
    }
    assert failures == {(row, "SGD") for row in ("FA", "sign symmetry", "layer class.+FA", "pHSIC gaussian")}


@pytest.mark.parametrize(
    ("row", "column", "number"),
    [
        ("backprop", "1x SGD+div", 91.0),
        ("FA", "2x SGD+div", 80.6),
        ("layer class.+FA", "1x AdamW+bn", 90.3),
        ("pHSIC cosine", "2x SGD+div", 91.3),
        ("pHSIC gaussian", "1x SGD+div", 86.2),
        ("sign symmetry", "2x AdamW+bn", 93.9),
    ],
)
def test_numbers_of_table_2(row, column, number):
    assert papers.number(*VGG.paper(row, column)) == number


@pytest.mark.parametrize(
    ("row", "column", "groups", "rate", "readout_rate", "power"),
    [
        ("backprop", "1x SGD", None, 0.0, 5e-3, None),
        ("backprop", "1x SGD+div", 64, 0.0, 6e-3, 0.2),
        ("FA", "1x SGD+div", 64, 0.0, 1e-3, 0.5),
        ("FA", "1x SGD", None, 0.0, 1e-3, None),
        ("sign symmetry", "2x SGD+div", 128, 0.0, 5e-4, 0.5),
        ("layer class.", "2x SGD+div", 64, 5e-3, 5e-3, 0.5),
        ("layer class.+FA", "1x AdamW+bn", None, 1e-3, 5e-3, None),
        ("pHSIC cosine", "1x SGD", 32, 3e-2, 5e-5, None),
        ("pHSIC cosine", "1x SGD+div", 64, 0.5, 5e-4, 0.2),
        ("pHSIC gaussian", "1x SGD", 64, 0.4, 1e-4, None),
        ("pHSIC gaussian", "2x SGD+div", 64, 0.4, 1e-4, 0.2),
        ("pHSIC gaussian", "2x AdamW+bn", 128, 5e-3, 5e-4, None),
        ("HSIC gaussian", "1x AdamW+bn+div", 64, 1e-2, 5e-4, 0.2),
    ],
)
def test_settings_of_tables_6_and_7(row, column, groups, rate, readout_rate, power):
    settings = VGG.settings(row, column)
    assert (settings.groups, settings.rate, settings.readout_rate) == (groups, rate, readout_rate)
    with torch.device("meta"):
        network = vgg.build(replace(settings, augment=False, feedback="backprop"), 0)
    norms = [(module.groups, module.power) for module in network.modules() if isinstance(module, DivisiveNorm)]
    assert norms == [(groups, power)] * (7 if power else 0)


@pytest.mark.parametrize(("row", "column"), CELLS)
def test_what_all_runs_share(row, column):
    """Section D.7: 500 epochs, batches of 128, drops to a quarter; groups fit every layer; SELU goes with SGD."""
    settings = VGG.settings(row, column)
    sgd, backprop = "SGD" in column, row == "backprop"
    drops = (100, 200, 250, 275) if sgd and backprop else (300, 350, 450, 475)
    assert (settings.epochs, settings.batch_size, settings.drops) == (500, 128, drops)
    assert (settings.drop_factor, settings.momentum, settings.dropout) == (0.25, 0.95, 0.05)
    assert (settings.decay, settings.readout_decay) == (1e-7, 1e-6)
    assert (settings.activation, settings.batch_norm) == (("selu", False) if sgd else ("leaky relu", True))
    assert settings.channels == tuple((2 if column[0] == "2" else 1) * c for c in (128, 256, 256, 512, 512, 512))
    assert settings.augment is True
    assert settings.manhattan == (row == "sign symmetry" and sgd)
    with torch.device("meta"):
        network = vgg.build(replace(settings, augment=False, feedback="backprop"), 0)
        seen = network.activities(torch.empty(2, 3, 32, 32))
    assert all(z[0].numel() % (settings.groups or 1) == 0 for z in seen[:-1])
    assert network.partition == ((8,) if settings.learns == "all" else (1,) * 8)
    dropouts = {type(m) for m in network.modules() if isinstance(m, nn.Dropout | nn.AlphaDropout)}
    assert dropouts == {nn.AlphaDropout if sgd else nn.Dropout}


def test_2x_runs_differ_from_1x_in_sizes_and_rates_alone():
    """So what two steps show of 1x holds for 2x, whose own two steps are taken in a few cells."""
    for row, column in CELLS:
        one, two = (asdict(VGG.settings(row, f"{width}{column[2:]}")) for width in ("1x", "2x"))
        assert {key for key in one if one[key] != two[key]} <= {"channels", "groups", "rate", "readout_rate"}


BIG = [("layer class.+FA", "2x AdamW+bn"), ("pHSIC gaussian", "2x SGD+div")]
STEPPED = [cell for cell in CELLS if cell[1][0] == "1" and not (cell[0][0] == "H" and cell[1] != "1x SGD+div")] + BIG


@pytest.mark.parametrize(("row", "column"), STEPPED)
def test_runs_take_two_steps_at_their_true_shapes(row, column, monkeypatch):
    """True images, widths and groups; two examples per step, since a whole batch takes a CPU half a minute."""
    calls = []
    monkeypatch.setattr(dense, "fit", lambda *a, **o: calls.append((a, o)) or fit(*a, **o))
    metrics = engine.rehearse(VGG, engine.Run(row, column, 0))
    ((arguments, options),) = calls
    assert tuple(arguments[2].shape) == (4, 3, 32, 32)
    assert options["batch_size"] == 2
    (epoch,) = metrics["history"]
    assert len(epoch["losses"]) == (1 if VGG.settings(row, column).learns == "all" else 8)
    assert None not in epoch["losses"]
    assert ("gap" in epoch) == ("HSIC" in row)
    assert set(VGG.measures) <= set(metrics)


fit = dense.fit


def small(row, column="digits SGD+div"):
    return VGG.settings(row, column)


def test_what_teaches_in_each_row():
    """Objectives of the hidden layers, and where feedback is wrong: in the network, or in the layers' readouts."""
    for row in vgg.ROWS:
        settings = small(row)
        network = vgg.build(settings, 0)
        objectives, _ = vgg.learning(settings, network, 0)
        wires = [module.kind for module in network.modules() if isinstance(module, Feedback)]
        own = [o.readout.feedback.kind for o in objectives if isinstance(o, LocalReadout)]
        kind = {"FA": "random", "sign symmetry": "sign"}.get(row, "backprop")
        assert wires == [kind] * 6
        assert own == {"layer class.": ["backprop"] * 5, "layer class.+FA": ["random"] * 5}.get(row, [])
        assert (objectives[0] is None) == (row == "last layer")
        assert objectives[-1] is dense.cross_entropy


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ("pHSIC cosine", {"kernel": "cosine"}),
        ("HSIC gaussian", {"estimator": "hsic"}),
    ],
)
@pytest.mark.parametrize(("column", "power"), [("1x SGD", 0.5), ("1x SGD+div", 0.2), ("1x AdamW+bn", 0.5)])
def test_what_a_hidden_layer_minimizes(row, options, column, power):
    settings = replace(VGG.settings(row, column), groups=16)
    objectives, _ = vgg.learning(settings, vgg.build(small(row), 0), 0)
    z = torch.randn(8, 32, 4, 4, generator=torch.Generator().manual_seed(0))
    y = torch.arange(8) % 10
    expected = bottleneck_objective(z, label_kernel(y, 10), sigma=5.0, balance=2.0, groups=16, power=power, **options)
    torch.testing.assert_close(objectives[0](z, Batch(z, y)), expected)


def test_optimizers():
    sgd, adamw = (
        [make([nn.Parameter(torch.zeros(1))]) for make in vgg.learning(s, vgg.build(s, 0), 0)[1]]
        for s in (small("pHSIC cosine"), small("pHSIC cosine", "digits AdamW+bn"))
    )
    assert {type(o) for o in sgd} == {SGD}
    assert {type(o) for o in adamw} == {AdamW}
    assert [(o.defaults["lr"], o.defaults["weight_decay"]) for o in sgd] == [(0.1, 1e-7)] * 5 + [(0.3, 1e-6)]
    assert {o.defaults["momentum"] for o in sgd} == {0.95}
    assert {(o.defaults["betas"], o.defaults["eps"]) for o in adamw} == {((0.9, 0.999), 1e-8)}


@pytest.mark.parametrize(("row", "step"), [("sign symmetry", 0.5), ("FA", 1.5)])
def test_only_sign_symmetry_sees_signs_alone(row, step):
    settings = replace(small(row), readout_rate=0.5, readout_decay=0.0)
    (make,) = vgg.learning(settings, vgg.build(settings, 0), 0)[1]
    weight = nn.Parameter(torch.tensor([0.0]))
    weight.grad = torch.tensor([3.0])
    make([weight]).step()
    assert weight.item() == -step


def test_local_readouts_are_those_of_the_seed_and_leave_the_network_alone():
    settings = small("layer class.", "digits AdamW+bn")
    network = vgg.build(settings, 0)
    before = [value.clone() for value in network.state_dict().values()]
    same, again, other = (vgg.local_readouts(settings, network, seed) for seed in (0, 0, 1))
    assert [r.readout.in_features for r in same] == [16 * 8, 32 * 4, 32 * 4, 64 * 2, 64]
    assert all(torch.equal(a.readout.weight, b.readout.weight) for a, b in zip(same, again, strict=True))
    assert not torch.equal(same[0].readout.weight, other[0].readout.weight)
    assert all(torch.equal(a, b) for a, b in zip(before, network.state_dict().values(), strict=True))


@pytest.mark.parametrize("column", ["1x SGD", "digits SGD"])
def test_the_true_shapes_are_those_of_the_data(column):
    settings = VGG.settings("backprop", column)
    if not sets.available(settings.data):
        pytest.skip(f"{settings.data} is not in BIOLEARN_DATA")
    loaded, noise = vgg.load(settings, torch.device("cpu")), vgg.random(settings, 2)
    assert loaded.train[0].shape[1:] == noise.train[0].shape[1:] == settings.shape
    assert loaded.train[0].dtype == noise.train[0].dtype


def test_images_are_cropped_as_images():
    settings = replace(VGG.settings("backprop", "1x SGD"), channels=(4, 4), pooled=(0,), hidden=(8,))
    x = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    network = vgg.build(settings, 0).train()
    torch.manual_seed(0)
    crops = network.layers[0].op[0](x)
    torch.manual_seed(0)
    flat = network.layers[0].op[0](x.flatten(1))
    assert crops.shape == x.shape
    assert torch.equal(crops.flatten(1), flat)
    assert not torch.equal(crops, x)
    assert torch.equal(network.eval().layers[0].op[0](x), x)


def test_the_lite_table_counts(monkeypatch):
    """Committed runs: what learns beats untrained layers, and feedback alignment without normalization falls behind."""
    monkeypatch.delenv("BIOLEARN_RESULTS", raising=False)
    runs = engine.plan(VGG, "lite")
    mean = {(cell["row"], cell["column"]): cell["mean"] for cell in report(VGG, runs).rows}
    assert None not in mean.values()
    for row in METHODS:
        assert mean[row, "digits AdamW+bn"] > mean["last layer", "digits AdamW+bn"] + 5
    assert mean["backprop", "digits SGD+div"] > mean["FA", "digits SGD"] + 5
