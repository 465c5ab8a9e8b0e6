"""Recurrent blocks: one forward pass, three roads of the errors, each equal to what it says it is."""

import pytest
import torch
from torch import nn
from torch.optim import SGD

from biolearn_lite.nets.recurrent import LastState, RecurrentBlock, RecurrentNetwork, recurrent_network
from biolearn_lite.rules.eprop import ROADS, eprop_update, states
from biolearn_lite.training.fit import Batch, fit

M, T, INPUTS, UNITS, CLASSES = 4, 6, 3, 5, 3


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


x, start, labels = normal(M, T, INPUTS), normal(M, UNITS, seed=2), torch.tensor([0, 1, 2, 1])


def block(through):
    made = recurrent_network(INPUTS, UNITS, through=through, seed=1).double().blocks[0]
    for weight in made.parameters():
        weight.data.mul_(3)
    return made


def ordinary():
    """PyTorch's own GRU with the same weights."""
    made = nn.GRU(INPUTS, UNITS, batch_first=True).double()
    for weight, same in zip(made.parameters(), block("bptt").weights, strict=True):
        weight.data.copy_(same)
    return made


def told(seen):
    """A loss that looks at every state, and -∂loss/∂h_t with the other states held."""
    target = normal(*seen.shape, seed=5)
    return (seen - target).square().sum() / 2, (target - seen).detach()


def gradient(loss, weights):
    return torch.cat([-part.flatten() for part in torch.autograd.grad(loss, list(weights))])


def by(road, moments=T):
    """The update of a layer by a road, from a loss at every moment."""
    layer = block(road)
    return gradient(told(states(x[:, :moments], layer.weights, through=road, h=start))[0], layer.weights)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def distance(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("road", ROADS)
def test_the_forward_pass_is_pytorchs_on_every_road(road):
    close(states(x, block(road).weights, through=road, h=start), ordinary()(x, start[None])[0])
    close(block(road)(x)[0], ordinary()(x)[0])


def test_the_whole_road_is_backprop_through_time():
    gru = ordinary()
    close(by("bptt"), gradient(told(gru(x, start[None])[0])[0], gru.parameters()))


def test_the_road_of_each_neuron_s_memory_is_eprop():
    layer = block("eprop")
    signal = told(ordinary()(x, start[None])[0])[1]
    update = eprop_update(x, signal, layer.weights, h=start)
    close(by("eprop"), torch.cat([part.flatten() for part in update]))


def test_the_cut_road_takes_every_state_as_given():
    """Every moment is a sequence of its own, that starts from a state nobody asks about."""
    layer, h, total = block("cut"), start, 0.0
    target = normal(M, T, UNITS, seed=5)
    for t, x_t in enumerate(x.unbind(1)):
        now = states(x_t[:, None], layer.weights, through="bptt", h=h.detach())[:, 0]
        total, h = total + (now - target[:, t]).square().sum() / 2, now
    close(by("cut"), gradient(total, layer.weights))


def test_the_roads_differ_but_for_a_single_moment():
    bptt, eprop, cut = map(by, ROADS)
    assert 0.05 < distance(eprop, bptt) < distance(cut, bptt)
    assert distance(cut, eprop) > 0.1
    for road in ROADS:
        close(by(road, 1), by("bptt", 1))


def test_the_seed_alone_decides_the_weights():
    before = torch.get_rng_state()
    made = [recurrent_network(INPUTS, UNITS, through=road, seed=3).state_dict() for road in ROADS]
    other = recurrent_network(INPUTS, UNITS, through="bptt", seed=4).state_dict()
    readouts = [LastState(UNITS, CLASSES, seed=seed).readout.weight for seed in (3, 3, 4)]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], made[0][name]) for one in made for name in one)
    assert not any(torch.equal(made[0][name], other[name]) for name in other)
    assert torch.equal(readouts[0], readouts[1])
    assert not torch.equal(readouts[0], readouts[2])
    assert max(weight.abs().max() for weight in made[0].values()) <= UNITS**-0.5


def test_a_step_of_fit_is_a_step_of_eprop():
    """The layer's weights move by rate times ΔW, with what the readout tells the last state and nothing before."""
    network, objective = recurrent_network(INPUTS, UNITS, through="eprop", seed=1), LastState(UNITS, CLASSES, seed=1)
    network, objective = network.double(), objective.double()
    weights = network.blocks[0].weights
    before = [weight.detach().clone() for weight in weights]
    signal = torch.zeros(M, T, UNITS, dtype=torch.float64)
    with torch.no_grad():
        missing = nn.functional.one_hot(labels, CLASSES) - objective.scores(network(x)).softmax(1)
        signal[:, -1] = missing @ objective.readout.weight / M
        update = eprop_update(x, signal, weights)
    fit(network, [objective], x, labels, optimizers=lambda p: SGD(p, 0.5), epochs=1, batch_size=M, progress=False)
    for now, then, dW in zip(weights, before, update, strict=True):
        close(now.detach(), then + 0.5 * dW)


def test_the_readout_asks_about_the_last_state_alone():
    objective, seen = LastState(UNITS, CLASSES).double(), normal(M, T, UNITS).requires_grad_()
    loss = objective(seen, Batch(x, labels))
    close(loss, nn.functional.cross_entropy(objective.readout(seen[:, -1]), labels))
    (asked,) = torch.autograd.grad(loss, seen)
    assert (asked[:, -1].norm(dim=1) > 0).all()
    assert (asked[:, :-1] == 0).all()


def test_a_block_passes_on_its_states_without_a_graph():
    seen, passed = block("bptt")(x)
    assert seen.requires_grad
    assert not passed.requires_grad
    assert torch.equal(seen, passed)
    lower, upper = RecurrentBlock(INPUTS, UNITS), RecurrentBlock(UNITS, 2)
    RecurrentNetwork([lower, upper])(x.float()).sum().backward()
    assert all(weight.grad is None for weight in lower.parameters())
    assert all(weight.grad.norm() > 0 for weight in upper.parameters())


BAD = {
    "a road": (lambda: RecurrentBlock(3, 5, through="rtrl"), r"through='rtrl': choose from 'bptt', 'eprop', 'cut'"),
    "a road of states": (lambda: states(x, block("cut").weights, through=""), "through=''"),
    "a flat input": (lambda: block("cut")(x[0]), r"x is \(6, 3\): give \(m, T, inputs\), with 3 inputs"),
    "other inputs": (lambda: block("eprop")(x[..., :2]), "with 3 inputs"),
    "no time": (lambda: block("bptt")(x[:, :0]), r"\(4, 0, 3\)"),
    "another state": (
        lambda: states(x, block("bptt").weights, through="bptt", h=start[:2]),
        r"h is \(2, 5\): give \(m, units\) = \(4, 5\)",
    ),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_named(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
