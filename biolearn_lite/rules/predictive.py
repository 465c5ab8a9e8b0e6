"""Learning without labels, one glance after the other: what I see now should tell what I see next, while I look on.

An eye that fixates a thing wanders over its parts; a saccade takes it to another thing. From the activity c of a layer
at one glance, W_pred predicts the activity z of the next one, and one number says how well (003, appendix notation):

    u = z·(W_pred c)

CPC asks which of many glances is the one that followed: a softmax over the true one and N others (Eq. 2), end to end;
Greedy InfoMax asks it in every module. Its gradient (Eq. 9-12) wants from a neuron two things that it cannot have:

- z⁺ - Σ_τ π^τ z^τ, its own activity minus an average over glances it has not seen, while it sends z⁺ to the next layer;
- W_predᵀ times that, the same weights used backwards.

CLAPP asks one question per glance: did the eye stay (y = 1) or jump (y = -1)? Its loss is a hinge (Eq. 3):

    L = ( 1 - y u )₊        γ = y if y u < 1, else 0                                          (Eq. 4)

so the loss itself drops out of the learning rule, and what remains is a broadcast γ, one of -1, 0 and 1: surprise.

    ΔW^z = γ · (W_pred c) · ρ'(a^z) · x^z        the neuron of now, told by its dendrite      (Eq. 6)
    ΔW^c = γ · (W_retro z) · ρ'(a^c) · x^c       the neuron of before                         (Eq. 7)
    ΔW_pred = γ z cᵀ        ΔW_retro = γ c zᵀ    Hebb, told when                              (Eq. 8)

If c and z are one layer, it learns both parts. With one matrix, W_retro is W_predᵀ, carried backwards. With two, the
loss has a half for each (Eq. 14), and each half a gate of its own:

    F(block(c), z, W_pred) + F(c, block(z), W_retroᵀ)

The paper prints ½ before this sum and drops it in its Eq. 17; we have it in neither, as the published run. Eq. 17 also
has one gate for both halves; the two scores differ until W_pred and W_retroᵀ have grown alike, so `one_gate` is another
rule, and the loss it descends is no hinge. Max-pooling needs nothing more: inhibition silences those who did not win.

Local: pre, post, a dendrite that holds the prediction, one broadcast per layer. Not local: equal increments of W_pred
and W_retro, and whoever adds up z·ẑ over the layer (`rules.circuits`). Chapter 10.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from biolearn_lite.rules import plasticity


def ahead(c: Tensor, z: Tensor, *, step: int = 1, skip: int = 1) -> tuple[Tensor, Tensor]:
    """Contexts and what is predicted from them: c at time t beside z at time t + step + skip.

    Args:
        c, z: sequences (..., T, features). step: k = 1, 2, ... skip: glances left out before the first prediction; 1
            where neighbours overlap by half, so that no pixel is in both.

    Returns: two tensors (..., T - step - skip, features). Raises: ValueError. Source: 003, appendix B.1.
    """
    T, shift = c.shape[-2], step + skip
    if step < 1 or skip < 0 or shift >= T:
        raise ValueError(f"step={step} and skip={skip} look {shift} glances ahead; a sequence here has {T}")
    return c[..., : T - shift, :], z[..., shift:, :]


def score(c: Tensor, z: Tensor, W_pred: Tensor) -> Tensor:
    """u = zᵀ W_pred c for contexts c (..., contexts) and glances z (..., features); leading axes are broadcast.

    Raises: TypeError, ValueError: not floating point, W_pred that is not (features, contexts), NaN. Source: 003, Eq. 2.
    """
    for name, value in (("c", c), ("z", z), ("W_pred", W_pred)):
        if not torch.is_floating_point(value):
            raise TypeError(f"{name} has dtype {value.dtype}: convert with .float() or .double()")
    if W_pred.shape != (z.shape[-1], c.shape[-1]):
        raise ValueError(f"W_pred is {tuple(W_pred.shape)}: expected (features, contexts) = {z.shape[-1], c.shape[-1]}")
    if not any(
        len(many) >= len(few) and all(n in (1, m) for m, n in zip(many[::-1], few[::-1], strict=False))
        for many, few in ((z.shape[:-1], c.shape[:-1]), (c.shape[:-1], z.shape[:-1]))
    ):
        raise ValueError(f"z is {tuple(z.shape)}, c {tuple(c.shape)}: give one row of z, or several, per row of c")
    u: Tensor = (z * F.linear(c, W_pred)).sum(-1)
    if u.numel() == 0 or not torch.isfinite(u.detach().sum()):
        raise ValueError("there are no glances, or c, z or W_pred hold NaN or infinity: lower the learning rate?")
    return u


def info_nce(c: Tensor, z: Tensor, W_pred: Tensor) -> Tensor:
    """CPC's loss, and module by module that of Greedy InfoMax: cross-entropy of finding the glance that followed.

    Args:
        c: contexts (..., contexts). z: (1 + N, ..., features), the glance that followed c, then N others.
        W_pred: (features, contexts).

    Returns: a scalar, the mean over contexts. The published run adds 1e-11 inside its logarithm, so that its loss ends
        at 25.3 and its gradient dies there; ours goes on. Raises: as `score`. Source: 003, Eq. 2.
    """
    _check_candidates(c, z)
    return -score(c, z, W_pred).log_softmax(0)[0].mean()


def clapp_hinge(
    c: Tensor,
    z: Tensor,
    y: Tensor,
    W_pred: Tensor,
    *,
    W_retro: Tensor | None = None,
    one_gate: bool = False,
    block: str | None = None,
) -> Tensor:
    """CLAPP's loss: a glance within a fixation should score above 1, one after a saccade below -1.

    Args:
        c: contexts (..., contexts). z: glances (..., features). Leading axes are broadcast: CLAPP has one z per c; to
            see both cases in one step (CLAPP-s), give z as (1 + N, ..., features) and y = (1, -1, ..., -1).
        y: 1 for a fixation, -1 for a saccade; one for each first index of z, or for each first few, as (m,) or (m, n).
        W_pred: (features, contexts). W_retro: (contexts, features), if the way back has weights of its own.
        one_gate: with W_retro: the prediction's gate decides for both halves (Eq. 17).
        block: "context": no gradient through c (Eq. 13); "target": none through z; then W_retro must be None.

    Returns: a scalar, the mean over fixations plus the mean over saccades, where no such event counts 0; with W_retro
        the sum of both halves, twice Eq. 14. Raises: as `score`, and ValueError. Source: 003, Eq. 3 and 13-14.
    """
    _check_options(c, z, W_retro, one_gate, block)
    if W_retro is None:
        c, z = c.detach() if block == "context" else c, z.detach() if block == "target" else z
        return _hinge(score(c, z, W_pred), y)
    u_z, u_c = score(c.detach(), z, W_pred), score(c, z.detach(), W_retro.T)
    gate = surprise(u_z, y).abs() if one_gate else None
    return _hinge(u_z, y) + _hinge(u_c, y, gate)


@torch.no_grad()
def surprise(u: Tensor, y: Tensor) -> Tensor:
    """γ = y H, the third factor of each event: y where y u < 1, else 0; in the shape of the scores u.

    y: as in `clapp_hinge`. Source: 003, Eq. 4.
    """
    y = _events(y, u)
    return y * (y * u < 1)


class Told(NamedTuple):
    """What an event says to every part: -∂loss/∂c and -∂loss/∂z, in their shapes, and what is added to the weights of
    the predictions, in theirs."""

    c: Tensor
    z: Tensor
    W_pred: Tensor
    W_retro: Tensor | None


@torch.no_grad()
def clapp_signal(
    c: Tensor,
    z: Tensor,
    y: Tensor,
    W_pred: Tensor,
    *,
    W_retro: Tensor | None = None,
    one_gate: bool = False,
    block: str | None = None,
) -> Told:
    """Surprise times the dendrite's prediction, for both ends of each one, and the predictions' own Hebbian rule.

    Arguments and errors: as `clapp_hinge`, of whose mean each event gets its share. Source: 003, Eq. 6-8, 13 and 17.
    """
    _check_options(c, z, W_retro, one_gate, block)
    u = score(c, z, W_pred)
    share = _shares(_events(y, u))
    gamma = gamma_c = (surprise(u, y) * share).unsqueeze(-1)
    if W_retro is not None and not one_gate:
        gamma_c = (surprise(score(c, z, W_retro.T), y) * share).unsqueeze(-1)
    back = W_pred.T if W_retro is None else W_retro
    to_z, to_c = gamma * F.linear(c, W_pred), gamma_c * F.linear(z, back)
    return Told(
        to_c.sum_to_size(c.shape) * (block != "context"),
        to_z.sum_to_size(z.shape) * (block != "target"),
        torch.einsum("...j,...k->jk", gamma * z, c),
        None if W_retro is None else torch.einsum("...k,...j->kj", gamma_c * c, z),
    )


class CpcTerms(NamedTuple):
    """What CPC's gradient is made of. The first two a circuit has or could have, the last two no neuron knows.

    probability: π (1 + N, ...), of each glance to be the one. dendrite: W_pred c (..., features).
    deviation: z⁺ - Σ π z (..., features). transported: W_predᵀ times the deviation (..., contexts).
    """

    probability: Tensor
    dendrite: Tensor
    deviation: Tensor
    transported: Tensor


@torch.no_grad()
def cpc_terms(c: Tensor, z: Tensor, W_pred: Tensor) -> CpcTerms:
    """The terms of Eq. 10-12. Arguments and errors: as `info_nce`. Source: 003, appendix A."""
    _check_candidates(c, z)
    pi = score(c, z, W_pred).softmax(0)
    deviation = z[0] - torch.einsum("n...,n...j->...j", pi, z)
    return CpcTerms(pi, F.linear(c, W_pred), deviation, F.linear(deviation, W_pred.T))


@torch.no_grad()
def info_nce_signal(c: Tensor, z: Tensor, W_pred: Tensor) -> Told:
    """CPC's own gradient: -∂(info_nce) with respect to c, all glances z, and W_pred.

    Eq. 9-12 point the way up the log-probability, and so do these. Arguments and errors: as `info_nce`.
    """
    pi, dendrite, deviation, transported = cpc_terms(c, z, W_pred)
    contexts = pi[0].numel()
    to_z = -pi.unsqueeze(-1) * dendrite
    to_z[0] += dendrite
    dW_pred = torch.einsum("...j,...k->jk", deviation, c)
    return Told(transported / contexts, to_z / contexts, dW_pred / contexts, None)


class Update(NamedTuple):
    """What is added to each weight: `weight += rate * update.W`, `W_pred += rate * update.W_pred`, and so on.

    W_z: the part of the glance that was predicted (Eq. 6, 11). W_c: the part of the context (Eq. 7, 12).
    """

    W_z: Tensor
    W_c: Tensor
    W_pred: Tensor
    W_retro: Tensor | None

    @property
    def W(self) -> Tensor:
        """Both parts: context and target are the same layer."""
        return self.W_z + self.W_c


@torch.no_grad()
def clapp_update(
    pre_c: Tensor,
    pre_z: Tensor,
    weight: Tensor,
    y: Tensor,
    W_pred: Tensor,
    *,
    op: object = "dense",
    activation: object = "relu",
    W_retro: Tensor | None = None,
    one_gate: bool = False,
    block: str | None = None,
) -> Update:
    """dW = -∂(clapp_hinge)/∂W of the layer, of W_pred and of W_retro, without autograd.

    Args:
        pre_c: what the layer sees at the contexts: (n, inputs), or images (n, C, H, W) for a convolution. pre_z: at the
            glances to predict: the same, or (1 + N, n, ...). y: (n,), or (1 + N,); see `clapp_hinge`.
        weight: the layer's, its bias absorbed. c and z are its activities, in images averaged over positions.
        op, activation: as in `plasticity.operation` and `.pointwise`; with pooling by `plasticity.Conv2d(..., pool=2)`.

    Other arguments and errors: as `clapp_hinge`. Source: 003, Eq. 6-8, 13, 17, "Gradient flow through MaxPooling".
    """
    c, learn_c = _layer(pre_c, pre_c.dim() - 1, weight, op, activation)
    z, learn_z = _layer(pre_z, pre_c.dim() - 1, weight, op, activation)
    told = clapp_signal(c, z, y, W_pred, W_retro=W_retro, one_gate=one_gate, block=block)
    return Update(learn_z(told.z), learn_c(told.c), told.W_pred, told.W_retro)


@torch.no_grad()
def info_nce_update(
    pre_c: Tensor, pre_z: Tensor, weight: Tensor, W_pred: Tensor, *, op: object = "dense", activation: object = "relu"
) -> Update:
    """dW = -∂(info_nce)/∂W of the layer and of W_pred, without autograd; but see `CpcTerms` for what it takes.

    pre_z: (1 + N, n, ...), true glances first. Other arguments: as `clapp_update`. Source: 003, Eq. 10-12.
    """
    c, learn_c = _layer(pre_c, pre_c.dim() - 1, weight, op, activation)
    z, learn_z = _layer(pre_z, pre_c.dim() - 1, weight, op, activation)
    told = info_nce_signal(c, z, W_pred)
    return Update(learn_z(told.z), learn_c(told.c), told.W_pred, None)


def _layer(
    pre: Tensor, lone: int, weight: Tensor, op: object, activation: object
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A layer's features (..., channels) of what it sees, and how it learns from what each of them is told.

    lone: axes of one example; what stands before them in `pre` is kept in the features.
    """
    kind = plasticity.operation(op, weight)
    shape = pre.shape[: pre.dim() - lone]
    x = pre.flatten(0, len(shape) - 1)
    z, slope = plasticity.respond(kind, x, weight, plasticity.pointwise(activation))
    places = z[0, 0].numel()

    def learn(signal: Tensor) -> Tensor:
        each = signal.reshape(*z.shape[:2], *[1] * (z.dim() - 2)) / places
        return plasticity.hebbian(kind, x, slope, each.expand_as(z))

    return z.flatten(2).mean(2).unflatten(0, shape) if z.dim() > 2 else z.unflatten(0, shape), learn


