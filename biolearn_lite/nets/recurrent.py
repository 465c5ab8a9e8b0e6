"""A recurrent layer that hears of its mistakes through time, in part, or not at all.

A state reaches the next one by two kinds of wire. Into the gates and the proposal go wires from all neurons, and each
neuron has its own memory beside them (`rules.eprop`):

    r, z, n = gates(x_t, h_{t-1})                h_t = (1 - z) ⋆ n + z ⋆ h_{t-1}

Forward, both always carry the state. The *road* of a layer says which of them carry errors back:

- "bptt": both. Backprop through time in an ordinary GRU, `torch.nn.GRU`; the whole past must be stored.
- "eprop": a neuron's own memory alone. e-prop, which `rules.eprop.eprop_update` finds forwards, trace by trace.
- "cut": neither. A moment knows its own input and takes the state before it as given, whoever made it. Nothing
  need be remembered (`--remove_BPTT` in the published code of Greedy InfoMax, to which 003 compares).

Here the roads are those of autograd, which stores the past for all of them; so the three differ in their gradient, and
in nothing else. Chapter 11.
"""

from typing import Any, cast, final

import torch
from torch import Tensor, nn

from biolearn_lite.rules.eprop import ROADS, EPropGRU, Gru, states


@final
class RecurrentBlock(nn.Module):
    """A GRU layer as a block: x (m, T, inputs) → `(seen, passed)`, all states (m, T, units) with and without a graph.

    Args:
        through: the road of its errors, one of `ROADS`. It may be changed at any time: the forward pass is the same.

    Weights are drawn as in `torch.nn.GRU`, the same for every road. Raises: ValueError.
    """

    def __init__(self, inputs: int, units: int, *, through: str = "eprop") -> None:
        super().__init__()
        if through not in ROADS:
            raise ValueError(f"through={through!r}: choose from {', '.join(map(repr, ROADS))}")
        self.gru, self.through = EPropGRU(inputs, units), through

    @property
    def weights(self) -> Gru:
        return self.gru.weights

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        seen = states(x, self.weights, through=self.through)
        return seen, seen.detach()

    def extra_repr(self) -> str:
        return f"through={self.through!r}"


@final
class RecurrentNetwork(nn.Module):
    """A row of recurrent blocks: `network(x)` is all states of the top one, (m, T, units)."""

    def __init__(self, blocks: list[RecurrentBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            seen, x = cast(RecurrentBlock, block)(x)
        return cast(Tensor, seen)


def recurrent_network(inputs: int, units: int, *, through: str, seed: int = 0) -> RecurrentNetwork:
    """One recurrent block as a network, for `training.fit`; the seed alone decides the weights, not the road."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return RecurrentNetwork([RecurrentBlock(inputs, units, through=through)])


@final
class LastState(nn.Module):
    """What was it? A linear readout of the last state, and an objective: cross-entropy, asked once, at the end.

    `scores(seen)`: all states (m, T, units) → (m, classes). Nobody is told anything at an earlier moment.
    """

    def __init__(self, units: int, classes: int, *, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(_READOUT + seed)
            self.readout = nn.Linear(units, classes)

    def scores(self, seen: Tensor) -> Tensor:
        return cast(Tensor, self.readout(seen[:, -1]))

    def forward(self, seen: Tensor, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(self.scores(seen), batch.labels)


_READOUT = 11_000_003
"""Keeps the readout's random numbers apart from those of a network with the same seed."""
