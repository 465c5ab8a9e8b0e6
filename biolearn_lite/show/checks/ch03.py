"""Chapter 03, HSIC vs pHSIC. The formulas are written out anew here, independent of `rules`."""

from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from biolearn_lite.show.exercises import demand, expect, parts, property_of


def _gram(generator: Generator, points: int = 3) -> Tensor:
    """A Gaussian Gram matrix of random points on a line."""
    z = torch.randn(points, dtype=torch.float64, generator=generator)
    return torch.exp(-((z[:, None] - z) ** 2) / 2)


def _hsic(K: Tensor, L: Tensor) -> Tensor:
    m = len(K)
    H = torch.eye(m, dtype=K.dtype) - 1 / m
    return torch.trace(K @ H @ L @ H) / m**2


def _phsic(K: Tensor, L: Tensor) -> Tensor:
    return (K * L).mean() - K.mean() * L.mean()


# 03-1: by_hand(a, b) -> (hsic, phsic) for linear kernels


def _points(generator: Generator) -> dict[str, Any]:
    """Two small vectors, and the three terms of Eq. 5 that a wrong total can be compared with."""
    m = int(torch.randint(3, 7, (), generator=generator))
    a, b = torch.randint(-3, 4, (2, m), generator=generator).double()
    K, L = torch.outer(a, a), torch.outer(b, b)
    third = (K.mean(0) * L.mean(0)).mean()
    return {"a": a, "b": b, "first_term": (K * L).mean(), "second_term": K.mean() * L.mean(), "third_term": third}


@property_of("03-1", hint=2)
def the_first_number_is_hsic(by_hand: Any, generator: Generator) -> None:
    """The first number is HSIC (Eq. 5): the first term plus the second minus twice the third."""
    given = _points(generator)
    first, second, third = (given[f"{name}_term"] for name in ("first", "second", "third"))
    got, _ = parts(by_hand(given["a"], given["b"]), "hsic", "phsic")
    expect(got, first + second - 2 * third, **given)


@property_of("03-1", hint=1)
def the_second_number_is_phsic(by_hand: Any, generator: Generator) -> None:
    """The second number is pHSIC (Eq. 34): the first term minus the second."""
    given = _points(generator)
    _, got = parts(by_hand(given["a"], given["b"]), "hsic", "phsic")
    expect(got, given["first_term"] - given["second_term"], **given)


# 03-2: fast_hsic(K, L) in O(m²)


@property_of("03-2", hint=1)
def equals_the_trace_form(hsic: Any, generator: Generator) -> None:
    """It equals tr(K H L H)/m², with H = I − 11ᵀ/m (Eq. 5)."""
    K, L = _gram(generator), _gram(generator)
    expect(hsic(K, L), _hsic(K, L), K=K, L=L)


@property_of("03-2", hint=2)
def is_symmetric(hsic: Any, generator: Generator) -> None:
    """Exchanging K and L changes nothing."""
    K, L = _gram(generator), _gram(generator)
    expect(hsic(K, L), hsic(L, K), K=K, L=L)


@property_of("03-2", hint=2)
def needs_no_matrix_product(hsic: Any, generator: Generator) -> None:
    """For m points it takes O(m²) time and memory: sums over rows and entries, no product of two m × m matrices."""
    m = 64
    K, L = _gram(generator, m), _gram(generator, m)
    with _Cost() as cost:
        got = hsic(K, L)
    expect(got, _hsic(K, L))
    demand(cost.products == 0, f"for m = {m} a product of two matrices was formed: m³ = {m**3} multiplications")
    demand(cost.largest <= 2 * m**2, f"for m = {m} a tensor of {cost.largest} numbers was formed, m² is {m**2}")


# 03-3: (a, b), six numbers each


