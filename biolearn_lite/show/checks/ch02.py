"""Chapter 02, feedback without symmetry. The rules are written out anew here, independent of `rules` and `nets`."""

import math
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Generator, Tensor

from biolearn_lite.show.exercises import demand, expect, parts, property_of


def _normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


# 02-1: dense(x, weight, feedback), forward with the weight, the error down through the feedback


def _layer(generator: Generator) -> dict[str, Any]:
    x, weight, feedback, error = (_normal(generator, *shape) for shape in ((4, 3), (2, 3), (2, 3), (4, 2)))
    return {"x": x.requires_grad_(), "weight": weight.requires_grad_(), "feedback": feedback, "error": error}


def _gradient(dense: Any, given: dict[str, Any], of: str) -> Tensor:
    """What arrives at one of the three when `error` is sent back through the answer."""
    x, weight, feedback, error = given.values()
    z = dense(x, weight, feedback)
    expect(z, x @ weight.T, x=x, weight=weight, feedback=feedback)
    demand(isinstance(z, Tensor) and z.requires_grad, "no gradient flows through the result")
    (found,) = torch.autograd.grad(z, given[of], error, allow_unused=True)
    demand(found is not None, f"no gradient reaches {of}")
    return torch.as_tensor(found)


@property_of("02-1", hint=1)
def the_value_is_the_weights(dense: Any, generator: Generator) -> None:
    """Its value is x Wᵀ: the feedback leaves no trace in it."""
    x, weight, feedback, _ = _layer(generator).values()
    expect(dense(x, weight, feedback), x @ weight.T, x=x, weight=weight, feedback=feedback)


@property_of("02-1", hint=1)
def the_error_goes_down_through_the_feedback(dense: Any, generator: Generator) -> None:
    """The gradient that reaches x is error · B (Eq. 10)."""
    given = _layer(generator)
    expect(_gradient(dense, given, "x"), given["error"] @ given["feedback"], **given)


@property_of("02-1", hint=2)
def the_weight_learns_as_ever(dense: Any, generator: Generator) -> None:
    """The gradient of the weight is errorᵀ · x, as in backprop."""
    given = _layer(generator)
    expect(_gradient(dense, given, "weight"), given["error"].T @ given["x"], **given)


@property_of("02-1", hint=2)
def a_feedback_that_learns_gets_the_same(dense: Any, generator: Generator) -> None:
    """A feedback that requires a gradient gets the weight's, errorᵀ · x: updated random feedback."""
    given = _layer(generator)
    given["feedback"].requires_grad_()
    expect(_gradient(dense, given, "feedback"), given["error"].T @ given["x"], **given)


# 02-2: conserved(w, b) -> two numbers that a chain of three weights keeps under random feedback


def _chain(conserved: Any, generator: Generator) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Gradients of the two answers with respect to w, (2, 3), and the velocity of w."""
    w, b = _normal(generator, 3), _normal(generator, 2)
    x, target = _normal(generator, 2)
    error = target - w.prod() * x
    velocity = error * x * torch.stack([b[0] * b[1], b[1] * w[0], w[0] * w[1]])
    w.requires_grad_()
    slopes = []
    for quantity in parts(conserved(w, b), "first", "second"):
        depends = isinstance(quantity, Tensor) and quantity.requires_grad
        demand(depends and quantity.numel() == 1, "each of the two must be a number that depends on the weights w")
        slopes.append(torch.autograd.grad(quantity.sum(), w, retain_graph=True)[0])
    return torch.stack(slopes), velocity, {"w": w, "b": b, "x": x, "target": target}


@property_of("02-2", hint=2)
def neither_changes(conserved: Any, generator: Generator) -> None:
    """Along the flow of Eq. 10 the rate of change of both numbers is 0, whatever x and the target are."""
    slopes, velocity, given = _chain(conserved, generator)
    expect(slopes @ velocity, torch.zeros(2), **given)


@property_of("02-2", hint=1)
def they_are_two(conserved: Any, generator: Generator) -> None:
    """The two say different things: neither is a function of the other."""
    slopes, _, given = _chain(conserved, generator)
    both = torch.linalg.svdvals(slopes / slopes.norm(dim=1, keepdim=True))
    demand(bool(both[-1] > 1e-6), "their gradients are parallel at these weights: they are one number, twice", **given)


# 02-3: (slow, fast), two starts (w1, w2) of the two-weight net

MOST_STEPS = 20_000


def _steps(w1: float, w2: float, *, random: bool, rate: float = 0.1) -> float:
    """Steps until ½ (1 − w1 w2)² < 1e-3, at b = 1; infinity if that never happens."""
    for step in range(MOST_STEPS):
        error = 1 - w1 * w2
        if not math.isfinite(error) or abs(error) > 1e6:
            return math.inf
        if error**2 / 2 < 1e-3:
            return step
        w1, w2 = w1 + rate * (1.0 if random else w2) * error, w2 + rate * w1 * error
    return math.inf


def _race(start: Any) -> tuple[float, float]:
    w1, w2 = (float(value) for value in parts(start, "w1", "w2"))
    demand(max(abs(w1), abs(w2)) <= 3, f"start inside the square from −3 to 3, not at ({w1:g}, {w2:g})")
    random, backprop = (_steps(w1, w2, random=kind) for kind in (True, False))
    demand(random < math.inf, f"from ({w1:g}, {w2:g}) random feedback does not arrive within {MOST_STEPS} steps")
    return random, backprop


@property_of("02-3", hint=1)
def the_first_start_is_slow(starts: Any, generator: Generator) -> None:
    """From the first start random feedback needs more than three times backprop's steps."""
    random, backprop = _race(parts(starts, "slow", "fast")[0])
    demand(random > 3 * backprop, f"random feedback: {random} steps, backprop: {backprop}")


