"""What HSIC, pHSIC and the kernels promise for any data, and what they say to bad data."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from biolearn_lite.nets.layers import DivisiveNorm, Layer, Linear
from biolearn_lite.rules import kernels
from biolearn_lite.rules.hsic import bottleneck_objective, hsic, phsic

KERNELS = {
    "gaussian": lambda z: kernels.gaussian_kernel(z, sigma=1.0),
    "cosine": kernels.cosine_kernel,
    "linear": kernels.linear_kernel,
}
quick = settings(max_examples=40, deadline=None)


@st.composite
def clouds(draw, count=1):
    """`count` clouds of the same number of points, some of them repeated or at the origin."""
    m = draw(st.integers(2, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    scale = draw(st.sampled_from([1e-3, 1.0, 30.0]))
    made = [
        scale * torch.randn(m, draw(st.integers(1, 5)), generator=generator, dtype=torch.float64) for _ in range(count)
    ]
    if draw(st.booleans()):
        made[0][0] = 0
        made[0][-1] = made[0][m // 2]
    return made


@quick
@given(clouds(), st.sampled_from(list(KERNELS)))
def test_hsic_of_itself_never_exceeds_phsic_and_neither_is_negative(cloud, kernel):
    K = KERNELS[kernel](cloud[0])
    tolerance = 1e-12 * K.square().mean().item()
    assert hsic(K, K).item() >= -tolerance
    assert phsic(K, K).item() >= hsic(K, K).item() - tolerance
    gap = 2 * K.mean(0).var(correction=0).item()
    assert phsic(K, K).item() - hsic(K, K).item() == pytest.approx(gap, rel=1e-9, abs=tolerance)  # Eq. 32


@quick
@given(clouds(2), st.sampled_from(list(KERNELS)), st.floats(-5, 5), st.sampled_from([hsic, phsic]))
def test_estimates_ignore_an_added_constant_and_the_order_of_arguments_and_of_points(cloud, kernel, constant, estimate):
    K, L = (KERNELS[kernel](z) for z in cloud)
    value = estimate(K, L).item()
    tolerance = 1e-11 * (1 + K.abs().max() * L.abs().max() + L.abs().max() + K.abs().max()).item()
    assert estimate(K + constant, L).item() == pytest.approx(value, abs=tolerance)
    assert estimate(L, K).item() == pytest.approx(value, abs=tolerance)
    assert estimate(K.flip(0, 1), L.flip(0, 1)).item() == pytest.approx(value, abs=tolerance)


def test_hsic_may_exceed_phsic_for_two_arguments_and_phsic_may_be_negative():
    generator = torch.Generator().manual_seed(0)
    pairs = [torch.randn(2, 8, 2, generator=generator, dtype=torch.float64) for _ in range(50)]
    values = [
        (hsic(KERNELS["gaussian"](a), KERNELS["gaussian"](b)), phsic(*map(KERNELS["gaussian"], (a, b))))
        for a, b in pairs
    ]
    assert 10 < sum(bool(h > p) for h, p in values) < 40
    assert any(p < 0 for _, p in values)
    assert all(h >= 0 for h, _ in values)


@quick
@given(clouds(), st.sampled_from(list(KERNELS)))
def test_kernels_are_symmetric_and_positive_definite(cloud, kernel):
    K = KERNELS[kernel](cloud[0])
    torch.testing.assert_close(K, K.T, rtol=1e-12, atol=1e-12)
    assert torch.linalg.eigvalsh(K).min().item() >= -1e-9 * (1 + K.abs().max().item())
    if kernel == "gaussian":
        assert torch.equal(K.diagonal(), torch.ones(len(K), dtype=K.dtype))
        assert K.max() <= 1
        assert K.min() >= 0


@quick
@given(clouds(), st.floats(-100, 100))
def test_distances_ignore_a_translation(cloud, shift):
    z = cloud[0]
    expected = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist").square()
    tolerance = 1e-11 * (1 + z.square().sum(1).max().item())
    torch.testing.assert_close(kernels.squared_distances(z + shift), expected, rtol=1e-9, atol=tolerance)


def test_float32_distances_survive_a_large_common_activity():
    """Points near (100, 100, ...) but 0.01 apart: a plain Gram product would lose every digit."""
    z = 100 + 0.01 * torch.randn(20, 50, generator=torch.Generator().manual_seed(0))
    expected = torch.cdist(z.double(), z.double()).square()
    torch.testing.assert_close(kernels.squared_distances(z).double(), expected, rtol=2e-3, atol=1e-7)


def test_float32_distances_of_near_twins_are_not_negative():
    z = torch.randn(200, 300, generator=torch.Generator().manual_seed(0))
    z[100:] = z[:100] + 1e-5 * z[:100].flip(0)
    assert kernels.squared_distances(z).min() >= 0


def test_float32_objective_of_nearly_equal_similarities():
    """Groups of 1024 untrained units make every similarity about 0.9996; float32 must still know the value."""
    z = torch.randn(64, 1024, generator=torch.Generator().manual_seed(0))
    label_k = kernels.label_kernel(torch.arange(64) % 10, 10)
    single = bottleneck_objective(z, label_k, groups=32, power=0.2)
    double = bottleneck_objective(z.double(), label_k.double(), groups=32, power=0.2)
    assert single.item() == pytest.approx(double.item(), rel=2e-5)


def test_identical_points_and_silent_groups_have_finite_gradients():
    z = torch.zeros(6, 8)
    z[3:] = 1.0
    label_k = kernels.label_kernel(torch.tensor([0, 1, 0, 1, 0, 1]), 2)
    for kernel in KERNELS:
        for groups in (None, 4):
            point = z.clone().requires_grad_()
            bottleneck_objective(point, label_k, kernel=kernel, groups=groups).backward()
            assert torch.isfinite(point.grad).all(), (kernel, groups)
    same = torch.full((5, 3), 0.7, requires_grad=True)
    kernels.gaussian_kernel(same).sum().backward()
    assert same.grad.abs().max() == 0


@pytest.mark.parametrize("kernel", list(KERNELS))
def test_gradcheck(kernel):
    z = torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z[1] = z[0]
    z.requires_grad_()
    label_k = kernels.label_kernel(torch.tensor([0, 1, 0, 2, 1]), 3, dtype=torch.float64)
    for groups in (None, 2):
        for estimator in ("phsic", "hsic"):
            assert torch.autograd.gradcheck(
                lambda z, g=groups, e=estimator: bottleneck_objective(
                    z, label_k, kernel=kernel, sigma=1.0, estimator=e, groups=g
                ),
                z,
            )
    assert torch.autograd.gradcheck(DivisiveNorm(4, power=0.2), z)


def test_permutation_null():
    """y = x²: uncorrelated, yet the kernels see the dependence; shuffled pairs never look as dependent."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(100, 1, generator=generator, dtype=torch.float64) * 2 - 1
    y = x.square() + 0.05 * torch.randn(100, 1, generator=generator, dtype=torch.float64)
    K, L = kernels.gaussian_kernel(x, sigma=0.5), kernels.gaussian_kernel(y, sigma=0.5)
    orders = [torch.randperm(100, generator=generator) for _ in range(300)]
    for estimate in (hsic, phsic):
        null = torch.stack([estimate(K, L[order][:, order]) for order in orders])
        assert estimate(K, L) > 2 * null.max()
    assert null.min() < 0 < null.max()
    assert min(hsic(K, L[order][:, order]) for order in orders) >= 0


