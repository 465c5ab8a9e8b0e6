"""The recipes of paper 004: night simulations against plain loops, every run rehearsed, tables that count."""

import math
from dataclasses import replace

import pytest
import torch
from sklearn.svm import SVC

from biolearn_lite.data import sets, tiny_imagenet
from biolearn_lite.nets.resnet import locally_connected
from biolearn_lite.recipes import engine, papers, sleep
from biolearn_lite.recipes import sleep_dynamics as dynamics
from biolearn_lite.recipes.report import report
from biolearn_lite.rules.weight_sharing import fixed_point, weight_snr
from biolearn_lite.training.fit import Batch

(TABLES,), (FIGURES,) = sleep.RECIPES, dynamics.RECIPES
FULL, LITE = TABLES.scales["full"].columns, TABLES.scales["lite"].columns


def cells(columns):
    return [(row, column) for column in columns for row in TABLES.rows if (row, column) not in TABLES.without]


# Figures 4 and 5


def small(figure, variant, **options):
    sizes = {"kernel_sizes": (1, 2), "decays": (0.1, 0.01), "neurons": 5, "runs": 2, "epochs": 6}
    return replace(dynamics.settings(figure, variant), **(sizes | options))


def plain_rates(settings, variant):
    """Learning rates as A.5 has them, or as published, one per millisecond of all inputs."""
    duration, rates = settings.milliseconds, []
    for input_ in range(settings.epochs):
        for ms in range(duration):
            i = input_ if variant == "text" else input_ * duration + ms
            rates.append(0.0003 / math.sqrt(1 + i / 2) if i >= 50 else 0.0)
    return rates


def plain_circuit(settings, rates, k, decay, run, seed):
    """One run of one curve, millisecond by millisecond, over floats: Eq. 8 by Euler, then the step with the new r."""
    module = dynamics.Module(settings, k, seed)
    w_init, d, n = module.w_init[run].tolist(), k * k, settings.neurons
    w, v = [list(row) for row in w_init], [[0.0] * d for _ in range(n)]
    r, r_inh, tau, alpha, b = [0.0] * n, 0.0, settings.tau, settings.inhibition, settings.bias
    for ms, rate in enumerate(rates):
        if ms % settings.milliseconds == 0:
            x = module.next_input()[run, 0].tolist()
        drive = [sum(p * q for p, q in zip(row, x, strict=True)) for row in w]
        new = [a + (-a + z - alpha * r_inh + b) / tau for a, z in zip(r, drive, strict=True)]
        r_inh += (-r_inh + sum(r) / n - b) / tau
        r = new
        for row, speed, start, rate_of_cell in zip(w, v, w_init, r, strict=True):
            for p in range(d):
                change = -(rate_of_cell - b) * x[p] - decay * (row[p] - start[p])
                speed[p] = settings.momentum * speed[p] + rate * change
                row[p] += speed[p]
    return torch.tensor(w, dtype=torch.float64)


