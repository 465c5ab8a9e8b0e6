"""Chapter 06, training deep nets layer by layer. The formulas are written out anew here, independent of `rules`."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from biolearn_lite.show.exercises import Unanswered, demand, demand_seeds, expect, parts, property_of

# 06-1: leaks(scores, weights), all (k, l) with k ≠ l such that the score of layer k moves the weights of layer l


def _random(*shape: int, generator: Generator) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def _stack(generator: Generator, planted: set[tuple[int, int]]) -> tuple[list[Tensor], list[Tensor]]:
    """Scores and weights of four cut tanh layers; where (k, l) is planted, the score of layer k moves W_l, too.

    Every score has every weight in its graph, most of them times 0.
    """
    weights = [_random(3, 3, generator=generator).requires_grad_() for _ in range(4)]
    scores, x = [], _random(5, 3, generator=generator)
    for k, W in enumerate(weights):
        z = torch.tanh(x @ W.T)
        others = [weights[i].square().mean() * ((k, i) in planted) for i in range(4) if i != k]
        scores.append(z.square().mean() + torch.stack(others).sum())
        x = z.detach()
    return scores, weights


def _found(leaks: Any, scores: list[Tensor], weights: list[Tensor]) -> set[tuple[int, int]]:
    got = leaks(scores, weights)
    if got is None or got is ...:
        raise Unanswered
    demand(isinstance(got, (set, list, tuple)), f"expected a set of pairs (k, l), got {type(got).__name__}")
    return {(int(k), int(i)) for k, i in got}


_OTHERS = [(k, i) for k in range(4) for i in range(4) if k != i]


@property_of("06-1", hint=2)
def a_clean_stack_has_none(leaks: Any, generator: Generator) -> None:
    """Scores that move only their own weights have no leak; a derivative that exists and is 0 moves nothing."""
    found = _found(leaks, *_stack(generator, set()))
    demand(not found, f"there is no leak, but you found {sorted(found)}")


@property_of("06-1", hint=1)
def planted_leaks_are_found(leaks: Any, generator: Generator) -> None:
    """Exactly the planted leaks are found: upwards, downwards, neighbours or not."""
    which = torch.randperm(len(_OTHERS), generator=generator)[:3].tolist()
    planted = {_OTHERS[i] for i in which}
    found = _found(leaks, *_stack(generator, planted))
    demand(found == planted, f"expected {sorted(planted)}", found=sorted(found))


@property_of("06-1", hint=2)
def looking_changes_nothing(leaks: Any, generator: Generator) -> None:
    """After looking, the scores can still be differentiated, and no weight has a gradient stored."""
    scores, weights = _stack(generator, set())
    _found(leaks, scores, weights)
    demand(all(W.grad is None for W in weights), "a weight's .grad has been filled")
    try:
        torch.autograd.grad(sum(scores, torch.zeros(())), weights)
    except RuntimeError:
        demand(False, "the graph of a score is gone, it can not be differentiated again")


# 06-2: bill(depth, every), activities held at the peak and layers computed forward, for backprop with checkpoints


def _simulated(depth: int, every: int) -> tuple[int, int]:
    held: set[int] = set()
    peak = computed = 0
    for layer in range(1, depth + 1):
        computed += 1
        if layer % every == 0:
            held.add(layer)
            peak = max(peak, len(held))
    for top in range(depth, 0, -every):
        for layer in range(top - every + 1, top):
            computed += 1
            held.add(layer)
            peak = max(peak, len(held))
        held -= set(range(top - every + 1, top + 1))
    return peak, computed


def _bill_of(what: int) -> Any:
    def right(bill: Any, generator: Generator) -> None:
        every = int(torch.randint(1, 7, (), generator=generator))
        depth = every * int(torch.randint(1, 8, (), generator=generator))
        got = parts(bill(depth, every), "held", "computed")
        expect(got[what], _simulated(depth, every)[what], depth=depth, every=every)

    names = ("number of activities held at the worst moment", "number of layers computed forward")
    right.__doc__ = f"The {names[what]} is that of a simulation, layer after layer."
    return right


for _what in (0, 1):
    property_of("06-2", hint=_what + 1)(_bill_of(_what))


# 06-3: sent(z, groups, power, offset), r of a convolutional layer, (m, C, H, W)


def _maps(generator: Generator) -> Tensor:
    size = [int(torch.randint(2, 4, (), generator=generator)) for _ in range(2)]
    return 0.5 + _random(3, 8, *size, generator=generator)


@property_of("06-3", hint=1)
def the_shape_stays(sent: Any, generator: Generator) -> None:
    """What is sent has the shape of z."""
    z = _maps(generator)
    got = sent(z, 4, 0.5, 1.0)
    if got is None or got is ...:
        raise Unanswered
    demand(tuple(got.shape) == tuple(z.shape), f"z has shape {tuple(z.shape)}, the result {tuple(got.shape)}")


@property_of("06-3", hint=2)
def half_is_group_norm(sent: Any, generator: Generator) -> None:
    """At power ½ it is PyTorch's group norm, without its scale and shift."""
    z, groups = _maps(generator), int(2 ** torch.randint(0, 4, (), generator=generator))
    offset = float(torch.rand((), generator=generator)) + 0.5
    n_g = z[0].numel() / groups
    expect(sent(z, groups, 0.5, offset), F.group_norm(z, groups, eps=offset / n_g), groups=groups, offset=offset)