def test_a_larger_gap_between_classes_lowers_the_objective():
    labels = torch.arange(20) % 2
    label_k = kernels.label_kernel(labels, 2)
    noise = 0.1 * torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    values = [bottleneck_objective(noise + gap * labels[:, None], label_k, sigma=1.0).item() for gap in (0.0, 1.0, 3.0)]
    assert values[0] > values[1] > values[2]
    assert values[2] == pytest.approx(-0.75, abs=0.02)


def test_similarity_matching():
    """γ = 2: the objective is mean (K̊_z - K̊_y)² - mean K̊_y²."""
    z = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    L = kernels.label_kernel(torch.arange(9) % 3, 3, dtype=torch.float64)
    K, L0 = kernels.centre(kernels.gaussian_kernel(z)), kernels.centre(L)
    torch.testing.assert_close(bottleneck_objective(z, L), (K - L0).square().mean() - L0.square().mean())


def test_the_objective_sees_the_activity_before_normalization():
    layer = Layer(Linear(6, 8, bias=False), activation=torch.nn.Tanh(), pool=None, after=DivisiveNorm(2, power=0.2))
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    z = torch.tanh(x @ layer.op.weight.T)
    torch.testing.assert_close(layer.activity(x), z)
    torch.testing.assert_close(layer(x), DivisiveNorm(2, power=0.2)(z))
    assert not torch.allclose(layer(x), z)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA is absent: GPU agreement NOT tested")
