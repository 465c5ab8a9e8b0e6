"""The one training loop of the book.

A rule is one scalar per block, and the gradient never crosses a block's edge. That is all the trainer knows: it asks
the schedule which blocks learn now, runs the blocks in order, and lets each one climb down its own scalar. Backprop is
the case of one block; a layer-wise rule is the case of many.

Two orders of execution give the same numbers (a test holds them equal):

- *streamed*: each block's backward pass comes right after its own forward pass, and its graph is gone before the next
  block runs. Memory does not grow with depth; nothing waits. The optimizers step together at the end.
- *summed*: all blocks run, the scalars are added, one backward pass follows. Memory grows with depth.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm.auto import tqdm

from biolearn_lite.training.checkpoint import Checkpoints, random_state, restore_random_state
from biolearn_lite.training.schedules import Schedule, Simultaneous


@dataclass(frozen=True)
class Batch:
    """What an objective may look at beside its block's activity."""

    inputs: Tensor
    labels: Tensor


Objective = Callable[[Tensor, Batch], Tensor]
"""`objective(seen, batch) -> scalar`. One that owns weights (a local readout) is an `nn.Module`."""


@dataclass(frozen=True)
class Explicit:
    """A rule as what its neurons are told, in place of an objective: no scalar, no autograd, nothing kept of others.

    `signal(z, batch)` has the shape of the activity z: the gain per unit of each neuron's rate, which is the negative
    gradient of the objective it stands for. The layer's synapses do the rest (`Layer.learn`). One layer per block.
    """

    signal: Callable[[Tensor, Batch], Tensor]

    def learn(self, block: nn.Module, x: Tensor, batch: Batch) -> Tensor:
        """Leave −ΔW where the optimizer looks for a gradient; return what the layer passes on."""
        (layer,) = cast(Sequence[Any], block.layers)
        dW, passed = layer.learn(x, lambda z: self.signal(z, batch))
        layer.op.weight.grad = dW.neg_()
        return cast(Tensor, passed)


Metrics = dict[str, Any]


def fit(
    network: nn.Module,
    objectives: Sequence[Objective | Explicit | None],
    inputs: Tensor,
    labels: Tensor,
    *,
    optimizers: Callable[[list[nn.Parameter]], Optimizer] | Sequence[Callable[[list[nn.Parameter]], Optimizer]],
    epochs: int,
    batch_size: int,
    seed: int = 0,
    schedule: Schedule | None = None,
    order: Literal["streamed", "summed"] = "streamed",
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    after_epoch: Callable[[int], Metrics] | None = None,
    checkpoints: Checkpoints | None = None,
    progress: bool = True,
) -> list[Metrics]:
    """Train every block of a network on its own objective.

    Args:
        network: has `blocks`, each returning `(seen, passed)`.
        objectives: one per block, a scalar to descend or an `Explicit` update; None for a block that never learns.
        inputs, labels: the training set, (n, ...) and (n,), on the network's device.
        optimizers: makes an optimizer from a list of parameters; one for all blocks or one per block.
        seed: of the order of examples and of dropout. The global random state is left as it was.
        scheduler: makes a learning-rate scheduler from an optimizer, stepped once per epoch.
        after_epoch: its result is merged into the epoch's metrics.
        checkpoints: where to keep the run; a call with the same arguments goes on from the newest one.

    Returns:
        One dict per epoch: `epoch` (from 1), `losses` (mean per block, None where there is none), and the rest.

    Raises:
        ValueError: lists of the wrong length, an unknown order. FloatingPointError: a loss that is not finite.
    """
    blocks = list(cast(Sequence[nn.Module], network.blocks))
    _check(blocks, objectives, inputs, labels, order)
    makers = list(optimizers) if isinstance(optimizers, Sequence) else [optimizers] * len(blocks)
    _same_length("optimizers", makers, blocks)
    learners = [_learner(*parts) for parts in zip(blocks, objectives, makers, strict=True)]
    rates = [scheduler(optimizer) for optimizer in learners if scheduler and optimizer]
    schedule = schedule or Simultaneous()
    generator = torch.Generator().manual_seed(seed)
    owners = [objective for objective in objectives if isinstance(objective, nn.Module)]
    parts = [network, *owners, *filter(None, learners), *rates, schedule]
    history: list[Metrics] = []
    step = 0
    network.train()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if checkpoints and (saved := checkpoints.load()):
            history, step = _restore(saved, parts, generator, checkpoints), saved["step"]
        for epoch in tqdm(range(len(history) + 1, epochs + 1), disable=not progress, desc="epochs", leave=False):
            totals = _Totals(len(blocks))
            for batch in batches(inputs, labels, batch_size=batch_size, generator=generator):
                active = [b for b in schedule.active(step, len(blocks)) if learners[b]]
                totals.add(_gradients(blocks, objectives, batch, active, order), len(batch.labels))
                for b in active:
                    optimizer = cast(Optimizer, learners[b])
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
                schedule.after_step(step, network)
                step += 1
            for rate in rates:
                rate.step()
            extra = after_epoch(epoch) if after_epoch else {}
            history.append({"epoch": epoch, "losses": totals.means(epoch)} | extra)
            network.train()
            if checkpoints:
                checkpoints.offer(_state(step, history, parts, generator), final=epoch == epochs)
    network.eval()
    return history


