"""Three or more wrong answers to each exercise of chapter 06, the likely ones; each must be told why it is wrong."""

import torch
import torch.nn.functional as F


def _moves(score, W):
    (g,) = torch.autograd.grad(score, [W], retain_graph=True, allow_unused=True)
    return g


def leaks_by_existence(scores, weights):  # a derivative of 0 counts
    n = len(weights)
    return {(k, i) for k in range(n) for i in range(n) if i != k and _moves(scores[k], weights[i]) is not None}


def _nonzero(scores, weights, pairs):
    return {(k, i) for k, i in pairs if (g := _moves(scores[k], weights[i])) is not None and g.any()}


def leaks_of_neighbours(scores, weights):
    n = len(weights)
    return _nonzero(scores, weights, [(k, i) for k in range(n) for i in range(n) if abs(k - i) == 1])


def leaks_from_above(scores, weights):
    n = len(weights)
    return _nonzero(scores, weights, [(k, i) for k in range(n) for i in range(k)])


def leaks_with_own(scores, weights):
    n = len(weights)
    return _nonzero(scores, weights, [(k, i) for k in range(n) for i in range(n)])


def leaks_the_other_way_round(scores, weights):
    n = len(weights)
    pairs = [(k, i) for k in range(n) for i in range(n) if i != k]
    return {(i, k) for k, i in _nonzero(scores, weights, pairs)}


def leaks_with_traces(scores, weights):
    found = set()
    for k, score in enumerate(scores):
        score.backward(retain_graph=True)
        found |= {(k, i) for i, W in enumerate(weights) if i != k and W.grad is not None and W.grad.any()}
        for W in weights:
            W.grad = torch.zeros_like(W)
    return found


def _groups(z, groups):
    return z.reshape(len(z), groups, -1)


def sent_with_a_loud_offset(z, groups, power, offset):
    g = _groups(z, groups)
    d = g - g.mean(2, keepdim=True)
    return (d / (d.square().mean(2, keepdim=True) + offset) ** power).view_as(z)


def sent_uncentred(z, groups, power, offset):
    g = _groups(z, groups)
    u = g.var(2, keepdim=True, correction=0) + offset / g.shape[2]
    return (g / u**power).view_as(z)


def sent_with_n_minus_1(z, groups, power, offset):
    g = _groups(z, groups)
    u = g.var(2, keepdim=True) + offset / g.shape[2]
    return ((g - g.mean(2, keepdim=True)) / u**power).view_as(z)


def sent_position_by_position(z, groups, power, offset):
    g = z.reshape(len(z), groups, -1, *z.shape[2:])
    d = g - g.mean(2, keepdim=True)
    u = d.square().mean(2, keepdim=True) + offset / g.shape[2]
    return (d / u**power).view_as(z)


def sent_half(z, groups, power, offset):
    return F.group_norm(z, groups, eps=offset * groups / z[0].numel())


def sent_flat(z, groups, power, offset):
    return sent_half(z, groups, power, offset).flatten(1)


def shard_alone(own, gathered, rank, score):
    return score(own)


def shard_in_sum(own, gathered, rank, score):  # their sum is the whole, their mean is not
    return score(torch.cat([own if i == rank else z for i, z in enumerate(gathered)]))


def shard_in_front(own, gathered, rank, score):
    others = [z for i, z in enumerate(gathered) if i != rank]
    return len(gathered) * score(torch.cat([own, *others]))


def shard_without_itself(own, gathered, rank, score):
    return len(gathered) * score(torch.cat(gathered))


def shard_twice(own, gathered, rank, score):
    return len(gathered) * score(torch.cat([*gathered, own]))


def perfect_unweighted(shares):
    every = (shares**2).sum()
    return 2 * shares.var(correction=0) / (every - every**2)


def perfect_once(shares):
    every = (shares**2).sum()
    return ((shares**3).sum() - every**2) / (every - every**2)


def perfect_of_hsic(shares):
    every = (shares**2).sum()
    spread = 2 * ((shares**3).sum() - every**2)
    return spread / (every - every**2 - spread)


WRONG = {
    "06-1": [
        leaks_by_existence,
        leaks_of_neighbours,
        leaks_from_above,
        leaks_with_own,
        leaks_the_other_way_round,
        leaks_with_traces,
        lambda scores, weights: set(),
    ],
    "06-2": [
        lambda depth, every: (depth, depth),  # no checkpoints
        lambda depth, every: (depth // every + every, 2 * depth - depth // every),  # the top one counted twice
        lambda depth, every: (depth // every + every - 1, 2 * depth),  # checkpoints computed again
        lambda depth, every: (depth // every, 2 * depth - depth // every),  # nobody holds the segment
        lambda depth, every: (1, depth),  # a layer that learns alone
    ],
    "06-3": [
        sent_with_a_loud_offset,
        sent_uncentred,
        sent_with_n_minus_1,
        sent_position_by_position,
        sent_half,
        sent_flat,
    ],
    "06-4": [perfect_unweighted, perfect_once, perfect_of_hsic, lambda shares: 0.0],
    "06-5": [shard_alone, shard_in_sum, shard_in_front, shard_without_itself, shard_twice],
    "06-6": [
        {1: [(80, 93), (81, 94), (79, 93)], 2: [(78, 94), (80, 93), (79, 94)]},  # two depths
        {d: [(80, 93), (81, 94)] for d in (1, 2, 4)},  # two seeds
        {d: [(80, 93)] * 3 for d in (1, 2, 4)},  # one start
        {d: [(0.80, 0.93), (0.81, 0.94), (0.79, 0.93)] for d in (1, 2, 4)},  # not in %
        {d: [(80, 81), (81, 81), (79, 80)] for d in (1, 2, 4)},  # nothing learned
        {d: [80, 81, 82] for d in (1, 2, 4)},  # no baseline
    ],
}
