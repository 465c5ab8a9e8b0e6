"""Chapter 09, target propagation with pooling. The formulas are written out anew here, independent of `rules`."""

from itertools import pairwise
from typing import Any

import torch
from torch import Generator, Tensor

from biolearn_lite.show.exercises import Unanswered, demand, expect, parts, property_of


def _normal(*shape: int, generator: Generator) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _whole(low: int, high: int, generator: Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))


# 09-1: local_update(pre, post, slope, target) -> (outputs, inputs), what is added to the weights


@property_of("09-1", hint=1)
def descends_the_squared_distance(local_update: Any, generator: Generator) -> None:
    """It is minus the derivative of the summed squared distance between activity and target."""
    m, inputs, outputs = (_whole(2, 5, generator) for _ in range(3))
    pre, weight = _normal(m, inputs, generator=generator), _normal(outputs, inputs, generator=generator)
    target = _normal(m, outputs, generator=generator)
    weight.requires_grad_()
    post = torch.tanh(pre @ weight.T)
    (gradient,) = torch.autograd.grad((post - target).square().sum(), weight)
    post = post.detach()
    expect(local_update(pre, post, 1 - post**2, target), -gradient, pre=pre, post=post, target=target)


@property_of("09-1", hint=2)
def rests_at_the_target(local_update: Any, generator: Generator) -> None:
    """A layer that is where it should be does not change."""
    pre, post, slope = (_normal(3, 4, generator=generator) for _ in range(3))
    expect(local_update(pre, post, slope, post), torch.zeros(4, 4, dtype=torch.float64), post=post)


# 09-2: times_backprop(step, numbers, reduction) -> how many times backprop's update the top layer's is


@property_of("09-2", hint=1)
def sums_give_two_steps(times_backprop: Any, generator: Generator) -> None:
    """With a sum it does not depend on how many activities there are."""
    step = 0.1 + torch.rand((), dtype=torch.float64, generator=generator).item()
    for numbers in (1, _whole(2, 1000, generator)):
        expect(times_backprop(step, numbers, "sum"), 2 * step, step=step, numbers=numbers, reduction="sum")


@property_of("09-2", hint=2)
def means_divide(times_backprop: Any, generator: Generator) -> None:
    """With a mean it is the sum's, divided by the number of activities."""
    step, numbers = 0.1 + torch.rand((), generator=generator).item(), _whole(2, 1000, generator)
    expect(times_backprop(step, numbers, "mean"), 2 * step / numbers, step=step, numbers=numbers, reduction="mean")


# 09-3: targets(activities, inverses, gradient, step) -> list, bottom first


def _chain(generator: Generator) -> tuple[list[Tensor], list[Any], list[Tensor]]:
    sizes = [_whole(2, 4, generator) for _ in range(_whole(2, 4, generator))]
    activities = [_normal(3, n, generator=generator) for n in sizes]
    wires = [_normal(low, high, generator=generator) for low, high in pairwise(sizes)]
    return activities, [lambda z, B=B: torch.tanh(z @ B.T) for B in wires], wires


@property_of("09-3", hint=2)
def contentment_moves_nobody(targets: Any, generator: Generator) -> None:
    """With a step of 0 every target is its layer's activity."""
    activities, inverses, _ = _chain(generator)
    gradient = _normal(*activities[-1].shape, generator=generator)
    got = parts(targets(activities, inverses, gradient, 0.0), *(f"target {i}" for i in range(len(activities))))
    for target, z in zip(got, activities, strict=True):
        expect(target, z, step=0.0)


@property_of("09-3", hint=1)
def follows_line_16(targets: Any, generator: Generator) -> None:
    """Each target is the activity, minus the guess from the activity above, plus the guess from its target."""
    activities, inverses, wires = _chain(generator)
    gradient = _normal(*activities[-1].shape, generator=generator)
    got = parts(targets(activities, inverses, gradient, 0.3), *(f"target {i}" for i in range(len(activities))))
    above = activities[-1] - 0.3 * gradient
    expect(got[-1], above, gradient=gradient, step=0.3)
    for i in range(len(wires) - 1, -1, -1):
        z, up = activities[i], activities[i + 1]
        above = z + torch.tanh(above @ wires[i].T) - torch.tanh(up @ wires[i].T)
        expect(got[i], above, layer=i)


# 09-4: angle(s, delta) -> degrees between S⁻¹δ and Sδ


@property_of("09-4", hint=1)
def is_the_angle(angle: Any, generator: Generator) -> None:
    """It is the angle between the step that fulfils the wish and the gradient, for any rotation around them."""
    n = _whole(2, 4, generator)
    s = 0.3 + torch.rand(n, dtype=torch.float64, generator=generator) * 3
    delta = _normal(n, generator=generator)
    turn = torch.linalg.qr(_normal(n, n, generator=generator))[0]
    J = torch.diag(s) @ turn
    newton, gradient = torch.linalg.solve(J, delta), J.T @ delta
    cosine = newton @ gradient / (newton.norm() * gradient.norm())
    expect(angle(s, delta), cosine.clamp(-1, 1).arccos().rad2deg(), tolerance=1e-6, s=s, delta=delta)


@property_of("09-4", hint=2)
def is_zero_for_a_rotation(angle: Any, generator: Generator) -> None:
    """Equal singular values: no angle (but for what rounding leaves)."""
    s = torch.full((3,), 0.5 + torch.rand((), generator=generator).item(), dtype=torch.float64)
    delta = _normal(3, generator=generator)
    expect(angle(s, delta), 0.0, tolerance=1e-4, s=s, delta=delta)


# 09-5: unpool(pooled) -> (2h, 2w), best for independent uniform pixels


def _pixels(generator: Generator) -> tuple[Tensor, Tensor]:
    picture = torch.rand(200, 200, dtype=torch.float64, generator=generator)
    return picture, torch.nn.functional.max_pool2d(picture[None], 2)[0]


@property_of("09-5", hint=1)
def beats_copying(unpool: Any, generator: Generator) -> None:
    """Its mean squared error is below that of four copies of the winner."""
    picture, pooled = _pixels(generator)
    copies = (pooled.repeat_interleave(2, 0).repeat_interleave(2, 1) - picture).square().mean()
    guess = unpool(pooled)
    if not isinstance(guess, Tensor):
        raise Unanswered
    demand(guess.shape == picture.shape, f"the guess has shape {tuple(guess.shape)}, the picture (200, 200)")
    error = (guess - picture).square().mean()
    demand(bool(error < copies), f"squared error {error:.4f}; four copies have {copies:.4f}")


@property_of("09-5", hint=2)
def is_the_best_guess(unpool: Any, generator: Generator) -> None:
    """Nothing that knows the maximum alone does better: it is the mean of the pixels, given their maximum."""
    _, pooled = _pixels(generator)
    best = 0.625 * pooled.repeat_interleave(2, 0).repeat_interleave(2, 1)
    expect(unpool(pooled), best, tolerance=1e-6)
