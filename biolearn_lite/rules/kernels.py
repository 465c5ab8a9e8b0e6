"""Kernels: how alike are two activities?

A layer that scores itself compares its answers to pairs of inputs. A *kernel* k(a, b) is such a comparison: symmetric,
and positive definite (001, Eq. 23), so that a matrix of comparisons K_ij = k(a_i, a_j) behaves like a table of inner
products. Three are used here:

    linear    k = aᵀb                         (Eq. 24)  grows with activity
    cosine    k = aᵀb / (‖a‖ ‖b‖)             (Eq. 25)  direction only
    Gaussian  k = exp(-‖a - b‖² / 2σ²)        (Eq. 26)  near or far, on the scale σ

In a wide layer every pair of points is far apart and the Gaussian kernel sees only strangers. So neurons are gathered
in groups, and a group speaks with one number: how strongly its members deviate from their common mean (Eq. 13-15).

Local or not: a kernel needs two activities of one layer and a sum over its neurons; nothing from other layers.
Chapters 03 and 04.
"""

import math

import torch
from torch import Tensor


def linear_kernel(z: Tensor) -> Tensor:
    """Inner products of all pairs of points, (m, m). Source: 001, Eq. 24.

    Args:
        z: activity of m points, (m, ...), floating point; trailing dimensions are flattened.

    Raises:
        TypeError: z is not floating point. ValueError: z has no features, or holds NaN or infinity.
    """
    return _finite(similarity(z, kernel="linear"))


def cosine_kernel(z: Tensor) -> Tensor:
    """Cosines of the angles between all pairs of points, (m, m); arguments and errors as in `linear_kernel`.

    A point at the origin has no direction: its similarity to every point, itself included, is 0.
    Source: 001, Eq. 25.
    """
    return _finite(similarity(z, kernel="cosine"))


def gaussian_kernel(z: Tensor, *, sigma: float = 5.0) -> Tensor:
    """exp(-‖z_i - z_j‖² / 2σ²) of all pairs of points, (m, m); arguments and errors as in `linear_kernel`.

    Args:
        sigma: width, in the units of z; pairs much farther apart than sigma count as unrelated. Positive.

    Source: 001, Eq. 26. The authors keep sigma = 5 whatever the width of the layer.
    """
    return _finite(similarity(z, kernel="gaussian", sigma=sigma))


