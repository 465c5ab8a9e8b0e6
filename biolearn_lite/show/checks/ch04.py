"""Chapter 04, three-factor Hebbian learning. The formulas are written out anew here, independent of `rules`."""

import math
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from biolearn_lite.show.exercises import Unanswered, demand, expect, parts, property_of


def _uniform(low: float, high: float, generator: Generator) -> float:
    return float(low + (high - low) * torch.rand((), dtype=torch.float64, generator=generator))


def _normal(*shape: int, generator: Generator) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


# 04-1: pair_factor(distance, same_class, sigma, balance, mean_similarity) -> M of Eq. 12, two balanced classes


@property_of("04-1", hint=1)
def far_pairs_are_not_heard(pair_factor: Any, generator: Generator) -> None:
    """A pair more than ten σ apart has M = 0 to ten digits, whatever its labels."""
    sigma = _uniform(0.5, 2, generator)
    for same_class in (True, False):
        got = pair_factor(12 * sigma, same_class, sigma, 2.0, 0.4)
        expect(got, 0.0, tolerance=1e-10, distance=12 * sigma, same_class=same_class, sigma=sigma)


@property_of("04-1", hint=2)
def is_the_third_factor(pair_factor: Any, generator: Generator) -> None:
    """It is M of Eq. 12, for either label and any σ, γ and mean similarity."""
    distance, sigma = _uniform(0, 3, generator), _uniform(0.5, 3, generator)
    balance, mean_similarity = _uniform(0, 4, generator), _uniform(0, 1, generator)
    alike = math.exp(-(distance**2) / (2 * sigma**2))
    for same_class, label in ((True, 1.0), (False, -1.0)):
        got = pair_factor(distance, same_class, sigma, balance, mean_similarity)
        given = {"distance": distance, "same_class": same_class, "sigma": sigma, "balance": balance}
        want = -(balance * label - 2 * (alike - mean_similarity)) * alike / sigma**2
        expect(got, want, mean_similarity=mean_similarity, **given)


# 04-2: all_pairs(M, z, x) -> mean of M_ij (z_i - z_j)(x_i - x_j)ᵀ, in little memory


@property_of("04-2", hint=2)
def is_the_mean_over_all_pairs(all_pairs: Any, generator: Generator) -> None:
    """It is the mean over all m² pairs of M_ij (z_i − z_j)(x_i − x_j)ᵀ."""
    z, x, table = (
        _normal(4, 2, generator=generator),
        _normal(4, 3, generator=generator),
        _normal(4, 4, generator=generator),
    )
    M = table + table.T
    want = torch.einsum("ij,ijn,ijp->np", M, z[:, None] - z, x[:, None] - x) / 16
    expect(all_pairs(M, z, x), want, M=M, z=z, x=x)


@property_of("04-2", hint=1)
def needs_little_memory(all_pairs: Any, generator: Generator) -> None:
    """No tensor on the way holds more numbers than the largest of M, z, x and the result."""
    M, z, x = (
        torch.ones(40, 40),
        _normal(40, 30, generator=generator).float(),
        _normal(40, 20, generator=generator).float(),
    )
    with _Largest() as seen:
        result = all_pairs(M, z, x)
    if result is None or result is ...:
        raise Unanswered
    demand(
        seen.numbers <= 1600,
        f"a tensor of {seen.numbers} numbers was formed; M has 1600, z 1200, x 800, the result 600",
    )


class _Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor made inside the `with` block."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numbers = max(self.numbers, result.untyped_storage().nbytes() // result.element_size())
        return result


# 04-3: logarithmic_group(deviation, u) -> (r, constant) with d log u / dz = constant · r


def _group(generator: Generator) -> tuple[Tensor, Tensor]:
    """Activity of a few groups and what each deviates from its mean by."""
    groups, members = (int(torch.randint(2, 5, (), generator=generator)) for _ in range(2))
    z = 2 * _normal(groups, members, generator=generator)
    return z, z - z.mean(1, keepdim=True)


@property_of("04-3", hint=2)
def constant_times_r_is_the_derivative(logarithmic_group: Any, generator: Generator) -> None:
    """constant · r is the derivative of log u with respect to each neuron's activity."""
    z, deviation = _group(generator)
    u = deviation.square().mean(1) + 1 / z.shape[1]
    r, constant = parts(logarithmic_group(deviation, u), "r", "constant")
    want = 2 * deviation / (z.shape[1] * u[:, None])
    expect(torch.as_tensor(constant) * torch.as_tensor(r), want, deviation=deviation, u=u)


@property_of("04-3", hint=1)
def the_constant_is_constant(logarithmic_group: Any, generator: Generator) -> None:
    """The constant is one number and does not depend on the activity, only on the size of the groups."""
    z, deviation = _group(generator)
    constants = []
    for gain in (1.0, 3.0):
        u = (gain * deviation).square().mean(1) + 1 / z.shape[1]
        constants.append(parts(logarithmic_group(gain * deviation, u), "r", "constant")[1])
    expect(constants[1], float(constants[0]), deviation=3 * deviation)
    expect(constants[0], 2 / z.shape[1], deviation=deviation)


# 04-4: cosine_slope(a, b) -> derivative of the cosine similarity by a


@property_of("04-4", hint=1)
def has_no_part_along_a(cosine_slope: Any, generator: Generator) -> None:
    """The derivative is orthogonal to a: stretching an activity changes no direction."""
    a, b = _normal(2, 4, generator=generator)
    slope = cosine_slope(a, b)
    if slope is None or slope is ...:
        raise Unanswered
    demand(
        isinstance(slope, Tensor) and slope.shape == a.shape, f"expected a vector like a, got {slope!r:.80}", a=a, b=b
    )
    expect((slope * a).sum(), 0.0, a=a, b=b)


@property_of("04-4", hint=2)
def is_the_derivative_of_the_cosine(cosine_slope: Any, generator: Generator) -> None:
    """It is the derivative of k(a, b) with respect to a, its size included."""
    a, b = _normal(2, 4, generator=generator)
    ab, aa, bb = ((left * right).sum() for left, right in ((a, b), (a, a), (b, b)))
    expect(cosine_slope(a, b), b / (aa * bb).sqrt() - ab * a / (aa.sqrt() ** 3 * bb.sqrt()), a=a, b=b)


# 04-5 (research): how divided rates grow with loudness


@property_of("04-5", hint=2)
def reports_four_powers(growth: Any, generator: Generator) -> None:
    """The report is a dictionary {power: growth} with at least four powers between 0 and 1 and finite growth."""
    demand(isinstance(growth, dict), f"expected a dictionary, got {type(growth).__name__}")
    demand(len(growth) >= 4, f"it has {len(growth)} powers: {sorted(growth)}")
    demand(all(0 <= power <= 1 for power in growth), f"powers must lie between 0 and 1: {sorted(growth)}")
    demand(all(math.isfinite(float(g)) for g in growth.values()), f"growth must be finite numbers: {growth}")


@property_of("04-5", hint=1)
def growth_fits_the_powers(growth: Any, generator: Generator) -> None:
    """For large s the slope of log ‖r‖ against log s is what z̃ / u^φ makes of a z̃ that grows like s."""
    for power, found in growth.items():
        want = 1 - 2 * power
        demand(abs(float(found) - want) < 0.02, f"φ = {power}: growth {float(found):.3f} is off by more than 0.02")