def _hinge(u: Tensor, y: Tensor, gate: Tensor | None = None) -> Tensor:
    """(1 - y u)₊, or gate · (1 - y u), averaged over fixations, and over saccades."""
    y = _events(y, u)
    short = 1 - y * u
    return (_shares(y) * (F.relu(short) if gate is None else gate * short)).sum()


def _events(y: Tensor, u: Tensor) -> Tensor:
    """y, one per score: given for the first axes, it holds for all that follows."""
    if y.dim() > u.dim() or not all(a in (1, b) for a, b in zip(y.shape, u.shape, strict=False)):
        raise ValueError(f"y is {tuple(y.shape)}: give one event for each first index of the scores {tuple(u.shape)}")
    y = y.to(u.dtype).view(*y.shape, *[1] * (u.dim() - y.dim())).expand(u.shape)
    if not (y.abs() == 1).all():
        raise ValueError("y holds something else than 1 (fixation) and -1 (saccade)")
    return y


def _shares(y: Tensor) -> Tensor:
    """The weight of each event in the loss: fixations together count 1, and so do saccades, however many there are."""
    stayed = y > 0
    of_stays, of_jumps = (1 / kind.sum().clamp(min=1).to(y.dtype) for kind in (stayed, ~stayed))
    return torch.where(stayed, of_stays, of_jumps)


def _check_options(c: Tensor, z: Tensor, W_retro: Tensor | None, one_gate: bool, block: str | None) -> None:
    if block not in (None, "context", "target"):
        raise ValueError(f"block={block!r}: choose 'context', 'target' or None")
    if W_retro is None and one_gate:
        raise ValueError("one_gate=True: there is one gate anyway; give W_retro")
    if W_retro is not None and block is not None:
        raise ValueError(f"block={block!r}: with W_retro each half blocks one side already; leave one of them out")
    if W_retro is not None and W_retro.shape != (c.shape[-1], z.shape[-1]):
        wanted = (c.shape[-1], z.shape[-1])
        raise ValueError(f"W_retro is {tuple(W_retro.shape)}: expected (contexts, features) = {wanted}")


def _check_candidates(c: Tensor, z: Tensor) -> None:
    if z.dim() != c.dim() + 1 or z.shape[1:-1] != c.shape[:-1]:
        raise ValueError(f"z is {tuple(z.shape)}, c {tuple(c.shape)}: give z as (1 + N, ..., features), one row per c")
