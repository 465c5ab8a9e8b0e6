"""Telling a layer where to be, instead of which way to move: difference target propagation.

Layers f_l make activities z_l = f_l(z_{l-1}). Beside them run learned inverses g_l, which guess z_{l-1} from z_l. At
the top, one step down the loss gives the first target; every other target comes down through an inverse (002,
Algorithm 1, lines 14 and 16; ẑ is the target of z):

    ẑ_L = z_L - η ∂L/∂z_L                        where the top would like to be
    ẑ_{l-1} = z_{l-1} - g_l(z_l) + g_l(ẑ_l)      where that wants the layer below to be

No guess is perfect, and g_l(ẑ_l) alone would pull every layer towards the mistakes of its inverse. The same mistake is
in g_l(z_l), and the difference takes it out: if the top is content, ẑ = z everywhere. A poor inverse slows learning; it
does not lead astray. Through max-pooling, which no function can undo, it need only guess how the layer below should
*change*: a transposed convolution, of the stride of the pool, is enough.

Then each layer has a loss of its own, of which its own weights alone hear (line 20), and so has each inverse (line 10):

    ‖f_l(z_{l-1}) - ẑ_l‖²   ⇒   ΔW_l = Σ 2 (ẑ_l - z_l) · f'(a_l) · z_{l-1}
    ‖g_l(f_l(x)) - x‖²,  x = z_{l-1} + noise

Both are one Hebbian rule, postsynaptic target minus activity, times slope, times presynaptic rate; for an inverse, the
activity below is the target. No weight is used backwards. The noise, which the printed algorithm has not, asks of g_l
to be right around z_{l-1} too, where the targets will be.

Two readings of where the first target stands. As printed, it is the target of the embedding, and the head has an
inverse, too. In the published run it is the target of the layer below the head, and its gradient comes down through the
head by backprop: that layer then learns 2η times what backprop teaches it, and weight transport stays at the head. Both
are `difference_targets`, with activities up to the head or without it. In print each inverse learns before it is used;
here, as published, targets come through inverses as they were, so nothing depends on the order of a step.

Sum or mean? Algorithm 1 sums over all activities of a batch; published code takes the mean. For SGD that is a rate. For
Adam it is not: for a steady gradient g its step is rate · g / (|g| + ε), ε = 1e-8, and the mean divides g by some
million activities. Measured in 002's two CIFAR networks at birth (batches of 64 and 128, cross-entropy): means are
1e-10 to 6e-10, and 1 to 5 % of the rate is what remains; sums are 5e-5 to 3e-4, and nothing is lost.

Local or not: every synapse uses what its neuron knows. What is left is time: a pass up, a pass down, noise for the
inverses, each apart from the others. Chapter 09.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from biolearn_lite.rules import plasticity

Map = Callable[[Tensor], Tensor]


@torch.no_grad()
def difference_targets(
    activities: Sequence[Tensor],
    inverses: Sequence[Map],
    gradient: Tensor,
    *,
    step: float = 0.5,
    corrected: bool = True,
) -> list[Tensor]:
    """Where every layer should be, from where the top one should go.

    Args:
        activities: z of every layer that gets a target, bottom first.
        inverses: one fewer; `inverses[l]` maps activities[l + 1] to a guess of activities[l].
        gradient: ∂loss/∂z of the last of `activities`.
        step: η ≥ 0. At 0, targets are the activities.
        corrected: False leaves the difference out, ẑ_{l-1} = g_l(ẑ_l): plain target propagation.

    Returns: the targets, in the activities' shapes, without graphs.
    Raises: ValueError: numbers or shapes that do not fit, a step below 0.
    Source: 002, Algorithm 1, lines 14-17.
    """
    _check_fit(activities, inverses, gradient, step)
    targets = [activities[-1] - step * gradient]
    for z, z_up, inverse in zip(activities[-2::-1], activities[:0:-1], reversed(inverses), strict=True):
        target = _guess(inverse, targets[-1], z)
        targets.append(target - _guess(inverse, z_up, z) + z if corrected else target)
    return targets[::-1]


def inverse_loss(
    forward: Map,
    inverse: Map,
    activity: Tensor,
    *,
    noise: float = 0.0,
    reduction: str = "mean",
    generator: torch.Generator | None = None,
) -> Tensor:
    """How badly an inverse guesses what its layer was given: ‖g(f(x)) - x‖², x = activity + noise.

    Args:
        forward, inverse: the layer f and its inverse g. The loss has a graph to the inverse's weights alone.
        activity: of the layer below, z_{l-1}.
        noise: standard deviation σ of the Gaussian noise. The same noise is in what f sees and in what g should guess;
            at 0 this is the plain autoencoder. generator: of the noise.
        reduction: "mean" over all numbers of x, as published, or "sum", as printed.

    Raises: ValueError: a guess of another shape, bad noise or reduction. Source: 002, Algorithm 1, line 10.
    """
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise={noise} must be a standard deviation of at least 0")
    with torch.no_grad():
        x = activity.detach()
        if noise:
            x = torch.empty_like(x).normal_(std=noise, generator=generator).add_(x)
        above = forward(x)
    return target_loss(_guess(inverse, above, x), x, reduction=reduction)


def target_loss(activity: Tensor, target: Tensor, *, reduction: str = "sum") -> Tensor:
    """A layer's own loss, ‖z - ẑ‖²: a scalar.

    Args:
        activity, target: z and ẑ, of one shape (m, ...). No gradient reaches the target.
        reduction: "sum" over all numbers, as printed, or "mean", as published; see above what Adam makes of it.

    Raises: ValueError: shapes that differ, another reduction. Source: 002, Algorithm 1, line 20.
    """
    _check_pair(activity, target, reduction)
    return torch.nn.functional.mse_loss(activity, target.detach(), reduction=reduction)


@torch.no_grad()
def target_signal(activity: Tensor, target: Tensor, *, reduction: str = "sum") -> Tensor:
    """The postsynaptic signal, 2 (ẑ - z), over the number of numbers for a mean: -∂(target_loss)/∂activity."""
    _check_pair(activity, target, reduction)
    return (target - activity) * (2 / (activity.numel() if reduction == "mean" else 1))


@torch.no_grad()
def target_update(
    op: object,
    pre: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    activation: object = None,
    reduction: str = "sum",
) -> Tensor:
    """dW = -∂(target_loss)/∂W of a layer, without autograd: `weight += rate * dW`.

    Args:
        op: as in `plasticity.operation`; for an inverse, "conv_transpose2d" or `plasticity.ConvTranspose2d(...)`.
        pre: what the layer sees. weight: its weights. activation: as in `plasticity.pointwise`.
        target: of the layer's activity. An inverse's pre is the activity above, its target the activity below.

    Returns: dW in the shape of `weight`. Errors: as `target_loss`. Source: 002, Algorithm 1, lines 10-11 and 20-22.
    """
    op = plasticity.operation(op, weight)
    z, slope = plasticity.respond(op, pre, weight, plasticity.pointwise(activation))
    return plasticity.hebbian(op, pre, slope, target_signal(z, target, reduction=reduction))


def _guess(inverse: Map, above: Tensor, below: Tensor) -> Tensor:
    guess = inverse(above)
    if guess.shape != below.shape:
        raise ValueError(
            f"an inverse makes {tuple(guess.shape)} of {tuple(above.shape)}, but the activity below has shape "
            f"{tuple(below.shape)}: give it the stride of its layer's pooling"
        )
    return guess


def _check_fit(activities: Sequence[Tensor], inverses: Sequence[Map], gradient: Tensor, step: float) -> None:
    if not activities or len(inverses) != len(activities) - 1:
        raise ValueError(
            f"got {len(activities)} activities and {len(inverses)} inverses: give at least one activity, and one "
            "inverse for each but the first"
        )
    if gradient.shape != activities[-1].shape:
        raise ValueError(f"gradient is {tuple(gradient.shape)}, the top activity {tuple(activities[-1].shape)}")
    if not 0 <= step < math.inf:
        raise ValueError(f"step={step} must be a number of at least 0")


def _check_pair(activity: Tensor, target: Tensor, reduction: str) -> None:
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction={reduction!r}: choose 'sum' or 'mean'")
    if activity.shape != target.shape or activity.numel() == 0:
        raise ValueError(f"activity is {tuple(activity.shape)}, target {tuple(target.shape)}: give one for each unit")
