"""Weight sharing in sleep: neurons agree on their weights without reading each other's.

A convolution needs equal weights at many places. 004 lets neurons find them: for a while, all N neurons of a *module*
are shown the same input x. Those with equal weights would answer equally, so each one corrects its own deviation from
the mean answer, and keeps a memory of its weights at the beginning of sleep:

    Δw_n = −(z_n − (1/N) Σ z) x − γ (w_n − w_n^init),       z_n = w_n · x                       004, Eq. 4 and 13

It is −∂/∂w of (1/4SN) Σ (z_n − z_n')² + (γ/2) Σ ‖w_n − w_n^init‖² over S inputs (Eq. 11). Deviations sum to zero, so
the mean weight stays what it was, and that is where all neurons meet, up to γ: with C = (1/S) Σ x xᵀ, not centred,

    w_n* = (C + γ I)⁻¹ (C w̄^init + γ w_n^init)                                                   Eq. 5 and 19

Two things spoil it. An inhibitory neuron of strength α subtracts only α / (1 + α) of the mean (Eq. 21), so the common
answer decays too, and with it, slowly, the mean. And private noise of variance ν² in each neuron's input acts like a
pull towards zero of about ν²: the mean survives only if γ is well above ν² (`fixed_point` is exact where Theorem 1 has
a bound).

In a layer with kernels of k × k, a pattern of k × k repeated all over its input looks the same to every k-th neuron: a
module is a grid of positions (i + k·row, j + k·column) of its *output*, and there are k² of them, so the layer becomes
a convolution only for shifts by multiples of k (section 4.1). As w^init is fixed, means are conserved, and activity is
evened out within a grid before it goes up, layers can sleep one after the other or all at once: they end alike.

Local: x, and the neuron's own deviation, which inhibition supplies (`rules.circuits`). Needed besides: one remembered
number per synapse, and somebody to repeat the patterns. Chapters 14 and 15.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from biolearn_lite.rules.plasticity import Operation


def sleep_objective(w: Tensor, x: Tensor, w_init: Tensor, *, decay: float, inhibition: float | None = None) -> Tensor:
    """What `sleep_update` descends: disagreement, plus what inhibition leaves of the mean answer, plus the pull.

    Args: as `sleep_update`. Returns: shape (...). Source: 004, Eq. 11; for finite inhibition the scalar behind Eq. 21.
    """
    if decay < 0 or w_init.shape != w.shape:
        raise ValueError(f"decay={decay} must be at least 0, w_init {tuple(w_init.shape)} be as w {tuple(w.shape)}")
    z, deviation = _answers(w, x, inhibition)
    return (z * deviation).sum(-1).mean(-1) / 2 + decay / 2 * (w - w_init).square().sum((-2, -1))


def sleep_update(w: Tensor, x: Tensor, w_init: Tensor, *, decay: float, inhibition: float | None = None) -> Tensor:
    """What a moment of sleep adds to the weights of a module, averaged over the inputs in x.

    Args:
        w: (..., N, d), N neurons with d inputs each, for any number of modules. w_init: the same at bedtime.
        x: (d,) or (..., S, d), what all neurons see; or (..., S, N, d), a private input for each.
        decay: γ, the pull back to w_init, at least 0. inhibition: α ≥ 0; None: exact means, the limit of large α.

    Raises: ValueError. Source: 004, Eq. 4 and 13; Eq. 21 with inhibition; Eq. 28 with private inputs.
    """
    _, deviation = _answers(w, x, inhibition)
    _check_decay(decay)
    if w_init.shape != w.shape:
        raise ValueError(f"w_init has shape {tuple(w_init.shape)}, w {tuple(w.shape)}: they must be the same")
    x = _inputs(w, x)
    private = x.dim() > w.dim()
    correlation = torch.einsum("...sn,...snd->...nd" if private else "...sn,...sd->...nd", deviation, x)
    return -correlation / deviation.shape[-2] - decay * (w - w_init)


def fixed_point(
    w_init: Tensor, C: Tensor, *, decay: float, inhibition: float | None = None, noise: float = 0.0
) -> Tensor:
    """Where sleep ends: the weights (..., N, d) at which the expected `sleep_update` is zero.

    Args:
        w_init: (..., N, d). C: second moment of the common inputs, (..., d, d), not centred. decay: γ, above 0.
        inhibition: α or None. noise: ν, the standard deviation of private noise, the same in every input.

    Raises: ValueError. Source: 004, Eq. 5/19; Eq. 24 with inhibition. With noise, s = ν² (1 − κ/N) joins γ, where κ is
    1 or α / (1 + α): (C + (γ + s) I) w_n = κ C w̄ + γ w_n^init.
    """
    _check_decay(decay)
    if decay == 0:
        raise ValueError("decay=0: without a pull the end depends on the way (and with noise it is zero); use > 0")
    if not 0 <= noise < float("inf"):
        raise ValueError(f"noise={noise} must be a finite number of at least 0")
    if w_init.dim() < 2 or C.shape[-2:] != (w_init.shape[-1],) * 2:
        raise ValueError(f"C of shape {tuple(C.shape)} does not fit w_init {tuple(w_init.shape)}: give (d, d)")
    kept, eye = _kept(inhibition), torch.eye(w_init.shape[-1], dtype=w_init.dtype, device=w_init.device)
    pull = (decay + noise**2 * (1 - kept / w_init.shape[-2])) * eye
    mean = torch.linalg.solve((1 - kept) * C + pull, decay * w_init.mean(-2).unsqueeze(-1))
    ends: Tensor = torch.linalg.solve(C + pull, kept * C @ mean + decay * w_init.mT)
    return ends.mT


def weight_snr(w: Tensor) -> Tensor:
    """How well neurons agree: mean² over variance of each weight across the N neurons, averaged over the d weights.

    Args: w (..., N, d); of a layer, its `modules` one by one (its weight ends in a kernel's axes).
    Returns: (...); infinite as soon as all neurons share one of the d weights exactly.
    Raises: ValueError for fewer than two neurons. Source: 004, Eq. 6, with the population variance.
    """
    if w.dim() < 2 or w.shape[-2] < 2 or w.shape[-1] < 1:
        raise ValueError(f"w has shape {tuple(w.shape)}: expected (..., neurons, weights) with at least two neurons")
    variance = w.var(-2, correction=0)
    ratio = w.mean(-2).square() / variance
    return torch.where(variance == 0, torch.inf, ratio).mean(-1)


def modules(weight: Tensor, kernel_size: int | tuple[int, int]) -> Iterator[Tensor]:
    """The modules of a locally connected layer, one after the other, each as (N, d).

    Args: weight (height, width, ...) by positions of the output, border included. kernel_size: k, the grids' step.
    """
    kh, kw = _grid(weight, kernel_size)
    for i in range(kh):
        for j in range(kw):
            yield weight[i::kh, j::kw].flatten(0, 1).flatten(1)


@torch.no_grad()
def share_instantly(weight: Tensor, kernel_size: int | tuple[int, int]) -> Tensor:
    """Where sleep ends for small γ, at once and in place: every module gets its mean weight.

    Args:
        weight: (height, width, ...) by positions of the layer's output; border neurons take part, as published.
        kernel_size: k or (kh, kw), the step of the grids on the output, whatever the stride: k² modules. 1 shares over
            all positions: a 1×1 layer, or a transformer's patches (A.4). A module of one neuron stays as it is.

    Returns: the same tensor. Raises: ValueError. Source: 004, section 5.
    """
    kh, kw = _grid(weight, kernel_size)
    for i in range(kh):
        rows = weight[i::kh]
        row = rows.sum(0)
        for j in range(kw):
            row[j::kw] = row[j::kw].sum(0) / (len(rows) * len(row[j::kw]))
        rows.copy_(row.expand_as(rows))
    return weight


def repeated_patterns(
    count: int, channels: int, size: tuple[int, int], kernel_size: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """Images (count, channels, *size) of normal noise of k × k pixels, repeated from the top left on."""
    pattern = torch.randn(count, channels, kernel_size, kernel_size, generator=generator)
    repeats = [-(-length // kernel_size) for length in size]
    return pattern.repeat(1, 1, *repeats)[..., : size[0], : size[1]]


def evened_out(z: Tensor, kernel_size: int | tuple[int, int]) -> Tensor:
    """Lateral activity: z (m, channels, height, width) with every neuron at the mean of its module."""
    by_position = torch.einsum("mchw->hwmc", z).clone()
    return torch.einsum("hwmc->mchw", share_instantly(by_position, kernel_size))


@torch.no_grad()
def layer_sleep_update(
    op: Operation,
    weight: Tensor,
    x: Tensor,
    w_init: Tensor,
    *,
    kernel_size: int | tuple[int, int],
    decay: float,
    inhibition: float | None = None,
) -> Tensor:
    """`sleep_update` of all modules of a locally connected layer at once: its answers less their grids' means.

    Args:
        op, weight: `rules.local.LocallyConnected` and its weight. No padding: a border sees another pattern.
        x: repeated patterns, (S, channels, height, width). kernel_size: the period of the patterns.

    Raises: ValueError. Source: 004, section 4.1.
    """
    _check_decay(decay)
    if w_init.shape != weight.shape:
        raise ValueError(f"w_init has shape {tuple(w_init.shape)}, weight {tuple(weight.shape)}: they must be the same")
    if getattr(op, "padding", 0) not in (0, (0, 0)):
        raise ValueError(f"op={op}: give one without padding, whose border would see another pattern")
    z = op(x, weight)
    deviation = z - _kept(inhibition) * evened_out(z, kernel_size)
    return -op.correlate(x, deviation) / len(x) - decay * (weight - w_init)


def sleep_stack(
    ops: Sequence[Operation],
    weights: Sequence[Tensor],
    x: Tensor,
    *,
    kernel_size: int,
    decay: float,
    rate: float,
    steps: int,
    together: bool = False,
) -> list[Tensor]:
    """The weights of a row of locally connected layers after a night on the patterns x.

    A layer sends up its evened-out activity, so that the next one too sees repeated patterns, from the first moment on.

    Args: ops, weights, x, kernel_size, decay: as `layer_sleep_update`, bottom layer first; the weights are not changed.
        steps: per layer, with this rate. together: all layers in every step; otherwise one layer after the other.

    Source: 004, section 4.1.
    """
    if len(ops) != len(weights):
        raise ValueError(f"got {len(ops)} ops and {len(weights)} weights: give one weight per layer")
    slept = [weight.detach().clone() for weight in weights]
    for asleep in [set(range(len(ops)))] if together else [{layer} for layer in range(len(ops))]:
        for _ in range(steps):
            seen = x
            for layer, op in enumerate(ops[: max(asleep) + 1]):
                sent = evened_out(op(seen, slept[layer]), kernel_size)
                if layer in asleep:
                    slept[layer] += rate * layer_sleep_update(
                        op, slept[layer], seen, weights[layer].detach(), kernel_size=kernel_size, decay=decay
                    )
                seen = sent
    return slept


def _answers(w: Tensor, x: Tensor, inhibition: float | None) -> tuple[Tensor, Tensor]:
    """z (..., S, N), and what is left of it after inhibition."""
    x = _inputs(w, x)
    z = torch.einsum("...nd,...snd->...sn" if x.dim() > w.dim() else "...nd,...sd->...sn", w, x)
    return z, z - _kept(inhibition) * z.mean(-1, keepdim=True)


def _inputs(w: Tensor, x: Tensor) -> Tensor:
    """x as (..., S, d) or (..., S, N, d)."""
    x = x.view(*[1] * (w.dim() - 1), -1) if x.dim() == 1 else x
    fits = x.dim() in (w.dim(), w.dim() + 1) and x.shape[-1] == w.shape[-1] and x.shape[w.dim() - 2] > 0
    if w.dim() < 2 or not fits or (x.dim() > w.dim() and x.shape[-2] != w.shape[-2]):
        raise ValueError(
            f"x has shape {tuple(x.shape)}, w {tuple(w.shape)}: for w (..., N, d) give (d,), (..., S, d) for all "
            "neurons, or (..., S, N, d) for each its own"
        )
    return x


def _kept(inhibition: float | None) -> float:
    """Which part of the mean answer is subtracted. Source: 004, Eq. 21."""
    if inhibition is None:
        return 1.0
    if not 0 <= inhibition < float("inf"):
        raise ValueError(f"inhibition={inhibition} must be a finite number of at least 0, or None for exact means")
    return inhibition / (1 + inhibition)


def _check_decay(decay: float) -> None:
    if not 0 <= decay < float("inf"):
        raise ValueError(f"decay={decay} must be a finite number of at least 0")


def _grid(weight: Tensor, kernel_size: int | tuple[int, int]) -> tuple[int, int]:
    """The step of the grids; at most as many as there are positions."""
    kh, kw = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    if weight.dim() < 2 or min(kh, kw) < 1:
        raise ValueError(
            f"weight of shape {tuple(weight.shape)} with kernel_size={kernel_size}: expected (height, width, ...) and "
            "a step of at least 1"
        )
    return min(kh, weight.shape[0]), min(kw, weight.shape[1])
