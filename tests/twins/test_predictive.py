"""Paper 003's losses against loops over floats, and the explicit rules against both autograd and loops."""

import functools
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from oracles import predictive_loops as slow

from biolearn_lite.rules import plasticity
from biolearn_lite.rules.circuits import surprise_circuit
from biolearn_lite.rules.predictive import (
    ahead,
    clapp_hinge,
    clapp_signal,
    clapp_update,
    cpc_terms,
    info_nce,
    info_nce_signal,
    info_nce_update,
    score,
    surprise,
)

OPERATIONS = ["dense", "conv", "conv + pool", "strided conv"]
VARIANTS = ["one matrix", "context blocked", "target blocked", "two matrices", "two matrices, one gate"]


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def coins(*shape, seed=9):
    return normal(*shape, seed=seed).sign()


def options(variant, W_retro):
    return {
        "one matrix": {},
        "context blocked": {"block": "context"},
        "target blocked": {"block": "target"},
        "two matrices": {"W_retro": W_retro},
        "two matrices, one gate": {"W_retro": W_retro, "one_gate": True},
    }[variant]


def no_autograd(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a rule called autograd")

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    monkeypatch.setattr(torch.Tensor, "backward", refuse)
    monkeypatch.setattr(torch.autograd, "backward", refuse)


def layer(operation):
    """(op, the same layer in plain torch with its mean over positions, draw of what it sees, weight)."""
    if operation == "dense":
        return "dense", lambda x, w: F.linear(x, w).relu(), lambda *n, seed=0: normal(*n, 9, seed=seed), normal(6, 9)
    weight, draw = normal(6, 2, 3, 3), lambda *n, seed=0: normal(*n, 2, 6, 6, seed=seed)
    stride = 2 if operation == "strided conv" else 1
    pool = 2 if operation == "conv + pool" else 1

    def forward(x, w):
        z = F.conv2d(x.flatten(0, -4), w, stride=stride, padding=1).relu()
        return F.max_pool2d(z, pool).mean((2, 3)).unflatten(0, x.shape[:-3])

    return plasticity.Conv2d((3, 3), stride=stride, padding=1, pool=pool), forward, draw, weight


def events(kind, draw):
    """What is seen at the contexts and at the targets, and y: one event per context, or both cases for each."""
    pre_c = draw(8, seed=1)
    if kind == "coin":
        return pre_c, draw(8, seed=2), coins(8)
    return pre_c, draw(4, 8, seed=2), torch.tensor([1, -1, -1, -1])


@pytest.mark.parametrize("kind", ["coin", "both"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_update_equals_autograd(operation, variant, kind, monkeypatch):
    op, forward, draw, weight = layer(operation)
    pre_c, pre_z, y = events(kind, draw)
    W, W_pred, W_retro = (w.clone().requires_grad_() for w in (weight, normal(6, 6, seed=3) / 4, normal(6, 6) / 4))
    learn = options(variant, W_retro)
    c, z = forward(pre_c, W), forward(pre_z, W)
    gate = surprise(score(c, z, W_pred), y)
    assert 0 < (gate == 0).double().mean() < 1  # some events surprise, some do not
    weights = [W, W_pred, W_retro] if "W_retro" in learn else [W, W_pred]
    gradients = torch.autograd.grad(clapp_hinge(c, z, y, W_pred, **learn), weights)
    no_autograd(monkeypatch)
    with torch.inference_mode():
        told = clapp_update(pre_c, pre_z, W, y, W_pred, op=op, **learn)
    for ours, gradient in zip((told.W, told.W_pred, told.W_retro), gradients, strict=False):
        assert gradient.norm() > 1e-3
        torch.testing.assert_close(ours, -gradient, rtol=1e-10, atol=1e-12)
    assert (told.W_retro is None) == ("W_retro" not in learn)
    assert told.W_c.any() == (variant != "context blocked")
    assert told.W_z.any() == (variant != "target blocked")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_cpc_update_equals_autograd(operation, monkeypatch):
    op, forward, draw, weight = layer(operation)
    pre_c, pre_z = draw(8, seed=1), draw(4, 8, seed=2)
    W, W_pred = weight.requires_grad_(), (normal(6, 6, seed=3) / 4).requires_grad_()
    gradients = torch.autograd.grad(info_nce(forward(pre_c, W), forward(pre_z, W), W_pred), [W, W_pred])
    no_autograd(monkeypatch)
    with torch.inference_mode():
        told = info_nce_update(pre_c, pre_z, W, W_pred, op=op)
    for ours, gradient in zip((told.W, told.W_pred), gradients, strict=True):
        torch.testing.assert_close(ours, -gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_signals_are_gradients_wherever_context_and_target_come_from(variant):
    """Layers of different sizes, as where the context is the layer above; sequences with several leading axes."""
    c, z = normal(3, 2, 4, 5).requires_grad_(), normal(3, 3, 2, 4, 7, seed=1).requires_grad_()
    W_pred, W_retro = (normal(7, 5, seed=2) / 3).requires_grad_(), (normal(5, 7, seed=3) / 3).requires_grad_()
    y = torch.tensor([1, -1, -1])
    learn = options(variant, W_retro)
    loss = clapp_hinge(c, z, y, W_pred, **learn)
    inputs = [c, z, W_pred, W_retro] if "W_retro" in learn else [c, z, W_pred]
    told = clapp_signal(c, z, y, W_pred, **learn)
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True)
    for ours, gradient in zip(told, gradients, strict=False):
        torch.testing.assert_close(ours, torch.zeros_like(ours) if gradient is None else -gradient)
    cpc = torch.autograd.grad(info_nce(c, z, W_pred), [c, z, W_pred])
    for ours, gradient in zip(info_nce_signal(c, z, W_pred), cpc, strict=False):
        torch.testing.assert_close(ours, -gradient)


@pytest.mark.parametrize("seed", range(6))
def test_rules_against_loops(seed):
    """One event at a time, and their means: the equations of the paper, neuron by neuron."""
    x_c, x_z = normal(6, 4, seed=seed), normal(6, 4, seed=seed + 50)
    W, W_pred, W_retro = normal(3, 4, seed=7), normal(3, 3, seed=8), normal(3, 3, seed=seed + 70)
    y, c, z = coins(6, seed=seed), F.linear(x_c, W).relu(), F.linear(x_z, W).relu()
    lists = [part.tolist() for part in (c, z, y)]
    each = [slow.hinge(*event, W_pred.tolist()) for event in zip(*lists, strict=True)]
    assert clapp_hinge(c, z, y, W_pred).item() == pytest.approx(slow.mean_of_kinds(each, lists[2]))
    split = slow.split_hinge(*lists, W_pred.tolist(), W_retro.tolist())
    assert clapp_hinge(c, z, y, W_pred, W_retro=W_retro).item() == pytest.approx(split)
    for one_gate, retro in itertools.product((False, True), (None, W_retro)):
        if one_gate and retro is None:
            continue
        for i in range(6):
            event = x_c[i].tolist(), x_z[i].tolist(), y[i].item(), W.tolist(), W_pred.tolist()
            expected = slow.clapp_event(*event, None if retro is None else retro.tolist(), one_gate)
            told = clapp_update(x_c[i : i + 1], x_z[i : i + 1], W, y[i], W_pred, W_retro=retro, one_gate=one_gate)
            for ours, theirs in zip(told, expected, strict=True):
                assert ours is None or ours.tolist() == [pytest.approx(row) for row in theirs]
    candidates = torch.stack([x_z, x_c.roll(1, 0), x_z.roll(2, 0)])
    told = info_nce_update(x_c[:1], candidates[:, :1], W, W_pred)
    theirs = slow.cpc_context(x_c[0].tolist(), candidates[:, 0].tolist(), W.tolist(), W_pred.tolist())
    for ours, expected in zip((told.W_pred, told.W_z, told.W_c), theirs, strict=True):
        assert ours.tolist() == [pytest.approx(row) for row in expected]
    z = F.linear(candidates, W).relu()
    losses = [slow.info_nce(c[i].tolist(), z[:, i].tolist(), W_pred.tolist()) for i in range(6)]
    assert info_nce(c, z, W_pred).item() == pytest.approx(sum(losses) / 6)


def test_the_worked_example():
    W, W_pred = torch.eye(2), torch.tensor([[0.5, 0.0], [0.5, -0.25]])
    c, stayed, jumped = torch.tensor([[1.0, 2]]), torch.tensor([[1.0, 1]]), torch.tensor([[2.0, 0]])
    told = clapp_update(c, stayed, W, torch.tensor([1]), W_pred)
    assert told.W_z.tolist() == [[0.5, 0.5], [0, 0]]
    assert told.W_c.tolist() == [[1, 2], [-0.25, -0.5]]
    assert told.W_pred.tolist() == [[1, 2], [1, 2]]
    assert clapp_hinge(c, stayed, torch.tensor([1]), W_pred) == 0.5
    assert clapp_hinge(c, jumped, torch.tensor([-1]), W_pred) == 2
    assert clapp_update(c, jumped, W, torch.tensor([-1]), W_pred).W.tolist() == [[-2, -2], [0, 0]]
    terms = cpc_terms(c, torch.stack([stayed, jumped]), W_pred)
    assert terms.probability.flatten().tolist() == pytest.approx([0.378, 0.622], abs=1e-3)
    assert terms.deviation[0].tolist() == pytest.approx([-0.622, 0.622], abs=1e-3)
    assert terms.transported[0].tolist() == pytest.approx([0, -0.1556], abs=1e-4)
    assert info_nce(c, torch.stack([stayed, jumped]), W_pred).item() == pytest.approx(0.974, abs=1e-3)


def test_the_scale_does_not_halve_when_the_eye_tosses_a_coin():
    c, z, other, W_pred = normal(1, 5).expand(40, 5), normal(1, 5, seed=1), normal(1, 5, seed=2), normal(5, 5) / 9
    both = clapp_hinge(c, torch.stack([z.expand(40, 5), other.expand(40, 5)]), torch.tensor([1, -1]), W_pred)
    y = coins(40)
    one = clapp_hinge(c, torch.where(y[:, None] > 0, z, other), y, W_pred)
    torch.testing.assert_close(one, both)
    for kind, glance in ((1, z), (-1, other)):
        alone = clapp_hinge(c, glance.expand(40, 5), torch.full((40,), kind), W_pred)
        expected = max(0, 1 - kind * score(c[0], glance[0], W_pred).item())  # the other kind counts 0
        assert alone.item() == pytest.approx(expected)
    fresh = clapp_hinge(c, z, y, 0 * W_pred)
    assert fresh.item() == pytest.approx(2)
    assert clapp_hinge(c, z, y, 0 * W_pred, W_retro=0 * W_pred).item() == pytest.approx(4)


def test_the_gate_is_strict():
    """Exactly at the margin there is no surprise."""
    c, W_pred, y = torch.ones(4, 1), torch.ones(1, 1), torch.tensor([1, 1, -1, -1])
    z = torch.tensor([[1.0], [0.75], [-1.0], [-0.75]])
    assert surprise(score(c, z, W_pred), y).tolist() == [0, 1, 0, -1]
    assert clapp_signal(c, z, y, W_pred).z.flatten().tolist() == [0, 0.5, 0, -0.5]


def test_a_retro_matrix_that_is_the_transpose_changes_nothing_but_who_carries_it():
    x_c, x_z, y, W, W_pred = normal(8, 5), normal(8, 5, seed=1), coins(8), normal(4, 5, seed=2), normal(4, 4, seed=3)
    one = clapp_update(x_c, x_z, W, y, W_pred)
    for one_gate in (False, True):
        two = clapp_update(x_c, x_z, W, y, W_pred, W_retro=W_pred.T.clone(), one_gate=one_gate)
        torch.testing.assert_close(two.W, one.W)
        torch.testing.assert_close(two.W_retro, one.W_pred.T)
    wrong = clapp_update(x_c, x_z, W, y, W_pred, W_retro=W_pred.clone(), one_gate=True)
    assert (wrong.W - one.W).norm() > 0.1 * one.W.norm()


def test_one_gate_is_another_rule_while_the_two_matrices_disagree():
    x_c, x_z, y = normal(12, 5), normal(12, 5, seed=1), coins(12)
    W, W_pred, W_retro = normal(4, 5, seed=2), normal(4, 4, seed=3) / 3, normal(4, 4, seed=4) / 3
    two, one = (clapp_update(x_c, x_z, W, y, W_pred, W_retro=W_retro, one_gate=gate) for gate in (False, True))
    torch.testing.assert_close(one.W_z, two.W_z)
    assert (one.W_c - two.W_c).norm() > 0.1 * two.W_c.norm()
    torch.testing.assert_close(one.W_retro, one.W_pred.T)  # equal increments: the difference of the two stays
    assert not torch.allclose(two.W_retro, two.W_pred.T)


def test_equation_14_is_half_of_what_is_descended():
    c, z, y, W = normal(8, 4).requires_grad_(), normal(8, 4, seed=1).requires_grad_(), coins(8), normal(4, 4) / 4
    W_retro = normal(4, 4, seed=5) / 4
    printed = (clapp_hinge(c.detach(), z, y, W) + clapp_hinge(c, z.detach(), y, W_retro.T)) / 2
    told = clapp_signal(c, z, y, W, W_retro=W_retro)
    for ours, gradient in zip(told[:2], torch.autograd.grad(printed, [c, z]), strict=True):
        torch.testing.assert_close(ours, -2 * gradient)


def test_cpc_is_stable_and_nothing_is_asked_of_one_glance_alone():
    """The published run's log(p + 1e-11) would stop at 25.3 and teach nothing there."""
    c, W_pred = torch.ones(1, 1), torch.ones(1, 1)
    for gap in (40.0, 1e4):
        z = torch.tensor([[[0.0]], [[gap]]])
        assert info_nce(c, z, W_pred).item() == pytest.approx(gap)
        assert info_nce_signal(c, z, W_pred).z.flatten().tolist() == pytest.approx([1, -1])
    assert info_nce(c, torch.ones(1, 1, 1), W_pred) == 0
    assert -math.log(1e-11) == pytest.approx(25.3, abs=0.05)


@pytest.mark.parametrize(("step", "skip"), [(1, 1), (2, 1), (5, 1), (1, 0), (3, 2)])
def test_ahead(step, skip):
    here = torch.arange(2 * 7).view(2, 7, 1)
    c, z = ahead(here, here, step=step, skip=skip)
    for column in range(2):
        pairs = list(zip(c[column, :, 0].tolist(), z[column, :, 0].tolist(), strict=True))
        assert pairs == [(7 * column + t, 7 * column + u) for t, u in slow.pairs_ahead(7, step, skip)]
    if (step, skip) == (1, 1):
        assert pairs[0] == (7, 9)  # the first patch that shares no pixel with it


def test_learning_by_the_rule_alone():
    """Things last: what is seen next is noisy, but of the same thing. The rule finds out, and needs no transport."""
    things = normal(12, 10)
    W, W_pred, W_retro = normal(16, 10, seed=1) / 3, normal(16, 16, seed=2) / 4, normal(16, 16, seed=3) / 4
    aligned = functools.partial(torch.cosine_similarity, dim=0)
    before, losses = aligned(W_pred.flatten(), W_retro.T.flatten()), []
    for t in range(400):
        thing = torch.randint(12, (64,), generator=torch.Generator().manual_seed(t))
        jump, y = thing.roll(1), coins(64, seed=t)
        x_c = things[thing] + normal(64, 10, seed=2 * t) / 2
        x_z = things[torch.where(y > 0, thing, jump)] + normal(64, 10, seed=2 * t + 1) / 2
        told = clapp_update(x_c, x_z, W, y, W_pred, W_retro=W_retro)
        losses.append(clapp_hinge(F.linear(x_c, W).relu(), F.linear(x_z, W).relu(), y, W_pred, W_retro=W_retro).item())
        W, W_pred, W_retro = W + 0.02 * told.W, W_pred + 0.02 * told.W_pred, W_retro + 0.02 * told.W_retro
    assert sum(losses[-50:]) < 0.5 * sum(losses[:50])
    assert aligned(W_pred.flatten(), W_retro.T.flatten()) > before + 0.15


def test_the_surprise_circuit_settles_at_the_formula():
    c, z, W_pred, y = normal(9, 5), normal(9, 7, seed=1), normal(7, 5, seed=2) / 3, coins(9)
    u, prediction = score(c, z, W_pred), F.linear(c, W_pred)
    cells = surprise_circuit(z.expand(800, 9, 7), prediction.expand(800, 9, 7), y.expand(800, 9), dt=0.05, tau=1.0)
    torch.testing.assert_close(cells.on[-1] - cells.off[-1], u)
    bursts = z * prediction
    torch.testing.assert_close(cells.on[-1], bursts.clamp(min=0).sum(-1))
    assert torch.equal(cells.gamma[-1], surprise(u, y))
    assert 0 < (cells.gamma[-1] == 0).sum() < 9
    first = cells.on[0] - cells.off[0]
    torch.testing.assert_close(first, 0.05 * u)  # one Euler step from rest
    slower = surprise_circuit(z[None], prediction[None], y[None], dt=0.05, tau=2.0)
    torch.testing.assert_close(slower.on[0], cells.on[0] / 2)


CIRCUIT = {
    "shapes": ({"prediction": torch.rand(4, 2)}, r"\(4, 2\)"),
    "events": ({"y": torch.zeros(4)}, "y must hold 1 and -1"),
    "tau": ({"tau": 0.0}, r"tau=0\.0"),
    "step": ({"dt": -1.0}, r"dt=-1\.0"),
}


@pytest.mark.parametrize("case", list(CIRCUIT))
def test_bad_circuits_are_named(case):
    changes, message = CIRCUIT[case]
    good = {"z": torch.rand(4, 3), "prediction": torch.rand(4, 3), "y": torch.ones(4), "dt": 0.1}
    with pytest.raises(ValueError, match=message):
        surprise_circuit(**(good | changes))


BAD = {
    "integers": ({"c": torch.ones(6, 4, dtype=torch.long)}, TypeError, "c has dtype torch.int64"),
    "transposed W_pred": ({"W_pred": torch.rand(4, 3)}, ValueError, r"W_pred is \(4, 3\): expected"),
    "NaN": ({"z": torch.full((6, 3), math.nan)}, ValueError, "NaN"),
    "no glances": ({"c": torch.rand(0, 4), "z": torch.rand(0, 3), "y": torch.ones(0)}, ValueError, "no glances"),
    "an undecided event": ({"y": torch.zeros(6)}, ValueError, "something else than 1"),
    "events of others": ({"y": torch.ones(5)}, ValueError, r"y is \(5,\)"),
    "too many axes": ({"y": torch.ones(6, 1)}, ValueError, r"y is \(6, 1\)"),
    "block": ({"block": "both"}, ValueError, "block='both'"),
    "one gate of one": ({"one_gate": True}, ValueError, "one_gate=True"),
    "two ways to block": ({"W_retro": torch.rand(4, 3), "block": "context"}, ValueError, "block='context'"),
    "glances in a row of their own": ({"z": torch.rand(6, 1, 3)}, ValueError, r"z is \(6, 1, 3\), c \(6, 4\)"),
    "contexts missing": ({"c": torch.rand(5, 4)}, ValueError, r"c \(5, 4\): give one row of z"),
    "transposed W_retro": ({"W_retro": torch.rand(3, 4)}, ValueError, r"W_retro is \(3, 4\)"),
}


@pytest.mark.parametrize("call", [clapp_hinge, clapp_signal])
@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_named(case, call):
    changes, error, message = BAD[case]
    good = {"c": torch.rand(6, 4), "z": torch.rand(6, 3), "y": torch.ones(6), "W_pred": torch.rand(3, 4)}
    with pytest.raises(error, match=message):
        call(**(good | changes))


@pytest.mark.parametrize("call", [info_nce, info_nce_signal, cpc_terms])
def test_bad_candidates_are_named(call):
    for z in (torch.rand(6, 3), torch.rand(2, 5, 3)):
        with pytest.raises(ValueError, match="one row per c"):
            call(torch.rand(6, 4), z, torch.rand(3, 4))


@pytest.mark.parametrize(("step", "skip"), [(0, 1), (6, 1), (1, -1)])
def test_bad_steps_are_named(step, skip):
    with pytest.raises(ValueError, match=f"step={step} and skip={skip}"):
        ahead(torch.rand(7, 2), torch.rand(7, 2), step=step, skip=skip)
