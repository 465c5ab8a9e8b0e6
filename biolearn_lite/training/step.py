"""One step: the blocks in order, the scalars of those that learn now, their gradients, their optimizers.

What keeps a step local: a block that learns has a graph of its own and nobody else's, a block below it runs without
one, a block above it does not run at all, and a block that does not learn keeps `grad = None`, so that neither momentum
nor weight decay moves it. Two orders of execution give the same numbers (a test holds them equal):

- *streamed*: each block's backward pass comes right after its own forward pass, and its graph is gone before the next
  block runs. Memory does not grow with depth; nothing waits. The optimizers step together at the end.
- *summed*: all blocks run, the scalars are added, one backward pass follows. Memory grows with depth.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, cast, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass(frozen=True)
class Batch:
    """What an objective may look at beside its block's activity."""

    inputs: Tensor
    labels: Tensor


Objective = Callable[[Tensor, Batch], Tensor]
"""`objective(seen, batch) -> scalar`. One that owns weights (a local readout) is an `nn.Module`. One that must know the
activity of all blocks first has a method `prepare(all_seen, batch)`, called once per step before any block learns."""


@final
@dataclass(frozen=True)
class Explicit:
    """A rule as what its neurons are told, in place of an objective: no scalar, no autograd, nothing kept of others.

    `signal(z, batch)` has the shape of the activity z: the gain per unit of each neuron's rate, which is the negative
    gradient of the objective it stands for. The layer's synapses do the rest (`Layer.learn`). One layer per block.
    """

    signal: Callable[[Tensor, Batch], Tensor]

    def learn(self, block: nn.Module, x: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Leave −ΔW where the optimizer looks for a gradient; return (‖ΔW‖, what the layer passes on)."""
        (layer,) = cast(Sequence[Any], block.layers)
        dW, passed = layer.learn(x, lambda z: self.signal(z, batch))
        layer.op.weight.grad = dW.neg_().to(layer.op.weight)
        return torch.linalg.vector_norm(dW), cast(Tensor, passed)


@final
class Precision:
    """Blocks and their gradients in fewer bits, if asked for; weights, objectives and updates stay in full precision.

    float16 has so small a range that gradients are computed at a scale and taken back; the scaler finds it by trial.
    """

    def __init__(self, dtype: torch.dtype | None, device: torch.device) -> None:
        if dtype not in (None, torch.bfloat16, torch.float16):
            raise ValueError(f"autocast={dtype}: choose torch.bfloat16, torch.float16 or None")
        self.dtype, self.device = dtype, device.type
        self.scaler = torch.amp.GradScaler(self.device, enabled=dtype == torch.float16)

    def reduced(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device, dtype=self.dtype) if self.dtype else nullcontext()

    def forward(self, block: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        """Run a block. Its objective, where small differences count, sees full precision."""
        with self.reduced():
            seen, passed = block(x)
        return seen.float() if seen.dtype == self.dtype else seen, passed

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    def update(self, optimizers: Sequence[Optimizer], clip_norm: float | None) -> None:
        """Let the optimizers step, and drop the gradients."""
        if clip_norm is not None:
            for optimizer in optimizers:
                self.scaler.unscale_(optimizer)
            groups = [group for optimizer in optimizers for group in optimizer.param_groups]
            nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], clip_norm)
        for optimizer in optimizers:
            self.scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self.scaler.update()


Order = Literal["streamed", "summed"]


@final
class Step:
    """`step(batch, active)`: the active blocks learn from a batch. See `training.fit.fit` for the arguments.

    Returns one number per active block, still on the device: its scalar, or the norm of its explicit update.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        objectives: Sequence[Objective | Explicit | None],
        optimizers: Sequence[Optimizer | None],
        precision: Precision,
        *,
        order: Order,
        clip_norm: float | None,
    ) -> None:
        self.blocks, self.objectives, self.optimizers = blocks, objectives, optimizers
        self.precision, self.order, self.clip_norm = precision, order, clip_norm
        self._preparing = list({id(o): o for o in objectives if hasattr(o, "prepare")}.values())

    def __call__(self, batch: Batch, active: Collection[int]) -> dict[int, Tensor]:
        if not active:
            return {}
        if self._preparing:
            self._prepare(batch)
        told = self._gradients(batch, active)
        self.precision.update([cast(Optimizer, self.optimizers[b]) for b in active], self.clip_norm)
        return told

    @torch.no_grad()
    def _prepare(self, batch: Batch) -> None:
        """One pass through all blocks for the objectives that need it; what layers draw, they draw again afterwards."""
        x, all_seen = batch.inputs, []
        for block in self.blocks:
            seen, x = self.precision.forward(block, x)
            all_seen.append(seen)
        for objective in self._preparing:
            cast(Any, objective).prepare(all_seen, batch)

    def _gradients(self, batch: Batch, active: Collection[int]) -> dict[int, Tensor]:
        """Fill the gradients of the active blocks; return what each of them tells."""
        told: dict[int, Tensor] = {}
        x = batch.inputs
        for b in range(max(active) + 1):
            block, objective = self.blocks[b], self.objectives[b] if b in active else None
            if isinstance(objective, Explicit):
                with self.precision.reduced():
                    told[b], x = objective.learn(block, x, batch)
                continue
            with torch.set_grad_enabled(objective is not None):
                seen, x = self.precision.forward(block, x)
                if objective is not None:
                    told[b] = objective(seen, batch)
                    if self.order == "streamed":
                        self.precision.backward(told[b])
                        told[b] = told[b].detach()
            del seen
        scalars = [value for b, value in told.items() if not isinstance(self.objectives[b], Explicit)]
        if self.order == "summed" and scalars:
            self.precision.backward(torch.stack(scalars).sum())
        return {b: value.detach() for b, value in told.items()}