@property_of("03-3", hint=1)
def phsic_is_negative(answer: Any, generator: Generator) -> None:
    """With Gaussian kernels of width 1, pHSIC of the six pairs (a, b) is below −0.01, though HSIC never is below 0."""
    a, b = (torch.as_tensor(values, dtype=torch.float64) for values in parts(answer, "a", "b"))
    demand(a.shape == b.shape == (6,), f"expected six numbers each, got shapes {tuple(a.shape)} and {tuple(b.shape)}")
    demand(bool(torch.isfinite(a + b).all()), "all numbers must be finite", a=a, b=b)
    K, L = (torch.exp(-((z[:, None] - z) ** 2) / 2) for z in (a, b))
    demand(float(_phsic(K, L)) < -0.01, f"pHSIC = {_phsic(K, L):.4f}, HSIC = {_hsic(K, L):.4f}", a=a, b=b)


# 03-4: similarity_matching(K, L, balance) -> (mismatch, constant), D9 of the layer objective


def _case(generator: Generator) -> tuple[Tensor, Tensor, float]:
    return _gram(generator), _gram(generator), 0.5 + 3 * float(torch.rand((), generator=generator))


@property_of("03-4", hint=1)
def their_difference_is_the_objective(matching: Any, generator: Generator) -> None:
    """mismatch − constant is the layer's objective, pHSIC(K, K) − balance · pHSIC(L, K)."""
    K, L, balance = _case(generator)
    mismatch, constant = parts(matching(K, L, balance), "mismatch", "constant")
    expect(mismatch - constant, _phsic(K, K) - balance * _phsic(L, K), K=K, L=L, balance=balance)


@property_of("03-4", hint=2)
def mismatch_vanishes_when_matched(matching: Any, generator: Generator) -> None:
    """The mismatch is a mean of squares: 0 when K is balance/2 · L, whatever constant is added."""
    _, L, balance = _case(generator)
    K = balance / 2 * L + 0.7
    expect(parts(matching(K, L, balance), "mismatch", "constant")[0], 0.0, K=K, L=L, balance=balance)


@property_of("03-4", hint=2)
def the_constant_knows_no_activity(matching: Any, generator: Generator) -> None:
    """The constant depends on L and the balance alone: another K leaves it unchanged."""
    K, L, balance = _case(generator)
    (_, one), (_, other) = (parts(matching(k, L, balance), "mismatch", "constant") for k in (K, K**2))
    expect(one, other, K=K, L=L, balance=balance)


# 03-5 (research): a dictionary decay -> (bias, standard deviation), a running row mean in place of the third term


@property_of("03-5", hint=2)
def compares_three_decay_rates(report: Any, generator: Generator) -> None:
    """The report is a dictionary {decay: (bias, standard deviation)} with three decay rates or more, each in [0, 1)."""
    demand(isinstance(report, dict), f"expected a dictionary, got {type(report).__name__}")
    demand(len(report) >= 3, f"it has {len(report)} decay rates: {list(report)}")
    demand(all(0 <= decay < 1 for decay in report), f"its decay rates are {list(report)}")


@property_of("03-5", hint=1)
def reports_bias_and_spread(report: Any, generator: Generator) -> None:
    """Each entry is (bias, standard deviation): finite numbers, and streams that differ, so the second is above 0."""
    for decay, entry in report.items():
        bias, spread = (float(value) for value in parts(entry, "bias", "standard deviation"))
        demand(abs(bias) < float("inf"), f"decay {decay}: the bias is {bias}")
        demand(0 < spread < float("inf"), f"decay {decay}: the standard deviation is {spread}")


@property_of("03-5", hint=2)
def a_slow_mean_is_less_noisy(report: Any, generator: Generator) -> None:
    """The slowest mean varies less from stream to stream than the fastest; otherwise the decay rate is not in use."""
    (_, fast), (_, slow) = report[min(report)], report[max(report)]
    demand(float(slow) < float(fast), f"decay {min(report)}: {fast:.4g}, decay {max(report)}: {slow:.4g}")


class _Cost(TorchDispatchMode):
    """Counts products of two matrices and remembers the size of the largest tensor made inside the `with` block."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products, self.largest = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in ("mm", "bmm", "addmm", "baddbmm"):
            left, right = args[-2:]
            self.products += min(*left.shape[-2:], right.shape[-1]) > 1  # a matrix times a vector is O(m²)
        if isinstance(result, Tensor):
            self.largest = max(self.largest, result.numel())
        return result
