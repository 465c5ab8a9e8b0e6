"""Several seeds at once: networks that differ only in their numbers are one network with one more axis.

A result without its spread over seeds says little, and a small network leaves a processor idle between its operations.
So S networks are *stacked*: every weight gets a leading axis, `torch.func.vmap` runs a block once for all of them, each
seed reads the examples in an order of its own, and an objective is evaluated per seed and summed,

    L = L₁(W₁) + … + L_S(W_S),        ∂L/∂W_s = ∂L_s/∂W_s,

so every seed takes the steps it would have taken alone. The trainer sees a network with blocks and objectives as ever.

This needs optimizers that treat every number by itself (SGD, Adam); whatever looks at a norm over weights would mix the
seeds. Where layers draw (dropout), a seed draws other numbers than it would alone, by the same law.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from biolearn_lite.training.fit import Batch, Explicit, Maker, Metrics, Objective, fit

ELEMENTWISE = ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Rprop", "Adagrad", "Adadelta", "ASGD")
"""The optimizers of `torch.optim` whose step for a number depends on that number's own gradients alone."""

SMALL = 100_000
"""Weights of a network up to which a CPU trains five seeds at least as fast at once (`benchmarks/seeds.py`)."""


def fit_seeds(
    networks: Sequence[nn.Module],
    objectives: Sequence[Objective | Explicit | None],
    inputs: Tensor,
    labels: Tensor,
    *,
    seeds: Sequence[int],
    optimizers: Maker | Sequence[Maker],
    epochs: int,
    batch_size: int,
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    after_epoch: Callable[[int, int], Metrics] | None = None,
    progress: bool = True,
    together: bool | None = None,
) -> list[list[Metrics]]:
    """Train networks of one architecture, one per seed, in place; like as many calls of `training.fit.fit`.

    Args:
        networks, seeds: as many of the one as of the other.
        objectives: one per block, shared by the seeds: none that owns weights.
        after_epoch: (index of a network, epoch) ↦ what is merged into that network's metrics.
        together: all at once, or one after the other. None: what is faster, at once up to `SMALL` or on a GPU.

    Returns: each network's history. Other arguments: as `fit`.
    Raises: ValueError: what does not match, or cannot be stacked. FloatingPointError: as `fit`, for any of the seeds.
    """
    _check(networks, objectives, seeds)
    options: Any = {"epochs": epochs, "batch_size": batch_size, "scheduler": scheduler, "progress": progress}
    told = [partial(after_epoch, s) if after_epoch else _nothing for s in range(len(seeds))]
    if together is None:
        together = inputs.is_cuda or sum(map(torch.numel, networks[0].parameters())) <= SMALL
    if not together or len(seeds) == 1:
        return [
            fit(network, objectives, inputs, labels, optimizers=optimizers, seed=seed, after_epoch=tell, **options)
            for network, seed, tell in zip(networks, seeds, told, strict=True)
        ]
    each = [objective if objective is None else _Each(objective) for objective in objectives]
    makers = [_elementwise(make) for make in (optimizers if isinstance(optimizers, Sequence) else [optimizers])]

    def tell_all(epoch: int) -> Metrics:
        losses = [objective.means() if objective else [None] * len(seeds) for objective in each]
        return {"seeds": [{"losses": list(own)} | tell(epoch) for *own, tell in zip(*losses, told, strict=True)]}

    history = fit(
        Stacked(networks),
        each,
        inputs,
        labels,
        optimizers=makers if isinstance(optimizers, Sequence) else makers[0],
        seed=seeds,
        after_epoch=tell_all,
        **options,
    )
    for network in networks:
        network.eval()
    return [[{"epoch": epoch["epoch"]} | epoch["seeds"][s] for epoch in history] for s in range(len(seeds))]


@final
class Stacked(nn.Module):
    """Networks of one architecture as one: every weight has a leading axis, and so have inputs, `seen` and `passed`.

    The networks stay alive: their weights become slices of the stacked ones, so each can be asked at any time.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        same_place = zip(*(cast(Sequence[nn.Module], network.blocks) for network in networks), strict=True)
        self.blocks = nn.ModuleList(StackedBlock(blocks) for blocks in same_place)


@final
class StackedBlock(nn.Module):
    """The same block of every network: (S, m, ...) ↦ `(seen, passed)`, each with a leading axis of length S."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.block = copy.deepcopy(blocks[0])
        for stacked, *each in zip(_tensors(self.block), *map(_tensors, blocks), strict=True):
            stacked.data = torch.stack([tensor.detach() for tensor in each])
            for s, tensor in enumerate(each):
                tensor.data = stacked.data[s]

    @property
    def layers(self) -> Any:
        return self.block.layers

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        def run(state: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
            return cast(tuple[Tensor, Tensor], functional_call(self.block, state, (x,)))

        state = dict(self.block.named_parameters()) | dict(self.block.named_buffers())
        return vmap(run, randomness="different")(state, x)


class _Each:
    """An objective, evaluated for every seed: the sum of their scalars, and each one's mean over an epoch."""

    def __init__(self, objective: Objective | Explicit) -> None:
        if isinstance(objective, Explicit) or hasattr(objective, "prepare"):
            raise ValueError(f"{objective} does not act on one block's scalar alone: train with together=False")
        self.objective = objective
        self.total, self.examples = torch.zeros(()), 0

    def __call__(self, seen: Tensor, batch: Batch) -> Tensor:
        def one(seen: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
            return self.objective(seen, Batch(inputs, labels))

        losses: Tensor = vmap(one, randomness="different")(seen, batch.inputs, batch.labels)
        examples = batch.labels.shape[1]
        self.total, self.examples = self.total + examples * losses.detach(), self.examples + examples
        return losses.sum()

    def means(self) -> list[float]:
        """Each seed's mean loss per example since the last call."""
        means: list[float] = (self.total / self.examples).tolist()
        self.total, self.examples = torch.zeros(()), 0
        return means


def _nothing(epoch: int) -> Metrics:
    return {}


def _tensors(block: nn.Module) -> list[Tensor]:
    return [*block.parameters(), *block.buffers()]


def _elementwise(make: Maker) -> Maker:
    def made(parameters: list[nn.Parameter]) -> Optimizer:
        optimizer = make(parameters)
        if type(optimizer) not in [getattr(torch.optim, name) for name in ELEMENTWISE]:
            name = type(optimizer).__name__
            raise ValueError(f"optimizers: {name} may mix the seeds' weights in a step: train with together=False")
        return optimizer

    return made


def _check(networks: Sequence[nn.Module], objectives: Sequence[object], seeds: Sequence[int]) -> None:
    if len(networks) != len(seeds) or not seeds:
        raise ValueError(f"{len(networks)} networks and {len(seeds)} seeds: give one seed per network, at least one")
    tensors = [tensor for network in networks for tensor in _tensors(network)]
    if len({tensor.data_ptr() for tensor in tensors}) < len(tensors):
        raise ValueError("networks: two of them share weights; build one per seed")
    for s, network in enumerate(networks):
        if repr(network) != repr(networks[0]):
            raise ValueError(f"networks[{s}] is another architecture than networks[0]:\n{network}\n{networks[0]}")
    for b, objective in enumerate(objectives):
        if isinstance(objective, nn.Module) and list(objective.parameters()):
            raise ValueError(f"objectives[{b}] owns weights, which the seeds would share: call fit once per seed")
