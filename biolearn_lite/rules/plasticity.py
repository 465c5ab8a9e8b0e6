"""The last step of every rule: what a synapse does with a signal.

Whatever the rule, it ends at a synapse between a presynaptic rate x and a postsynaptic neuron with pre-activation
a = W x and rate z = f(a). The rule hands the neuron one number per pattern, its *signal*: what the rule gains per unit
of rate. The synapse then multiplies three things it can know (the same in every paper; 001, Eq. 41 and 47):

    ΔW = Σ over patterns of  signal · f'(a) · x

- the slope f'(a), which the neuron reads off its own input; under max-pooling the slope of a neuron that did not win
  is 0, because nobody saw it;
- the presynaptic rate x;
- where weights are shared, in a convolution, the sum of this product over all positions.

Nothing is differentiated and no graph is kept: it is a forward pass and a correlation. Chapters 04, 07 and 10.
"""

import functools
from collections.abc import Callable, Hashable
from dataclasses import dataclass, fields
from typing import Any, Protocol, final, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input, conv2d_weight


@final
@dataclass(frozen=True)
class Dense:
    """Every input meets every neuron: pre (m, inputs), weight (neurons, inputs)."""

    pool = 1

    def __call__(self, pre: Tensor, weight: Tensor) -> Tensor:
        return F.linear(pre, weight)

    def correlate(self, pre: Tensor, post: Tensor) -> Tensor:
        return post.flatten(0, -2).T @ pre.flatten(0, -2)

    def project(self, post: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        return post @ weight


@final
@dataclass(frozen=True)
class Conv2d:
    """Shared weights (out, in, *kernel_size) on the patches of images, then max-pooling over squares of side `pool`.

    A call makes the pre-activation; it is `respond` that pools.
    """

    kernel_size: tuple[int, int]
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, int] = 0
    groups: int = 1
    pool: int = 1

    def __call__(self, pre: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(pre, weight, stride=self.stride, padding=self.padding, groups=self.groups)

    def correlate(self, pre: Tensor, post: Tensor) -> Tensor:
        """Each position's post times the patch it saw, summed over positions."""
        shape = (post.shape[1], pre.shape[1] // self.groups, *self.kernel_size)
        dW: Tensor = conv2d_weight(pre, shape, post, self.stride, self.padding, groups=self.groups)
        return dW

    def project(self, post: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        down: Tensor = conv2d_input(shape, weight, post, self.stride, self.padding, groups=self.groups)
        return down


@final
@dataclass(frozen=True)
class ConvTranspose2d:
    """A convolution run backwards: weight (in, out, *kernel_size), each input paints its kernel into the output."""

    kernel_size: tuple[int, int]
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, int] = 0
    output_padding: int | tuple[int, int] = 0

    pool = 1

    def __call__(self, pre: Tensor, weight: Tensor) -> Tensor:
        return F.conv_transpose2d(pre, weight, None, self.stride, self.padding, self.output_padding)

    def correlate(self, pre: Tensor, post: Tensor) -> Tensor:
        """Each input times what stands where it painted, summed over positions."""
        shape = (pre.shape[1], post.shape[1], *self.kernel_size)
        dW: Tensor = conv2d_weight(post, shape, pre, self.stride, self.padding)
        return dW

    def project(self, post: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        return F.conv2d(post, weight, stride=self.stride, padding=self.padding)


@final
@dataclass(frozen=True)
class Activation:
    """A pointwise nonlinearity z = f(a), and its slope as a function of a and z."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]


@runtime_checkable
class Operation(Protocol):
    """A bilinear map of presynaptic activity and weights, by its three products: all that a rule asks of it.

    `op(pre, weight)` is the pre-activation; `op.correlate(pre, post)` has the weight's shape and holds pre × post at
    every synapse; `op.project(post, weight, shape)` sends post back down through a weight, to a pre of that shape.
    """

    @property
    def pool(self) -> int: ...
    def __call__(self, pre: Tensor, weight: Tensor) -> Tensor: ...
    def correlate(self, pre: Tensor, post: Tensor) -> Tensor: ...
    def project(self, post: Tensor, weight: Tensor, shape: torch.Size) -> Tensor: ...


def respond(op: Operation, pre: Tensor, weight: Tensor, activation: Activation) -> tuple[Tensor, Tensor]:
    """The forward pass, keeping what the synapses will need.

    Returns:
        The activity z after pooling, and the slope f'(a) before it, which is 0 for every neuron that lost its pool.
    """
    a = op(pre, weight)
    z = activation.value(a)
    slope = activation.slope(a, z)
    if op.pool == 1:
        return z, slope
    z, winners = F.max_pool2d(z, op.pool, return_indices=True)
    won = torch.zeros_like(a).flatten(2).scatter_(2, winners.flatten(2), 1.0)
    return z, slope * won.view_as(a)


def hebbian(op: Operation, pre: Tensor, slope: Tensor, signal: Tensor) -> Tensor:
    """dW, what is added to the weights: pre × slope × signal, summed over patterns and positions.

    Args:
        op: how the presynaptic activity `pre` meets the weights.
        slope: as from `respond`. signal: the gain per unit of activity, in the shape of z.

    Raises: ValueError, if signal and slope do not belong to the same activity.
    """
    if op.pool > 1:
        signal = _spread(signal, slope, op.pool)
    if signal.shape != slope.shape:
        raise ValueError(f"signal {tuple(signal.shape)} does not fit slope {tuple(slope.shape)} with pool={op.pool}")
    return op.correlate(pre, slope * signal)


def _spread(signal: Tensor, slope: Tensor, pool: int) -> Tensor:
    """A pool passes its signal on to all its members; their slopes know who won. Rows that fit no pool get none."""
    members = signal.repeat_interleave(pool, 2).repeat_interleave(pool, 3)
    right, below = slope.shape[3] - members.shape[3], slope.shape[2] - members.shape[2]
    return F.pad(members, (0, right, 0, below))


def leaky_relu(negative_slope: float = 0.01) -> Activation:
    """a where a > 0, else negative_slope · a, with negative_slope from 0 to 1."""
    if not 0 <= negative_slope <= 1:
        raise ValueError(f"negative_slope={negative_slope} must be from 0 to 1")
    return Activation(
        lambda a: F.leaky_relu(a, negative_slope),
        lambda a, z: a.sign().clamp_(min=negative_slope),
    )


SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717


def _selu_slope(a: Tensor, z: Tensor) -> Tensor:
    below, above = z.clamp(max=0) + SELU_SCALE * SELU_ALPHA, a.sign().clamp_(min=0)
    return below.add_(above, alpha=SELU_SCALE - SELU_SCALE * SELU_ALPHA)


identity = Activation(lambda a: a, lambda a, z: torch.ones_like(a))
relu = leaky_relu(0.0)
tanh = Activation(torch.tanh, lambda a, z: 1 - z.square())
selu = Activation(F.selu, _selu_slope)

_OPERATIONS: dict[Any, Any] = {
    **dict.fromkeys(("dense", "linear", F.linear), Dense),
    **dict.fromkeys(("conv", "conv2d", F.conv2d), Conv2d),
    **dict.fromkeys(("conv_transpose2d", F.conv_transpose2d), ConvTranspose2d),
}
_ACTIVATIONS: dict[Any, Activation] = {
    **dict.fromkeys((None, "identity", "linear", nn.Identity), identity),
    **dict.fromkeys(("relu", F.relu, torch.relu, nn.ReLU), relu),
    **dict.fromkeys(("tanh", F.tanh, torch.tanh, nn.Tanh), tanh),
    **dict.fromkeys(("selu", F.selu, torch.selu, nn.SELU), selu),
    **dict.fromkeys(("leaky_relu", F.leaky_relu), leaky_relu()),
}


def operation(op: object, weight: Tensor) -> Operation:
    """The operation meant by a name, a function of `torch.nn.functional`, a `functools.partial` of one, or a module.

    Raises: TypeError for any other; ValueError for one with a bias, or a weight that does not fit.
    """
    function, options = _function(op)
    if isinstance(function, (Conv2d, ConvTranspose2d)) and weight.shape[2:] != function.kernel_size:
        raise ValueError(f"weight has shape {tuple(weight.shape)}, which does not fit {function}: (height, width)")
    if isinstance(function, Operation):
        return function
    kind = _OPERATIONS.get(function) if isinstance(function, Hashable) else None
    if kind is None or not options.keys() <= {field.name for field in fields(kind)}:
        raise TypeError(f"op={op!r} is not known: pass 'dense', 'conv', F.linear, F.conv2d, or plasticity.Conv2d(...)")
    if isinstance(options.get("padding"), str):
        raise TypeError(f"op={op!r}: give padding as a number")
    if weight.dim() != (2 if kind is Dense else 4):
        raise ValueError(f"weight has shape {tuple(weight.shape)}, which does not fit {kind.__name__}")
    made: Operation = Dense() if kind is Dense else kind((weight.shape[2], weight.shape[3]), **options)
    return made


def pointwise(activation: object) -> Activation:
    """The activation meant by a name, a torch function, a module, None (identity), or a pair (f, slope of f).

    Raises: TypeError for any other function, whose slope nobody knows.
    """
    if isinstance(activation, Activation):
        return activation
    if isinstance(activation, tuple):
        value, slope = activation
        return Activation(value, lambda a, z: slope(a))
    if isinstance(activation, nn.LeakyReLU):
        return leaky_relu(activation.negative_slope)
    key = type(activation) if isinstance(activation, nn.Module) else activation
    if not isinstance(key, Hashable) or key not in _ACTIVATIONS:
        raise TypeError(f"activation={activation!r} has no known slope: pass the pair (f, slope of f)")
    return _ACTIVATIONS[key]


def _function(op: object) -> tuple[object, dict[str, Any]]:
    """The torch function behind a partial or a module, with its options."""
    if isinstance(op, functools.partial):
        return op.func, dict(op.keywords)
    if isinstance(op, nn.Module) and getattr(op, "bias", None) is not None:
        raise ValueError(f"op={op} has a bias, and hidden layers here have none: build it with bias=False")
    if isinstance(op, nn.Linear):
        return F.linear, {}
    if isinstance(op, nn.Conv2d) and op.dilation == (1, 1) and op.padding_mode == "zeros":
        return F.conv2d, {"stride": op.stride, "padding": op.padding, "groups": op.groups}
    return getattr(op, "operation", op), {}
