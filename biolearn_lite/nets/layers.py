"""Layers: what a block is made of.

A layer of the book is a row of five steps, in the order of the papers' published runs:

    operation → nonlinearity → pooling → (the objective looks here) → normalization, dropout → the next layer

What the objective *sees* and what the layer *passes on* therefore differ: a layer's score is the same with and without
divisive normalization after it; only the next layer's input changes. Chapters 03 and 04.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import cast, final

import torch
from torch import Tensor, nn

from biolearn_lite.rules import kernels, plasticity


@final
class Linear(nn.Linear):
    """A dense operation x ↦ W x + b on features of shape (m, in_features)."""


@final
class Layer(nn.Module):
    """One layer: `layer(x)` is what it passes on, `layer.activity(x)` what its objective sees.

    Args:
        op: the operation that owns the weights (with batch norm, if any, behind it).
        activation: pointwise nonlinearity. pool: pooling. after: normalization and dropout. None: nothing.
    """

    def __init__(
        self,
        op: nn.Module,
        *,
        activation: nn.Module | None = None,
        pool: nn.Module | None = None,
        after: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.op = op
        self.activation = activation or nn.Identity()
        self.pool = pool or nn.Identity()
        self.after = after or nn.Identity()

    def activity(self, x: Tensor) -> Tensor:
        """z: the layer's activity, before normalization and dropout."""
        z: Tensor = self.pool(self.activation(self.op(x)))
        return z

    def forward(self, x: Tensor) -> Tensor:
        passed: Tensor = self.after(self.activity(x))
        return passed

    @torch.no_grad()
    def learn(self, x: Tensor, signal: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Forward pass and plasticity at once, without autograd: (dW, what the layer passes on).

        Args:
            x: presynaptic activity.
            signal: what a rule asks of the activity, z ↦ signal in z's shape, as `rules.hsic.bottleneck_signal`.

        Raises: TypeError, ValueError: an operation, activation or pooling that `rules.plasticity` does not know.
        """
        weight = cast(Tensor, self.op.weight)
        op = self._operation(weight)
        z, slope = plasticity.respond(op, x, weight, plasticity.pointwise(self.activation))
        dW = plasticity.hebbian(op, x, slope, signal(z))
        return dW, self.after(z)

    def _operation(self, weight: Tensor) -> plasticity.Operation:
        op = plasticity.operation(self.op, weight)
        if isinstance(self.pool, nn.Identity):
            return op
        pool = self.pool
        if not isinstance(pool, nn.MaxPool2d) or pool.stride != pool.kernel_size or pool.padding or pool.ceil_mode:
            raise TypeError(f"pool={pool} has no local rule here: use nn.MaxPool2d(size), squares that do not overlap")
        return replace(cast(plasticity.Conv2d, op), pool=cast(int, pool.kernel_size))


@final
class DivisiveNorm(nn.Module):
    """Divisive normalization: deviation from the group's mean over the group's variance to a power, r = z̃ / u^power.

    Args:
        groups: number of groups of consecutive features (or channels with all their positions); must divide them.
        power: φ, at least 0; at 0.5 this is `torch.nn.functional.group_norm` with eps = offset / group size.
        offset: ε₀, at least 0; keeps silent groups finite.

    Shape: any (m, ...), kept. Raises: ValueError, as `rules.kernels.group_variance`. Source: 001, Eq. 13 and 17.
    """

    def __init__(self, groups: int, *, power: float = 0.5, offset: float = 1.0) -> None:
        super().__init__()
        if not 0 <= power < float("inf"):
            raise ValueError(f"power={power} must be a number of at least 0")
        self.groups, self.power, self.offset = groups, power, offset

    def forward(self, z: Tensor) -> Tensor:
        deviation, u = kernels.group_variance(z, self.groups, offset=self.offset)
        return (deviation / u.unsqueeze(2) ** self.power).reshape(z.shape)

    def extra_repr(self) -> str:
        return f"groups={self.groups}, power={self.power}, offset={self.offset}"
