"""Chapter 13, locally connected networks. The formulas are written out anew here, independent of `rules`."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.nn.grad import conv2d_weight

from biolearn_lite.show.exercises import Unanswered, demand, demand_seeds, expect, property_of


def _random(*shape: int, generator: Generator) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def _choose(low: int, high: int, generator: Generator) -> int:
    """A whole number from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


# 13-1: locally_connected(x, weight, stride), the forward pass, zeros around the picture


def _pictures(generator: Generator) -> tuple[Tensor, int, int, tuple[int, int]]:
    """Pictures of any size, a kernel's width, a stride, and the rows and columns of places they give."""
    size = [_choose(4, 8, generator) for _ in range(2)]
    k, stride = 2 * _choose(0, 2, generator) + 1, _choose(1, 2, generator)
    places = ((size[0] - 1) // stride + 1, (size[1] - 1) // stride + 1)
    return _random(2, 3, *size, generator=generator), k, stride, places


@property_of("13-1", hint=1)
def equal_kernels_are_a_convolution(locally_connected: Any, generator: Generator) -> None:
    """With the same kernel at every place it is conv2d, at any size of the picture and with stride 2, too."""
    x, k, stride, places = _pictures(generator)
    kernel = _random(4, 3, k, k, generator=generator)
    want = F.conv2d(x, kernel, stride=stride, padding=k // 2)
    expect(locally_connected(x, kernel.expand(*places, -1, -1, -1, -1).clone(), stride), want, x=x, k=k, stride=stride)


@property_of("13-1", hint=2)
def each_place_has_its_own(locally_connected: Any, generator: Generator) -> None:
    """The answer at a place is its own kernel times its own patch."""
    x, k, stride, places = _pictures(generator)
    weight = _random(*places, 4, 3, k, k, generator=generator)
    padded = F.pad(x, (k // 2,) * 4)
    want = torch.empty(2, 4, *places, dtype=x.dtype)
    for row in range(places[0]):
        for column in range(places[1]):
            patch = padded[:, :, row * stride : row * stride + k, column * stride : column * stride + k]
            want[:, :, row, column] = patch.flatten(1) @ weight[row, column].flatten(1).T
    expect(locally_connected(x, weight, stride), want, x=x, weight=weight, stride=stride)


# 13-2: update(x, post, k), dW of each place


def _errors(generator: Generator) -> tuple[Tensor, Tensor, int]:
    x, k, _, _ = _pictures(generator)
    return x, _random(2, 4, *x.shape[2:], generator=generator), k


@property_of("13-2", hint=2)
def their_sum_is_the_convolutions(update: Any, generator: Generator) -> None:
    """Summed over places it is the update of a convolution, borders included."""
    x, post, k = _errors(generator)
    got = update(x, post, k)
    if got is None or got is ...:
        raise Unanswered
    size = (*x.shape[2:], 4, 3, k, k)
    demand(isinstance(got, Tensor) and tuple(got.shape) == size, f"expected a tensor of shape {size}")
    want = conv2d_weight(x, (4, 3, k, k), post, padding=k // 2)
    expect(got.sum((0, 1)), want, x=x, k=k)


@property_of("13-2", hint=1)
def each_place_learns_from_its_own(update: Any, generator: Generator) -> None:
    """A place whose error is zero learns nothing, and the others what they would have learned anyway."""
    x, post, k = _errors(generator)
    padded = F.pad(x, (k // 2,) * 4)
    row, column = (_choose(0, length - 1, generator) for length in x.shape[2:])
    alone = torch.zeros_like(post)
    alone[:, :, row, column] = post[:, :, row, column]
    patch = padded[:, :, row : row + k, column : column + k]
    want = torch.zeros(*x.shape[2:], 4, 3, k, k, dtype=x.dtype)
    want[row, column] = (alone[:, :, row, column].T @ patch.flatten(1)).view(4, 3, k, k)
    expect(update(x, alone, k), want, place=(row, column), k=k)


# 13-3: working_shifts(q1, p, q2, limit)


def _filters(places: int, period: int, generator: Generator) -> Tensor:
    kinds = _random(period, 3, generator=generator)
    return kinds[torch.arange(places) % period]


def _on_ring(weights: Tensor, x: Tensor) -> Tensor:
    seen = torch.stack([x.roll(1), x, x.roll(-1)], dim=1)
    return torch.tanh((weights * seen).sum(1))


def _simulated(q1: int, p: int, q2: int, limit: int, generator: Generator) -> list[int]:
    """The shifts for which the answer on a long ring is a shifted one, found by trying."""
    places = math.lcm(q1, p * q2) * (limit // (p * q2) + 3)
    first, second = _filters(places, q1, generator), _filters(places // p, q2, generator)
    x = _random(places, generator=generator)

    def answer(x: Tensor) -> Tensor:
        return _on_ring(second, _on_ring(first, x).view(-1, p).amax(1))

    home = answer(x)
    return [
        s
        for s in range(1, limit + 1)
        if s % p == 0 and torch.allclose(answer(x.roll(s)), home.roll(s // p), rtol=0, atol=1e-9)
    ]


@property_of("13-3", hint=1)
def without_a_pool(working_shifts: Any, generator: Generator) -> None:
    """With p = 1 and one period it lists what a simulated ring shows."""
    q = _choose(1, 4, generator)
    expect_list(working_shifts(q, 1, q, 12), _simulated(q, 1, q, 12, generator), q1=q, p=1, q2=q)


@property_of("13-3", hint=2)
def with_a_pool_and_two_periods(working_shifts: Any, generator: Generator) -> None:
    """With pooling and two periods it lists what a simulated ring shows."""
    q1, p, q2 = _choose(1, 4, generator), _choose(2, 3, generator), _choose(1, 4, generator)
    expect_list(working_shifts(q1, p, q2, 40), _simulated(q1, p, q2, 40, generator), q1=q1, p=p, q2=q2)


def expect_list(got: Any, want: list[int], **given: Any) -> None:
    """Whole numbers, in any order."""
    if got is None or got is ...:
        raise Unanswered
    demand(isinstance(got, (list, tuple, set, range)), f"expected a list of shifts, got {type(got).__name__}", **given)
    demand(sorted(int(s) for s in got) == want, f"expected {want}\ngot      {sorted(got)}", **given)


# 13-4: shifts_to_show(n, q)


@property_of("13-4", hint=1)
def shifts_of_the_ring(shifts_to_show: Any, generator: Generator) -> None:
    """It is a list of different shifts from 0 to n − 1."""
    q, n = _ring(generator)
    got = shifts_to_show(n, q)
    if got is None or got is ...:
        raise Unanswered
    demand(isinstance(got, (list, tuple, set, range)), f"expected a list, got {type(got).__name__}", n=n, q=q)
    shifts = [int(s) for s in got]
    demand(len(set(shifts)) == len(shifts), "some shifts are shown twice", n=n, q=q)
    demand(all(0 <= s < n for s in shifts), f"got {shifts}", n=n, q=q)


@property_of("13-4", hint=2)
def every_neuron_learns_its_modules_sum(shifts_to_show: Any, generator: Generator) -> None:
    """Shown at these shifts, each neuron learns the sum over its module, and no more."""
    q, n = _ring(generator)
    G = _random(n, 3, generator=generator)
    learned = sum((G.roll(int(s), 0) for s in shifts_to_show(n, q)), torch.zeros_like(G))
    want = G.view(n // q, q, 3).sum(0).repeat(n // q, 1)
    expect(learned, want, n=n, q=q)


def _ring(generator: Generator) -> tuple[int, int]:
    q = _choose(2, 4, generator)
    return q, q * _choose(2, 5, generator)


# 13-5: shrinks_to(h, w, q)


def _after_sharing(h: int, w: int, q: int) -> float:
    """Mean over all places of the variance there, if each module of n places averages n kernels of variance 1."""
    total = 0.0
    for row in range(h):
        for column in range(w):
            rows, columns = len(range(row % q, h, q)), len(range(column % q, w, q))
            total += 1 / (rows * columns)
    return math.sqrt(total / (h * w))


@property_of("13-5", hint=1)
def where_q_divides_the_map(shrinks_to: Any, generator: Generator) -> None:
    """It is right where all modules are of the same size."""
    q = _choose(1, 4, generator)
    h, w = (q * _choose(1, 4, generator) for _ in range(2))
    expect(shrinks_to(h, w, q), _after_sharing(h, w, q), h=h, w=w, q=q)


@property_of("13-5", hint=2)
def where_it_does_not(shrinks_to: Any, generator: Generator) -> None:
    """It is right for any map, also one that is smaller than q."""
    h, w, q = _choose(1, 9, generator), _choose(1, 9, generator), _choose(1, 7, generator)
    expect(shrinks_to(h, w, q), _after_sharing(h, w, q), h=h, w=w, q=q)


# 13-6 (research): {number of places: [(at shown places, at others) of each seed]}, mean test accuracies in %


@property_of("13-6", hint=1)
def places_with_seeds(report: Any, generator: Generator) -> None:
    """The report is {number of places: [(at shown, at others) of each seed]}: accuracies in %, three numbers or
    more, three seeds."""
    demand_seeds(report, "number of places", ("at shown places", "at others"))


@property_of("13-6", hint=1)
def different_seeds(report: Any, generator: Generator) -> None:
    """The seeds of a number of places differ."""
    for count, values in report.items():
        demand(len({tuple(map(float, value)) for value in values}) > 1, f"{count} places: all seeds are the same")


@property_of("13-6", hint=2)
def it_is_known_where_it_was_shown(report: Any, generator: Generator) -> None:
    """On average it is known better where it was shown, and with most places the others are better off than with one
    or few."""
    for count, values in report.items():
        gap = sum(float(shown) - float(others) for shown, others in values) / len(values)
        demand(gap > 0, f"{count} places: {gap:.1f} points better where shown")
    few, many = ([float(v[1]) for v in report[pick(report)]] for pick in (min, max))
    gain = sum(many) / len(many) - sum(few) / len(few)
    demand(gain > 0, f"from {min(report)} to {max(report)} places the others gain {gain:.1f} points")
