"""Paper 001's explicit rule against autograd of its objective, and against loops over pairs."""

import functools
import itertools

import pytest
import torch
import torch.nn.functional as F
from oracles import bottleneck_loops as slow
from torch import nn

from biolearn_lite.nets.layers import DivisiveNorm, Layer, Linear
from biolearn_lite.rules import kernels, plasticity
from biolearn_lite.rules.hsic import bottleneck_objective, bottleneck_signal, bottleneck_update, third_factor

ACTIVATIONS = {
    "linear": (lambda a: a, None),
    "leaky_relu": (lambda a: F.leaky_relu(a, 0.1), nn.LeakyReLU(0.1)),
    "selu": (F.selu, "selu"),
    "tanh": (torch.tanh, torch.tanh),
    "sine": (torch.sin, (torch.sin, torch.cos)),
}
OPERATIONS = ["dense", "conv", "conv + pool", "strided conv"]
VARIANTS = ["plain", "grouped", "grouped + divided"]


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def labels(m, dtype=torch.float64):
    return kernels.label_kernel(torch.arange(m) * 7 % 5 % 3, 3, dtype=dtype)


def no_autograd(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a rule called autograd")

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    monkeypatch.setattr(torch.Tensor, "backward", refuse)
    monkeypatch.setattr(torch.autograd, "backward", refuse)


def setting(operation, m=7):
    """(op, the same forward pass in plain torch up to the activation, pool, pre, weight)."""
    if operation == "dense":
        return "dense", F.linear, lambda z: z, normal(m, 9), normal(12, 9, seed=1) / 3
    images, weight = normal(m, 3, 7, 7), normal(4, 3, 3, 3, seed=1) / 5
    if operation == "strided conv":
        strided = functools.partial(F.conv2d, stride=2, padding=1)
        return strided, strided, lambda z: z, images, weight
    padded = functools.partial(F.conv2d, padding=1)
    if operation == "conv":
        return padded, padded, lambda z: z, images, weight
    return plasticity.Conv2d((3, 3), padding=1, pool=2), padded, lambda z: F.max_pool2d(z, 2), images, weight


@pytest.mark.parametrize("kernel", ["gaussian", "cosine", "linear"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_update_equals_autograd(kernel, variant, operation, activation, monkeypatch):
    op, forward, pool, pre, weight = setting(operation)
    f, named = ACTIVATIONS[activation]
    if variant == "grouped + divided":
        pre = DivisiveNorm(3, power=0.2)(pre)
    options = {"kernel": kernel, "sigma": 5.0}
    if variant != "plain":
        options |= {"sigma": 1.5, "groups": 4, "power": 0.2, "offset": 0.8}
    for balance, estimator in ((2.0, "phsic"), (0.7, "hsic")):
        W = weight.clone().requires_grad_()
        value = bottleneck_objective(
            pool(f(forward(pre, W))), labels(7), balance=balance, estimator=estimator, **options
        )
        (gradient,) = torch.autograd.grad(value, W)
        with monkeypatch.context() as patch, torch.inference_mode():
            no_autograd(patch)
            dW = bottleneck_update(
                op,
                pre.clone(),
                weight.clone(),
                labels(7),
                activation=named,
                balance=balance,
                estimator=estimator,
                **options,
            )
        assert dW.is_inference()
        assert (dW + gradient).norm() < 1e-10 * gradient.norm()


def test_a_stack_with_divisive_norm_learns_layer_by_layer():
    """Each layer's own update, computed during one forward pass, is the gradient of its own objective alone."""
    layers = [
        Layer(Linear(a, b, bias=False).double(), activation=nn.LeakyReLU(0.1), after=DivisiveNorm(4, power=0.2))
        for a, b in ((9, 12), (12, 8), (8, 16))
    ]
    options = {"groups": 4, "power": 0.2}
    x = h = normal(7, 9)
    for layer in layers:
        value = bottleneck_objective(layer.activity(h), labels(7), **options)
        (gradient,) = torch.autograd.grad(value, layer.op.weight)
        dW, passed = layer.learn(x, lambda z: bottleneck_signal(z, labels(7), **options))
        assert not passed.requires_grad
        torch.testing.assert_close(dW, -gradient, rtol=1e-10, atol=1e-16)
        h, x = layer(h).detach(), passed
        torch.testing.assert_close(x, h, rtol=1e-13, atol=1e-13)


def test_layer_learns_through_convolution_and_pool():
    layer = Layer(
        nn.Conv2d(3, 4, 3, stride=1, padding=1, bias=False).double(),
        activation=nn.SELU(),
        pool=nn.MaxPool2d(2),
        after=DivisiveNorm(2),
    )
    x = normal(7, 3, 9, 9)
    (gradient,) = torch.autograd.grad(bottleneck_objective(layer.activity(x), labels(7)), layer.op.weight)
    dW, passed = layer.learn(x, lambda z: bottleneck_signal(z, labels(7)))
    torch.testing.assert_close(dW, -gradient, rtol=1e-10, atol=1e-16)
    torch.testing.assert_close(passed, layer(x).detach())


def pairs(m):
    return itertools.product(range(m), repeat=2)


def test_two_point_rule_of_the_gaussian_kernel():
    """Eq. 12: the mean over all pairs of M (z_i - z_j)(x_i - x_j)ᵀ is the batch update, constant and sign included."""
    x, W, sigma, balance = normal(6, 5), normal(4, 5, seed=1), 1.2, 2.0
    z, L = (x @ W.T).tolist(), labels(6).tolist()
    K = slow.table(z, lambda a, b: slow.gaussian(a, b, sigma))
    total = torch.zeros(4, 5, dtype=torch.float64)
    for i, j in pairs(6):
        M = -(balance * slow.centred(L, i, j) - 2 * slow.centred(K, i, j)) * K[i][j] / sigma**2
        factors = third_factor(torch.tensor(K, dtype=torch.float64), labels(6), sigma=sigma, balance=balance)
        assert factors[i, j].item() == pytest.approx(M, rel=1e-11)
        for n, p in itertools.product(range(4), range(5)):
            total[n, p] += M * (z[i][n] - z[j][n]) * (x[i, p] - x[j, p]).item() / 36
    dW = bottleneck_update("dense", x, W, labels(6), activation=None, sigma=sigma, balance=balance)
    torch.testing.assert_close(dW, total, rtol=1e-11, atol=1e-15)


def test_two_point_rule_of_grouped_activity():
    """Eq. 18 with its factor 2(1 - φ)/n_g, and the slope of Eq. 47."""
    x, W, sigma, balance, groups, power = normal(6, 5), normal(8, 5, seed=1), 0.9, 2.0, 2, 0.2
    a = x @ W.T
    z, slopes, L = torch.tanh(a).tolist(), (1 - torch.tanh(a) ** 2).tolist(), labels(6).tolist()
    v = [slow.grouped(p, groups, power, 1.0) for p in z]
    r = [slow.divided(p, groups, power, 1.0) for p in z]
    K = slow.table(v, lambda p, q: slow.gaussian(p, q, sigma))
    total = torch.zeros(8, 5, dtype=torch.float64)
    for i, j in pairs(6):
        local = -(balance * slow.centred(L, i, j) - 2 * slow.centred(K, i, j)) * K[i][j] / sigma**2
        for n, p in itertools.product(range(8), range(5)):
            M = local * (v[i][n // 4] - v[j][n // 4])
            hebbian_i, hebbian_j = (r[s][n] * slopes[s][n] * x[s, p].item() for s in (i, j))
            total[n, p] += 2 * (1 - power) / 4 / 36 * M * (hebbian_i - hebbian_j)
    dW = bottleneck_update(
        F.linear, x, W, labels(6), activation="tanh", sigma=sigma, balance=balance, groups=groups, power=power
    )
    torch.testing.assert_close(dW, total, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("kernel", ["cosine", "linear"])
def test_two_point_rules_with_several_plasticity_channels(kernel):
    """Eq. 55 and 56 for a linear layer: a difference term, and one more per point."""
    x, W, balance = normal(6, 5), normal(4, 5, seed=1), 2.0
    z, L = (x @ W.T).tolist(), labels(6).tolist()
    K = slow.table(z, slow.cosine if kernel == "cosine" else slow.linear)
    total = torch.zeros(4, 5, dtype=torch.float64)
    for i, j in pairs(6):
        product, squares = slow.linear(z[i], z[j]), {s: slow.linear(z[s], z[s]) for s in (i, j)}
        lengths = (squares[i] * squares[j]) ** 0.5 if kernel == "cosine" else 1.0
        M = (2 * slow.centred(K, i, j) - balance * slow.centred(L, i, j)) / lengths
        for n, p in itertools.product(range(4), range(5)):
            change = (z[i][n] - z[j][n]) * (x[i, p] - x[j, p]).item()
            for s in (i, j):
                share = 1 - product / squares[s] if kernel == "cosine" else 1.0
                change -= share * z[s][n] * x[s, p].item()
            total[n, p] += M * change / 36
    dW = bottleneck_update("dense", x, W, labels(6), activation="identity", kernel=kernel)
    torch.testing.assert_close(dW, total, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("kernel", ["gaussian", "cosine", "linear"])
@pytest.mark.parametrize("groups", [None, 8])
def test_finite_where_nothing_happens(kernel, groups):
    """Zero activity, identical points, one silent group."""
    x, W = torch.zeros(6, 5), torch.zeros(16, 5)
    for pre, weight in ((x, W), (x + 1, W + 1), (x, W + 1), (torch.eye(6, 5), torch.eye(16, 5))):
        options = {"kernel": kernel, "groups": groups}
        dW = bottleneck_update("dense", pre, weight, labels(6, torch.float32), activation="relu", **options)
        assert torch.isfinite(dW).all()
        pre, W64 = pre.double(), weight.double().requires_grad_()
        (gradient,) = torch.autograd.grad(bottleneck_objective(F.relu(pre @ W64.T), labels(6), **options), W64)
        dW = bottleneck_update("dense", pre, W64.detach(), labels(6), activation="relu", **options)
        torch.testing.assert_close(dW, -gradient, rtol=1e-10, atol=1e-12)


def test_a_short_last_batch_and_the_smallest_one():
    weight = normal(4, 5, seed=1)
    for m in (2, 3, 31):
        W = weight.clone().requires_grad_()
        value = bottleneck_objective(torch.tanh(normal(m, 5) @ W.T), labels(m))
        dW = bottleneck_update("dense", normal(m, 5), weight, labels(m), activation="tanh")
        torch.testing.assert_close(dW, -torch.autograd.grad(value, W)[0], rtol=1e-9, atol=1e-16)
    with pytest.raises(ValueError, match="at least 2 points"):
        bottleneck_update("dense", normal(1, 5), weight, labels(1), activation="tanh")


@pytest.mark.parametrize("power", [0.2, 0.5])
def test_float32_is_good_to_five_digits_though_all_similarities_are_near_one(power):
    x, W = torch.rand(256, 784, generator=torch.Generator().manual_seed(0)) * 2 - 1, normal(1024, 784) / 28
    label_k = labels(256)
    options = {"activation": nn.LeakyReLU(0.01), "groups": 32, "power": power}
    double = bottleneck_update("dense", x.double(), W, label_k, **options)
    single = bottleneck_update("dense", x, W.float(), label_k.float(), **options)
    assert (single - double).norm() < 1e-5 * double.norm()
    K = kernels.gaussian_kernel(kernels.grouped_activity(F.leaky_relu(x.double() @ W.T), 32, power=power))
    assert K.mean() > 0.99


def test_float32_signal_survives_a_large_common_activity():
    z = 100 + normal(64, 20).float()
    double = bottleneck_signal(z.double(), labels(64))
    assert (bottleneck_signal(z, labels(64).float()) - double).norm() < 1e-5 * double.norm()


def test_learning_by_the_update_alone_lowers_the_objective():
    x, W = normal(30, 6), normal(8, 6, seed=1) / 3
    before = bottleneck_objective(torch.tanh(x @ W.T), labels(30), sigma=1.0)
    for _ in range(50):
        W = W + bottleneck_update("dense", x, W, labels(30), activation="tanh", sigma=1.0)
    assert bottleneck_objective(torch.tanh(x @ W.T), labels(30), sigma=1.0) < before - 0.04


def test_the_same_operation_and_activation_by_any_name():
    W, kernel4 = normal(3, 5), normal(3, 2, 3, 3)
    for name in ("dense", "linear", F.linear, nn.Linear(5, 3, bias=False), plasticity.Dense()):
        assert plasticity.operation(name, W) == plasticity.Dense()
    same = plasticity.Conv2d((3, 3), stride=(2, 2), padding=(1, 1))
    assert plasticity.operation(nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False), kernel4) == same
    for name in ("conv", "conv2d", F.conv2d):
        assert plasticity.operation(name, kernel4) == plasticity.Conv2d((3, 3))
    a = torch.cat([normal(20), torch.zeros(1, dtype=torch.float64)]).requires_grad_()
    named = {
        torch.tanh: ("tanh", F.tanh, torch.tanh, nn.Tanh()),
        F.relu: ("relu", torch.relu, F.relu, nn.ReLU()),
        F.selu: ("selu", torch.selu, F.selu, nn.SELU()),
        F.leaky_relu: ("leaky_relu", F.leaky_relu, nn.LeakyReLU()),
        torch.clone: (None, "identity", "linear", nn.Identity()),
    }
    for f, names in named.items():
        (slope,) = torch.autograd.grad(f(a).sum(), a)
        for name in names:
            activation = plasticity.pointwise(name)
            torch.testing.assert_close(activation.value(a), f(a))
            torch.testing.assert_close(activation.slope(a, f(a)).detach(), slope, rtol=1e-13, atol=1e-13)


BAD = {
    "unknown operation": ({"op": lambda x, w: x @ w.T}, TypeError, "plasticity.Conv2d"),
    "unknown activation": ({"activation": torch.sin}, TypeError, "pair"),
    "activation class": ({"activation": nn.GELU()}, TypeError, "pair"),
    "weights of a convolution": ({"weight": torch.rand(3, 5, 3, 3)}, ValueError, r"\(3, 5, 3, 3\)"),
    "bias": ({"op": nn.Linear(5, 4)}, ValueError, "bias=False"),
    "dilation": (
        {"op": nn.Conv2d(2, 3, 3, dilation=2, bias=False), "weight": torch.rand(3, 2, 3, 3)},
        TypeError,
        "Conv2d",
    ),
    "another kernel": (
        {"op": plasticity.Conv2d((1, 1)), "pre": torch.rand(6, 2, 4, 4), "weight": torch.rand(4, 2, 2, 2)},
        ValueError,
        r"\(4, 2, 2, 2\), which does not fit Conv2d",
    ),
    "padding by a word": (
        {"op": nn.Conv2d(2, 3, 3, padding="same", bias=False), "weight": torch.rand(3, 2, 3, 3)},
        TypeError,
        "as a number",
    ),
    "groups": ({"groups": 3}, ValueError, "groups=3 must divide the 4"),
    "sigma": ({"sigma": 0.0}, ValueError, "sigma=0.0"),
    "estimator": ({"estimator": "mmd"}, ValueError, "estimator='mmd'"),
    "kernel": ({"kernel": "laplace"}, ValueError, "kernel='laplace'"),
    "power": ({"groups": 2, "power": 1.0}, ValueError, "power=1.0"),
    "labels of another batch": ({"label_k": torch.eye(5)}, ValueError, "6 and 5 points"),
    "labels in place of their kernel": ({"label_k": torch.arange(6)}, ValueError, "give label_kernel"),
    "integer labels": ({"label_k": torch.eye(6).long()}, TypeError, "int64"),
    "NaN in pre": ({"pre": torch.full((6, 5), float("nan"))}, ValueError, "NaN"),
    "NaN in labels": ({"label_k": torch.full((6, 6), float("nan"))}, ValueError, "NaN"),
    "infinite weight": ({"weight": torch.full((4, 5), float("inf")), "activation": None}, ValueError, "infinity"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_named(case):
    changes, error, message = BAD[case]
    arguments = {"op": "dense", "pre": torch.rand(6, 5), "weight": torch.rand(4, 5), "label_k": torch.eye(6)}
    arguments |= {"activation": "tanh"} | changes
    with pytest.raises(error, match=message):
        bottleneck_update(**arguments)


def test_signal_of_another_activity_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        plasticity.hebbian(plasticity.Dense(), torch.rand(3, 5), torch.rand(3, 4), torch.rand(3, 2))
    averaging = Layer(nn.Conv2d(1, 2, 3, bias=False), pool=nn.AvgPool2d(2))
    with pytest.raises(TypeError, match="MaxPool2d"):
        averaging.learn(torch.rand(3, 1, 8, 8), lambda z: z)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA is absent: GPU agreement NOT tested")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_cuda_agrees_with_cpu(operation):
    op, _, _, pre, weight = setting(operation)
    options = {"activation": "selu", "groups": 4}
    here = bottleneck_update(op, pre, weight, labels(7), **options)
    there = bottleneck_update(op, pre.cuda(), weight.cuda(), labels(7).cuda(), **options)
    torch.testing.assert_close(there.cpu(), here, rtol=1e-9, atol=1e-15)
