"""Chapter 10, from CPC to CLAPP. The formulas are written out anew here, independent of `rules`."""

from typing import Any

import torch
from torch import Generator, Tensor

from biolearn_lite.show.exercises import expect, parts, property_of


def _normal(*shape: int, generator: Generator) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _whole(low: int, high: int, generator: Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))


# 10-1: gate(u, y) -> γ


@property_of("10-1", hint=1)
def is_silent_beyond_the_margin(gate: Any, generator: Generator) -> None:
    """A fixation that scores 1 or more, and a saccade that scores −1 or less, are no surprise."""
    u = torch.tensor([1.0, 1.5, -1.0, -3.0], dtype=torch.float64)
    y = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64)
    expect(gate(u, y), torch.zeros(4, dtype=torch.float64), u=u, y=y)


@property_of("10-1", hint=2)
def is_minus_the_slope_of_the_hinge(gate: Any, generator: Generator) -> None:
    """Elsewhere it is minus the hinge's derivative with respect to the score, for any scores."""
    u, y = 2 * _normal(8, generator=generator), _normal(8, generator=generator).sign()
    u.requires_grad_()
    (slope,) = torch.autograd.grad((1 - y * u).clamp(min=0).sum(), u)
    expect(gate(u.detach(), y), -slope, u=u.detach(), y=y)


# 10-2: cpc_increment(c, z, W_pred) -> what is added to W_pred


@property_of("10-2", hint=1)
def climbs_the_log_probability(cpc_increment: Any, generator: Generator) -> None:
    """It is the derivative of log π⁺ with respect to W_pred, for any number of other glances."""
    contexts, features, others = (_whole(2, 4, generator) for _ in range(3))
    c, z = _normal(contexts, generator=generator), _normal(1 + others, features, generator=generator)
    W = _normal(features, contexts, generator=generator).requires_grad_()
    (increment,) = torch.autograd.grad(torch.log_softmax(z @ W @ c, 0)[0], W)
    expect(cpc_increment(c, z, W.detach()), increment, c=c, z=z)


@property_of("10-2", hint=2)
def is_zero_without_others(cpc_increment: Any, generator: Generator) -> None:
    """With no other glance there is nothing to learn."""
    c, z, W = (_normal(*shape, generator=generator) for shape in ((3,), (1, 2), (2, 3)))
    expect(cpc_increment(c, z, W), torch.zeros(2, 3, dtype=torch.float64), c=c, z=z)


# 10-3: clapp_rule(x_c, x_z, y, W, W_pred, W_retro) -> what is added to W, two gates


def _event(generator: Generator) -> tuple[Tensor, ...]:
    inputs, units = 4, 3
    x_c, x_z = (_normal(inputs, generator=generator) for _ in range(2))
    W = _normal(units, inputs, generator=generator)
    W_pred, W_retro = (_normal(units, units, generator=generator) for _ in range(2))
    return x_c, x_z, W, W_pred, W_retro


@property_of("10-3", hint=2)
def descends_both_halves(clapp_rule: Any, generator: Generator) -> None:
    """It is minus the derivative of both hinges, the context held fixed in one and the new glance in the other."""
    for y in (1.0, -1.0):
        x_c, x_z, W, W_pred, W_retro = _event(generator)
        weight = W.clone().requires_grad_()
        c, z = torch.relu(weight @ x_c), torch.relu(weight @ x_z)
        halves = [1 - y * (z @ W_pred @ c.detach()), 1 - y * (c @ W_retro @ z.detach())]
        (gradient,) = torch.autograd.grad(torch.stack(halves).clamp(min=0).sum(), weight)
        expect(clapp_rule(x_c, x_z, y, W, W_pred, W_retro), -gradient, x_c=x_c, x_z=x_z, y=y)


@property_of("10-3", hint=1)
def has_a_gate_for_each_half(clapp_rule: Any, generator: Generator) -> None:
    """If only one of the two predictions surprises, only its half learns."""
    x_c, x_z = torch.ones(2, dtype=torch.float64), torch.tensor([1.0, 2.0], dtype=torch.float64)
    W = torch.eye(2, dtype=torch.float64)
    strong = 2 * torch.eye(2, dtype=torch.float64)
    weak = 0.1 + 0.1 * torch.rand((), dtype=torch.float64, generator=generator) * torch.eye(2, dtype=torch.float64)
    part_z, part_c = torch.outer(weak @ x_c, x_z), torch.outer(weak @ x_z, x_c)
    expect(clapp_rule(x_c, x_z, 1.0, W, weak, strong), part_z, W_pred=weak, W_retro=strong)
    expect(clapp_rule(x_c, x_z, 1.0, W, strong, weak), part_c, W_pred=strong, W_retro=weak)


# 10-4: winners(a) -> derivative of the mean of 2×2 maxima


@property_of("10-4", hint=2)
def is_the_derivative(winners: Any, generator: Generator) -> None:
    """It is the derivative of the mean of the pooled map."""
    h, w = (2 * _whole(1, 3, generator) for _ in range(2))
    a = _normal(h, w, generator=generator).requires_grad_()
    (gradient,) = torch.autograd.grad(torch.nn.functional.max_pool2d(a[None], 2).mean(), a)
    expect(winners(a.detach()), gradient, a=a.detach())


@property_of("10-4", hint=1)
def sums_to_one(winners: Any, generator: Generator) -> None:
    """All winners together get 1."""
    a = _normal(4, 6, generator=generator)
    got = winners(a)
    expect(None if got is None or got is ... else torch.as_tensor(got).double().sum(), 1.0, a=a)


# 10-5: (Eq. 17 over Eq. 14, Eq. 17 over Eq. 3)


@property_of("10-5", hint=1)
def over_equation_14(ratios: Any, generator: Generator) -> None:
    """The first number: each half of Eq. 14 carries a ½ that Eq. 17 does not."""
    first, _ = parts(ratios, "Eq. 17 over Eq. 14", "Eq. 17 over Eq. 3")
    expect(first, 2.0)


@property_of("10-5", hint=2)
def over_equation_3(ratios: Any, generator: Generator) -> None:
    """The second number: each half of the loss touches one of the two parts of Eq. 5."""
    _, second = parts(ratios, "Eq. 17 over Eq. 14", "Eq. 17 over Eq. 3")
    expect(second, 1.0)
