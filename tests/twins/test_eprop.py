"""e-prop in a GRU: forward traces against autograd, loops and backprop through time, and where they agree with it."""

import pytest
import torch
from oracles import eprop_loops as slow
from torch import nn

from biolearn_lite.rules.eprop import EPropGRU, Gru, eprop_update, no_traces, trace_step
from biolearn_lite.rules.predictive import clapp_hinge, clapp_signal

M, T, INPUTS, UNITS = 3, 6, 4, 5


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def layer(seed=1, scale=3.0):
    torch.manual_seed(seed)
    made = EPropGRU(INPUTS, UNITS).double()
    for weight in made.parameters():
        weight.data.mul_(scale)
    return made


def ordinary(gru):
    """PyTorch's own GRU with the same weights."""
    made = nn.GRU(INPUTS, UNITS, batch_first=True).double()
    made.load_state_dict({f"{name}_l0": weight for name, weight in gru.state_dict().items()})
    return made


def told(states):
    """A loss that looks at every state, and -∂loss/∂h_t with the other states held."""
    target = normal(*states.shape, seed=5)
    return (states - target).square().sum() / 2, (target - states).detach()


def gradients(loss, module):
    return [-g for g in torch.autograd.grad(loss, list(module.parameters()))]


def distance(a, b):
    a, b = (torch.cat([part.flatten() for part in parts]) for parts in (a, b))
    return ((a - b).norm() / b.norm()).item()


x, start = normal(M, T, INPUTS), normal(M, UNITS, seed=2)


@pytest.mark.parametrize("h", [None, start])
def test_update_equals_autograd_of_the_blocked_network(h):
    gru = layer()
    loss, signal = told(gru(x, h))
    found = eprop_update(x, signal, gru.weights, h=h)
    for dW, expected in zip(found, gradients(loss, gru), strict=True):
        torch.testing.assert_close(dW, expected, rtol=1e-10, atol=1e-12)


def test_forward_is_pytorchs():
    gru = layer()
    torch.testing.assert_close(gru(x, start), ordinary(gru)(x, start[None])[0])


def test_it_is_not_backprop_through_time_but_points_its_way():
    gru, full = layer(), ordinary(layer())
    states = full(x)[0]
    loss, signal = told(states)
    through_time = gradients(loss, full)
    found = eprop_update(x, signal, gru.weights)
    assert 0.05 < distance(found, through_time) < 0.9
    inner = sum((a * b).sum() for a, b in zip(found, through_time, strict=True))
    assert inner > 0


def test_without_roads_through_others_it_is_backprop_through_time():
    """One moment; no recurrent weights; and, with self-synapses, recurrent weights on the diagonal alone."""
    for moments, recurrent, own in ((1, "all", False), (T, "none", False), (T, "own", True)):
        gru = layer()
        eye = torch.eye(UNITS, dtype=torch.float64).repeat(3, 1)
        gru.weight_hh.data.mul_({"all": 1.0, "none": 0.0, "own": eye}[recurrent])
        full = ordinary(gru)
        loss, signal = told(full(x[:, :moments], start[None])[0])
        found = eprop_update(x[:, :moments], signal, gru.weights, h=start, self_synapses=own)
        for dW, expected, name in zip(found, gradients(loss, full), Gru._fields, strict=True):
            if recurrent == "own" and name == "weight_hh":  # its other synapses have roads of their own
                dW, expected = dW * eye, expected * eye
            torch.testing.assert_close(dW, expected, rtol=1e-10, atol=1e-12)
    others = eprop_update(x, signal, gru.weights, h=start)
    assert distance(others, found) > 0.01


def test_blocking_the_state_itself_is_another_rule():
    """What is kept, z h, is what makes a memory: the published code of Greedy InfoMax cuts it, too."""
    gru = layer()
    h, cut = start, []
    for x_t in x.unbind(1):
        h = gru(x_t[:, None], h.detach())[:, 0]
        cut.append(h)
    loss, signal = told(torch.stack(cut, 1))
    assert distance(gradients(loss, gru), eprop_update(x, signal, gru.weights, h=start)) > 0.1


@pytest.mark.parametrize("self_synapses", [False, True])
def test_update_equals_loops(self_synapses):
    gru, (xs, signal) = layer(), (x[:1], normal(1, T, UNITS, seed=8))
    rows = {
        kind: dict(zip((f"{kind[-2]}{gate}" for gate in "rzn"), getattr(gru, kind).detach().chunk(3), strict=True))
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    W, b = (
        {name: part.tolist() for kind in kinds for name, part in rows[kind].items()}
        for kinds in (("weight_ih", "weight_hh"), ("bias_ih", "bias_hh"))
    )
    dW, db = slow.updates(W, b, xs[0].tolist(), signal[0].tolist(), start[0].tolist(), self_synapses)
    found = eprop_update(xs, signal, gru.weights, h=start[:1], self_synapses=self_synapses)
    for part, source, loops in zip(found, ("i", "h", "i", "h"), (dW, dW, db, db), strict=True):
        expected = [row for gate in "rzn" for row in loops[source + gate]]
        torch.testing.assert_close(part, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)


def test_moments_can_be_taken_one_by_one():
    """State and traces are all that is carried: two halves are the whole."""
    gru, signal = layer(), normal(M, T, UNITS, seed=9)
    h, traces, total = start, no_traces(M, gru.weights), [torch.zeros_like(w) for w in gru.weights]
    for t in range(T):
        h, traces = trace_step(x[:, t], h, traces, gru.weights)
        tripled = signal[:, t].repeat(1, 3)
        steps = [torch.einsum("mj,mj...->j...", tripled, e) for e in traces]
        total = [dW + step for dW, step in zip(total, steps, strict=True)]
    torch.testing.assert_close(h, gru(x, start)[:, -1].detach())
    for dW, expected in zip(total, eprop_update(x, signal, gru.weights, h=start), strict=True):
        torch.testing.assert_close(dW, expected)


def test_clapp_tells_a_recurrent_layer():
    """003's combination: surprise times the prediction, merged with the traces of the context."""
    gru, z, y = layer(), normal(M, 7, seed=3), torch.tensor([1, -1, 1])
    W_pred = normal(7, UNITS, seed=4)
    states = gru(x)
    loss = clapp_hinge(states[:, -1], z, y, W_pred)
    signal = torch.zeros(M, T, UNITS, dtype=torch.float64)
    signal[:, -1] = clapp_signal(states[:, -1].detach(), z, y, W_pred).c
    for dW, expected in zip(eprop_update(x, signal, gru.weights), gradients(loss, gru), strict=True):
        torch.testing.assert_close(dW, expected, rtol=1e-10, atol=1e-12)


BAD = {
    "a flat input": (lambda: layer()(x[0]), r"x is \(6, 4\): give \(m, T, inputs\)"),
    "other inputs": (lambda: layer()(x[..., :3]), "with 4 inputs"),
    "no time": (lambda: layer()(x[:, :0]), r"\(3, 0, 4\)"),
    "another state": (lambda: layer()(x, start[:2]), r"h is \(2, 5\): give \(m, units\) = \(3, 5\)"),
    "a signal at the end": (lambda: eprop_update(x, start, layer().weights), r"signal is \(3, 5\)"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_named(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