@property_of("06-3", hint=2)
def other_powers_are_eq_17(sent: Any, generator: Generator) -> None:
    """At another power it is z̃ / u^power, with the variance u of (13)."""
    z, power = _maps(generator), float(torch.rand((), generator=generator))
    want = torch.empty_like(z)
    for i in range(len(z)):
        for g in range(4):
            block = z[i, 2 * g : 2 * g + 2]
            u = (block - block.mean()).square().mean() + 1.0 / block.numel()
            want[i, 2 * g : 2 * g + 2] = (block - block.mean()) / u**power
    expect(sent(z, 4, power, 1.0), want, groups=4, power=power, offset=1.0)


# 06-4: gap_of_a_perfect_layer(shares), Eq. 71 for similarity 1 within and 0 between classes of these frequencies


@property_of("06-4", hint=1)
def nothing_for_equal_classes(gap: Any, generator: Generator) -> None:
    """For equally frequent classes it is 0."""
    n = int(torch.randint(2, 11, (), generator=generator))
    expect(gap(torch.full((n,), 1 / n, dtype=torch.float64)), 0.0, classes=n)


@property_of("06-4", hint=2)
def as_counted(gap: Any, generator: Generator) -> None:
    """It is what a table of examples with these frequencies gives: 2 Var(row means) / Var(all entries)."""
    counts = torch.randint(1, 12, (3,), generator=generator)
    counts[0] += 1 + counts[1]  # not all equal
    labels = torch.arange(3).repeat_interleave(counts)
    K = (labels[:, None] == labels).double()
    want = 2 * K.mean(1).var(correction=0) / K.var(correction=0)
    expect(gap(counts.double() / counts.sum()), want, counts=counts)


# 06-5: shard_score(own, gathered, rank, score), what one of several devices descends so that their mean is the whole


def _devices(generator: Generator) -> tuple[Tensor, Tensor, int]:
    count = int(torch.randint(2, 5, (), generator=generator))
    return _random(4 * count, 3, generator=generator), _random(2, 3, generator=generator), count


def _score(z: Tensor) -> Tensor:
    """A pairwise score that tells examples apart by their place, as labels do."""
    place = torch.arange(len(z), dtype=z.dtype)
    K = torch.exp(-(z[:, None] - z).square().sum(2) / 2)
    return (K * torch.cos(place[:, None] - place)).mean() + K.var()


def _gradient(score: Any, W: Tensor) -> Tensor:
    leaf = W.clone().requires_grad_()
    value = score(leaf)
    if value is None or value is ...:
        raise Unanswered
    demand(isinstance(value, Tensor) and value.ndim == 0, f"expected a scalar tensor, got {value!r:.60}")
    demand(value.requires_grad, "its derivative by the device's own activity is missing")
    (gradient,) = torch.autograd.grad(value, leaf)
    return gradient


@property_of("06-5", hint=1)
def it_sees_the_whole_batch(shard_score: Any, generator: Generator) -> None:
    """One device's derivative is proportional to its own examples' part of the whole batch's."""
    x, W, count = _devices(generator)
    shards = x.split(4)
    gathered = [torch.tanh(shard @ W.T) for shard in shards]
    rank = int(torch.randint(count, (), generator=generator))

    def mine(leaf: Tensor) -> Any:
        return shard_score(torch.tanh(shards[rank] @ leaf.T), gathered, rank, _score)

    def part(leaf: Tensor) -> Tensor:
        z = torch.cat(gathered).index_copy(0, torch.arange(4 * rank, 4 * rank + 4), torch.tanh(shards[rank] @ leaf.T))
        return _score(z)

    got, want = _gradient(mine, W), _gradient(part, W)
    expect(got / got.norm(), want / want.norm(), devices=count, rank=rank)


@property_of("06-5", hint=2)
def the_mean_is_the_whole(shard_score: Any, generator: Generator) -> None:
    """The mean of all devices' gradients is the gradient of the whole batch."""
    x, W, count = _devices(generator)
    shards = x.split(4)
    gathered = [torch.tanh(shard @ W.T) for shard in shards]

    def of(rank: int) -> Any:
        return lambda leaf: shard_score(torch.tanh(shards[rank] @ leaf.T), gathered, rank, _score)

    got = torch.stack([_gradient(of(rank), W) for rank in range(count)]).mean(0)
    expect(got, _gradient(lambda leaf: _score(torch.tanh(x @ leaf.T)), W), devices=count)


# 06-6 (research): {depth: [(untrained, learned) of each seed]}, solved readout of the top layer, test accuracy in %


@property_of("06-6", hint=1)
def depths_with_seeds(report: Any, generator: Generator) -> None:
    """The report is {depth: [(untrained, learned) of each seed]}: accuracies in %, three depths or more, three
    seeds each."""
    demand_seeds(report, "depth", ("untrained", "learned"))


@property_of("06-6", hint=1)
def different_starts(report: Any, generator: Generator) -> None:
    """Every seed is another start: the untrained networks of a depth differ."""
    for depth, values in report.items():
        demand(len({float(value[0]) for value in values}) > 1, f"depth {depth}: all untrained networks are the same")


@property_of("06-6", hint=2)
def learning_shows(report: Any, generator: Generator) -> None:
    """At every depth the learned networks are on average more than 3 points above the untrained ones."""
    for depth, values in report.items():
        gains = [float(learned) - float(untrained) for untrained, learned in values]
        gain = sum(gains) / len(gains)
        demand(gain > 3, f"depth {depth}: gain {gain:.2f} points")
