"""Learning through time without going back in time: eligibility traces in a gated recurrent layer (e-prop).

What a recurrent neuron does now depends on what it and its neighbours did before. Backprop through time runs the film
backwards to find out how; a brain cannot. e-prop keeps, at every synapse, a running answer to a smaller question: how
has *this* synapse moved *its own* neuron, directly and through the neuron's own memory?

A GRU has two gates r and z, a proposal n and a state h; block(h) is h without a gradient (003, Eq. 18-21):

    r_t = σ(W_ir x_t + W_hr block(h_{t-1}) + b)              n_t = tanh(W_in x_t + b + r_t ⋆ (W_hn block(h_{t-1}) + b))
    z_t = σ(W_iz x_t + W_hz block(h_{t-1}) + b)              h_t = (1 - z_t) ⋆ n_t + z_t ⋆ h_{t-1}

Blocked so, a synapse onto neuron j reaches later states by one road alone, j's memory z_j. Its trace is a leaky sum

    e_t = z_t e_{t-1} + (slope of h_t in the synapse's pre-activation) · pre_t

and with L_t, what the neuron is told now, minus the gradient of the loss with respect to h_t alone,

    ΔW = Σ_t L_t e_t.

That is exactly the gradient of the network above, found forwards. It is not that of the ordinary GRU: roads through
other neurons are left out, and so are those from a neuron through its own gates (`self_synapses` keeps these). In 003,
L_t is CLAPP's: surprise times the prediction, `predictive.clapp_signal(...).c`.

Local: a trace per synapse, from its own pre and post; what the neuron is told. Memory does not grow with time. Three
traces per pair of neurons are much to ask of a synapse, and each example of a batch needs its own.
"""

from typing import NamedTuple, final

import torch
from torch import Tensor, nn


