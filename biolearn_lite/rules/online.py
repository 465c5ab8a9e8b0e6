"""One example at a time: the bottleneck rule for a brain that meets no batches.

The batch rule averages over pairs of points. Independent examples met one after the other are such pairs: point j
becomes "the one before". A layer then remembers that one point, and one running number (t is now, t-1 the one before):

    ΔW(t) = M (z_t - z_{t-1})(x_t - x_{t-1})ᵀ                                       001, Eq. 19, 57
    M     = -(b₂ - b₃) k / σ²,   k = exp(-‖z_t - z_{t-1}‖² / 2σ²)                   Eq. 66
    b₂    = γ k(y_t, y_{t-1}) - 2k,   b₃ ← β b₃ + (1 - β) b₂                        Eq. 64-65

b₃ stands for the mean over all pairs. With groups, each group has its own M, and the change of the *product* of r and
x counts (Eq. 21); then what an example adds as "now" and, one example later, as "the one before" can be collected in
one update, if the synapse waits for its second third factor (Eq. 22).

Local or not: one remembered value per neuron, one number per layer (or group), one broadcast bit, "same class as the
one before or not". Averaged over all pairs, these updates are the batch update exactly. Chapter 05.
"""

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from biolearn_lite.rules import kernels, plasticity


@final
@dataclass(frozen=True)
class Memory:
    """What a layer carries to the next example: x, f'(a), the compared z or v, the factor r (1 without groups), b₃,
    and the signal the example has had so far."""

    pre: Tensor
    slope: Tensor
    seen: Tensor
    factor: Tensor
    mean: Tensor
    signal: Tensor


@torch.no_grad()
def online_update(
    memory: Memory | None,
    op: object,
    pre: Tensor,
    weight: Tensor,
    label_similarity: float,
    *,
    activation: object,
    sigma: float = 5.0,
    balance: float = 2.0,
    decay: float = 0.99,
    groups: int | None = None,
    power: float = 0.5,
    offset: float = 1.0,
    keep: float = 0.0,
    wait: bool = False,
) -> tuple[Tensor, Memory]:
    """What one more example adds to the weights, and what to remember: `dW, memory = online_update(memory, ...)`.

    Args:
        memory: None at the first example, which adds nothing.
        pre: the example, (1, ...). op, weight, activation, sigma, balance, groups, power, offset: as in
            `hsic.bottleneck_update`. label_similarity: k(y_t, y_{t-1}), 1 for the same class, -1/(n - 1) for another.
        decay: β of the running mean, at least 0 and below 1. At 0 nothing is learned.
        keep: share of older examples in the remembered one (Eq. 20-21: a running mean, for examples shown repeatedly).
        wait: return instead what the example *before* adds in both its roles (Eq. 22); end with `last_update`.

    Source: 001, Eq. 18-22, 64-66, 68-70, with the constants of the batch update.
    """
    op = plasticity.operation(op, weight)
    z, slope = plasticity.respond(op, pre, weight, plasticity.pointwise(activation))
    _check_step(z, keep, wait)
    seen, factor = _compared(z, groups, power, offset)
    if memory is None:
        return torch.zeros_like(weight), Memory(pre, slope, seen, factor, z.new_zeros(()), torch.zeros_like(z))
    change = seen - memory.seen
    M, mean = running_third_factor(
        change.square().sum(), label_similarity, memory.mean, sigma=sigma, balance=balance, decay=decay
    )
    if not torch.isfinite(M):
        raise ValueError("the example, the weight or label_similarity holds NaN or infinity")
    now, before = ((M * change).unsqueeze(2) * each for each in (factor, -memory.factor))
    now, before = now.view_as(z), before.view_as(z)
    present = Memory(pre, slope, seen, factor, mean, now)
    if wait:
        return plasticity.hebbian(op, memory.pre, memory.slope, memory.signal + before), present
    both = [torch.cat(pair) for pair in ((pre, memory.pre), (slope, memory.slope), (now, before))]
    return plasticity.hebbian(op, *both), _blend(memory, present, keep)


def last_update(memory: Memory, op: object, weight: Tensor) -> Tensor:
    """What the last example of a stream adds under `wait=True`: nothing comes after it, so only its role as "now"."""
    return plasticity.hebbian(plasticity.operation(op, weight), memory.pre, memory.slope, memory.signal)


def running_third_factor(
    distance: Tensor, label_similarity: float, mean: Tensor, *, sigma: float, balance: float, decay: float
) -> tuple[Tensor, Tensor]:
    """M, and the new running mean b₃, from b₁ = ‖change of activity‖² and the old b₃. Source: 001, Eq. 64-66."""
    if not 0 <= decay < 1:
        raise ValueError(f"decay={decay} must be at least 0 and below 1")
    if not 0 < sigma < float("inf"):
        raise ValueError(f"sigma={sigma} must be a positive number")
    k = torch.exp(-distance / (2 * sigma**2))
    b2 = balance * label_similarity - 2 * k
    b3 = decay * mean + (1 - decay) * b2
    return -(b2 - b3) * k / sigma**2, b3


def _compared(z: Tensor, groups: int | None, power: float, offset: float) -> tuple[Tensor, Tensor]:
    """What the third factor compares, (1, G), and what it multiplies, (1, G, n_g): z and 1, or v and 2(1 - φ)/n_g r."""
    if groups is None:
        return z.flatten(1), torch.ones_like(z.flatten(1)).unsqueeze(2)
    deviation, u = kernels.group_variance(z, groups, offset=offset)
    r = deviation / u.unsqueeze(2) ** power
    return kernels.strength(u, power=power), 2 * (1 - power) / r.shape[2] * r


def _blend(old: Memory, new: Memory, keep: float) -> Memory:
    """The new example, mixed with the older ones."""
    names = ("pre", "slope", "seen", "factor")
    return replace(new, **{name: torch.lerp(getattr(new, name), getattr(old, name), keep) for name in names})


def _check_step(z: Tensor, keep: float, wait: bool) -> None:
    if len(z) != 1:
        raise ValueError(f"pre holds {len(z)} examples: this rule meets one at a time, pass (1, ...)")
    if not 0 <= keep < 1:
        raise ValueError(f"keep={keep} must be at least 0 and below 1")
    if wait and keep:
        raise ValueError(f"wait=True needs the example before itself: keep={keep} must be 0")
