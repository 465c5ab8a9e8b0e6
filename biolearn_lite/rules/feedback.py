"""Feedback: which wires the error travels down.

Backprop sends the error δ of a layer to the layer below through the transpose of the forward weights, Wᵀδ. A synapse
cannot read another synapse, so in a brain these would be other wires, B, in the shape of W. The forward pass and the
weight's own update stay what they are; only what is *sent down* changes (002, Eq. 9 and 10):

    a = W x        ΔW = −δ xᵀ        sent down: Bᵀδ  in place of  Wᵀδ

- backprop: B is W, the weight transport of chapter 01;
- random feedback (RF): B is drawn once and never touched; the forward weights turn towards it;
- updated random feedback (URF): B gets the same increments as W, so W − B stays what it was at birth;
- sign symmetry: B = sign(W), the right directions without the sizes.

Local: the top layer's update is backprop's whatever B is, since no feedback enters it. Every layer still waits for an
error, a vector private to each neuron. Chapters 01 and 02.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from biolearn_lite.rules import plasticity

Update = Tensor | Sequence[Tensor]
"""An update of one weight, or of several: the angle between two of these is taken over all entries at once."""


def with_feedback(op: object, x: Tensor, weight: Tensor, feedback: Tensor) -> Tensor:
    """op(x, weight), whose gradient reaches x through `feedback` in place of the weight.

    Args:
        op: 'dense', 'conv', a function of `torch.nn.functional` or a partial of one, a `plasticity.Operation`, or any
            other bilinear function (x, weight) -> activity, which then runs twice.
        feedback: B, in the weight's shape. The weight itself: backprop. Fixed: RF. One that requires a gradient
            receives the weight's gradient: URF. `weight.detach().sign()`: sign symmetry. Whatever is
            made of the weight must be detached, or the weight's gradient gets a second part through it.

    Raises: ValueError for a feedback of another shape; TypeError for an op that is none.
    Source: 002, Eq. 9 and 10.
    """
    if feedback.shape != weight.shape:
        raise ValueError(f"feedback has shape {tuple(feedback.shape)}; give it the weight's, {tuple(weight.shape)}")
    if feedback is weight:
        feedback = weight.detach()  # else it would receive the weight's gradient a second time
    x, weight, feedback = _in_autocast_type(x, weight, feedback)
    try:
        known = plasticity.operation(op, weight)
    except TypeError:
        if not callable(op):
            raise
        return _twice(op, x, weight, feedback)
    sent: Tensor = _Send.apply(known, x, weight, feedback)  # type: ignore[no-untyped-call]
    return sent


class _Send(torch.autograd.Function):
    """Forward with W; backward with B to x, and pre × post to W (and to a B that learns)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(op: plasticity.Operation, x: Tensor, W: Tensor, B: Tensor) -> Tensor:
        return op(x, W)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.op, x, _, B = inputs
        ctx.save_for_backward(x, B)

    @staticmethod
    def backward(ctx: Any, *posts: Tensor) -> tuple[None, Tensor | None, Tensor | None, Tensor | None]:
        (post,), (x, B) = posts, ctx.saved_tensors
        _, to_x, to_W, to_B = ctx.needs_input_grad
        sent = ctx.op.project(post, B, x.shape) if to_x else None
        dW = ctx.op.correlate(x, post) if to_W or to_B else None
        return None, sent, dW if to_W else None, dW if to_B else None


def _twice(op: Callable[[Tensor, Tensor], Tensor], x: Tensor, W: Tensor, B: Tensor) -> Tensor:
    """The same for any bilinear function, by gradients alone; each line adds a term whose value is 0."""
    z = op(x.detach(), W)
    down = op(x, B.detach())
    z = z + (down - down.detach())
    if B.requires_grad:
        copied = op(x.detach(), B)
        z = z + (copied - copied.detach())
    return z


def _in_autocast_type(*tensors: Tensor) -> tuple[Tensor, ...]:
    """What autocast does to a built-in product, done before ours, so that both of its passes see one type."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(t.to(torch.get_autocast_dtype(device)) for t in tensors)


def alignment_angle(update: Update, reference: Update) -> float:
    """Angle between two updates in degrees: 0 the same direction, 90 unrelated, 180 opposite.

    An update at less than 90° to backprop's lowers the loss, if its step is small enough.
    Raises: ValueError: different numbers of entries, or an update that is zero or not finite and has no direction.
    """
    u, v = _direction("update", _flat(update)), _direction("reference", _flat(reference))
    if u.shape != v.shape:
        raise ValueError(f"update has {len(u)} entries, reference {len(v)}: compare updates of the same weights")
    return math.degrees(2 * math.atan2((u - v).norm().item(), (u + v).norm().item()))


class BiasVariance(NamedTuple):
    """angle: of the mean update to the reference, degrees (the bias); snr: ‖mean‖² / total variance of one update."""

    angle: float
    snr: float


def bias_and_variance(updates: Iterable[Update], reference: Update) -> BiasVariance:
    """The book's yardstick: how far a rule's updates point from the gradient on average, and how they scatter.

    Args:
        updates: single updates (one per batch, or per draw), at least two; read once. reference: the exact gradient.

    Raises: ValueError: fewer than two updates, or as `alignment_angle`.
    """
    count, total, squares = 0, torch.zeros(()), 0.0
    for update in updates:
        u = _flat(update)
        count, total, squares = count + 1, total + u, squares + u.square().sum().item()
    if count < 2:
        raise ValueError(f"updates: got {count}; a scatter needs at least two")
    mean = total / count
    power = mean.square().sum().item()
    variance = max(squares - count * power, 0.0) / (count - 1)
    return BiasVariance(alignment_angle(mean, reference), power / variance if variance else math.inf)


def batch_manhattan(optimizer: Optimizer) -> Optimizer:
    """Make an optimizer step by the sign of each gradient, taken before weight decay and momentum; 0 stays 0.

    Source: 001, section 5.3: sign symmetry with SGD was trained so.
    """

    def to_signs(optimizer: Optimizer, args: object, options: object) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.sign_()

    optimizer.register_step_pre_hook(to_signs)
    return optimizer


def _flat(update: Update) -> Tensor:
    parts = [update] if isinstance(update, Tensor) else list(update)
    return torch.cat([part.detach().flatten().double() for part in parts])


def _direction(name: str, u: Tensor) -> Tensor:
    length = u.norm().item()
    if not 0 < length < math.inf:
        raise ValueError(f"{name} has length {length}: it must be finite and not zero to have a direction")
    unit: Tensor = u / length
    return unit
