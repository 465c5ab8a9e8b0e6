"""Chapter 11, learning through time. The formulas are written out anew here, independent of `rules`."""

from typing import Any

import torch
from torch import Generator, Tensor

from biolearn_lite.show.exercises import demand, expect, parts, property_of


def _normal(*shape: int, generator: Generator) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _uniform(*shape: int, generator: Generator) -> Tensor:
    return 0.1 + 0.8 * torch.rand(*shape, dtype=torch.float64, generator=generator)


# 11-1: trace(z, new) -> the trace at every tick


@property_of("11-1", hint=1)
def starts_with_what_is_new(trace: Any, generator: Generator) -> None:
    """A sequence of one tick leaves what is new, whatever the gate."""
    z, new = _uniform(1, generator=generator), _normal(1, generator=generator)
    expect(trace(z, new), new, z=z, new=new)


@property_of("11-1", hint=2)
def is_the_derivative_of_the_state(trace: Any, generator: Generator) -> None:
    """It is how the state h_t = z_t h_{t-1} + w · new_t answers to w, at every tick."""
    z, new = _uniform(5, generator=generator), _normal(5, generator=generator)
    later, earlier = torch.meshgrid(torch.arange(5), torch.arange(5), indexing="ij")
    share = torch.stack([torch.stack([z[s + 1 : t + 1].prod() for s in range(5)]) for t in range(5)])
    expect(trace(z, new), torch.where(later >= earlier, share, 0.0) @ new, z=z, new=new)


# 11-2: three_slopes(r, z, n, recurrent, h) -> ∂h_t by what enters r, z, n


def _moment(generator: Generator) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """What the exercise gives for three neurons, and autograd's slopes, in the order r, z, n."""
    inputs = [_normal(3, generator=generator).requires_grad_() for _ in range(3)]
    recurrent, h = _normal(3, generator=generator), _normal(3, generator=generator)
    r, z = torch.sigmoid(inputs[0]), torch.sigmoid(inputs[1])
    n = torch.tanh(inputs[2] + r * recurrent)
    found = torch.autograd.grad(((1 - z) * n + z * h).sum(), inputs)
    return (r.detach(), z.detach(), n.detach(), recurrent, h), found


@property_of("11-2", hint=1)
def answers_to_r_and_n(three_slopes: Any, generator: Generator) -> None:
    """The first and the last are the derivatives of h_t by what enters r and n."""
    given, found = _moment(generator)
    to_r, _, to_n = parts(three_slopes(*given), "to r", "to z", "to n")
    r, z, n, recurrent, h = given
    expect(to_n, found[2], r=r, z=z, n=n, recurrent=recurrent, h=h)
    expect(to_r, found[0], r=r, z=z, n=n, recurrent=recurrent, h=h)


@property_of("11-2", hint=2)
def answers_to_z(three_slopes: Any, generator: Generator) -> None:
    """The middle one is the derivative of h_t by what enters z."""
    given, found = _moment(generator)
    _, to_z, _ = parts(three_slopes(*given), "to r", "to z", "to n")
    r, z, n, recurrent, h = given
    expect(to_z, found[1], r=r, z=z, n=n, recurrent=recurrent, h=h)


# 11-3: learn_forwards(x, L, z) -> what is added to w


@property_of("11-3", hint=1)
def is_the_gradient_through_time(learn_forwards: Any, generator: Generator) -> None:
    """It is how Σ L_t h_t answers to w, that is, what backprop through time finds."""
    x, L = _normal(5, 3, generator=generator), _normal(5, generator=generator)
    z = _uniform(1, generator=generator).item()
    w = _normal(3, generator=generator).requires_grad_()
    h, total = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for x_t, L_t in zip(x, L, strict=True):
        h = z * h + (1 - z) * (w @ x_t)
        total = total + L_t * h
    (found,) = torch.autograd.grad(total, w)
    expect(learn_forwards(x, L, z), found, x=x, L=L, z=z)


@property_of("11-3", hint=2)
def learns_from_the_present(learn_forwards: Any, generator: Generator) -> None:
    """With a single tick it is L (1 − z) x."""
    x, L, z = _normal(1, 2, generator=generator), _normal(1, generator=generator), 0.25
    expect(learn_forwards(x, L, z), 0.75 * L * x[0], x=x, L=L, z=z)


# 11-4: surprised_trace(c, e, z, y, W_pred, W_retro) -> what is added


def _event(generator: Generator) -> tuple[Tensor, ...]:
    """Context, traces, what came, and the two matrices; few enough numbers that both gates occur."""
    units, inputs, features = 3, 2, 4
    c, z = 0.7 * _normal(units, generator=generator), 0.7 * _normal(features, generator=generator)
    e, W_pred = _normal(units, inputs, generator=generator), _normal(features, units, generator=generator)
    return c, e, z, W_pred, _normal(units, features, generator=generator)


@property_of("11-4", hint=1)
def is_silent_without_surprise(surprised_trace: Any, generator: Generator) -> None:
    """Where the way back predicted well, nothing is added, whatever the way forth says."""
    c, e, z, W_pred, W_retro = _event(generator)
    for y in (1.0, -1.0):
        sure = W_retro + (2 * y - c @ W_retro @ z) * torch.outer(c, z) / (c @ c * (z @ z))
        doubtful = -y * W_pred * (c @ W_pred.T @ z).sign()
        expect(surprised_trace(c, e, z, y, doubtful, sure), torch.zeros_like(e), c=c, z=z, y=y, W_retro=sure)


@property_of("11-4", hint=2)
def is_minus_the_gradient(surprised_trace: Any, generator: Generator) -> None:
    """It is minus the gradient of the hinge, through a state that answers to each synapse as its trace says."""
    c, e, z, W_pred, W_retro = _event(generator)
    for y in (1.0, -1.0):
        w = torch.zeros_like(e).requires_grad_()
        state = c + (w * e).sum(1)
        (gradient,) = torch.autograd.grad((1 - y * (state @ W_retro @ z)).clamp(min=0), w)
        expect(surprised_trace(c, e, z, y, W_pred, W_retro), -gradient, c=c, e=e, z=z, y=y)


# 11-5: best_memory(d) -> z


@property_of("11-5", hint=1)
def is_a_half_for_the_next_tick(best_memory: Any, generator: Generator) -> None:
    """Nothing is kept if news comes at once, and a half if it comes one tick later."""
    expect(best_memory(0), 0.0, d=0)
    expect(best_memory(1), 0.5, d=1)


@property_of("11-5", hint=2)
def leaves_the_largest_mark(best_memory: Any, generator: Generator) -> None:
    """No other memory, a little less or more, leaves a larger mark."""
    d = int(torch.randint(2, 40, (), generator=generator))
    z = best_memory(d)
    expect(z, z)  # a number at all?
    best, around = float(z), (float(z) - 1e-3, float(z) + 1e-3)
    demand(0 <= best <= 1, f"a memory is between 0 and 1, got {best:.3g}", d=d)
    mark = [(1 - each) * each**d for each in (best, *around)]
    demand(mark[0] >= max(mark[1:]), f"z = {best:.4f} leaves {mark[0]:.3g}; a neighbour leaves {max(mark):.3g}", d=d)
