"""Learning without labels: two views of one thing should look alike, and views of other things should not.

The world changes the view and keeps the thing: a shift, a turn, another light. A network maps n things, each seen
twice, to embeddings a and b, (n, d); row s of a and row s of b belong together. SimCLR's loss (002, Eq. 1) asks which
of all 2n - 1 others is the partner. It needs normalized embeddings, inner products, and a ratio over the whole batch:
more than a neuron can know. The contrastive hinge loss asks two yes-or-no questions about distances (002, Eq. 2):

    Σ_s [ ( ‖a_s - b_s‖₁ - m₁ )₊  +  Σ_t ( m₂ - ‖a_s - b_t‖₁ )₊ ]        t in N_s, a subset of the others

A pair teaches only if it is too far apart (more than m₁) or, as a negative, too near (less than m₂). The L1 distance
makes its error signals as simple as can be, a gate times a sign (Eq. 4-6, with the pairs' gates g):

    δ^a_s = g_ss sgn(a_s - b_s) - Σ_t g_st sgn(a_s - b_t)        δ^b_s = -g_ss sgn(a_s - b_s)
    δ^b_t = g_st sgn(a_s - b_t)                                  ΔW = -Σ (δ^a x^a + δ^b x^b)

Two things make it local in time. N_s may hold just the next few things that come by, in the order of the batch, not
the most similar ones; the last anchors of a batch then have fewer, for nothing follows them. And the first view may be
no more than a memory: with `stop_first_view` its terms are dropped (Eq. 7), so that x^a need not be kept, nor anything
below it.

Local or not: one threshold per pair is broadcast to all neurons of the embedding; each adds the sign of "now minus
remembered". What is left is the way down to the layers below. Chapters 07 and 08.

The published code differs from the text where the paper speaks of 5 negatives: its loop counts the positive as the
first of the five and weighs each of the four that remain by 1/5. That loss is
0.8 · contrastive_hinge(negatives=0) + 0.2 · contrastive_hinge(negatives=4); here, 5 negatives are 5, at weight 1.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from biolearn_lite.rules import kernels, plasticity


def nt_xent(a: Tensor, b: Tensor, *, temperature: float = 0.1) -> Tensor:
    """SimCLR's loss: cross-entropy of finding each view's partner among the other 2n - 1, by cosine similarity.

    Args:
        a, b: embeddings of the two views, (n, ...); row s of both belongs to the same thing.
        temperature: τ > 0; similarities are divided by it.

    Returns: a scalar, the sum over all 2n views; published code divides it by n or by 2n. One pair alone gives 0.
    Raises: TypeError, ValueError: as `contrastive_hinge`, and a temperature that is not positive.
    Source: 002, Eq. 1. The partner counts in the denominator; a view itself does not.
    """
    a, b = _pairs(a, b)
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature={temperature} must be a positive number")
    n = len(a)
    itself = torch.eye(2 * n, dtype=torch.bool, device=a.device)
    similarity = (kernels.cosine_kernel(torch.cat([a, b])) / temperature).masked_fill(itself, -math.inf)
    partner = torch.arange(2 * n, device=a.device).roll(n)
    return F.cross_entropy(similarity, partner, reduction="sum")


def contrastive_hinge(
    a: Tensor,
    b: Tensor,
    *,
    margin_positive: float = 1.0,
    margin_negative: float = 3.0,
    negatives: int | None = None,
    stop_first_view: bool = False,
) -> Tensor:
    """Contrastive hinge loss: pairs farther apart than one margin, and negatives nearer than the other, cost.

    Args:
        a, b: embeddings of the two views, (n, ...); row s of both belongs to the same thing. Distances are L1 sums.
        negatives: compare each a_s with the next T of b, without wrap-around, in O(nT); 0: with none, so that all
            collapses; None: with all others.
        stop_first_view: no gradient reaches a, nor anything below it.

    Returns: a scalar, the sum over all pairs.
    Raises: TypeError, ValueError: a and b that do not match or are not finite, bad margins or negatives.
    Source: 002, Eq. 2 (and 7 for stop_first_view).
    """
    a, b = _pairs(a, b)
    _check_options(margin_positive, margin_negative, negatives)
    if stop_first_view:
        a = a.detach()
    loss = F.relu(_distance(a, b) - margin_positive).sum()
    if negatives is None:
        others = ~torch.eye(len(a), dtype=torch.bool, device=a.device)
        return loss + (F.relu(margin_negative - torch.cdist(a, b, p=1)) * others).sum()
    for s, t in _glances(len(a), negatives):
        loss = loss + F.relu(margin_negative - _distance(a[s], b[t])).sum()
    return loss


@torch.no_grad()
def contrastive_hinge_update(
    pre_a: Tensor,
    pre_b: Tensor,
    weight: Tensor,
    *,
    op: object = "dense",
    margin_positive: float = 1.0,
    margin_negative: float = 3.0,
    negatives: int | None = None,
    stop_first_view: bool = False,
) -> Tensor:
    """dW = -∂(contrastive_hinge)/∂W of a linear head, without autograd: `weight += rate * dW`.

    Args:
        pre_a, pre_b: what the head sees of the two views: (n, inputs), or images (n, C, H, W) for a convolution.
        weight: the head's; its embeddings are `op(pre, weight)`, without bias and nonlinearity.
        op: as in `plasticity.operation`.

    Returns: dW in the shape of `weight`. Other arguments and errors: as `contrastive_hinge`. Source: 002, Eq. 3 and 7.
    """
    op = plasticity.operation(op, weight)
    (a, slope_a), (b, slope_b) = (plasticity.respond(op, pre, weight, plasticity.identity) for pre in (pre_a, pre_b))
    signal_a, signal_b = contrastive_hinge_signal(
        a,
        b,
        margin_positive=margin_positive,
        margin_negative=margin_negative,
        negatives=negatives,
        stop_first_view=stop_first_view,
    )
    dW = plasticity.hebbian(op, pre_b, slope_b, signal_b)
    return dW if stop_first_view else dW + plasticity.hebbian(op, pre_a, slope_a, signal_a)


@torch.no_grad()
def contrastive_hinge_signal(
    a: Tensor,
    b: Tensor,
    *,
    margin_positive: float = 1.0,
    margin_negative: float = 3.0,
    negatives: int | None = None,
    stop_first_view: bool = False,
) -> tuple[Tensor, Tensor]:
    """The postsynaptic signals of both views, -δ^a and -δ^b: -∂(contrastive_hinge) in the shapes of a and b.

    A view is the partner of its own anchor and the negative of others; what it hears from them adds up. At a tie
    sgn(0) = 0, and a pair exactly at its margin teaches nothing. In O(nT) time and O(n) memory; arguments and errors as
    `contrastive_hinge`. Source: 002, Eq. 4-6.
    """
    shape, (a, b) = a.shape, _pairs(a, b)
    _check_options(margin_positive, margin_negative, negatives)
    signal_b = (a - b).sign_() * (_distance(a, b) > margin_positive).unsqueeze(1)
    signal_a = -signal_b
    for s, t in _glances(len(a), negatives):
        apart = a[s] - b[t]
        near = apart.abs().sum(1, keepdim=True) < margin_negative
        push = apart.sign_().mul_(near)
        signal_a[s] += push
        signal_b[t] -= push
    return (signal_a.zero_() if stop_first_view else signal_a).view(shape), signal_b.view(shape)


def _glances(n: int, negatives: int | None) -> Iterator[tuple[slice, slice]]:
    """Anchors, and the others they are compared with one glance later, two glances later, ...: diagonals of all pairs.

    `None` goes through every diagonal, those of things that came before too, but not the main one, the partners.
    """
    for t in range(1, n if negatives is None else min(negatives + 1, n)):
        yield slice(0, n - t), slice(t, n)
        if negatives is None:
            yield slice(t, n), slice(0, n - t)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().sum(1)


def _pairs(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both views with one row per thing, (n, d)."""
    for name, view in (("a", a), ("b", b)):
        if not torch.is_floating_point(view):
            raise TypeError(f"embeddings {name} have dtype {view.dtype}: convert with .float() or .double()")
    if a.shape != b.shape or a.dim() < 2 or a.numel() == 0:
        raise ValueError(f"a is {tuple(a.shape)}, b {tuple(b.shape)}: give two views of the same n things, (n, d)")
    if not torch.isfinite(a.detach().sum() + b.detach().sum()):
        raise ValueError("embeddings a or b hold NaN or infinity: if training diverged, lower the learning rate")
    return a.flatten(1), b.flatten(1)


def _check_options(margin_positive: float, margin_negative: float, negatives: int | None) -> None:
    for name, margin in (("margin_positive", margin_positive), ("margin_negative", margin_negative)):
        if not math.isfinite(margin):
            raise ValueError(f"{name}={margin} must be a finite L1 distance")
    if negatives is not None and (not isinstance(negatives, int) or isinstance(negatives, bool)):
        raise TypeError(f"negatives={negatives!r}: give a whole number, or None for all others")
    if negatives is not None and negatives < 0:
        raise ValueError(f"negatives={negatives}: give 0 or more, or None for all others")
