"""Chapter 12, robustness to deformation. Answers are held against a search over all ways, and against counts."""

from typing import Any

import torch
from torch import Generator, Tensor

from biolearn_lite.show.exercises import Unanswered, demand, expect, property_of


def _integer(low: int, high: int, generator: Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))


def _reader(generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    n, K = _integer(3, 8, generator), _integer(3, 6, generator)
    sizes: tuple[tuple[int, ...], ...] = ((n,), (K, n), (K,))
    e, V, b = (torch.randn(size, dtype=torch.float64, generator=generator) for size in sizes)
    return e, V, b


def _shortest(s: Tensor, V: Tensor) -> float:
    """The least L1 length of a step to a tie, over all rivals and units: a shortest step needs one unit only."""
    c = int(s.argmax())
    ways = [(s[c] - s[k]) / (V[c, n] - V[k, n]).abs() for k in set(range(len(s))) - {c} for n in range(V.shape[1])]
    return float(torch.stack(ways).min())


# 12-1: my_reach(s, V), the least L1 distance to a tie


@property_of("12-1", hint=1)
def it_is_the_shortest_way(my_reach: Any, generator: Generator) -> None:
    """It is the length of the shortest way to a tie with any rival, on any unit."""
    e, V, b = _reader(generator)
    s = V @ e + b
    expect(my_reach(s, V), _shortest(s, V), s=s, V=V)


@property_of("12-1", hint=2)
def it_follows_the_units(my_reach: Any, generator: Generator) -> None:
    """If all weights are halved and the scores stay as they are, the reach doubles."""
    e, V, b = _reader(generator)
    s = V @ e + b
    first = my_reach(s, V)
    if first is None or first is ...:
        raise Unanswered
    expect(my_reach(s, V / 2), 2 * first, s=s, V=V)


# 12-2: shortest_push(e, V, b), the step


def _push(shortest_push: Any, e: Tensor, V: Tensor, b: Tensor) -> Tensor:
    got = shortest_push(e.clone(), V, b)
    if got is None or got is ...:
        raise Unanswered
    got = torch.as_tensor(got, dtype=torch.float64)
    demand(got.shape == e.shape, f"e has shape {tuple(e.shape)}, the step {tuple(got.shape)}")
    return got


@property_of("12-2", hint=2)
def it_ends_at_a_tie(shortest_push: Any, generator: Generator) -> None:
    """After the step, the class that was said and the best rival have the same score."""
    e, V, b = _reader(generator)
    c = int((V @ e + b).argmax())
    s = V @ (e + _push(shortest_push, e, V, b)) + b
    rival = torch.cat([s[:c], s[c + 1 :]]).max()
    expect(s[c], rival, e=e, V=V, b=b)


@property_of("12-2", hint=1)
def no_shorter_one_does(shortest_push: Any, generator: Generator) -> None:
    """Its L1 length is the least possible."""
    e, V, b = _reader(generator)
    length = _push(shortest_push, e, V, b).abs().sum()
    expect(length, _shortest(V @ e + b, V), e=e, V=V, b=b)


# 12-3: may_differ(distances, rho, margin), from the mean pull


def _distances(generator: Generator) -> Tensor:
    return 3 * torch.rand(_integer(5, 40, generator), dtype=torch.float64, generator=generator)


@property_of("12-3", hint=1)
def it_is_attained(may_differ: Any, generator: Generator) -> None:
    """Where every distance is within the margin or exactly the reach, it is the share of the latter."""
    margin, rho = 1.0, 1.5 + float(torch.rand((), generator=generator))
    far = _integer(1, 9, generator)
    distances = torch.tensor([rho] * far + [margin / 2] * (10 - far), dtype=torch.float64)
    expect(may_differ(distances, rho, margin), far / 10, distances=distances, rho=rho, margin=margin)


@property_of("12-3", hint=2)
def it_knows_only_the_pull(may_differ: Any, generator: Generator) -> None:
    """Distances with the same mean pull get the same bound, and twice the pull twice as much, up to 1."""
    margin, rho, count = 1.0, 9.0, _integer(4, 12, generator)
    pull = 0.1 + torch.rand((), dtype=torch.float64, generator=generator)
    even = margin + pull.repeat(count)
    uneven = torch.full((count,), margin / 3, dtype=torch.float64)
    uneven[0] = margin + count * pull
    first = may_differ(even, rho, margin)
    expect(first, pull / 8, distances=even, rho=rho, margin=margin)
    expect(may_differ(uneven, rho, margin), first, distances=uneven, rho=rho, margin=margin)


@property_of("12-3", hint=1)
def it_is_a_bound_and_a_share(may_differ: Any, generator: Generator) -> None:
    """It is never below the share of distances of at least the reach, and never above 1; within the margin it is 1."""
    distances, margin = _distances(generator), 1.0
    for rho in (1.05, 1.5, 2.5):
        got = may_differ(distances, rho, margin)
        if got is None or got is ...:
            raise Unanswered
        least = float((distances >= rho).double().mean())
        demand(least - 1e-9 <= float(got) <= 1 + 1e-9, f"got {float(got):.3g}, expected {least:.3g} to 1", rho=rho)
    expect(may_differ(distances, 0.5, margin), 1.0, distances=distances, rho=0.5, margin=margin)


# 12-4: best_reader(counts), the best accuracy if families cannot be told apart within


def _by_trying(counts: Tensor) -> float:
    """Every way to name a class for each family."""
    choices = torch.cartesian_prod(*[torch.arange(counts.shape[1])] * len(counts)).reshape(-1, len(counts))
    right = counts[torch.arange(len(counts)), choices].sum(1)
    return float(right.max() / counts.sum())


@property_of("12-4", hint=1)
def nobody_does_better(best_reader: Any, generator: Generator) -> None:
    """It is the best of all ways to name one class per family."""
    families, classes = _integer(2, 5, generator), _integer(2, 4, generator)
    counts = torch.randint(0, 20, (families, classes), generator=generator).double()
    counts[0, 0] += 1
    expect(best_reader(counts), _by_trying(counts), counts=counts)


@property_of("12-4", hint=2)
def pure_families_are_free(best_reader: Any, generator: Generator) -> None:
    """If every family lies within a class, everything can be right."""
    counts = torch.diag(torch.randint(1, 20, (_integer(2, 5, generator),), generator=generator).double())
    expect(best_reader(counts), 1.0, counts=counts)
