"""Paper 004's sleep against autograd, loops, its closed forms, and whole locally connected layers."""

import math

import pytest
import torch
import torch.nn.functional as F
from oracles import sleep_loops as slow

from biolearn_lite.nets.layers import LocallyConnected2d
from biolearn_lite.rules import weight_sharing as sleep
from biolearn_lite.rules.local import LocallyConnected

N, D, S = 6, 4, 5
INHIBITION = [None, 0.0, 3.0]


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def night(singular=False):
    """(w, x, w_init, C); singular: three inputs in four dimensions."""
    x = 1 + normal(3 if singular else 40, D, seed=2)
    return 1 + normal(N, D), x, 1 + normal(N, D, seed=1), x.T @ x / len(x)


def descend(w_init, x, steps=20_000, share=0.9, **options):
    """Full-batch steps at a share of the largest stable rate, 2 / (λ_max + γ)."""
    top = torch.linalg.eigvalsh(x.T @ x / len(x))[-1].item()
    w = w_init.clone()
    for step in range(steps):
        dW = sleep.sleep_update(w, x, w_init, **options)
        w += share * 2 / (top + options["decay"]) * dW
        if step % 100 == 0 and dW.abs().max() < 1e-11:
            break
    return w


@pytest.mark.parametrize("inhibition", INHIBITION)
@pytest.mark.parametrize("kind", ["one pattern", "patterns", "private"])
def test_update_is_minus_the_gradient_and_the_loops(kind, inhibition):
    w, _, w_init, _ = night()
    x = {"one pattern": normal(D), "patterns": normal(S, D), "private": normal(S, N, D)}[kind]
    leaf = w.clone().requires_grad_()
    value = sleep.sleep_objective(leaf, x, w_init, decay=0.3, inhibition=inhibition)
    with torch.inference_mode():
        dW = sleep.sleep_update(w, x, w_init, decay=0.3, inhibition=inhibition)
    torch.testing.assert_close(dW, -torch.autograd.grad(value, leaf)[0], rtol=1e-10, atol=1e-13)
    own = x if kind == "private" else x.view(-1, 1, D).expand(-1, N, D)
    loops = torch.tensor(slow.update(w.tolist(), own.tolist(), w_init.tolist(), 0.3, inhibition), dtype=torch.float64)
    torch.testing.assert_close(dW, loops, rtol=1e-10, atol=1e-13)
    if inhibition is None and kind == "patterns":
        assert value.item() == pytest.approx(slow.objective(w.tolist(), x.tolist(), w_init.tolist(), 0.3), rel=1e-12)


def test_several_modules_at_once():
    w, w_init = normal(3, N, D), normal(3, N, D, seed=1)
    C = torch.stack([night()[3], torch.eye(D, dtype=torch.float64), normal(D, D) @ normal(D, D).T])
    options = {"decay": 0.2, "inhibition": 5.0}
    for x in (normal(3, S, D, seed=2), normal(3, S, N, D, seed=2)):
        together = sleep.sleep_update(w, x, w_init, **options)
        values = sleep.sleep_objective(w, x, w_init, **options)
        for run in range(3):
            torch.testing.assert_close(together[run], sleep.sleep_update(w[run], x[run], w_init[run], **options))
            torch.testing.assert_close(values[run], sleep.sleep_objective(w[run], x[run], w_init[run], **options))
    ends = sleep.fixed_point(w_init, C, noise=0.5, **options)
    for run in range(3):
        torch.testing.assert_close(ends[run], sleep.fixed_point(w_init[run], C[run], noise=0.5, **options))
    assert sleep.weight_snr(w).shape == (3,)


