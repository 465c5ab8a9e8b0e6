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

from biolearn_lite.rules import kernels, plasticity


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
        label_k: similarity of the labels, (m, m), as from `kernels.label_kernel(labels, num_classes)`.
        kernel: "gaussian", "cosine" or "linear"; sigma: width of the Gaussian.
        estimator: "phsic" or "hsic", for both terms.
        groups: compare `kernels.grouped_activity(z, groups, power=power, offset=offset)`; None: compare z itself.

    Returns: a differentiable scalar. Raises: TypeError, ValueError, as the functions named here.
    Source: 001, Eq. 9 (estimator "hsic": the same with Eq. 5).
    """
    estimate = {"phsic": _phsic, "hsic": _hsic}[_known_estimator(estimator)]
    seen = z if groups is None else kernels.grouped_activity(z, groups, power=power, offset=offset)
    K = kernels.similarity(seen, kernel=kernel, sigma=sigma)
    _check_pair(K, label_k)
    return _finite(estimate(K, K - balance * label_k.to(K.dtype)))  # both estimates are linear in each argument


@torch.no_grad()
def bottleneck_update(
    op: object,
    pre: Tensor,
    weight: Tensor,
    label_k: Tensor,
    *,
    activation: object,
    kernel: str = "gaussian",
    sigma: float = 5.0,
    balance: float = 2.0,
    estimator: str = "phsic",
    groups: int | None = None,
    power: float = 0.5,
    offset: float = 1.0,
) -> Tensor:
    """dW = -∂(bottleneck_objective)/∂W of one layer, without autograd: `weight += rate * dW`.

    Args:
        op: how `pre` meets `weight`: "dense", "conv", or whatever `plasticity.operation` takes;
            `plasticity.Conv2d((3, 3), padding=1, pool=2)` for a convolution with padding and max-pooling.
        pre: presynaptic activity of m points; where the layer below divides, this is its r.
        activation: pointwise: a name, function, module, or pair (f, slope of f), as `plasticity.pointwise` takes it.

    Returns: dW in the shape of `weight`. Other arguments and errors: as `bottleneck_objective`.
    Source: 001, Eq. 10-12, 18 (with its factor 2(1 - φ)/n_g), 41, 47, 54-56.
    """
    op = plasticity.operation(op, weight)
    z, slope = plasticity.respond(op, pre, weight, plasticity.pointwise(activation))
    signal = bottleneck_signal(
        z,
        label_k,
        kernel=kernel,
        sigma=sigma,
        balance=balance,
        estimator=estimator,
        groups=groups,
        power=power,
        offset=offset,
    )
    return plasticity.hebbian(op, pre, slope, signal)


@torch.no_grad()
def bottleneck_signal(
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
    """The postsynaptic signal, -∂(bottleneck_objective)/∂z in the shape of z; arguments and errors as there.

    With groups, all neurons of a group share one number, which meets each one's own r = z̃ / u^φ: what divisive
    normalization sends to the next layer is what this layer needs to learn. Source: 001, Eq. 12, 18, 47, 54, 56.
    """
    if groups is None:
        return _signal(z.flatten(1), label_k, kernel, sigma, balance, estimator).view_as(z)
    deviation, u = kernels.group_variance(z, groups, offset=offset)
    shared = _signal(kernels.strength(u, power=power), label_k, kernel, sigma, balance, estimator)
    gain = 2 * (1 - power) / deviation.shape[2] * shared / u**power
    return deviation.mul_(gain.unsqueeze(2)).view_as(z)


def third_factor(K: Tensor, label_k: Tensor, *, sigma: float = 5.0, balance: float = 2.0) -> Tensor:
    """M, one number per pair, (m, m), for the Gaussian kernel: the pair's update is M_ij (z_i - z_j)(x_i - x_j)ᵀ.

    Negative: pull the two activities together (same class, yet apart). Positive: push them apart.
    Source: 001, Eq. 12.
    """
    return -_mismatch(K, label_k, balance, "phsic") * K / sigma**2


def _signal(s: Tensor, label_k: Tensor, kernel: str, sigma: float, balance: float, estimator: str) -> Tensor:
    """-∂(Eq. 9)/∂s for points s, (m, d): all pairs at once, in products of (m, m) and (m, d) matrices.

    A pair adds A_ij ∂k(s_i, s_j), where A is how much more alike the labels are than the activities.
    """
    K = kernels.similarity(s, kernel=kernel, sigma=sigma)
    A = _finite(_mismatch(K, label_k, balance, estimator))
    scale = 2 / len(K) ** 2
    if kernel == "linear":
        return scale * (A @ s)
    if kernel == "cosine":
        s, length = kernels.direction(s)
        return scale / length * (A @ s - (A * K).sum(1, keepdim=True) * s)
    M, s = A.mul_(K), s - s.mean(0)
    # Σ_ij M_ij (s_i - s_j)(t_i - t_j) = 2 Σ_i [(M1)_i s_i - (Ms)_i] t_i for symmetric M
    return -scale / sigma**2 * (M.sum(1, keepdim=True) * s - M @ s)


def _mismatch(K: Tensor, label_k: Tensor, balance: float, estimator: str) -> Tensor:
    """γL̊ - 2K̊ (Eq. 10): the centring is each estimate's own, one scalar for pHSIC and HKH for HSIC."""
    _check_pair(K, label_k)
    A = kernels.centre(torch.sub(balance * label_k.to(K.dtype), K, alpha=2))
    if _known_estimator(estimator) == "hsic":
        A = A - A.mean(0) - A.mean(1, keepdim=True)
    return A


def _phsic(K: Tensor, L: Tensor) -> Tensor:
    return (kernels.centre(K) * kernels.centre(L)).mean()


def _hsic(K: Tensor, L: Tensor) -> Tensor:
    K, L = kernels.centre(K), kernels.centre(L)
    return (K * L).mean() - 2 * (K.mean(0) * L.mean(0)).mean()


def _check_pair(K: Tensor, L: Tensor) -> None:
    for name, matrix in (("first", K), ("second", L)):
        if matrix.dim() == 1:
            raise ValueError(f"the {name} kernel matrix has shape {tuple(matrix.shape)}: of labels, give label_kernel")
        if not torch.is_floating_point(matrix):
            raise TypeError(f"the {name} kernel matrix has dtype {matrix.dtype}: convert it with .float() or .double()")
        if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"the {name} kernel matrix has shape {tuple(matrix.shape)}: expected (m, m)")
    if K.shape != L.shape:
        raise ValueError(f"kernel matrices of {len(K)} and {len(L)} points: both must compare the same points")
    if len(K) < 2:
        raise ValueError("one point alone depends on nothing: give at least 2 points (batches of another size)")


def _known_estimator(estimator: str) -> str:
    if estimator not in ("phsic", "hsic"):
        raise ValueError(f"estimator={estimator!r}: choose 'phsic' or 'hsic'")
    return estimator


def _finite(values: Tensor) -> Tensor:
    """One check of one number: any NaN or infinity in the data reaches the sum."""
    if kernels.fails(torch.isfinite(values.detach().sum())):
        raise ValueError("the activity, the labels' similarity or a kernel matrix holds NaN or infinity")
    return values
