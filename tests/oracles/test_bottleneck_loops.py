"""kernels.py and hsic.py against loops over floats."""

import math
import random

import pytest
import torch

from biolearn_lite.nets.layers import DivisiveNorm
from biolearn_lite.rules import kernels
from biolearn_lite.rules.hsic import bottleneck_objective, hsic, phsic
from oracles import bottleneck_loops as slow

LABELS = [0, 2, 2, 1, 0, 2, 1]


def points(m=7, d=6, seed=0):
    rng = random.Random(seed)
    return [[rng.gauss(0.3, 1.0) for _ in range(d)] for _ in range(m)]


def tensor(rows, dtype=torch.float64):
    return torch.tensor(rows, dtype=dtype)


def close(ours, rows, tolerance=1e-12):
    torch.testing.assert_close(ours, tensor(rows, ours.dtype), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-6)])
def test_kernels(dtype, tolerance):
    a = points()
    z = tensor(a, dtype)
    close(kernels.linear_kernel(z), slow.table(a, slow.linear), 5 * tolerance)
    close(kernels.cosine_kernel(z), slow.table(a, slow.cosine), tolerance)
    for sigma in (0.7, 5.0):
        expected = slow.table(a, lambda p, q, s=sigma: slow.gaussian(p, q, s))
        close(kernels.gaussian_kernel(z, sigma=sigma), expected, tolerance)


def test_kernels_flatten_images_and_default_to_sigma_5():
    a = points(d=12)
    images = tensor(a).reshape(7, 3, 2, 2)
    close(kernels.linear_kernel(images), slow.table(a, slow.linear))
    close(kernels.cosine_kernel(images), slow.table(a, slow.cosine))
    close(kernels.gaussian_kernel(images), slow.table(a, lambda p, q: slow.gaussian(p, q, 5.0)))


def test_label_kernel_is_the_cosine_of_centred_one_hot_labels():
    for n in (3, 4, 10):
        K = kernels.label_kernel(torch.tensor(LABELS), n, dtype=torch.float64)
        close(K, slow.label_table(LABELS, n))
        assert set(K.flatten().tolist()) == {1.0, -1 / (n - 1)}
    assert kernels.label_kernel(torch.tensor(LABELS), 3).dtype == torch.get_default_dtype()


def test_linear_label_kernel_is_nearly_binary():
    """Eq. 36: one-hot labels minus the class frequencies, linear kernel."""
    one_hot = torch.nn.functional.one_hot(torch.tensor(LABELS), 3).double()
    K = kernels.linear_kernel(one_hot - one_hot.mean(0))
    close(K, [[slow.linear_label_signal(LABELS, i, j) for j in range(7)] for i in range(7)])


