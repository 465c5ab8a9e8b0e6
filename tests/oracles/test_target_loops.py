"""Difference targets, their losses and a whole training step against loops over floats."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from biolearn_lite.nets.layers import Layer, Linear
from biolearn_lite.nets.targets import DifferenceTargets, target_network
from biolearn_lite.rules.target_prop import difference_targets, target_update
from biolearn_lite.training.fit import fit
from oracles import target_loops as slow

SIZES, CLASSES, ETA = (4, 5, 3, 6), 3, 0.5


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def drawn():
    weights = [normal(above, below, seed=l) / 2 for l, (below, above) in enumerate(pairwise(SIZES))]
    inverses = [normal(*W.shape[::-1], seed=10 + l) / 2 for l, W in enumerate(weights[1:])]
    return weights, normal(CLASSES, SIZES[-1], seed=20) / 2, inverses


def lists(tensors):
    return [tensor.tolist() for tensor in tensors]


def squared_error(scores, batch):
    return (scores - nn.functional.one_hot(batch.labels, CLASSES)).square().sum() / 2


def test_targets_and_updates_equal_the_loops():
    weights, head, inverses = drawn()
    x = normal(SIZES[0], seed=30)
    seen = slow.forward(lists(weights), x.tolist())
    gradient, _ = slow.head_gradient(head.tolist(), seen[-1], 1)
    wanted = slow.targets(seen, lists(inverses), gradient, ETA)
    activities = [torch.tensor([z], dtype=torch.float64) for z in seen]
    maps = [lambda z, V=V: torch.tanh(z @ V.T) for V in inverses]
    found = difference_targets(activities, maps, torch.tensor([gradient], dtype=torch.float64), step=ETA)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one[0], torch.tensor(other, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    dW = target_update("dense", activities[0], weights[1], found[1], activation="tanh")
    by_hand = slow.local_update(weights[1].tolist(), seen[0], wanted[1])
    torch.testing.assert_close(dW, torch.tensor(by_hand, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("noise", [0.0, 0.7])
def test_training_steps_equal_the_loops(noise, monkeypatch):
    """Two whole steps through `training.fit`: targets come through the inverses as they were before each step, and the
    noise in what a layer sees is the noise in what its inverse should guess."""
    weights, head, inverses = drawn()
    data = [(normal(SIZES[0], seed=40 + n).tolist(), n % CLASSES) for n in range(4)]
    x, y = torch.tensor([x for x, _ in data], dtype=torch.float64), torch.tensor([label for _, label in data])
    noises = [[normal(4, width, seed=50 + l) for l, width in enumerate(SIZES[1:-1])] for _ in range(2)]
    network, objective = build(weights, head, inverses, noise)
    draws = [drawn_noise for of_step in noises for drawn_noise in of_step]
    order = []
    monkeypatch.setattr(torch, "randperm", lambda n, **_: order.append(n) or torch.arange(n))
    monkeypatch.setattr(torch.Tensor, "normal_", lambda self, std, generator: self.copy_(std * draws.pop(0)))
    rates = {"lr": 0.1}, {"lr": 0.4}

    def make(parameters):
        own = {id(p) for p in objective.inverses.parameters()}
        groups = [[p for p in parameters if (id(p) in own) == inverse] for inverse in (False, True)]
        return torch.optim.SGD([{"params": group} | rate for group, rate in zip(groups, rates, strict=True)])

    fit(network, [objective], x, y, optimizers=make, epochs=2, batch_size=4, progress=False)
    assert order == [4, 4]
    assert draws == [] or noise == 0
    expected = lists(weights), head.tolist(), lists(inverses)
    for of_step in noises:
        per_example = [[(noise * of_layer[n]).tolist() for of_layer in of_step] for n in range(4)]
        expected = slow.step(*copy.deepcopy(expected), per_example, data, ETA, 0.1, 0.4)
    found = (
        [layer.op.weight for layer in network.layers],
        [objective.head.weight],
        [g.op.weight for g in objective.inverses],
    )
    for one, other in zip(found, (expected[0], [expected[1]], expected[2]), strict=True):
        for W, by_hand in zip(one, other, strict=True):
            torch.testing.assert_close(W.data, torch.tensor(by_hand, dtype=torch.float64), rtol=1e-10, atol=1e-12)


def build(weights, head, inverses, noise):
    """The network of these weights, in float64, and its objective."""
    layers = [Layer(Linear(W.shape[1], W.shape[0], bias=False), activation=nn.Tanh()) for W in weights]
    network = target_network(layers).double()
    top = Linear(head.shape[1], head.shape[0], bias=False).double()
    objective = DifferenceTargets(network, SIZES[:1], top, squared_error, noise=noise, step=ETA)
    modules = [*(layer.op for layer in network.layers), top, *(g.op for g in objective.inverses)]
    with torch.no_grad():
        for module, W in zip(modules, [*weights, head, *inverses], strict=True):
            module.weight.copy_(W)
    return network, objective
