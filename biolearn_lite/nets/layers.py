"""Layers: what a block is made of.

A layer of the book is a row of five steps, in the order of the papers' published runs:

    operation → nonlinearity → pooling → (the objective looks here) → normalization, dropout → the next layer

What the objective *sees* and what the layer *passes on* therefore differ: a layer's score is the same with and without
divisive normalization after it; only the next layer's input changes. Chapters 03 and 04.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from biolearn_lite.rules import kernels, plasticity
from biolearn_lite.rules.feedback import with_feedback

FEEDBACK = ("backprop", "random", "updated", "sign", "redrawn")
"""Through which wires a layer sends the error down; "redrawn" draws new random ones at every pass, so nothing learns
to fit them."""


def default_draw(weight: Tensor) -> Tensor:
    """PyTorch's default initial law for weights of this shape, U(±1/√fan_in), in place."""
    return nn.init.kaiming_uniform_(weight, a=5**0.5)


@final
class Feedback(nn.Module):
    """B of one layer: `feedback(W)` is what its error goes down through (`rules.feedback`).

    Args:
        kind: one of `FEEDBACK`. weight: W, whose shape it takes. draw: fills random feedback, in place.

    `exact`, if set, means backprop for a while; see `Network.exact_feedback`. Random feedback does not draw from the
    stream of the weights: networks that differ in feedback alone start from the same weights.
    """

    def __init__(self, kind: str, weight: Tensor, *, draw: Callable[[Tensor], Tensor] = default_draw) -> None:
        super().__init__()
        if kind not in FEEDBACK:
            raise ValueError(f"feedback={kind!r}: choose from {', '.join(map(repr, FEEDBACK))}")
        self.kind, self.draw, self.exact = kind, draw, False
        if kind in ("random", "updated"):
            with torch.random.fork_rng():
                torch.manual_seed(int(torch.randint(2**62, ())))
                B = draw(torch.empty_like(weight.detach()))
            if kind == "random":
                self.register_buffer("weight", B)
            else:
                self.weight = nn.Parameter(B)

    def forward(self, weight: Tensor) -> Tensor:
        if self.exact or self.kind == "backprop":
            return weight
        if self.kind == "sign":
            return weight.detach().sign()
        if self.kind == "redrawn":
            return self.draw(torch.empty_like(weight.detach()))
        return cast(Tensor, self.weight)

    def check_training(self, *, weight_decay: float, clip_norm: float | None) -> None:
        """Raise ValueError if the training would not leave W − B constant, on which updated feedback rests."""
        if self.kind == "updated" and (weight_decay or clip_norm is not None):
            raise ValueError(
                f'feedback="updated" with weight_decay={weight_decay} and clip_norm={clip_norm}: W and B must get the '
                "same increments; decay shrinks W − B, and a norm over all weights scales steps by what others do. "
                "Set weight_decay=0 and clip_norm=None"
            )

    def extra_repr(self) -> str:
        return repr(self.kind)


@final
class Linear(nn.Linear):
    """A dense operation x ↦ W x + b on features of shape (m, in_features), with a choice of `FEEDBACK`."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, feedback: str = "backprop") -> None:
        super().__init__(in_features, out_features, bias)
        self.feedback = Feedback(feedback, self.weight)

    operation = plasticity.Dense()

    def forward(self, x: Tensor) -> Tensor:
        return _with_feedback(self, super().forward, x)


@final
class Conv2d(nn.Conv2d):
    """A convolution of images (m, in_channels, height, width), as `torch.nn.Conv2d`, with a choice of `FEEDBACK`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        groups: int = 1,
        bias: bool = True,
        feedback: str = "backprop",
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias)
        self.feedback = Feedback(feedback, self.weight)

    @property
    def operation(self) -> plasticity.Operation:
        kernel_size, stride, padding = cast(Any, (self.kernel_size, self.stride, self.padding))
        return plasticity.Conv2d(kernel_size, stride, padding, self.groups)

    def forward(self, x: Tensor) -> Tensor:
        return _with_feedback(self, super().forward, x)


@final
class ConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution, as `torch.nn.ConvTranspose2d`, with a choice of `FEEDBACK`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        output_padding: int | tuple[int, int] = 0,
        bias: bool = True,
        feedback: str = "backprop",
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, output_padding, bias=bias)
        self.feedback = Feedback(feedback, self.weight)

    @property
    def operation(self) -> plasticity.Operation:
        kernel_size, stride, padding = cast(Any, (self.kernel_size, self.stride, self.padding))
        return plasticity.ConvTranspose2d(kernel_size, stride, padding, cast(Any, self.output_padding))

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # the output's size is a matter of construction
        return _with_feedback(self, super().forward, x)


def _with_feedback(layer: Any, native: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The layer's pre-activation; with feedback of its own unless that is backprop's, which torch does natively."""
    B = layer.feedback(layer.weight)
    if B is layer.weight:
        return native(x)
    a = with_feedback(layer.operation, x, layer.weight, B)
    return a if layer.bias is None else a + layer.bias.view(-1, *[1] * (a.dim() - 2))


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
