"""The one training loop of the book.

A rule is one scalar per block, and the gradient never crosses a block's edge. That is all the trainer knows: it asks
the schedule which blocks learn now, runs the blocks in order, and lets each one climb down its own scalar. Backprop is
the case of one block; a layer-wise rule is the case of many. What happens within a step is on the page `training.step`.

A run can be killed at any moment and goes on as if nothing had happened (`training.checkpoint`), and several processes
can share it (`training.distributed`).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm.auto import tqdm

from biolearn_lite.training.checkpoint import Checkpoints, random_state, restore_random_state
from biolearn_lite.training.distributed import from_first, is_first, joined
from biolearn_lite.training.metrics import Losses, Metrics, write_log
from biolearn_lite.training.schedules import Schedule, Simultaneous
from biolearn_lite.training.step import Batch, Explicit, Objective, Order, Precision, Step

__all__ = ["Batch", "Explicit", "Maker", "Metrics", "Objective", "batches", "fit"]

Maker = Callable[[list[nn.Parameter]], Optimizer]


def fit(
    network: nn.Module,
    objectives: Sequence[Objective | Explicit | None],
    inputs: Tensor,
    labels: Tensor,
    *,
    optimizers: Maker | Sequence[Maker],
    epochs: int,
    batch_size: int,
    seed: int | Sequence[int] = 0,
    schedule: Schedule | None = None,
    order: Order = "streamed",
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    clip_norm: float | None = None,
    autocast: torch.dtype | None = None,
    channels_last: bool = False,
    compile: bool = False,
    after_epoch: Callable[[int], Metrics] | None = None,
    checkpoints: Checkpoints | None = None,
    log: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> list[Metrics]:
    """Train every block of a network on its own objective.

    Args:
        network: has `blocks`, each returning `(seen, passed)`.
        objectives: one per block, a scalar to descend or an `Explicit` update; None for a block that never learns.
        inputs, labels: the training set, (n, ...) and (n,), on the network's device.
        optimizers: makes an optimizer, of any groups, from a list of parameters; one for all blocks or one per block.
        seed: of the order of examples and of dropout; several, for networks that were stacked (`training.seeds`). The
            global random state is left as it was.
        schedule: which blocks learn when; by default all at every step. order: see `training.step`.
        scheduler: makes a learning-rate scheduler from an optimizer; it counts the epochs in which the block learned.
        clip_norm: the greatest norm of the gradients of all blocks that learn in a step, taken together.
        autocast: torch.bfloat16 or torch.float16, the precision in which blocks run; objectives see float32.
        channels_last: lay out images and kernels so. compile: run the blocks through `torch.compile`.
        after_epoch: its result is merged into the epoch's metrics.
        checkpoints: where to keep the run; a call with the same arguments goes on from the newest one, one with
            other options is refused. Not compared are the examples, the network's sizes, and the objectives' options.
        log: a file that holds what is returned, one line of JSON per epoch.

    Returns:
        One dict per epoch: `epoch` (from 1), `losses` (mean per block, None where there is none), and the rest.

    Raises:
        ValueError: lists of the wrong length, options that do not exist or that a module refuses (`check_training`).
        FloatingPointError: a loss that is not finite, with its block and step (counted from 0).
    """
    blocks = list(cast(Sequence[nn.Module], network.blocks))
    precision = Precision(autocast, inputs.device)
    _check(blocks, objectives, inputs, labels, batch_size, order, clip_norm, autocast)
    makers = list(optimizers) if isinstance(optimizers, Sequence) else [optimizers] * len(blocks)
    _same_length("optimizers", makers, blocks)
    learners = [_learner(*parts, clip_norm) for parts in zip(blocks, objectives, makers, strict=True)]
    rates = {b: scheduler(learner) for b, learner in enumerate(learners) if scheduler and learner}
    schedule = schedule or Simultaneous()
    seeds = [seed] if isinstance(seed, int) else seed
    generators = [torch.Generator().manual_seed(one) for one in seeds]
    owners = [objective for objective in objectives if isinstance(objective, nn.Module)]
    parts = [network, *owners, *filter(None, learners), *rates.values(), schedule, precision.scaler]
    losses = Losses(["update's norm" if isinstance(objective, Explicit) else "loss" for objective in objectives])
    history: list[Metrics] = []
    step, layout = 0, _lay_out(network, inputs) if channels_last else torch.preserve_format
    run = [cast(nn.Module, torch.compile(block)) if compile else block for block in blocks]
    steps = epochs * -(-len(labels) // batch_size)
    bar = tqdm(total=steps, disable=not (progress and is_first()), leave=False)
    if checkpoints and not checkpoints.is_of(
        examples=len(labels),
        batch_size=batch_size,
        seeds=list(seeds),
        order=order,
        clip_norm=clip_norm,
        autocast=autocast,
        groups=[{k: v for k, v in g.items() if k != "params"} for each in learners if each for g in each.param_groups],
    ):
        raise ValueError(f"checkpoints: {checkpoints.folder} holds a run with other options; give each its own folder")
    network.train()
    with torch.random.fork_rng(), joined(run, objectives) as shared, bar:
        torch.manual_seed(seeds[0])
        if checkpoints and (saved := from_first(checkpoints.load())):
            history, step = _restore(saved, parts, generators, checkpoints), saved["step"]
        if len(history) > epochs:
            raise ValueError(
                f"epochs={epochs}: the run in checkpoints has {len(history)} already; give it another folder"
            )
        if log and is_first():
            write_log(log, history)
        learn = Step(shared, objectives, learners, precision, order=order, clip_norm=clip_norm)
        bar.initial = bar.n = step
        for epoch in range(len(history) + 1, epochs + 1):
            bar.set_description(f"epoch {epoch} of {epochs}")
            learned: set[int] = set()
            for batch in batches(inputs, labels, batch_size=batch_size, generators=generators, layout=layout):
                active = [b for b in schedule.active(step, len(blocks)) if learners[b]]
                losses.add(step, learn(batch, active), len(batch.labels))
                schedule.after_step(step, network)
                learned.update(active)
                step += 1
                bar.update()
            for b in learned & rates.keys():
                rates[b].step()
            metrics: Metrics = {"epoch": epoch, "losses": losses.means()}
            history.append(metrics | (after_epoch(epoch) if after_epoch else {}))
            network.train()
            if checkpoints and is_first():
                checkpoints.offer(_state(step, history, parts, generators), final=epoch == epochs)
            if log and is_first():
                write_log(log, history)
    network.eval()
    return history


def _state(
    step: int, history: list[Metrics], parts: Sequence[Any], generators: Sequence[torch.Generator]
) -> dict[str, Any]:
    """Everything that the rest of a run depends on."""
    return {
        "step": step,
        "history": history,
        "parts": [part.state_dict() for part in parts],
        "generators": [generator.get_state() for generator in generators],
        "random": random_state(),
    }


def _restore(
    saved: dict[str, Any], parts: Sequence[Any], generators: Sequence[torch.Generator], source: Checkpoints
) -> list[Metrics]:
    """Put every part back where it was; return the history."""
    try:
        for part, state in zip(parts, saved["parts"], strict=True):
            part.load_state_dict(state)
        for generator, state in zip(generators, saved["generators"], strict=True):
            generator.set_state(state)
    except (ValueError, RuntimeError, KeyError) as error:
        raise ValueError(f"checkpoints: {source.folder} holds another run; give each run its own folder") from error
    restore_random_state(saved["random"])
    return list(saved["history"])


def batches(
    inputs: Tensor,
    labels: Tensor,
    *,
    batch_size: int,
    generators: Sequence[torch.Generator],
    layout: torch.memory_format = torch.preserve_format,
) -> Iterator[Batch]:
    """All examples once, in a random order, the last batch perhaps short. Several generators: (generators, m, ...)."""
    orders = torch.stack([torch.randperm(len(labels), generator=generator) for generator in generators]).squeeze(0)
    for index in orders.to(labels.device).split(batch_size, dim=-1):
        yield Batch(inputs[index].to(memory_format=layout), labels[index])


def _lay_out(network: nn.Module, inputs: Tensor) -> torch.memory_format:
    """Put kernels, and the feedback beside them, into the layout for images; return the layout of a batch."""
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return torch.channels_last if inputs.dim() == 4 else torch.preserve_format


def _learner(
    block: nn.Module, objective: Objective | Explicit | None, make: Maker, clip_norm: float | None
) -> Optimizer | None:
    """The optimizer of a block and of the weights its objective owns; None where nothing learns."""
    owners = [part for part in (block, objective) if isinstance(part, nn.Module)]
    parameters = [parameter for owner in owners for parameter in owner.parameters()]
    if objective is None or not parameters:
        return None
    optimizer = make(parameters)
    decay = max(group.get("weight_decay", 0.0) for group in optimizer.param_groups)
    for module in (module for owner in owners for module in owner.modules()):
        if hasattr(module, "check_training"):  # it minds how its weights are trained, and raises if this will not do
            cast(Any, module).check_training(weight_decay=decay, clip_norm=clip_norm)
    return optimizer


def _check(
    blocks: list[nn.Module],
    objectives: Sequence[Objective | Explicit | None],
    inputs: Tensor,
    labels: Tensor,
    batch_size: int,
    order: str,
    clip_norm: float | None,
    autocast: torch.dtype | None,
) -> None:
    _same_length("objectives", objectives, blocks)
    for b, (block, objective) in enumerate(zip(blocks, objectives, strict=True)):
        if isinstance(objective, Explicit):
            _check_explicit(b, len(cast(Sequence[Any], block.layers)), autocast)
    if len(inputs) != len(labels) or len(labels) == 0:
        raise ValueError(f"inputs ({len(inputs)}) and labels ({len(labels)}) must hold the same examples, at least one")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: give at least 1")
    if order not in ("streamed", "summed"):
        raise ValueError(f"order={order!r}: choose 'streamed' or 'summed'")
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"clip_norm={clip_norm}: give a number above 0, or None")


def _check_explicit(b: int, layers: int, autocast: torch.dtype | None) -> None:
    if layers != 1:
        raise ValueError(f"objectives[{b}]: an explicit update is for one layer, block {b} has {layers}; cut it")
    if autocast == torch.float16:
        raise ValueError(f"objectives[{b}]: an explicit update has no scalar to scale: use torch.bfloat16 or None")


def _same_length(name: str, given: Sequence[object], blocks: Sequence[object]) -> None:
    if len(given) != len(blocks):
        raise ValueError(f"{name}: got {len(given)}, but the network has {len(blocks)} blocks; give one per block")