def _state(step: int, history: list[Metrics], parts: Sequence[Any], generator: torch.Generator) -> dict[str, Any]:
    """Everything that the rest of a run depends on."""
    states = [part.state_dict() for part in parts]
    return {
        "step": step,
        "history": history,
        "parts": states,
        "generator": generator.get_state(),
        "random": random_state(),
    }


def _restore(
    saved: dict[str, Any], parts: Sequence[Any], generator: torch.Generator, source: Checkpoints
) -> list[Metrics]:
    """Put every part back where it was; return the history."""
    try:
        for part, state in zip(parts, saved["parts"], strict=True):
            part.load_state_dict(state)
    except (ValueError, RuntimeError, KeyError) as error:
        raise ValueError(f"checkpoints: {source.folder} holds another run; give each run its own folder") from error
    generator.set_state(saved["generator"])
    restore_random_state(saved["random"])
    return list(saved["history"])


def batches(inputs: Tensor, labels: Tensor, *, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
    """All examples once, in a random order, the last batch perhaps short."""
    order = torch.randperm(len(labels), generator=generator).to(labels.device)
    for index in order.split(batch_size):
        yield Batch(inputs[index], labels[index])


def _gradients(
    blocks: list[nn.Module],
    objectives: Sequence[Objective | Explicit | None],
    batch: Batch,
    active: Collection[int],
    order: str,
) -> dict[int, Tensor]:
    """Fill the gradients of the active blocks; return their scalars."""
    losses: dict[int, Tensor] = {}
    x = batch.inputs
    for b, (block, objective) in enumerate(zip(blocks, objectives, strict=True)):
        if b in active and isinstance(objective, Explicit):
            x = objective.learn(block, x, batch)
            continue
        with torch.set_grad_enabled(b in active):
            seen, x = block(x)
            if b in active:
                losses[b] = cast(Objective, objective)(seen, batch)
                if order == "streamed":
                    losses[b].backward()
                    losses[b] = losses[b].detach()
        del seen
    if order == "summed" and losses:
        torch.stack(list(losses.values())).sum().backward()
    return {b: loss.detach() for b, loss in losses.items()}


class _Totals:
    """Mean loss of each block over an epoch, kept on the device until the epoch ends."""

    def __init__(self, num_blocks: int) -> None:
        self.sums: list[Tensor | None] = [None] * num_blocks
        self.counts = [0] * num_blocks

    def add(self, losses: dict[int, Tensor], examples: int) -> None:
        for b, loss in losses.items():
            total = self.sums[b]
            self.sums[b] = loss * examples if total is None else total + loss * examples
            self.counts[b] += examples

    def means(self, epoch: int) -> list[float | None]:
        means = [None if s is None else s.item() / n for s, n in zip(self.sums, self.counts, strict=True)]
        for b, mean in enumerate(means):
            if mean is not None and not math.isfinite(mean):
                raise FloatingPointError(
                    f"block {b} diverged in epoch {epoch}, mean loss {mean}: lower its learning rate"
                )
        return means


def _learner(
    block: nn.Module, objective: Objective | Explicit | None, make: Callable[[list[nn.Parameter]], Optimizer]
) -> Optimizer | None:
    """The optimizer of a block and of the weights its objective owns; None where nothing learns."""
    if objective is None:
        return None
    owned = list(objective.parameters()) if isinstance(objective, nn.Module) else []
    parameters = [*block.parameters(), *owned]
    return make(parameters) if parameters else None


def _check(
    blocks: list[nn.Module],
    objectives: Sequence[Objective | Explicit | None],
    inputs: Tensor,
    labels: Tensor,
    order: str,
) -> None:
    _same_length("objectives", objectives, blocks)
    for b, (block, objective) in enumerate(zip(blocks, objectives, strict=True)):
        layers = len(cast(Sequence[Any], block.layers))
        if isinstance(objective, Explicit) and layers != 1:
            raise ValueError(f"objectives[{b}]: an explicit update is for one layer, block {b} has {layers}; cut it")
    if len(inputs) != len(labels) or len(labels) == 0:
        raise ValueError(f"inputs ({len(inputs)}) and labels ({len(labels)}) must hold the same examples, at least one")
    if order not in ("streamed", "summed"):
        raise ValueError(f"order={order!r}: choose 'streamed' or 'summed'")


def _same_length(name: str, given: Sequence[object], blocks: Sequence[object]) -> None:
    if len(given) != len(blocks):
        raise ValueError(f"{name}: got {len(given)}, but the network has {len(blocks)} blocks; give one per block")