@pytest.mark.parametrize("power", [0.0, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("offset", [1.0, 0.3])
def test_groups(power, offset):
    a = points(d=12)
    z = tensor(a)
    close(kernels.grouped_activity(z, 3, power=power, offset=offset), [slow.grouped(p, 3, power, offset) for p in a])
    close(DivisiveNorm(3, power=power, offset=offset)(z), [slow.divided(p, 3, power, offset) for p in a])
    deviation, u = kernels.group_variance(z, 3, offset=offset)
    statistics = [slow.group_statistics(p, 3, offset) for p in a]
    close(deviation, [s[0] for s in statistics])
    close(u, [s[1] for s in statistics])


def test_a_convolution_groups_blocks_of_channels_with_all_their_positions():
    z = tensor(points(d=4 * 3 * 3)).reshape(7, 4, 3, 3)
    v = kernels.grouped_activity(z, 2)
    by_hand = torch.stack([z[:, :2].flatten(1), z[:, 2:].flatten(1)], 1).var(2, correction=0) + 1 / 18
    torch.testing.assert_close(v, by_hand.sqrt() - by_hand.sqrt().mean(1, keepdim=True))
    close(v, [slow.grouped(p, 2, 0.5, 1.0) for p in z.flatten(1).tolist()])


@pytest.mark.parametrize("shape", [(5, 12), (5, 4, 3, 3)])
def test_divisive_norm_with_power_one_half_is_group_norm(shape):
    z = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    size = math.prod(shape[1:]) // 2
    expected = torch.nn.functional.group_norm(z, 2, eps=1.0 / size)
    torch.testing.assert_close(DivisiveNorm(2)(z), expected, rtol=1e-12, atol=1e-12)


def test_estimators():
    a, b = points(), points(d=3, seed=1)
    K, L = slow.table(a, lambda p, q: slow.gaussian(p, q, 1.5)), slow.table(b, slow.linear)
    for first, second in ((K, L), (L, K), (K, K), (L, L)):
        assert hsic(tensor(first), tensor(second)).item() == pytest.approx(slow.hsic_loops(first, second), rel=1e-12)
        assert phsic(tensor(first), tensor(second)).item() == pytest.approx(slow.phsic_loops(first, second), rel=1e-12)


def test_four_points_by_hand():
    """a = 0, 1, 2, 3; b = 0, 0, 1, 1; linear kernels: HSIC is the squared covariance, pHSIC depends on label names."""
    a, b = tensor([[0.0], [1.0], [2.0], [3.0]]), tensor([[0.0], [0.0], [1.0], [1.0]])
    K, L, renamed = (kernels.linear_kernel(x) for x in (a, b, 1 - b))
    assert (hsic(K, L).item(), hsic(K, renamed).item()) == (0.25, 0.25)
    assert (phsic(K, L).item(), phsic(K, renamed).item()) == (1.0, -0.5)
    assert phsic(K, kernels.linear_kernel(b - b.mean())).item() == 0.25


def test_linear_hsic_is_the_squared_cross_covariance():
    """Eq. 29, which needs centred variables."""
    a, b = points(), points(d=3, seed=1)
    ours = hsic(kernels.linear_kernel(tensor(a)), kernels.linear_kernel(tensor(b)))
    assert ours.item() == pytest.approx(slow.cross_covariance_norm(a, b), rel=1e-12)


def test_hsic_is_the_trace_with_the_centring_matrix():
    K, L = kernels.gaussian_kernel(tensor(points()), sigma=1.0), kernels.cosine_kernel(tensor(points(seed=1)))
    H = torch.eye(7, dtype=torch.float64) - 1 / 7
    torch.testing.assert_close(hsic(K, L), torch.trace(K @ H @ L @ H) / 49, rtol=1e-12, atol=0)


@pytest.mark.parametrize("balance", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("estimator", ["phsic", "hsic"])
@pytest.mark.parametrize("kernel", ["gaussian", "cosine", "linear"])
@pytest.mark.parametrize("groups", [None, 3])
def test_objective(balance, estimator, kernel, groups):
    a = points(d=12)
    seen = a if groups is None else [slow.grouped(p, groups, 0.2, 0.7) for p in a]
    compare = {"gaussian": lambda p, q: slow.gaussian(p, q, 1.3), "cosine": slow.cosine, "linear": slow.linear}
    estimate = {"phsic": slow.phsic_loops, "hsic": slow.hsic_loops}
    expected = slow.objective_loops(
        slow.table(seen, compare[kernel]), slow.label_table(LABELS, 3), balance, estimate[estimator]
    )
    options = {} if groups is None else {"groups": groups, "power": 0.2, "offset": 0.7}
    label_k = kernels.label_kernel(torch.tensor(LABELS), 3, dtype=torch.float64)
    ours = bottleneck_objective(
        tensor(a), label_k, kernel=kernel, sigma=1.3, balance=balance, estimator=estimator, **options
    )
    assert ours.item() == pytest.approx(expected, rel=1e-11)


def test_objective_defaults_are_the_papers():
    a = points(d=12)
    K, L = slow.table(a, lambda p, q: slow.gaussian(p, q, 5.0)), slow.label_table(LABELS, 3)
    ours = bottleneck_objective(tensor(a), tensor(L))
    assert ours.item() == pytest.approx(slow.objective_loops(K, L, 2.0), rel=1e-11)
    v = [slow.grouped(p, 4, 0.5, 1.0) for p in a]
    K = slow.table(v, lambda p, q: slow.gaussian(p, q, 5.0))
    assert bottleneck_objective(tensor(a), tensor(L), groups=4).item() == pytest.approx(
        slow.objective_loops(K, L, 2.0), rel=1e-10
    )