def label_kernel(labels: Tensor, num_classes: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """The teaching signal, (m, m): 1 for two points of the same class, -1/(n - 1) for two different ones.

    It is the cosine kernel of one-hot labels minus 1/n, and takes two values only: nobody needs to know *which* class.

    Args:
        labels: integer classes, (m,), from 0 to num_classes - 1.
        num_classes: n, at least 2.
        dtype: of the result; default `torch.get_default_dtype()`.

    Raises:
        TypeError: labels are not integers. ValueError: labels out of range, or not one per point.
    Source: 001, Eq. 35.
    """
    _check_labels(labels, num_classes)
    same = labels[:, None] == labels[None, :]
    signal = torch.tensor([-1 / (num_classes - 1), 1.0], dtype=dtype or torch.get_default_dtype(), device=labels.device)
    return signal[same.long()]


def grouped_activity(z: Tensor, groups: int, *, power: float = 0.5, offset: float = 1.0) -> Tensor:
    """What a layer's groups say, (m, groups): v_g = u_g^(1 - power), minus the mean over groups.

    Args:
        z: activity, (m, ...); consecutive features of the flattened point form a group, so a group of a convolution is
            a block of channels with all their positions.
        groups: number of groups; must divide the number of features.
        power: φ (the paper's p), at least 0 and below 1. offset: ε₀ (the paper's δ), at least 0.

    Raises:
        TypeError, ValueError: as `linear_kernel`, or an option out of range.
    Source: 001, Eq. 13-14.
    """
    _, u = group_variance(z, groups, offset=offset)
    return strength(u, power=power)


def group_variance(z: Tensor, groups: int, *, offset: float = 1.0) -> tuple[Tensor, Tensor]:
    """Deviation from the group's mean, (m, groups, n_g), and smoothed variance of the group, (m, groups).

    z̃ = z - mean of the group, u = (‖z̃‖² + offset) / n_g (no Bessel correction). Source: 001, Eq. 13.
    """
    z = _points(z)
    if groups < 1 or z.shape[1] % groups:
        raise ValueError(f"groups={groups} must divide the {z.shape[1]} features of a point")
    if not 0 <= offset < float("inf"):
        raise ValueError(f"offset={offset} must be a number of at least 0")
    grouped = z.reshape(len(z), groups, -1)
    deviation = grouped - grouped.mean(2, keepdim=True)
    length = torch.linalg.vector_norm(deviation, dim=2)
    return deviation, (length.square() + offset) / deviation.shape[2]


def strength(u: Tensor, *, power: float) -> Tensor:
    """v, (m, groups), from the groups' variances u: u^(1 - power) minus its mean over groups. Source: 001, Eq. 14."""
    if not 0 <= power < 1:
        raise ValueError(f"power={power} must be at least 0 and below 1: at 1 all groups say the same")
    v = u ** (1 - power)
    return v - v.mean(1, keepdim=True)


def squared_distances(z: Tensor) -> Tensor:
    """‖z_i - z_j‖² of all pairs of rows, (m, m), from one product: ‖z_i‖² + ‖z_j‖² - 2 z_iᵀz_j.

    The rows' mean is taken out first: no distance changes, and float32 keeps digits it would lose in the subtraction.
    A point is at distance 0 from itself exactly, and pairs at distance 0 have gradient 0.
    """
    z = z - z.detach().mean(0)
    gram = z @ z.T
    norms = gram.diagonal().clone()
    sums = norms[:, None] + norms[None, :]
    return sums.sub_(gram, alpha=2).clamp_min(0)


def centre(K: Tensor) -> Tensor:
    """K̊: the matrix minus its mean, ONE scalar (not HKH: rows keep their own means). Source: 001, Eq. 11."""
    return K - K.mean()


def similarity(z: Tensor, *, kernel: str, sigma: float = 5.0) -> Tensor:
    """A kernel by name, (m, m), without the search for NaN: for callers that check one number at their end."""
    z = _points(z)
    if kernel == "gaussian":
        return squared_distances(z / _width(sigma)).neg_().exp_()
    if kernel == "cosine":
        directions, _ = direction(z)
        return directions @ directions.T
    if kernel == "linear":
        return z @ z.T
    raise ValueError(f"kernel={kernel!r}: choose 'gaussian', 'cosine' or 'linear'")


def direction(z: Tensor) -> tuple[Tensor, Tensor]:
    """Each row (m, d) divided by its length (m, 1); a row of zeros stays, and counts as length 1."""
    length = torch.linalg.vector_norm(z, dim=1, keepdim=True)
    length = length.masked_fill(length == 0, 1.0)
    return z / length, length


def fails(check: Tensor) -> bool:
    """Whether a check of data fails; under `torch.func.vmap`, where no value can be looked at, it counts as passed."""
    try:
        return not check
    except RuntimeError as error:
        if "vmap" in str(error):
            return False
        raise


def _width(sigma: float) -> float:
    """√2 σ: measured in this unit, distances make the Gaussian kernel exp(-distance²)."""
    if not 0 < sigma < float("inf"):
        raise ValueError(f"sigma={sigma} must be a positive number")
    return math.sqrt(2) * sigma


def _points(z: Tensor) -> Tensor:
    """One row per point, (m, d)."""
    if not torch.is_floating_point(z):
        raise TypeError(f"z has dtype {z.dtype}: kernels compare real activities; convert with z.float() or z.double()")
    if z.dim() < 2 or z.numel() == 0:
        raise ValueError(f"z has shape {tuple(z.shape)}: expected (points, features), neither of them 0")
    return z.flatten(1)


def _finite(K: Tensor) -> Tensor:
    """A bad number anywhere in z reaches the diagonal."""
    if fails(torch.isfinite(K.detach().diagonal().sum())):
        raise ValueError(f"z holds NaN or infinity, or overflows {K.dtype}: look for the first layer that does")
    return K


def _check_labels(labels: Tensor, num_classes: int) -> None:
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels have dtype {labels.dtype}: expected integer classes; convert with labels.long()")
    if labels.dim() != 1:
        raise ValueError(f"labels have shape {tuple(labels.shape)}: expected one class per point, (points,)")
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes}: with fewer than 2 there is nothing to tell apart")
    if fails(((labels >= 0) & (labels < num_classes)).all()):
        low, high = labels.min().item(), labels.max().item()
        raise ValueError(
            f"labels run from {low} to {high}: with num_classes={num_classes} they must be 0 to {num_classes - 1}"
        )
