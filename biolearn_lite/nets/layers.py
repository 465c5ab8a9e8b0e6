"""Layers: what a block is made of.

A layer of the book is a row of five steps, in the order of the papers' published runs:

    operation → nonlinearity → pooling → (the objective looks here) → normalization, dropout → the next layer

What the objective *sees* and what the layer *passes on* therefore differ: a layer's score is the same with and without
divisive normalization after it; only the next layer's input changes. Chapters 03 and 04.
"""

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from biolearn_lite.rules import kernels, plasticity
from biolearn_lite.rules.feedback import with_feedback
from biolearn_lite.rules.local import LocallyConnected

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

    `exact`, if set, means backprop for a while; see `Network.exact_feedback`. Random feedback has a stream of its own:
    networks that differ in feedback alone start from the same weights, and B never repeats a W.
    """

    def __init__(self, kind: str, weight: Tensor, *, draw: Callable[[Tensor], Tensor] = default_draw) -> None:
        super().__init__()
        if kind not in FEEDBACK:
            raise ValueError(f"feedback={kind!r}: choose from {', '.join(map(repr, FEEDBACK))}")
        self.kind, self.draw, self.exact = kind, draw, False
        if kind in ("random", "updated"):
            with torch.random.fork_rng():
                B = self._drawn(weight)
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
            return self._drawn(weight)
        return cast(Tensor, self.weight)

    def _drawn(self, weight: Tensor) -> Tensor:
        """New random feedback, from a stream that the global one seeds with its next number."""
        seed = int(torch.randint(2**62, ()))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.draw(torch.empty_like(weight.detach()))

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


@final
class LocallyConnected2d(nn.Module):
    """A convolution with weights of its own at every position of its output (`rules.local`); chapter 13.

    Args:
        input_size: height and width of the images it is for. Everything else, except init: as `torch.nn.Conv2d`.
        bias: one per channel and so shared by all positions, as published.
        init: "independent" draws every position's kernel from N(0, 2 / (out_channels · kernel area)), as published;
            "shared" draws one kernel for all, a convolution at birth.
        init_noise: standard deviation of what each position adds to a shared kernel, relative to the kernel's own; the
            sum is scaled back to the kernel's variance.

    `weight` is (height, width, out_channels, in_channels / groups, *kernel_size), by positions of the output. Raises:
    ValueError, also for images of another size.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        input_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        groups: int = 1,
        bias: bool = False,
        feedback: str = "backprop",
        init: str = "independent",
        init_noise: float = 0.0,
    ) -> None:
        super().__init__()
        kernel_size, input_size = ((s, s) if isinstance(s, int) else s for s in (kernel_size, input_size))
        if min(in_channels, out_channels, groups) < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}")
        if init not in ("independent", "shared") or init_noise < 0 or (init_noise and init == "independent"):
            raise ValueError(f'init={init!r} with init_noise={init_noise}: choose "independent", or "shared" with ≥ 0')
        self.in_channels, self.out_channels, self.input_size = in_channels, out_channels, input_size
        self.init, self.init_noise = init, init_noise
        self.operation = LocallyConnected(kernel_size, stride, padding, groups)
        positions = self.operation.output_size(*input_size)
        self.weight = nn.Parameter(torch.empty(*positions, out_channels, in_channels // groups, *kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()
        self.feedback = Feedback(feedback, self.weight, draw=self._draw)

    def reset_parameters(self) -> None:
        self._draw(self.weight)
        if self.bias is not None:
            bound = self.weight[0, 0, 0].numel() ** -0.5
            nn.init.uniform_(self.bias, -bound, bound)

    @torch.no_grad()
    def _draw(self, weight: Tensor) -> Tensor:
        std = (2 / (self.out_channels * weight[0, 0, 0, 0].numel())) ** 0.5
        weight.normal_(std=std)
        if self.init == "shared":
            kernel = torch.empty_like(weight[0, 0]).normal_(std=std)
            weight.mul_(self.init_noise).add_(kernel).div_((1 + self.init_noise**2) ** 0.5)
        return weight

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != (self.in_channels, *self.input_size):
            expected = ", ".join(map(str, (self.in_channels, *self.input_size)))
            raise ValueError(f"x has shape {tuple(x.shape)}; this layer was built for images of shape (m, {expected})")
        B = self.feedback(self.weight)
        a = with_feedback(self.operation, x, self.weight, B.detach() if B is self.weight else B)
        return a if self.bias is None else a + self.bias.view(-1, 1, 1)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, input_size={self.input_size}, {self.operation}"


@final
class BatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` that leaves activity in memory as locally connected layers want it, location by location.

    The same values. Torch's own turns every image back first, which costs more than the normalization.
    """

    def forward(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        by_location = torch.einsum("mchw->hwcm", x)
        z = super().forward(by_location.flatten(0, 1).unsqueeze(3)).view(by_location.shape)
        return torch.einsum("hwcm->mchw", z)


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


@final
class LocalReadout(nn.Module):
    """A layer's own linear classifier, and an objective: `readout(seen, batch)` is its cross-entropy.

    Args:
        shape: of one point's activity, (features,) or (channels, height, width).
        num_classes: scores it gives.
        outputs: images are averaged first over rectangles, so many of them that about this many numbers remain.
        feedback: through which its error reaches the layer, one of `FEEDBACK`.

    Raises: ValueError, for a shape of another length or more channels than outputs. Source: 001, appendix D.3.
    """

    def __init__(
        self, shape: tuple[int, ...], num_classes: int, *, outputs: int = 2048, feedback: str = "backprop"
    ) -> None:
        super().__init__()
        if len(shape) not in (1, 3) or (len(shape) == 3 and shape[0] > outputs):
            raise ValueError(
                f"shape={shape}: give (features,) or (channels, height, width), at most {outputs} channels"
            )
        size: tuple[int, ...] = ()
        if len(shape) == 3:
            width = int((outputs / shape[0]) ** 0.5)
            size = (outputs // shape[0] // width, width)
        self.pool = nn.AdaptiveAvgPool2d(cast(Any, size)) if size else nn.Identity()
        self.readout = Linear(shape[0] * prod(size), num_classes, feedback=feedback)

    def forward(self, seen: Tensor, batch: Any) -> Tensor:
        scores = self.readout(self.pool(seen).flatten(1))
        return nn.functional.cross_entropy(scores, batch.labels)
