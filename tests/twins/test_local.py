"""Locally connected layers: loops over synapses, convolutions when the kernels are equal, twins, feedback."""

import pytest
import torch
import torch.nn.functional as F
from oracles import local_loops as slow
from torch import nn
from torch.func import functional_call

from biolearn_lite.nets.layers import BatchNorm2d, Layer, LocallyConnected2d
from biolearn_lite.rules import local, plasticity
from biolearn_lite.rules.feedback import with_feedback
from biolearn_lite.rules.local import LocallyConnected

# name: input (channels, height, width), out, kernel_size, stride, padding, groups
SETTINGS = {
    "3×3": ((2, 5, 4), 3, (3, 3), (1, 1), (1, 1), 1),
    "odd map, stride 2": ((2, 7, 7), 2, (3, 3), (2, 2), (1, 1), 1),
    "rows left over": ((1, 6, 8), 2, (3, 2), (2, 3), (0, 0), 1),
    "groups": ((6, 4, 5), 4, (2, 3), (1, 2), (1, 2), 2),
    "1×1 shortcut": ((3, 7, 5), 4, (1, 1), (2, 2), (0, 0), 1),
    "kernel as large as the map": ((1, 3, 3), 2, (5, 5), (1, 1), (1, 1), 1),
}


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def setting(name, m=2, dtype=torch.float64):
    """(op, pre, weight, post) with unequal kernels."""
    size, out, kernel, stride, padding, groups = SETTINGS[name]
    op = LocallyConnected(kernel, stride, padding, groups)
    x, positions = normal(m, *size, dtype=dtype), op.output_size(*size[1:])
    W = normal(*positions, out, size[0] // groups, *kernel, seed=1, dtype=dtype)
    return op, x, W, normal(m, out, *positions, seed=2, dtype=dtype)


def layer_of(name, dtype=torch.float64, **options):
    size, out, kernel, stride, padding, groups = SETTINGS[name]
    torch.manual_seed(0)
    layer = LocallyConnected2d(
        size[0], out, kernel, input_size=size[1:], stride=stride, padding=padding, groups=groups, **options
    )
    return layer.to(dtype)


@pytest.fixture(params=[1, 2**10, 2**20], ids=["row by row", "two bands", "at once"])
def bands(request, monkeypatch):
    monkeypatch.setattr(local, "CACHE_BYTES", request.param)


@pytest.mark.parametrize("name", list(SETTINGS))
def test_three_products_equal_loops_over_synapses(name, bands):
    op, x, W, post = setting(name)
    options = (op.groups, op.stride, op.padding)
    a = slow.forward(x.tolist(), W.tolist(), *options)
    dW = slow.correlate(x.tolist(), post.tolist(), W.tolist(), *options)
    down = slow.project(post.tolist(), W.tolist(), *options, *x.shape[1:])
    results = op(x, W), op.correlate(x, post), op.project(post, W, x.shape)
    for fast, loops in zip(results, (a, dW, down), strict=True):
        torch.testing.assert_close(fast, torch.tensor(loops, dtype=torch.float64), rtol=1e-12, atol=1e-13)


def test_bands_divide_the_rows(monkeypatch):
    op, x, *_ = setting("3×3")
    for limit, bands in ((1, 5), (2 * 4 * 2 * 2 * 9 * 8, 3), (2**20, 1)):
        monkeypatch.setattr(local, "CACHE_BYTES", limit)
        assert len(list(op._bands(op._padded(x)))) == bands


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", list(SETTINGS))
def test_equal_kernels_are_a_convolution(name, dtype, bands):
    """Value, and gradients to the images, the shared kernel and the bias."""
    _, _, _, stride, padding, groups = SETTINGS[name]
    layer = layer_of(name, dtype, bias=True, init="shared")
    x, kernel, bias = setting(name, 3, dtype)[1], layer.weight[0, 0].detach().clone(), layer.bias.detach().clone()
    leaves = [t.requires_grad_() for t in (x, kernel, bias)]
    expected = F.conv2d(x, kernel, bias, stride, padding, groups=groups)
    shared = {"weight": kernel.expand_as(layer.weight), "bias": bias}
    post = setting(name, 3, dtype)[3]
    assert torch.equal(layer.weight, shared["weight"])
    gradients = torch.autograd.grad(expected, leaves, post)
    here = functional_call(layer, shared, x)
    tolerance = {"rtol": 1e-10, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(here, expected, **tolerance)
    for ours, theirs in zip(torch.autograd.grad(here, leaves, post), gradients, strict=True):
        torch.testing.assert_close(ours, theirs, **tolerance)


@pytest.mark.parametrize("memory", ["locations", "channels last", "every other image", "one image"])
def test_where_activity_lies_in_memory_does_not_matter(memory):
    op, x, W, post = setting("3×3", 4)
    expected = op(x, W), op.correlate(x, post), op.project(post, W, x.shape)
    lay = {
        "locations": lambda t: t.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1),
        "channels last": lambda t: t.contiguous(memory_format=torch.channels_last),
        "every other image": lambda t: t.repeat_interleave(2, 0)[::2],
        "one image": lambda t: t[:1],
    }[memory]
    x, post = lay(x), lay(post)
    if memory == "one image":
        parts = [
            op.correlate(*(normal(4, *t.shape[1:], seed=s)[i : i + 1] for t, s in ((x, 0), (post, 2))))
            for i in range(4)
        ]
        expected = expected[0][:1], parts[0], expected[2][:1]
        torch.testing.assert_close(sum(parts), op.correlate(*setting("3×3", 4)[1::2]))
    results = op(x, W), op.correlate(x, post), op.project(post, W, x.shape)
    for ours, theirs in zip(results, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_output_lies_location_by_location_and_batch_norm_leaves_it_there():
    layer = LocallyConnected2d(2, 3, 3, input_size=6, padding=1).double()
    norms = BatchNorm2d(3).double(), nn.BatchNorm2d(3).double()
    post, results = normal(5, 3, 6, 6, seed=4), []
    for norm in norms:
        x = normal(5, 2, 6, 6).requires_grad_()
        z = norm(layer(x))
        layer.zero_grad()
        z.backward(post)
        results.append([z, x.grad, layer.weight.grad, norm.weight.grad, norm.running_mean, norm.running_var])
    for ours, torchs in zip(*results, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-10, atol=1e-12)
    assert layer(x).permute(2, 3, 1, 0).is_contiguous()
    assert results[0][0].permute(2, 3, 1, 0).is_contiguous()
    with pytest.raises(ValueError, match="4D"):
        norms[0](torch.rand(3, 2))


@pytest.mark.parametrize("name", ["odd map, stride 2", "groups"])
def test_gradcheck(name, monkeypatch):
    """Of the layer's product, and of all three by themselves: they can be differentiated again."""
    monkeypatch.setattr(local, "CACHE_BYTES", 2**10)
    op, x, W, post = setting(name)
    x, W, post = (t.requires_grad_() for t in (x, W, post))
    products = {
        lambda x, W: with_feedback(op, x, W, W.detach()): (x, W),
        op: (x, W),
        op.correlate: (x, post),
        lambda post, W: op.project(post, W, x.shape): (post, W),
    }
    for function, inputs in products.items():
        torch.autograd.gradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("name", ["3×3", "odd map, stride 2", "groups"])
def test_hebbian_update_equals_autograd(name, pool, monkeypatch):
    """Through a whole layer with slope and pool, and nothing of autograd in it."""
    op, x, W, _ = setting(name, 6)
    layer = Layer(layer_of(name), activation=nn.Tanh(), pool=nn.MaxPool2d(pool) if pool > 1 else None)
    layer.op.weight.data.copy_(W)
    patches = F.pad(x, [p for p in reversed(op.padding) for _ in range(2)])
    for dim in (0, 1):
        patches = patches.unfold(2 + dim, op.kernel_size[dim], op.stride[dim])
    leaf = W.clone().requires_grad_()
    grouped = patches.unflatten(1, (op.groups, -1)), leaf.unflatten(2, (op.groups, -1))
    a = torch.einsum("mgchwij,hwgocij->mgohw", *grouped).flatten(1, 2)
    z = F.max_pool2d(torch.tanh(a), pool)
    signal = normal(*z.shape, seed=5)
    (gradient,) = torch.autograd.grad(z, leaf, signal)

    def refuse(*args, **options):
        raise AssertionError("the update called autograd")

    with monkeypatch.context() as patch, torch.inference_mode():
        for owner, called in ((torch.autograd, "grad"), (torch.autograd, "backward"), (torch.Tensor, "backward")):
            patch.setattr(owner, called, refuse)
        dW, passed = layer.learn(x.clone(), lambda z: signal)
    torch.testing.assert_close(dW, gradient, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(passed, z, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", ["backprop", "random", "updated", "sign", "redrawn"])
def test_feedback_against_terms_of_value_zero(kind):
    layer = layer_of("groups", feedback=kind)
    x = setting("groups")[1].requires_grad_()
    torch.manual_seed(3)
    a = layer(x)
    torch.manual_seed(3)
    B, W = layer.feedback(layer.weight).detach(), layer.weight.detach().clone().requires_grad_()
    ghost = layer.operation(x.detach(), W) + layer.operation(x, B) - layer.operation(x, B).detach()
    torch.testing.assert_close(a, layer.operation(x, W), rtol=1e-12, atol=1e-13)
    post = normal(*a.shape, seed=4)
    to_x, to_W = torch.autograd.grad(ghost, (x, W), post)
    a.backward(post)
    torch.testing.assert_close(x.grad, to_x, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(layer.weight.grad, to_W, rtol=1e-10, atol=1e-13)
    assert torch.equal(B, W) == (kind == "backprop")
    if kind == "updated":
        torch.testing.assert_close(layer.feedback.weight.grad, to_W, rtol=1e-10, atol=1e-13)


def test_autocast_multiplies_in_half_precision_and_keeps_the_weights():
    layer, x = layer_of("3×3", torch.float32), setting("3×3", 2, torch.float32)[1].requires_grad_()
    exact = layer(x)
    post = normal(*exact.shape, dtype=torch.float32)
    gradients = torch.autograd.grad(exact, (x, layer.weight), post)
    with torch.autocast("cpu", torch.bfloat16):
        a = layer(x)
    assert a.dtype == torch.bfloat16
    torch.testing.assert_close(a.float(), exact, rtol=0.03, atol=0.03)
    for ours, full in zip(torch.autograd.grad(a, (x, layer.weight), post.bfloat16()), gradients, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, full, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("x_too", [True, False])
def test_several_seeds_at_once(x_too):
    op, x, W, _ = setting("3×3", 3)
    xs, Ws = torch.stack([x, 2 * x]), torch.stack([W, W.flip(0)])

    def loss(x, W):
        return with_feedback(op, x, W, W.detach()).sin().sum()

    inputs = xs if x_too else x
    together = torch.func.vmap(torch.func.grad(loss, (0, 1)), (0 if x_too else None, 0))(inputs, Ws)
    for seed in range(2):
        alone = torch.func.grad(loss, (0, 1))(xs[seed] if x_too else x, Ws[seed])
        for many, one in zip(together, alone, strict=True):
            torch.testing.assert_close(many[seed], one, rtol=1e-10, atol=1e-13)


def test_births():
    """Independent: N(0, 2 / (out · area)), unlike over space; shared: one kernel; noise keeps the variance."""
    options = {"input_size": 24, "padding": 1, "groups": 2}
    torch.manual_seed(0)
    own = LocallyConnected2d(4, 8, 3, feedback="random", **options)
    std = (2 / (8 * 9)) ** 0.5
    for weight in (own.weight, own.feedback.weight):
        assert weight.shape == (24, 24, 8, 2, 3, 3)
        assert weight.std().item() == pytest.approx(std, rel=0.01)
        assert weight.std((0, 1)).mean().item() == pytest.approx(std, rel=0.01)
    assert not torch.equal(own.weight, own.feedback.weight)
    for noise in (0.0, 0.5):
        shared = LocallyConnected2d(40, 80, 3, input_size=4, init="shared", init_noise=noise).weight
        std = (2 / (80 * 9)) ** 0.5
        assert shared.std().item() == pytest.approx(std, rel=0.02)
        spread = shared.std((0, 1)).square().mean().sqrt().item()
        assert spread == pytest.approx(std * noise / (1 + noise**2) ** 0.5, rel=0.02)
    biased = LocallyConnected2d(4, 80, 3, input_size=5, bias=True)
    assert biased.bias.shape == (80,)
    assert 0.9 / 6 < biased.bias.abs().max() <= 1 / 6


BUILT = {"in_channels": 2, "out_channels": 4, "kernel_size": 3, "input_size": 6}
BAD = {
    "image size": ({}, lambda layer: layer(torch.rand(3, 2, 6, 5)), r"\(3, 2, 6, 5\).*\(m, 2, 6, 6\)"),
    "channels": ({}, lambda layer: layer(torch.rand(3, 1, 6, 6)), r"\(m, 2, 6, 6\)"),
    "no batch": ({}, lambda layer: layer(torch.rand(2, 6, 6)), r"\(2, 6, 6\)"),
    "size that would give as many positions": (
        {"stride": 2},
        lambda layer: layer(torch.rand(3, 2, 5, 5)),
        r"\(m, 2, 6, 6\)",
    ),
    "groups": ({"groups": 3}, str, "groups=3"),
    "kernel beyond the map": ({"kernel_size": 9}, str, "6 × 6"),
    "stride": ({"stride": 0}, str, "stride=0"),
    "padding": ({"padding": -1}, str, "padding=-1"),
    "init": ({"init": "equal"}, str, "init='equal'"),
    "noise without a kernel": ({"init_noise": 0.1}, str, "init_noise=0.1"),
    "feedback": ({"feedback": "none"}, str, "feedback='none'"),
    "op, image": (
        {},
        lambda layer: layer.operation(torch.rand(3, 2, 7, 6), layer.weight),
        r"need \(5, 4, out, 2, 3, 3\)",
    ),
    "op, weight": ({}, lambda layer: layer.operation(torch.rand(3, 2, 6, 6), layer.weight[0]), "weight has shape"),
    "op, dimensions": ({}, lambda layer: layer.operation(torch.rand(2, 6, 6), layer.weight), "expected images"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_named(case):
    options, call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call(LocallyConnected2d(**BUILT | options))


def test_the_rules_know_the_layer():
    layer = LocallyConnected2d(2, 4, (3, 2), input_size=6, stride=2, padding=(1, 0), groups=2)
    assert plasticity.operation(layer, layer.weight) == LocallyConnected((3, 2), 2, (1, 0), 2)
    with pytest.raises(ValueError, match="bias=False"):
        plasticity.operation(LocallyConnected2d(2, 4, 3, input_size=6, bias=True), layer.weight)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA is absent: GPU agreement NOT tested")
@pytest.mark.parametrize("name", list(SETTINGS))
def test_cuda_agrees_with_cpu(name):
    op, x, W, post = setting(name)
    here = op(x, W), op.correlate(x, post), op.project(post, W, x.shape)
    x, W, post = x.cuda(), W.cuda(), post.cuda()
    there = op(x, W), op.correlate(x, post), op.project(post, W, x.shape)
    for ours, theirs in zip(there, here, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-10, atol=1e-12)
