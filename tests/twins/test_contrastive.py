"""Paper 002's losses against loops over floats, and the explicit rule against both autograd and loops."""

import functools
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from oracles import contrastive_loops as slow
from torch import nn

from biolearn_lite.nets.layers import Layer, Linear
from biolearn_lite.rules import plasticity
from biolearn_lite.rules.contrastive import (
    contrastive_hinge,
    contrastive_hinge_signal,
    contrastive_hinge_update,
    nt_xent,
)

NEGATIVES = [None, 0, 1, 3, 99]
OPERATIONS = ["dense", "conv", "conv + pool", "strided conv"]


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def ties(*shape, seed=0):
    """Quarters: exact in floating point, so that distances hit margins exactly and coordinates coincide."""
    return (2 * normal(*shape, seed=seed)).round() / 4


def no_autograd(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a rule called autograd")

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    monkeypatch.setattr(torch.Tensor, "backward", refuse)
    monkeypatch.setattr(torch.autograd, "backward", refuse)


def head(operation, draw):
    """(op, the same forward pass in plain torch, both views' pre, weight)."""
    if operation == "dense":
        return "dense", F.linear, draw(7, 9), draw(7, 9, seed=1), draw(5, 9, seed=2) / 2
    images, others, weight = draw(7, 2, 6, 6), draw(7, 2, 6, 6, seed=1), draw(3, 2, 3, 3, seed=2) / 2
    if operation == "strided conv":
        strided = functools.partial(F.conv2d, stride=2, padding=1)
        return strided, strided, images, others, weight
    padded = functools.partial(F.conv2d, padding=1)
    if operation == "conv":
        return padded, padded, images, others, weight
    pooled = plasticity.Conv2d((3, 3), padding=1, pool=2)
    return pooled, lambda x, w: F.max_pool2d(padded(x, w), 2), images, others, weight


@pytest.mark.parametrize("draw", [normal, ties])
@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_update_equals_autograd(operation, negatives, stop, draw, monkeypatch):
    op, forward, pre_a, pre_b, weight = head(operation, draw)
    middle = (forward(pre_a, weight) - forward(pre_b, weight)).abs().flatten(1).sum(1).median().item()
    for m1, m2 in ((1.0, 3.0), (-1.0, 1e3), (middle, middle)):  # the paper's; every pair; about half, one exactly at it
        options = {"margin_positive": m1, "margin_negative": m2, "negatives": negatives, "stop_first_view": stop}
        W = weight.clone().requires_grad_()
        loss = contrastive_hinge(forward(pre_a, W), forward(pre_b, W), **options)
        (gradient,) = torch.autograd.grad(loss, W)
        with monkeypatch.context() as patch, torch.inference_mode():
            no_autograd(patch)
            dW = contrastive_hinge_update(pre_a.clone(), pre_b.clone(), weight.clone(), op=op, **options)
        assert dW.is_inference()
        assert dW.shape == weight.shape
        torch.testing.assert_close(dW, -gradient, rtol=1e-10, atol=1e-10)
        assert gradient.norm() > 0.1 or (negatives == 0 and m1 != -1)


@pytest.mark.parametrize("draw", [normal, ties])
@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("margins", [(1.0, 3.0), (1.0, 1.5), (2.0, 2.0), (-0.5, 50.0)])
def test_loss_signal_and_update_equal_loops(draw, stop, negatives, margins):
    pre_a, pre_b, W = draw(6, 4), draw(6, 4, seed=1), ties(3, 4, seed=2)
    pre_b[2] = pre_a[2]  # identical views
    pre_b[4, :2] = pre_a[1, :2]  # a negative that coincides in part
    a, b = pre_a @ W.T, pre_b @ W.T
    m1, m2 = margins
    options = {"margin_positive": m1, "margin_negative": m2, "negatives": negatives, "stop_first_view": stop}
    exact = {"rtol": 1e-12, "atol": 1e-12}
    loss = slow.hinge_loops(a.tolist(), b.tolist(), m1, m2, negatives)
    assert contrastive_hinge(a, b, **options).item() == pytest.approx(loss, rel=1e-12, abs=1e-12)
    expected = slow.signals_loops(a.tolist(), b.tolist(), m1, m2, negatives, stop)
    for ours, rows in zip(contrastive_hinge_signal(a, b, **options), expected, strict=True):
        torch.testing.assert_close(ours, torch.tensor(rows, dtype=torch.float64), **exact)
    rows = slow.update_loops(pre_a.tolist(), pre_b.tolist(), W.tolist(), m1, m2, negatives, stop)
    dW = contrastive_hinge_update(pre_a, pre_b, W, **options)
    torch.testing.assert_close(dW, torch.tensor(rows, dtype=torch.float64), **exact)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("n", [1, 2, 6])
def test_nt_xent_equals_loops_and_a_plain_cross_entropy(n, temperature):
    a, b = normal(n, 5), normal(n, 5, seed=1)
    ours = nt_xent(a, b, temperature=temperature).item()
    assert ours == pytest.approx(slow.nt_xent_loops(a.tolist(), b.tolist(), temperature), rel=1e-10, abs=1e-12)
    views = F.normalize(torch.stack([a, b], 1).flatten(0, 1))  # interleaved: partners are 2s and 2s + 1
    rows = [torch.cat([row[:i], row[i + 1 :]]) for i, row in enumerate(views @ views.T / temperature)]
    places = torch.tensor(
        [i if i % 2 == 0 else i - 1 for i in range(2 * n)]
    )  # the partner's, once the view is left out
    assert ours == pytest.approx(
        F.cross_entropy(torch.stack(rows), places, reduction="sum").item(), rel=1e-10, abs=1e-12
    )


def test_nt_xent_of_one_pair_is_zero_and_blind_to_length():
    a, b = normal(4, 5), normal(4, 5, seed=1)
    assert nt_xent(a[:1], b[:1]).item() == 0
    scale = torch.tensor([0.1, 1, 7, 100], dtype=torch.float64)[:, None]
    torch.testing.assert_close(nt_xent(scale * a, b), nt_xent(a, b))


def test_a_worked_example():
    """One pair at distance 2 and one negative at distance 2; margins 1 and 3."""
    W, a, b = torch.eye(2), torch.tensor([[1.0, 0.0], [40.0, 40.0]]), torch.tensor([[2.5, 0.5], [0.0, 1.0]])
    a[1] = b[1]  # the second anchor is where its own partner is: it teaches nothing, and nothing comes after it
    assert contrastive_hinge(a, b, negatives=1).item() == 2
    signal_a, signal_b = contrastive_hinge_signal(a, b, negatives=1)
    assert signal_a.tolist() == [[2, 0], [0, 0]]
    assert signal_b.tolist() == [[-1, -1], [-1, 1]]
    whole = contrastive_hinge_update(a, b, W, negatives=1)
    blocked = contrastive_hinge_update(a, b, W, negatives=1, stop_first_view=True)
    assert whole.tolist() == [[-0.5, -1.5], [-2.5, 0.5]]
    assert blocked.tolist() == [[-2.5, -1.5], [-2.5, 0.5]]


@pytest.mark.parametrize("negatives", NEGATIVES)
def test_far_apart_negatives_and_near_partners_teach_nothing(negatives):
    a = 10 * torch.arange(6.0).double()[:, None] + normal(6, 4) / 100
    for b in (a.clone(), a + 0.01):
        assert contrastive_hinge(a, b, negatives=negatives) == 0
        assert not any(signal.any() for signal in contrastive_hinge_signal(a, b, negatives=negatives))
    assert not contrastive_hinge_update(a, a, normal(3, 4), negatives=0, margin_positive=-1.0).any()  # sgn(0) = 0


@pytest.mark.parametrize("margins", [(2.0, 1.0), (1.0, 2.0)])
def test_a_pair_exactly_at_its_margin_teaches_nothing(margins):
    """Every distance is 2 or 4; with m₁ = 2 or m₂ = 2 the strict inequalities leave those at 2 silent."""
    a, b = torch.tensor([[0.0, 0], [4, 0]]), torch.tensor([[1.0, 1], [1, -1]])
    m1, m2 = margins
    signals = contrastive_hinge_signal(a, b, margin_positive=m1, margin_negative=m2, negatives=1)
    first_anchor = [-1.0, -1.0] if m1 < 2 else [0.0, 0.0]
    assert (-signals[0][0]).tolist() == first_anchor
    assert signals[1][0].tolist() == first_anchor


def test_pairs_far_from_each_other_add_up():
    """A sum over pairs, not a mean: the same disjoint pairs twice cost twice."""
    a, b = normal(5, 4), normal(5, 4, seed=1)
    twice = torch.cat([a, a + 1e4]), torch.cat([b, b + 1e4])
    for negatives in (None, 2):
        torch.testing.assert_close(
            contrastive_hinge(*twice, negatives=negatives), 2 * contrastive_hinge(a, b, negatives=negatives)
        )


def test_negatives_are_the_next_in_the_batch_and_never_wrap_around():
    a, b = normal(8, 4), normal(8, 4, seed=1)
    options = {"margin_positive": 1e6, "margin_negative": 1e6}
    for T, s, t in itertools.product((1, 3), range(8), range(8)):
        anchor, other = a.clone().requires_grad_(), b.clone().requires_grad_()
        loss = contrastive_hinge(anchor, other, negatives=T, **options)
        moved = other.detach().clone()
        moved[t] += 0.25
        (of_anchor,) = torch.autograd.grad(loss, anchor)
        (of_moved,) = torch.autograd.grad(contrastive_hinge(anchor, moved, negatives=T, **options), anchor)
        change = (of_anchor - of_moved)[s].abs().sum()
        crossed = ((a[s] - b[t]).sign() != (a[s] - moved[t]).sign()).any()
        assert (change > 0) == bool(s < t <= s + T and crossed)
    signal_a, signal_b = contrastive_hinge_signal(a, b, negatives=2, **options)
    assert signal_a.abs().amax(1).tolist() <= [2.0] * 6 + [1.0, 0.0]
    assert not signal_a[-1].any()
    assert not signal_b[0].any()


def test_order_matters_only_with_few_negatives():
    a, b, order = normal(9, 4), normal(9, 4, seed=1), torch.randperm(9, generator=torch.Generator().manual_seed(3))
    for negatives, same in ((None, True), (0, True), (2, False)):
        loss, shuffled = (contrastive_hinge(x, y, negatives=negatives) for x, y in ((a, b), (a[order], b[order])))
        assert torch.allclose(loss, shuffled) == same
    for one, two in zip(contrastive_hinge_signal(a, b), contrastive_hinge_signal(a[order], b[order]), strict=True):
        assert torch.equal(one[order], two)
    torch.testing.assert_close(nt_xent(a, b), nt_xent(b[order], a[order]))


@pytest.mark.parametrize("negatives", [None, 2])
def test_the_stopped_view_and_all_below_it_hear_nothing(negatives):
    """The other view hears exactly what it heard before, and so do the weights through it."""
    network = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    first, second = normal(7, 6).requires_grad_(), normal(7, 6, seed=1).requires_grad_()
    options = {"negatives": negatives, "margin_negative": 9.0}
    stopped = contrastive_hinge(network(first), network(second), stop_first_view=True, **options)
    whole = contrastive_hinge(network(first), network(second), **options)
    alone = contrastive_hinge(network(first).detach(), network(second), **options)
    assert stopped == whole == alone
    of_first, of_second = torch.autograd.grad(stopped, [first, second], retain_graph=True, allow_unused=True)
    assert of_first is None
    assert torch.equal(of_second, torch.autograd.grad(whole, second)[0])
    parameters = list(network.parameters())
    for one, two in zip(torch.autograd.grad(stopped, parameters), torch.autograd.grad(alone, parameters), strict=True):
        assert torch.equal(one, two)


def test_the_published_reading_of_five_negatives():
    """Four at weight 1/5, which is the loss without negatives and the loss with four, at 0.8 and 0.2."""
    a, b = normal(9, 4) / 2, normal(9, 4, seed=1) / 2
    published = slow.published_hinge_loops(a.tolist(), b.tolist(), 1.0, 3.0, 5)
    as_text = slow.hinge_loops(a.tolist(), b.tolist(), 1.0, 3.0, 5)
    none, four, five = (contrastive_hinge(a, b, negatives=T).item() for T in (0, 4, 5))
    assert 0.8 * none + 0.2 * four == pytest.approx(published, rel=1e-12)
    assert five == pytest.approx(as_text, rel=1e-12)
    assert five > 2 * published
    assert slow.published_hinge_loops(a.tolist(), b.tolist(), 1.0, 3.0, 1) == pytest.approx(none)  # "1" means none


def test_learning_by_the_update_alone_tells_things_apart():
    """One negative is enough to keep the embedding open; with none it collapses."""
    thing = 2 * normal(60, 8)
    views = [thing + 2 * normal(60, 8, seed=seed) for seed in (1, 2)]
    spread = {}
    for negatives, rate in ((0, 2e-4), (1, 2e-4), (5, 2e-4), (None, 2e-5)):
        W = normal(4, 8, seed=3) / 2
        for _ in range(300):
            W = W + rate * contrastive_hinge_update(*views, W, negatives=negatives, stop_first_view=True)
        a, b = (view @ W.T for view in views)
        spread[negatives] = torch.cdist(a, b, p=1).mean().item()
    assert spread[0] < 1.5
    assert all(spread[T] > 2 * spread[0] for T in (1, 5, None))


def test_layers_learn_from_both_views_stacked():
    """What `Layer.learn` needs for two views in one batch."""
    layer, x = Layer(Linear(6, 4, bias=False).double()), normal(14, 6)

    def signal(z):
        return torch.cat(contrastive_hinge_signal(*z.chunk(2), negatives=3))

    dW, _ = layer.learn(x, signal)
    torch.testing.assert_close(dW, contrastive_hinge_update(*x.chunk(2), layer.op.weight, negatives=3))


def test_one_thing_alone_and_images_as_embeddings():
    a, b = normal(1, 4), normal(1, 4, seed=1)
    for negatives in (None, 5):
        assert contrastive_hinge(a, b, negatives=negatives) == contrastive_hinge(a, b, negatives=0)
    images = normal(5, 2, 3, 3), normal(5, 2, 3, 3, seed=1)
    flat = [image.flatten(1) for image in images]
    assert contrastive_hinge(*images) == contrastive_hinge(*flat)
    assert nt_xent(*images) == nt_xent(*flat)
    for ours, rows in zip(contrastive_hinge_signal(*images), contrastive_hinge_signal(*flat), strict=True):
        assert torch.equal(ours.flatten(1), rows)


def test_time_grows_with_the_negatives_and_not_with_the_pairs(monkeypatch):
    """With T negatives no table of pairs is made: nothing larger than the embeddings themselves."""
    sizes = []
    plain = torch.Tensor.abs
    monkeypatch.setattr(torch.Tensor, "abs", lambda x: sizes.append(x.numel()) or plain(x))
    monkeypatch.setattr(torch, "cdist", lambda *args, **options: pytest.fail("all pairs were compared"))
    a, b = normal(50, 8), normal(50, 8, seed=1)
    contrastive_hinge(a, b, negatives=3)
    contrastive_hinge_signal(a, b, negatives=3)
    assert len(sizes) == 2 * 4
    assert max(sizes) == a.numel()


BAD = {
    "different things": ({"b": torch.rand(5, 4)}, ValueError, r"a is \(6, 4\), b \(5, 4\)"),
    "different widths": ({"b": torch.rand(6, 3)}, ValueError, r"b \(6, 3\)"),
    "no things": ({"a": torch.rand(0, 4), "b": torch.rand(0, 4)}, ValueError, "n things"),
    "integers": ({"a": torch.ones(6, 4, dtype=torch.long)}, TypeError, "int64"),
    "NaN": ({"a": torch.full((6, 4), math.nan)}, ValueError, "NaN"),
    "infinity": ({"b": torch.full((6, 4), math.inf)}, ValueError, "infinity"),
    "margin": ({"margin_positive": math.inf}, ValueError, "margin_positive=inf"),
    "other margin": ({"margin_negative": math.nan}, ValueError, "margin_negative=nan"),
    "fewer than none": ({"negatives": -1}, ValueError, "negatives=-1"),
    "half a negative": ({"negatives": 0.5}, TypeError, r"negatives=0\.5"),
    "yes": ({"negatives": True}, TypeError, "negatives=True"),
}


@pytest.mark.parametrize("call", [contrastive_hinge, contrastive_hinge_signal])
@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_named(case, call):
    changes, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call(**({"a": torch.rand(6, 4), "b": torch.rand(6, 4)} | changes))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_bad_temperature_is_named(temperature):
    with pytest.raises(ValueError, match="temperature"):
        nt_xent(torch.rand(3, 2), torch.rand(3, 2), temperature=temperature)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA is absent: GPU agreement NOT tested")
@pytest.mark.parametrize("negatives", NEGATIVES)
def test_cuda_agrees_with_cpu(negatives):
    pre_a, pre_b, W = normal(20, 9), normal(20, 9, seed=1), normal(5, 9, seed=2)
    here = contrastive_hinge_update(pre_a, pre_b, W, negatives=negatives)
    there = contrastive_hinge_update(pre_a.cuda(), pre_b.cuda(), W.cuda(), negatives=negatives)
    torch.testing.assert_close(there.cpu(), here, rtol=1e-9, atol=1e-12)