class Gru(NamedTuple):
    """What belongs to the synapses of a GRU, as in `torch.nn.GRU`: rows r, z, n, one under the other.

    weight_ih: (3 · units, inputs). weight_hh: (3 · units, units). bias_ih, bias_hh: (3 · units,). Traces have one more
    axis, in front: (m, ...).
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor


class Gates(NamedTuple):
    """Gates and proposal, (m, units) each, and what arrives at the proposal from the layer itself, W_hn h + b."""

    r: Tensor
    z: Tensor
    n: Tensor
    recurrent: Tensor


def gates(x: Tensor, h: Tensor, weights: Gru) -> Gates:
    """Gates at an input (m, inputs) and a state (m, units). Source: 003, Eq. 18-20."""
    to_r, to_z, to_n = nn.functional.linear(x, weights.weight_ih, weights.bias_ih).chunk(3, -1)
    from_r, from_z, recurrent = nn.functional.linear(h, weights.weight_hh, weights.bias_hh).chunk(3, -1)
    r, z = torch.sigmoid(to_r + from_r), torch.sigmoid(to_z + from_z)
    return Gates(r, z, torch.tanh(to_n + r * recurrent), recurrent)


ROADS = ("bptt", "eprop", "cut")
"""Which wires between two moments carry errors back: all, those of a neuron to itself past its gates, none."""


def states(x: Tensor, weights: Gru, *, through: str = "eprop", h: Tensor | None = None) -> Tensor:
    """All states of a GRU, (m, T, units), whose gradient goes back in time by one of `ROADS`.

    Args:
        x: (m, T, inputs). h: the state before, (m, units); None: zeros.
        through: "eprop": block(h) in the gates, as above. "bptt": nothing is blocked, an ordinary GRU. "cut": the whole
            state is, so a moment knows nothing of what made it.

    Raises: ValueError. Source: 003, Eq. 18-21.
    """
    if through not in ROADS:
        raise ValueError(f"through={through!r}: choose from {', '.join(map(repr, ROADS))}")
    h, seen = _start(x, h, weights), []
    for x_t in x.unbind(1):
        heard = h if through == "bptt" else h.detach()
        kept = h.detach() if through == "cut" else h
        _, z, n, _ = gates(x_t, heard, weights)
        h = (1 - z) * n + z * kept
        seen.append(h)
    return torch.stack(seen, 1)


@final
class EPropGRU(nn.Module):
    """A GRU layer whose gradient is e-prop's: `torch.nn.GRU` with blocked gates, forward the same.

    Shape: x (m, T, inputs), h (m, units) or None for zeros → all states (m, T, units). Weights start as there,
    U(±1/√units). Raises: ValueError. Source: 003, Eq. 18-21.
    """

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh = nn.GRU(inputs, units).parameters()

    @property
    def weights(self) -> Gru:
        return Gru(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)

    def forward(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        return states(x, self.weights, h=h)


@torch.no_grad()
def trace_step(x: Tensor, h: Tensor, traces: Gru, weights: Gru, *, self_synapses: bool = False) -> tuple[Tensor, Gru]:
    """One moment: the new state (m, units), and the new trace of every synapse, ∂h_t/∂w along the roads that count.

    Args:
        x: (m, inputs), now. h: (m, units), before. traces: before; `no_traces` at first.
        self_synapses: also count how a neuron's state reaches its own gates, the diagonals of W_hr, W_hz and W_hn.

    Source: Bellec et al. 2020, for 003, Eq. 18-21.
    """
    r, z, n, recurrent = gates(x, h, weights)
    to_n = (1 - z) * (1 - n * n)  # ∂h_t/∂(pre-activation of n), and so on
    to_r = to_n * recurrent * r * (1 - r)
    to_z = (h - n) * z * (1 - z)
    by_input, by_state = torch.cat([to_r, to_z, to_n], -1), torch.cat([to_r, to_z, to_n * r], -1)
    kept = z
    if self_synapses:
        W_hr, W_hz, W_hn = (W.diagonal() for W in weights.weight_hh.chunk(3))
        kept = z + to_r * W_hr + to_z * W_hz + to_n * r * W_hn
    kept = torch.cat([kept] * 3, -1)
    now = Gru(torch.einsum("mj,mk->mjk", by_input, x), torch.einsum("mj,mk->mjk", by_state, h), by_input, by_state)
    leak = (kept.unsqueeze(-1), kept.unsqueeze(-1), kept, kept)
    return (1 - z) * n + z * h, Gru(*(a * e + new for a, e, new in zip(leak, traces, now, strict=True)))


def no_traces(m: int, weights: Gru) -> Gru:
    """Traces before anything has happened, zeros."""
    return Gru(*(weight.new_zeros(m, *weight.shape) for weight in weights))


@torch.no_grad()
def eprop_update(
    x: Tensor, signal: Tensor, weights: Gru, *, h: Tensor | None = None, self_synapses: bool = False
) -> Gru:
    """ΔW = Σ_t L_t e_t, forward in time and without autograd: `weight += rate * update.weight`, for each of the four.

    Args:
        x: (m, T, inputs). h: the state before, (m, units); None: zeros.
        signal: L_t, (m, T, units), what each neuron is told at each moment, -∂loss/∂h_t.
        self_synapses: as in `trace_step`.

    Returns: the negative gradient of the loss of `EPropGRU`. Raises: ValueError, for shapes that do not fit.
    Source: 003, appendix C, "Combining e-prop and CLAPP".
    """
    h = _start(x, h, weights)
    if signal.shape != (*x.shape[:2], h.shape[1]):
        raise ValueError(f"signal is {tuple(signal.shape)}: give (m, T, units) = {(*x.shape[:2], h.shape[1])}")
    traces = no_traces(len(x), weights)
    update = Gru(*(torch.zeros_like(weight) for weight in weights))
    for x_t, told in zip(x.unbind(1), torch.cat([signal] * 3, -1).unbind(1), strict=True):
        h, traces = trace_step(x_t, h, traces, weights, self_synapses=self_synapses)
        for total, e in zip(update, traces, strict=True):
            total += torch.einsum("mj,mj...->j...", told, e)
    return update


def _start(x: Tensor, h: Tensor | None, weights: Gru) -> Tensor:
    """The state before the first moment."""
    units, inputs = weights.weight_hh.shape[1], weights.weight_ih.shape[1]
    if x.dim() != 3 or x.shape[2] != inputs or x.numel() == 0:
        raise ValueError(f"x is {tuple(x.shape)}: give (m, T, inputs), with {inputs} inputs")
    if h is not None and h.shape != (len(x), units):
        raise ValueError(f"h is {tuple(h.shape)}: give (m, units) = {(len(x), units)}")
    return x.new_zeros(len(x), units) if h is None else h