def test_cuda_agrees_with_cpu():
    z = torch.randn(33, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    label_k = kernels.label_kernel(torch.arange(33) % 3, 3, dtype=torch.float64)
    for kernel in KERNELS:
        here, there = z.clone().requires_grad_(), z.cuda().requires_grad_()
        for point in (here, there):
            bottleneck_objective(point, label_k.to(point.device), kernel=kernel, groups=4).backward()
        assert kernels.label_kernel(torch.arange(33).cuda() % 3, 3).is_cuda
        torch.testing.assert_close(here.grad, there.grad.cpu(), rtol=1e-10, atol=1e-14)


def square(m=4):
    return torch.eye(m, dtype=torch.float64)


BAD = {
    "not square": (lambda: hsic(torch.rand(3, 4), square(3).float()), ValueError, r"\(3, 4\)"),
    "a vector": (lambda: phsic(torch.rand(3), torch.rand(3)), ValueError, r"\(3,\)"),
    "different sizes": (lambda: phsic(square(4), square(5)), ValueError, "4 and 5 points"),
    "one point": (lambda: hsic(square(1), square(1)), ValueError, "at least 2 points"),
    "integer matrix": (lambda: hsic(square(3).long(), square(3)), TypeError, "int64"),
    "NaN in the second matrix": (lambda: phsic(square(3), square(3).fill_(float("nan"))), ValueError, "NaN"),
    "infinite matrix": (lambda: hsic(square(3) * float("inf"), square(3)), ValueError, "infinity"),
    "integer activity": (lambda: kernels.linear_kernel(torch.ones(3, 2, dtype=torch.long)), TypeError, "int64"),
    "flat activity": (lambda: kernels.cosine_kernel(torch.rand(3)), ValueError, r"\(3,\)"),
    "no features": (lambda: kernels.gaussian_kernel(torch.rand(3, 0)), ValueError, r"\(3, 0\)"),
    "sigma 0": (lambda: kernels.gaussian_kernel(torch.rand(3, 2), sigma=0.0), ValueError, "sigma=0.0"),
    "sigma below 0": (lambda: kernels.gaussian_kernel(torch.rand(3, 2), sigma=-1.0), ValueError, "sigma=-1.0"),
    "sigma NaN": (
        lambda: bottleneck_objective(torch.rand(4, 2), square(), sigma=float("nan")),
        ValueError,
        "sigma=nan",
    ),
    "label too large": (lambda: kernels.label_kernel(torch.tensor([0, 3]), 3), ValueError, "0 to 3.*must be 0 to 2"),
    "label below 0": (lambda: kernels.label_kernel(torch.tensor([-1, 1]), 3), ValueError, "from -1"),
    "real labels": (lambda: kernels.label_kernel(torch.rand(3), 3), TypeError, "float32"),
    "one-hot labels": (lambda: kernels.label_kernel(square(3).long(), 3), ValueError, r"\(3, 3\)"),
    "one class": (lambda: kernels.label_kernel(torch.zeros(3, dtype=torch.long), 1), ValueError, "num_classes=1"),
    "groups that do not divide": (lambda: kernels.grouped_activity(torch.rand(3, 10), 4), ValueError, "groups=4.*10"),
    "no groups": (lambda: kernels.grouped_activity(torch.rand(3, 10), 0), ValueError, "groups=0"),
    "power 1": (lambda: kernels.grouped_activity(torch.rand(3, 10), 5, power=1.0), ValueError, "power=1.0"),
    "offset below 0": (lambda: kernels.grouped_activity(torch.rand(3, 10), 5, offset=-1.0), ValueError, "offset=-1.0"),
    "norm power NaN": (lambda: DivisiveNorm(2, power=float("nan")), ValueError, "power=nan"),
    "norm groups": (lambda: DivisiveNorm(3)(torch.rand(4, 10)), ValueError, "groups=3"),
    "unknown kernel": (lambda: bottleneck_objective(torch.rand(4, 2), square(), kernel="rbf"), ValueError, "gaussian"),
    "unknown estimator": (
        lambda: bottleneck_objective(torch.rand(4, 2), square(), estimator="dhsic"),
        ValueError,
        "phsic",
    ),
    "labels of another batch": (
        lambda: bottleneck_objective(torch.rand(5, 2), square(4)),
        ValueError,
        "5 and 4 points",
    ),
    "last batch of one": (lambda: bottleneck_objective(torch.rand(1, 2), square(1)), ValueError, "at least 2 points"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_named(case):
    call, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("kernel", list(KERNELS))
def test_one_bad_number_in_the_activity_is_reported(bad, kernel):
    z = torch.ones(6, 4)
    z[2, 1] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        KERNELS[kernel](z)
    for groups in (None, 2):
        with pytest.raises(ValueError, match="NaN or infinity"):
            bottleneck_objective(z, square(6), kernel=kernel, groups=groups)