@pytest.mark.parametrize("variant", list(dynamics.VARIANTS))
def test_recursions_within_an_input_are_the_plain_loop(variant):
    """Rates from far behind the start, so that every term counts; the silence before i = 50 has a test of its own."""
    settings = small("4B, 5B", variant, milliseconds=20)
    late = [300 * rate for rate in plain_rates(replace(settings, epochs=60), variant)[-6 * 20 :]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamics, "circuit_rates", lambda settings, i: late[20 * i : 20 * (i + 1)])
        *_, (epoch, modules) = dynamics.circuit_night(settings, 3)
    assert epoch == 6
    for module in modules:
        for decay, weights in zip(settings.decays, module.weights(), strict=True):
            for run in range(settings.runs):
                expected = plain_circuit(settings, late, module.kernel_size, decay, run, 3)
                assert (expected - module.w_init[run]).abs().max() > 0.05
                torch.testing.assert_close(weights[run], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("variant", list(dynamics.VARIANTS))
def test_rates_of_the_circuit(variant):
    settings = dynamics.settings("4B, 5B", variant)
    rates = [rate for i in range(70) for rate in dynamics.circuit_rates(settings, i)]
    assert rates == pytest.approx(plain_rates(replace(settings, epochs=70), variant), rel=1e-12)
    assert rates.index(next(filter(None, rates))) == (50 * 150 if variant == "text" else 50)


@pytest.mark.parametrize("figure", ["4A", "5A"])
@pytest.mark.parametrize("variant", list(dynamics.VARIANTS))
def test_the_rule_is_descent_with_momentum_by_loops(figure, variant):
    settings = small(figure, variant)
    *_, (_, modules) = dynamics.rule_night(settings, 1)
    kept = 1 if settings.inhibition is None else settings.inhibition / (1 + settings.inhibition)
    for module in modules:
        again = dynamics.Module(settings, module.kernel_size, 1, dtype=torch.float32)
        inputs = [again.next_input().double() for _ in range(settings.epochs)]
        for decay, weights in zip(settings.decays, module.weights(), strict=True):
            w_init = again.w_init.double()
            w, v = w_init.clone(), torch.zeros_like(w_init)
            for i, x in enumerate(inputs):
                z = (w * x).sum(2, keepdim=True)
                v = 0.95 * v + 0.5 / (1000 + i) * (-(z - kept * z.mean(1, keepdim=True)) * x - decay * (w - w_init))
                w = w + v
            torch.testing.assert_close(weights.double(), w, rtol=1e-5, atol=1e-5)
            assert (w - w_init).abs().max() > 1e-3


def test_theory_is_the_fixed_point_of_the_true_inputs():
    """Inputs N(2, 1), so C = I + 4; and, for the text's N(1, 1), close to A.5's short formula."""
    settings = small("4A", "text", kernel_sizes=(1, 3), decays=(0.01,), neurons=100, input_mean=2.0)
    for k, value in zip(settings.kernel_sizes, dynamics.theory(settings, 0).values(), strict=True):
        x = 2 + torch.randn(400_000, k * k, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        end = fixed_point(dynamics.Module(settings, k, 0).w_init, x.T @ x / len(x), decay=0.01)
        assert value == pytest.approx(-weight_snr(end).log().mean().item(), abs=0.02)
    (value,) = dynamics.theory(replace(settings, kernel_sizes=(6,), input_mean=1.0), 0).values()
    assert value == pytest.approx(2 * math.log(0.01 / 1.01), abs=0.15)


def test_a_lost_run_is_no_number():
    assert dynamics._moment(torch.full((2, 3, 4), math.nan))["mean"] is None
    kept = dynamics._moment(1 + torch.randn(2, 3, 4))
    assert kept["low"] <= kept["mean"] <= kept["high"]


@pytest.mark.parametrize("run", engine.plan(FIGURES, "full"), ids=str)
def test_every_figure_is_rehearsed(run):
    metrics = engine.rehearse(FIGURES, run)
    assert [line["epoch"] for line in metrics["history"]] == [0, 1]
    assert len(metrics["history"][0]) == 1 + 9
    assert set(FIGURES.measures) <= set(metrics)


def test_moments_are_dense_at_the_start_and_reach_the_end():
    moments = dynamics.times(10_000)
    assert moments[:4] == [0, 1, 2, 3]
    assert moments[-1] == 10_000
    assert 150 < len(moments) < 220
    assert dynamics.times(1) == [0, 1]


def test_the_figures_count():
    """Rule 4A nears the theory in 2,000 inputs; finite inhibition is best early and worse later (Figures 4B, 5)."""
    found = {(row["row"], row["column"]): row for row in report(FIGURES, engine.plan(FIGURES, "lite")).rows}
    assert all(row["seeds"] == [0] for row in found.values())
    for column in dynamics.VARIANTS:
        (history,) = found["4A", column]["history"]
        settings = dynamics.settings("4A", column)
        theory = dynamics.theory(settings, 0)
        for k in settings.kernel_sizes:
            name = dynamics.curve(k, 0.1)
            assert history[-1][name]["mean"] == pytest.approx(theory[name], abs=0.7)
        for figure in ("4A", "5A"):
            measures = found[figure, column]["measures"]
            gap = measures["final"]["mean"] - measures["lowest"]["mean"]
            assert (gap > 0.5) == (figure == "5A")


# Tables 1 and 4 to 12


def test_the_papers_numbers_are_found():
    numbers = {cell: papers.number(*TABLES.paper(*cell)) for cell in cells(FULL)}
    assert all(number is not None for number in numbers.values())
    assert len(numbers) == 3 * (5 + 8 + 8)
    assert numbers["conv", "cifar10 padding 4"] == 88.3
    assert numbers["LC - ws(1)", "cifar10 padding 4"] == 87.4
    assert numbers["LC - 16 reps", "cifar100 padding 8"] == 55.6
    assert numbers["LC - ws(100)", "tinyimagenet padding 0"] == 27.4
    assert all(TABLES.paper(*cell) is None for cell in cells(LITE))


@pytest.mark.parametrize(
    ("cell", "rate", "decay"),
    [
        (("conv", "cifar10 padding 4"), 0.01, 0.0001),
        (("LC", "cifar100 padding 8"), 0.0005, 0.0001),
        (("LC - 8 reps", "tinyimagenet padding 8"), 0.0005, 0.0001),
        (("LC - ws(100)", "tinyimagenet padding 0"), 0.001, 0.0001),
        (("LC - ws(10)", "cifar10 padding 0"), 0.0005, 0.01),
    ],
)
def test_rates_are_those_of_tables_10_to_12(cell, rate, decay):
    chosen = sleep.settings(*cell)
    assert (chosen.rate, chosen.decay) == (rate, decay)
    assert (chosen.epochs, chosen.batch_size, chosen.drops) == (200, 512, (100, 150))


@pytest.mark.parametrize("column", [*FULL, *LITE])
def test_rows_differ_in_connections_nights_and_copies_alone(column):
    chosen = {row: sleep.settings(row, column) for row, of in cells([column])}
    plain = {replace(s, rate=0.1, decay=0.1, local=True, every=None, copies=1) for s in chosen.values()}
    assert len(plain) == 1
    assert [s.every for s in chosen.values() if s.every] == [1, 10, 100]
    assert [row for row, s in chosen.items() if not s.local] == ["conv"]
    assert [row for row, s in chosen.items() if s.copies > 1] == [row for row in chosen if "reps" in row]
    assert ("reps" in "".join(chosen)) == (plain.pop().reach > 0)


REHEARSED = [*cells(LITE), *(cell for cell in cells(FULL) if cell[0] == "conv")]
REHEARSED += [(row, "cifar10 padding 4") for row in ("LC", "LC - 16 reps", "LC - ws(100)")]


@pytest.mark.parametrize(("row", "column"), REHEARSED)
def test_runs_take_two_steps_at_their_true_size(row, column):
    """Of the large local networks three stand for all: the columns differ in sizes and numbers alone."""
    metrics = engine.rehearse(TABLES, engine.Run(row, column, 0))
    assert set(TABLES.measures) <= set(metrics)
    (line,) = metrics["history"]
    assert ("drift" in line) == (row != "conv")
    if row != "conv":
        layers = {"digits home": 5, "digits moved": 5, "textures moved": 3}.get(column, 21)
        assert len(line["drift"]) == layers
        assert len(line["steps"]) == 2
    assert len(metrics["by_shift"]) == min(sleep.settings(row, column).margin, 4) + 1


def test_copies_keep_images_per_step_and_multiply_steps():
    x, seen = torch.zeros(64, 10), []
    run = engine.Run("LC - 4 reps", "digits moved", 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sleep, "cross_entropy", lambda z, batch: seen.append((len(z), len(batch.labels))) or z.sum())
        engine.rehearse(TABLES, run, steps=5)
    assert seen == [(16, 4)] * (5 * 4 // 4)
    labels = torch.arange(16) % 10
    scores = torch.nn.functional.one_hot(labels, 10).float().repeat(4, 1) * 50
    assert sleep.cross_entropy(scores, Batch(x, labels)).item() < 1e-6


@pytest.mark.parametrize("row", ["LC", "LC - ws(1)", "LC - ws(10)"])
def test_nights_of_a_run(row):
    """The history tells drift before each night and after each epoch."""
    settings = replace(sleep.settings(row, "digits home"), epochs=2, batch_size=8, drops=(9,))
    data = sleep.random(settings, 6)
    metrics = sleep.train(settings, data, 0, False, None)
    steps = [value for line in metrics["history"] for value in line["steps"]]
    assert len(steps) == 12
    assert None not in steps  # looked at before the night
    after = metrics["history"][-1]["drift"]
    assert (after == [None] * 5) == (row == "LC - ws(1)")
    if row == "LC - ws(10)":  # a night after the first step of each epoch
        assert steps[1] < steps[0] - 1
        assert steps[7] < steps[6] - 0.5


def test_pictures_stand_in_their_frames():
    digits = sets.load("digits")
    data = sleep.prepare(sleep.settings("LC", "digits home"), digits)
    x, labels = data.train
    assert x.shape == (1347, 1, 20, 20)
    assert torch.equal(labels, digits.train_labels)
    inner = x[..., 6:14, 6:14]
    assert inner.mean().abs() < 1e-5
    assert inner.std() == pytest.approx(1, abs=1e-4)
    assert (x[..., :6, :] == inner.min()).all()
    textures = sleep.prepare(sleep.settings("LC", "textures moved"), sets.load("textures"))
    assert textures.test[0].shape == (500, 1, 24, 24)
    assert textures.train[0].mean().abs() < 1e-5


def test_shifted_pictures_are_moved_and_all_are_asked():
    """A network that tells where a single bright pixel is: right at home, wrong as soon as it is moved."""
    settings = replace(sleep.settings("LC", "digits home"), shape=(1, 3, 3), margin=2, classes=9)
    x = torch.zeros(9, 1, 7, 7)
    for place in range(9):
        x[place, 0, 2 + place // 3, 2 + place % 3] = 1
    network = torch.nn.Flatten()
    examples = (x, torch.arange(9))
    assert sleep.shifted(network, settings, examples, 0) == 100
    assert sleep.shifted(network, settings, (x[4:5], torch.tensor([5])), 1) == 25
    assert sleep.shifted(network, settings, (x[4:5], torch.tensor([7])), 1, top=1) == 25
    assert sleep.shifted(network, settings, examples, 0, top=9) == 100


def test_the_network_of_a_row():
    for row, column in cells(LITE):
        network = sleep.build(sleep.settings(row, column), 0)
        assert bool(locally_connected(network)) == (row != "conv")


def test_tiny_imagenet_is_read_from_its_folder(tmp_path):
    from PIL import Image

    with pytest.raises(FileNotFoundError, match="tiny-imagenet-200"):
        tiny_imagenet.load(tmp_path)
    folder = tmp_path / "tiny-imagenet-200"
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("n02\nn01\n")
    for name, colour in (("n01", 100), ("n02", (200, 0, 0))):
        (folder / "train" / name / "images").mkdir(parents=True)
        for i in range(3):
            mode = "L" if name == "n01" else "RGB"
            Image.new(mode, (64, 64), colour).save(folder / "train" / name / "images" / f"{name}_{i}.JPEG")
    Image.new("RGB", (64, 64), (0, 0, 200)).save(folder / "val" / "images" / "val_0.JPEG")
    (folder / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn01\t0\t0\t9\t9\n")
    for _ in range(2):  # decoded, then from the kept pixels
        data = tiny_imagenet.load(tmp_path)
        assert data.shape == (3, 64, 64)
        assert data.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert data.test_labels.tolist() == [1]
        assert (data.train_images[0, :, 5, 5] - torch.tensor([200, 0, 0], dtype=torch.uint8)).float().abs().max() < 5
        assert (data.train_images[5] == data.train_images[5, 0, 0, 0]).all()
        assert data.test_images[0, 2].float().mean() > 150


def test_the_lite_table_counts():
    """Five seeds; without copies a digit is lost 2 pixels from home, and sharing in grids finds it again at 3."""
    runs = engine.plan(TABLES, "lite")
    assert all(row["seeds"] == [0, 1, 2, 3, 4] for row in report(TABLES, runs).rows)
    by_shift = {}
    for record in engine.records(TABLES, runs):
        by_shift.setdefault((record["row"], record["column"]), []).append(record["metrics"]["by_shift"])
    mean = {cell: torch.tensor(found).mean(0).tolist() for cell, found in by_shift.items()}
    digits = sets.load("digits")
    (x, y), (x_test, y_test) = digits.train(), digits.test()
    machine = 100 * SVC(C=10).fit(x.flatten(1), y).score(x_test.flatten(1), y_test)
    home = {row: mean[row, "digits home"] for row, _ in cells(["digits home"])}
    assert home["LC"][0] > machine - 2
    assert max(home["LC"][2:]) < 30
    assert home["conv"][1] > home["LC"][1] + 20
    assert home["LC - ws(1)"][3] > max(home["LC - ws(1)"][1:3]) + 10
    moved = {row: mean[row, "digits moved"][0] for row, _ in cells(["digits moved"])}
    assert min(moved["conv"], moved["LC - 4 reps"]) > moved["LC"] + 10
    assert moved["conv"] > moved["LC - ws(1)"] + 3
    assert min(mean[row, "textures moved"][0] for row, _ in cells(["textures moved"])) > 50
