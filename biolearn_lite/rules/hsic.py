"""HSIC and pHSIC: a layer scores itself.

How strongly do two things depend on each other? Compare all pairs of points twice, once in each thing: if pairs that
are alike in one are alike in the other, the two depend. For kernel matrices K and L of m points,

    HSIC(K, L)  = mean(K̊ ∘ L̊) - 2 Cov(row means of K, row means of L)      001, Eq. 5
    pHSIC(K, L) = mean(K̊ ∘ L̊)                                              001, Eq. 34

where K̊ is K minus its mean. HSIC's second term needs three points at once; pHSIC, "plausible HSIC", needs two, and a
running mean. Leaving the term out is exact when one kernel is centred (Eq. 35 sees to that for balanced labels); of a
thing with itself it leaves too much, never too little: HSIC(A, A) <= pHSIC(A, A) (Eq. 32).

A layer then minimizes what its activity Z repeats minus γ times what it tells about the label Y (Eq. 9):

    pHSIC(Z, Z) - γ pHSIC(Y, Z)

Local or not: the layer's own activity for two points, and one broadcast bit, "same class or not". No backward pass.
Chapter 03.
"""

import torch
from torch import Tensor

from biolearn_lite.rules import kernels


def hsic(K: Tensor, L: Tensor) -> Tensor:
    """Hilbert-Schmidt independence criterion, estimated from two kernel matrices of the same m points.

    Args:
        K, L: symmetric kernel matrices, (m, m), floating point, m at least 2.

    Returns:
        tr(K H L H) / m² with H = I - 11ᵀ/m, in O(m²) time and memory; never negative for positive definite kernels.

    Raises:
        TypeError, ValueError: not square, not the same size, too few points, not floating point, NaN or infinite.
    Source: 001, Eq. 5.
    """
    _check_pair(K, L)
    return _finite(_hsic(K, L))


def phsic(K: Tensor, L: Tensor) -> Tensor:
    """Plausible HSIC: the covariance of the entries of two kernel matrices; arguments and errors as in `hsic`.

    Not an estimate of HSIC: equal to it where a kernel is centred, at least as large for K = L, and for two different
    arguments possibly negative. Source: 001, Eq. 34.
    """
    _check_pair(K, L)
    return _finite(_phsic(K, L))


def bottleneck_objective(
    z: Tensor,
    label_k: Tensor,
    *,
    kernel: str = "gaussian",
    sigma: float = 5.0,
    balance: float = 2.0,
    estimator: str = "phsic",
    groups: int | None = None,
    power: float = 0.5,
    offset: float = 1.0,
) -> Tensor:
    """What a layer minimizes: dependence of its activity on itself minus `balance` times its dependence on the labels.

    Args:
        z: activity of m points, (m, ...), before divisive normalization.
        label_k: similarity of the labels, (m, m), as from `kernels.label_kernel`.
        kernel: "gaussian", "cosine" or "linear"; sigma: width of the Gaussian.
        estimator: "phsic" or "hsic", for both terms.
        groups: compare `kernels.grouped_activity(z, groups, power=power, offset=offset)`; None: compare z itself.

    Returns: a differentiable scalar. Raises: TypeError, ValueError, as the functions named here.
    Source: 001, Eq. 9 (estimator "hsic": the same with Eq. 5).
    """
    estimate = {"phsic": _phsic, "hsic": _hsic}.get(estimator)
    if estimate is None:
        raise ValueError(f"estimator={estimator!r}: choose 'phsic' or 'hsic'")
    seen = z if groups is None else kernels.grouped_activity(z, groups, power=power, offset=offset)
    K = kernels.similarity(seen, kernel=kernel, sigma=sigma)
    L = label_k.to(K.dtype)
    _check_pair(K, L)
    return _finite(estimate(K, K - balance * L))  # both estimates are linear in each argument


def _phsic(K: Tensor, L: Tensor) -> Tensor:
    return (kernels.centre(K) * kernels.centre(L)).mean()


def _hsic(K: Tensor, L: Tensor) -> Tensor:
    K, L = kernels.centre(K), kernels.centre(L)
    return (K * L).mean() - 2 * (K.mean(0) * L.mean(0)).mean()


def _check_pair(K: Tensor, L: Tensor) -> None:
    for name, matrix in (("first", K), ("second", L)):
        if not torch.is_floating_point(matrix):
            raise TypeError(f"the {name} kernel matrix has dtype {matrix.dtype}: convert it with .float() or .double()")
        if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"the {name} kernel matrix has shape {tuple(matrix.shape)}: expected (m, m)")
    if K.shape != L.shape:
        raise ValueError(f"kernel matrices of {len(K)} and {len(L)} points: both must compare the same points")
    if len(K) < 2:
        raise ValueError("one point alone depends on nothing: give at least 2 points (drop a last batch of 1)")


def _finite(estimate: Tensor) -> Tensor:
    """One check of one number: any NaN or infinity in the data reaches it."""
    if not torch.isfinite(estimate.detach()):
        raise ValueError(f"the estimate is {estimate.item()}: the activity or a kernel matrix holds NaN or infinity")
    return estimate