@pytest.mark.parametrize("singular", [False, True])
@pytest.mark.parametrize("decay", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("inhibition", [None, 1.0, 10.0])
def test_steps_end_at_the_fixed_point(singular, decay, inhibition):
    """Eq. 5 and 24, to 1e-8; the mean weight is kept, and with inhibition it is not (Eq. 14-16, 23)."""
    _, x, w_init, C = night(singular)
    end = sleep.fixed_point(w_init, C, decay=decay, inhibition=inhibition)
    w = descend(w_init, x, decay=decay, inhibition=inhibition)
    torch.testing.assert_close(w, end, rtol=0, atol=1e-8)
    start, eye = w_init.mean(0), torch.eye(D, dtype=torch.float64)
    if inhibition is None:
        torch.testing.assert_close(end.mean(0), start, rtol=1e-9, atol=1e-11)
    else:
        expected = decay * torch.linalg.inv(C / (1 + inhibition) + decay * eye) @ start
        torch.testing.assert_close(end.mean(0), expected, rtol=1e-8, atol=1e-10)
        assert end.mean(0).norm() < 0.99 * start.norm()


def test_above_the_largest_rate_steps_diverge():
    _, x, w_init, C = night()
    w, end = descend(w_init, x, steps=300, share=1.02, decay=0.1), sleep.fixed_point(w_init, C, decay=0.1)
    assert (w - end).norm() > 1e3


def test_white_inputs_have_simple_ends():
    """Eq. 20 and 25, C = I; and the limits of no and of endless pull, and of endless inhibition."""
    w, C, g, a = 1 + normal(N, D), torch.eye(D, dtype=torch.float64), 0.2, 4.0
    mean = w.mean(0)
    torch.testing.assert_close(sleep.fixed_point(w, C, decay=g), (mean + g * w) / (1 + g))
    biased = g / (1 + g) * (a / (1 + g * (1 + a)) * mean + w)
    torch.testing.assert_close(sleep.fixed_point(w, C, decay=g, inhibition=a), biased)
    torch.testing.assert_close(sleep.fixed_point(w, C, decay=1e-9), mean.expand(N, D), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(sleep.fixed_point(w, C, decay=1e9), w, rtol=1e-6, atol=1e-8)
    nearly = sleep.fixed_point(w, night()[3], decay=g, inhibition=1e9)
    torch.testing.assert_close(nearly, sleep.fixed_point(w, night()[3], decay=g), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("inhibition", [None, 10.0])
def test_two_neurons_worked_by_hand(inhibition):
    w_init, x = torch.tensor([[1.0], [3.0]], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    w, path = w_init, []
    for _ in range(3):
        w = w + 0.5 * sleep.sleep_update(w, x, w_init, decay=0.1, inhibition=inhibition)
        path.append(w.flatten().tolist())
    end = sleep.fixed_point(w_init, torch.ones(1, 1, dtype=torch.float64), decay=0.1, inhibition=inhibition)
    if inhibition is None:
        for step, expected in zip(path, [(1.5, 2.5), (1.725, 2.275), (1.82625, 2.17375)], strict=True):
            assert step == pytest.approx(expected)
        assert end.flatten().tolist() == pytest.approx((21 / 11, 23 / 11))
        assert sleep.weight_snr(end).item() == pytest.approx(484)
    else:
        assert end.flatten().tolist() == pytest.approx((0.9567, 1.1385), abs=1e-4)


@pytest.mark.parametrize("inhibition", INHIBITION)
def test_private_noise_shrinks_the_mean(inhibition):
    """The expected update is zero at the noisy fixed point, by an exact average over noise of ± ν, and not at Eq. 5."""
    w_init, x, noise, decay = 1 + normal(3, 2), normal(4, 2, seed=1), 0.7, 0.1
    C = x.T @ x / len(x)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 6).view(-1, 3, 2)
    private = (x[:, None, None, :] + noise * signs).flatten(0, 1)
    options = {"decay": decay, "inhibition": inhibition}
    end = sleep.fixed_point(w_init, C, noise=noise, **options)
    drift = sleep.sleep_update(end, private, w_init, **options)
    assert drift.abs().max() < 1e-14
    quiet = sleep.fixed_point(w_init, C, **options)
    assert sleep.sleep_update(quiet, private, w_init, **options).abs().max() > 0.01
    if inhibition is None:
        s = noise**2 * (1 - 1 / 3)
        torch.testing.assert_close(end.mean(0), decay / (decay + s) * w_init.mean(0))


def test_falling_rates_reach_the_noisy_end_as_one_over_the_steps():
    """Theorem 1: with rates c / k and c γ ≥ 1 the squared distance falls like 1 / k, to the noisy end, not to Eq. 5."""
    runs, decay, noise, generator = 200, 1.0, 0.5, torch.Generator().manual_seed(0)
    w_init, errors = (1 + normal(4, 2)).expand(runs, -1, -1), {}
    w = w_init.clone()
    end = sleep.fixed_point(w_init[0], torch.eye(2, dtype=torch.float64), decay=decay, noise=noise)
    for k in range(1, 3201):
        x = torch.randn(runs, 1, 1, 2, dtype=torch.float64, generator=generator)
        x = x + noise * torch.randn(runs, 1, 4, 2, dtype=torch.float64, generator=generator)
        w += 2 / (k + 20) * sleep.sleep_update(w, x, w_init, decay=decay)
        errors[k] = (w - end).square().sum((1, 2)).mean().item()
    assert errors[400] / errors[3200] == pytest.approx(3220 / 420, rel=0.25)
    quiet = sleep.fixed_point(w_init[0], torch.eye(2, dtype=torch.float64), decay=decay)
    assert (w.mean(0) - end).norm() < 0.1 * (end - quiet).norm()


def test_snr_of_the_loops_and_of_agreement():
    w = 1 + normal(7, 5)
    assert sleep.weight_snr(w).item() == pytest.approx(slow.snr(w.tolist()), rel=1e-12)
    assert sleep.weight_snr(torch.full((11, 9), 0.1)).item() == math.inf
    assert sleep.weight_snr(torch.zeros(11, 9)).item() == math.inf
    far = 1e6 + normal(7, 5).float()
    assert sleep.weight_snr(far).item() == pytest.approx(sleep.weight_snr(far.double()).item(), rel=1e-3)


@pytest.mark.parametrize(("decay", "expected"), [(0.1, -4.80), (0.01, -9.23), (0.001, -13.82)])
def test_snr_at_the_end_is_the_papers_minimum(decay, expected):
    """A.5: for white inputs -log SNR = 2 log(γ / (1 + γ)), up to the average over weights of mean² near 1."""
    w = 1 + normal(100, 81)
    value = -sleep.weight_snr(sleep.fixed_point(w, torch.eye(81, dtype=torch.float64), decay=decay)).log().item()
    assert 2 * math.log(decay / (1 + decay)) == pytest.approx(expected, abs=0.01)
    assert value == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [(7, 7), (8, 5), (3, 4)])
def test_instant_sharing_equals_the_loops(size, kernel_size):
    weight = normal(*size, 2, 3)
    expected = torch.tensor(slow.share(weight.flatten(2).tolist(), kernel_size), dtype=torch.float64)
    shared = weight.clone()
    assert sleep.share_instantly(shared, kernel_size) is shared
    torch.testing.assert_close(shared.flatten(2), expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(sleep.share_instantly(shared.clone(), kernel_size), shared, rtol=1e-14, atol=1e-15)
    before, after = (list(sleep.modules(w, kernel_size)) for w in (weight, shared))
    assert len(after) == min(kernel_size, size[0]) * min(kernel_size, size[1])
    for old, new in zip(before, after, strict=True):
        assert (new == new[0]).all()
        torch.testing.assert_close(new.mean(0), old.mean(0))
        if len(old) == 1:
            assert torch.equal(new, old)


def test_shared_grids_by_hand():
    """Storyboard: (1, 2, 3, 5, 6, 7) with every third neuron sharing becomes (3, 4, 5, 3, 4, 5)."""
    weight = torch.tensor([[1.0, 2, 3, 5, 6, 7]])
    assert sleep.share_instantly(weight, (1, 3)).tolist() == [[3, 4, 5, 3, 4, 5]]


def test_a_parameter_is_shared_without_a_graph_and_other_sizes_by_pairs():
    layer = LocallyConnected2d(2, 3, (3, 2), input_size=9, stride=2)
    sleep.share_instantly(layer.weight, (3, 2))
    assert layer.weight.requires_grad
    assert layer.weight.grad_fn is None
    assert torch.equal(layer.weight[0, 0], layer.weight[3, 2])
    assert not torch.equal(layer.weight[0, 0], layer.weight[2, 0])
    assert not torch.equal(layer.weight[0, 0], layer.weight[0, 1])


@pytest.mark.parametrize("stride", [1, 2])
def test_after_sharing_a_shift_by_a_grid_step_shifts_the_response(stride):
    """Equivariance for shifts by k (times the stride) and no others; over all positions, it is a convolution."""
    torch.manual_seed(0)
    layer, x = LocallyConnected2d(2, 3, 3, input_size=21, stride=stride), torch.rand(2, 2, 21, 21)
    sleep.share_instantly(layer.weight, 3)
    for step in range(1, 7):
        moved = F.pad(x, (stride * step, 0, stride * step, 0))[..., :21, :21]
        same = torch.allclose(layer(moved)[..., step:, step:], layer(x)[..., :-step, :-step], rtol=1e-4, atol=1e-5)
        assert same == (step % 3 == 0)
    sleep.share_instantly(layer.weight, 1)
    convolution = F.conv2d(x, layer.weight[0, 0], stride=stride)
    torch.testing.assert_close(layer(x), convolution, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("inhibition", [None, 3.0])
@pytest.mark.parametrize("stride", [1, 2])
def test_repeated_patterns_put_every_module_to_sleep(stride, inhibition):
    """A layer's update on repeated patterns is each module's own `sleep_update` on the patch that it sees."""
    op, x = LocallyConnected((3, 3), stride), sleep.repeated_patterns(S, 2, (12, 11), 3).double()
    assert torch.equal(x[..., :9, :], x[..., 3:, :])
    assert not torch.equal(x[..., :11, :], x[..., 1:, :])
    shape = (*op.output_size(12, 11), 4, 2, 3, 3)
    W, W_init = normal(*shape), normal(*shape, seed=1)
    options = {"decay": 0.2, "inhibition": inhibition}
    dW = sleep.layer_sleep_update(op, W, x, W_init, kernel_size=3, **options)
    for h in range(3):
        for w in range(3):
            patch = x[:, :, h * stride : h * stride + 3, w * stride : w * stride + 3].flatten(1)
            ours, now, before = (t[h::3, w::3].flatten(0, 1).flatten(2) for t in (dW, W, W_init))
            for out in range(4):
                own = sleep.sleep_update(now[:, out], patch, before[:, out], **options)
                torch.testing.assert_close(ours[:, out], own, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("together", [False, True])
def test_two_layers_sleep_to_the_closed_form_in_either_order(together):
    """Section 4.1: what the second layer sees never changes, since the first one's mean answers do not."""
    ops = [LocallyConnected((2, 2)), LocallyConnected((2, 2))]
    weights = [normal(7, 7, 2, 1, 2, 2), normal(6, 6, 1, 2, 2, 2, seed=1)]
    x = sleep.repeated_patterns(30, 1, (8, 8), 2, generator=torch.Generator().manual_seed(3)).double()
    options = {"kernel_size": 2, "decay": 0.2, "rate": 0.15, "steps": 500}
    slept = sleep.sleep_stack(ops, weights, x, together=together, **options)
    seen = x
    for op, W, asleep in zip(ops, weights, slept, strict=True):
        for h in range(2):
            for w in range(2):
                patch = seen[:, :, h : h + 2, w : w + 2].flatten(1)
                module, slept_module = (t[h::2, w::2].flatten(0, 1).flatten(2) for t in (W, asleep))
                for out in range(W.shape[2]):
                    end = sleep.fixed_point(module[:, out], patch.T @ patch / len(patch), decay=0.2)
                    torch.testing.assert_close(slept_module[:, out], end, rtol=0, atol=1e-8)
        seen = op(seen, sleep.share_instantly(W.clone(), 2))
        assert torch.allclose(seen[..., 2:, :], seen[..., :-2, :])
    assert torch.equal(weights[0], normal(7, 7, 2, 1, 2, 2))


w, x, C = torch.rand(6, 4), torch.rand(5, 4), torch.eye(4)
kernels, images = torch.rand(4, 4, 3, 2, 2, 2), torch.rand(5, 2, 5, 5)


def layer_update(op=None, w_init=kernels):
    op = op or LocallyConnected((2, 2))
    return sleep.layer_sleep_update(op, kernels, images, w_init, kernel_size=2, decay=0.1)


def stack_of(weights):
    return sleep.sleep_stack([LocallyConnected((2, 2))], weights, images, kernel_size=2, decay=0.1, rate=0.1, steps=1)


BAD = {
    "other inputs": (lambda: sleep.sleep_update(w, torch.rand(5, 3), w, decay=0.1), r"x has shape \(5, 3\)"),
    "no inputs": (lambda: sleep.sleep_update(w, x[:0], w, decay=0.1), r"\(0, 4\)"),
    "private inputs of others": (lambda: sleep.sleep_update(w, torch.rand(5, 3, 4), w, decay=0.1), r"\(5, 3, 4\)"),
    "one neuron without an axis": (lambda: sleep.sleep_update(w[0], x, w[0], decay=0.1), r"w \(4,\)"),
    "w_init": (lambda: sleep.sleep_update(w, x, w[:1], decay=0.1), r"w_init has shape \(1, 4\)"),
    "negative decay in the objective": (lambda: sleep.sleep_objective(w, x, w, decay=-0.1), "decay=-0.1"),
    "w_init in the objective": (lambda: sleep.sleep_objective(w, x, w[:1], decay=0.1), r"w_init \(1, 4\)"),
    "w_init of a layer": (lambda: layer_update(w_init=kernels[:1]), r"w_init has shape \(1, 4"),
    "padding": (lambda: layer_update(op=LocallyConnected((2, 2), padding=1)), "without padding"),
    "one op, two weights": (lambda: stack_of([kernels, kernels]), "1 ops and 2 weights"),
    "negative decay": (lambda: sleep.sleep_update(w, x, w, decay=-0.1), "decay=-0.1"),
    "negative inhibition": (lambda: sleep.sleep_update(w, x, w, decay=0.1, inhibition=-1.0), "inhibition=-1.0"),
    "no decay": (lambda: sleep.fixed_point(w, C, decay=0.0), "decay=0"),
    "C": (lambda: sleep.fixed_point(w, torch.eye(3), decay=0.1), r"C of shape \(3, 3\)"),
    "noise": (lambda: sleep.fixed_point(w, C, decay=0.1, noise=-1.0), "noise=-1.0"),
    "one neuron": (lambda: sleep.weight_snr(w[:1]), "at least two neurons"),
    "grid": (lambda: sleep.share_instantly(torch.rand(4, 4, 3), 0), "kernel_size=0"),
    "not a map": (lambda: sleep.share_instantly(torch.rand(4), 2), r"\(4,\)"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_named(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