@property_of("02-3", hint=2)
def the_second_start_is_fast(starts: Any, generator: Generator) -> None:
    """From the second start, on no axis, backprop needs over ten times random feedback's steps, or never arrives."""
    start = parts(starts, "slow", "fast")[1]
    random, backprop = _race(start)
    demand(0 not in tuple(start), "on an axis one of the two weights is 0: prediction P2 has answered that already")
    demand(backprop > 10 * random, f"random feedback: {random} steps, backprop: {backprop}")


# 02-4: manhattan_step(weight, gradient, velocity, rate, momentum, decay) -> (weight, velocity)


def _step(generator: Generator) -> dict[str, Any]:
    weight, gradient, velocity = _normal(generator, 3, 5)
    gradient[0] = 0.0
    return {"weight": weight, "gradient": gradient, "velocity": velocity, "rate": 0.1, "momentum": 0.9, "decay": 0.01}


@property_of("02-4", hint=1)
def only_the_sign_counts(step: Any, generator: Generator) -> None:
    """Without momentum and decay every weight moves by the rate against its gradient's sign; where that is 0, not."""
    given = _step(generator) | {"momentum": 0.0, "decay": 0.0}
    new, _ = parts(step(*given.values()), "weight", "velocity")
    expect(new, given["weight"] - given["rate"] * given["gradient"].sign(), **given)


@property_of("02-4", hint=2)
def the_sign_comes_first(step: Any, generator: Generator) -> None:
    """velocity ← momentum · velocity + sign(gradient) + decay · weight; then weight ← weight − rate · velocity."""
    given = _step(generator)
    new, velocity = parts(step(*given.values()), "weight", "velocity")
    wanted = given["momentum"] * given["velocity"] + given["gradient"].sign() + given["decay"] * given["weight"]
    expect(velocity, wanted, **given)
    expect(new, given["weight"] - given["rate"] * wanted, **given)


# 02-5 (research): feedback_change(B, pre, error) -> what is added to B, from local quantities alone

STEPS, RATE, DECAY = 200, 0.2, 0.01
SIZES = (12, 16, 16, 16, 4)

FeedbackChange = Callable[[Tensor, Tensor, Tensor], Any]


def _trained(feedback_change: FeedbackChange, seed: int) -> tuple[float, float, float]:
    """A deep tanh net whose weights learn and decay. Mean angle of W and B in degrees; loss before and after."""
    generator = torch.Generator().manual_seed(seed)
    draw = [(below, here) for below, here in pairwise(SIZES)]
    W = [_normal(generator, here, below) / below**0.5 for below, here in draw]
    B = [_normal(generator, here, below) / below**0.5 for below, here in draw]
    x = _normal(generator, 64, SIZES[0])
    target = torch.tanh(x @ _normal(generator, SIZES[0], SIZES[-1]) / 2)
    losses = []
    for _ in range(STEPS):
        rates = [x]
        for weight in W[:-1]:
            rates.append(torch.tanh(rates[-1] @ weight.T))
        error = target - rates[-1] @ W[-1].T
        losses.append(float(error.square().mean()))
        changes = []
        for layer in reversed(range(len(W))):
            changes.append((layer, rates[layer], error))
            error = (error @ B[layer]) * (1 - rates[layer] ** 2)
        for layer, pre, sent in changes:
            W[layer] = (1 - DECAY) * W[layer] + RATE * sent.T @ pre / len(pre)
            B[layer] = B[layer] + _checked(feedback_change(B[layer].clone(), pre, sent), B[layer])
    angles = [float(_angle(*pair)) for pair in zip(W[1:], B[1:], strict=True)]
    return sum(angles) / len(angles), losses[0], losses[-1]


def _checked(change: Any, B: Tensor) -> Tensor:
    expect(torch.as_tensor(change).shape == B.shape if change is not None and change is not ... else change, True)
    demand(bool(torch.isfinite(torch.as_tensor(change)).all()), "the change of B must be finite at every step")
    return torch.as_tensor(change, dtype=B.dtype)


def _angle(u: Tensor, v: Tensor) -> Tensor:
    return torch.rad2deg(torch.acos((u * v).sum() / (u.norm() * v.norm())))


@cache
def _fixed(seed: int) -> float:
    """The angle that B never touched ends at."""
    return _trained(lambda B, pre, error: torch.zeros_like(B), seed)[0]


@property_of("02-5", hint=1)
def it_aligns_while_the_network_learns(feedback_change: Any, generator: Generator) -> None:
    """After 200 steps the angle of W and B is 30° below that with a fixed B, and the loss less than half the first."""
    seed = generator.initial_seed()
    angle, first, last = _trained(feedback_change, seed)
    demand(angle < _fixed(seed) - 30, f"mean angle over layers {angle:.0f}°, with a fixed B {_fixed(seed):.0f}°")
    demand(last < first / 2, f"the mean squared error went from {first:.3g} to {last:.3g}")
