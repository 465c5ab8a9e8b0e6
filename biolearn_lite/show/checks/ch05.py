"""Chapter 05, one example at a time. The formulas are written out anew here, independent of `rules`."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Generator, Tensor

from biolearn_lite.show.exercises import Unanswered, demand, expect, parts, property_of

# 05-1: updates(examples, third_factor), examples an iterator of (x, z), yields dW of Eq. 19 for every pair in time


class _Stream:
    """(x, z) one after the other, once; counts how many were taken."""

    def __init__(self, x: Tensor, z: Tensor) -> None:
        self.pairs, self.taken = zip(x, z, strict=True), 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        pair = next(self.pairs)
        self.taken += 1
        return pair


def _third_factor(now: Tensor, before: Tensor) -> Tensor:
    """Anything that tells its arguments apart."""
    return now[0] - 2 * before[1] + 0.5


def _stream(generator: Generator, moments: int = 6) -> tuple[Tensor, Tensor]:
    x = torch.randn(moments, 3, dtype=torch.float64, generator=generator)
    return x, torch.randn(moments, 2, dtype=torch.float64, generator=generator)


def _started(answer: Any) -> Iterator[Any]:
    if answer is None or answer is ...:
        raise Unanswered
    demand(hasattr(answer, "__iter__"), f"expected a generator or a list of updates, got {type(answer).__name__}")
    return iter(answer)


@property_of("05-1", hint=1)
def one_update_for_each_pair(updates: Any, generator: Generator) -> None:
    """Each example but the first gives one update, so T examples give T − 1."""
    x, z = _stream(generator)
    got = list(itertools.islice(_started(updates(_Stream(x, z), _third_factor)), 2 * len(x)))
    demand(len(got) == len(x) - 1, f"{len(x)} examples gave {len(got)} updates")


@property_of("05-1", hint=2)
def each_is_eq_19(updates: Any, generator: Generator) -> None:
    """Update t is M(z_t, z_before) (z_t − z_before)(x_t − x_before)ᵀ, of the shape of W."""
    x, z = _stream(generator)
    for t, got in enumerate(_started(updates(_Stream(x, z), _third_factor)), start=1):
        want = _third_factor(z[t], z[t - 1]) * torch.outer(z[t] - z[t - 1], x[t] - x[t - 1])
        expect(got, want, z=z[t], z_before=z[t - 1], x=x[t], x_before=x[t - 1])


@property_of("05-1", hint=1)
def it_does_not_wait(updates: Any, generator: Generator) -> None:
    """It learns while the stream runs: the first update comes after two examples, the second after three."""
    stream = _Stream(*_stream(generator, moments=50))
    got = _started(updates(stream, _third_factor))
    for count in (1, 2, 3):
        next(got)
        demand(stream.taken == count + 1, f"{stream.taken} examples had been taken when update {count} came")


# 05-2: contributions(M, hebb), what each moment adds (Eq. 22), the two ends included


def _hebbian(generator: Generator) -> tuple[Tensor, Tensor]:
    pairs = int(torch.randint(1, 6, (), generator=generator))
    M = torch.randn(pairs, dtype=torch.float64, generator=generator)
    return M, torch.randn(pairs + 1, 2, dtype=torch.float64, generator=generator)


@property_of("05-2", hint=1)
def one_contribution_for_each_moment(contributions: Any, generator: Generator) -> None:
    """T pairs have T + 1 moments: the result has the shape of hebb."""
    M, hebb = _hebbian(generator)
    got = contributions(M, hebb)
    if got is None or got is ...:
        raise Unanswered
    shape = tuple(torch.as_tensor(got).shape)
    demand(shape == tuple(hebb.shape), f"hebb has shape {tuple(hebb.shape)}, the result {shape}")


@property_of("05-2", hint=2)
def together_they_are_eq_21(contributions: Any, generator: Generator) -> None:
    """Summed over all moments they equal Σ_t M_t (hebb_t − hebb_before), with nothing left over."""
    M, hebb = _hebbian(generator)
    total = torch.as_tensor(contributions(M, hebb)).sum(0)
    expect(total, (M[:, None] * hebb.diff(dim=0)).sum(0), tolerance=1e-12, M=M, hebb=hebb)


@property_of("05-2", hint=1)
def each_knows_only_its_own_product(contributions: Any, generator: Generator) -> None:
    """What a moment adds is a number times its own hebb: another product elsewhere changes nothing."""
    M, hebb = _hebbian(generator)
    here = int(torch.randint(len(hebb), (), generator=generator))
    other, elsewhere = hebb.clone(), torch.arange(len(hebb)) != here
    other[here] += 1
    got, want = (torch.as_tensor(contributions(M, products))[elsewhere] for products in (other, hebb))
    expect(got, want, M=M, hebb=hebb, changed=here)


# 05-3: smallest_deviation(tolerance), from which on the settled memory (Eq. 59, no leak) reads |d| to within it


@property_of("05-3", hint=1)
def the_reading_is_just_good_enough(smallest_deviation: Any, generator: Generator) -> None:
    """At the deviation you return, the settled reading h^(1/3) is too large by exactly the tolerance (to 1 % of it)."""
    tolerance = 0.01 + 0.1 * float(torch.rand((), generator=generator))
    got = smallest_deviation(tolerance)
    expect(got, math.atanh((1 + tolerance) ** -3) ** (1 / 3), tolerance=1e-3, tolerance_asked_for=tolerance)


@property_of("05-3", hint=2)
def a_stricter_reader_needs_more(smallest_deviation: Any, generator: Generator) -> None:
    """A tolerance half as large asks for a larger deviation."""
    tolerance = 0.01 + 0.1 * float(torch.rand((), generator=generator))
    loose, strict = float(smallest_deviation(tolerance)), float(smallest_deviation(tolerance / 2))
    demand(strict > loose, f"{strict:.4g} for {tolerance / 2:.3g}, {loose:.4g} for {tolerance:.3g}")


# 05-4: {equation: (earlier rates or means per neuron, products per synapse, pairs whose third factors are used)}

_NEEDS = {"19": (1, 0, 1), "20": (1, 0, 1), "21": (1, 0, 1), "22": (0, 1, 2)}
_HINTS = {"19": 1, "20": 1, "21": 1, "22": 2}


def _needs_of(equation: str) -> Any:
    def needs(answer: Any, generator: Generator) -> None:
        demand(
            isinstance(answer, dict) and set(answer) == set(_NEEDS),
            f"expected the keys {', '.join(_NEEDS)}: {answer!r:.80}",
        )
        names = ("per neuron", "per synapse", "third factors")
        for name, got, want in zip(names, parts(answer[equation], *names), _NEEDS[equation], strict=True):
            demand(got == want, f"Eq. {equation}, {name}: {got} is not what it takes")

    needs.__doc__ = f"Eq. {equation} is told with the fewest numbers that have to outlive their moment."
    return needs


for _equation, _hint in _HINTS.items():
    property_of("05-4", hint=_hint)(_needs_of(_equation))


# 05-5 (research): {share of replayed examples: [K_same − K_other at the end, one per seed]}


@property_of("05-5", hint=1)
def a_curve_with_seeds(report: Any, generator: Generator) -> None:
    """The report is {share: [contrast of each seed]}: four shares or more in [0, 1], with 0, three seeds each."""
    demand(isinstance(report, dict), f"expected a dictionary, got {type(report).__name__}")
    demand(len(report) >= 4 and 0 in report, f"its shares are {list(report)}")
    demand(all(0 <= share <= 1 for share in report), f"its shares are {list(report)}")
    for share, values in report.items():
        demand(isinstance(values, (list, tuple)) and len(values) >= 3, f"share {share}: {values!r:.80}")


@property_of("05-5", hint=2)
def contrasts_are_contrasts(report: Any, generator: Generator) -> None:
    """A contrast K_same − K_other lies between −1 and 1, and seeds differ, if only a little."""
    values = [float(value) for contrasts in report.values() for value in contrasts]
    demand(all(-1 <= value <= 1 for value in values), f"they run from {min(values):.3g} to {max(values):.3g}")
    demand(len(set(values)) > len(report), f"only {len(set(values))} of {len(values)} values differ")


@property_of("05-5", hint=2)
def replay_restores_contrast(report: Any, generator: Generator) -> None:
    """Some share of replay gives on average at least 0.2 more contrast than none."""
    means = {share: sum(map(float, values)) / len(values) for share, values in report.items()}
    best = max(means, key=lambda share: means[share])
    demand(means[best] > means[0] + 0.2, f"no replay {means[0]:.3f}, best ({best}) {means[best]:.3f}")
