"""Chapter 01, four things backprop asks of a brain. The formulas are written out anew here, independent of `rules`."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from biolearn_lite.show.exercises import demand, expect, parts, property_of

# 01-1: gradients(W, w, x, t) -> (gradient of W, gradient of w), a 2-2-1 net of ReLU neurons


def _small_net(generator: Generator) -> tuple[Tensor, Tensor, Tensor, float]:
    """Random weights and input, both hidden neurons active, and a wanted output."""
    W, w, x = (torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in ((2, 2), (2,), (2,)))
    W = W * (W @ x).sign()[:, None]
    return W, w, x, float(torch.randn((), dtype=torch.float64, generator=generator))


def _exact(W: Tensor, w: Tensor, x: Tensor, t: float) -> tuple[Tensor, ...]:
    W, w = W.clone().requires_grad_(), w.clone().requires_grad_()
    return torch.autograd.grad((w @ torch.relu(W @ x) - t) ** 2 / 2, [W, w])


@property_of("01-1", hint=1)
def the_top_gradient(gradients: Any, generator: Generator) -> None:
    """The gradient of w is the error y − t times the activity of the hidden neurons."""
    W, w, x, t = _small_net(generator)
    _, got = parts(gradients(W, w, x, t), "gradient of W", "gradient of w")
    expect(got, _exact(W, w, x, t)[1], W=W, w=w, x=x, t=t)


@property_of("01-1", hint=2)
def the_lower_gradient(gradients: Any, generator: Generator) -> None:
    """The gradient of W is (error × outgoing weight) of each neuron, times each input, when all neurons are active."""
    W, w, x, t = _small_net(generator)
    got, _ = parts(gradients(W, w, x, t), "gradient of W", "gradient of w")
    expect(got, _exact(W, w, x, t)[0], W=W, w=w, x=x, t=t)


@property_of("01-1", hint=2)
def the_gate(gradients: Any, generator: Generator) -> None:
    """A hidden neuron that is silent gets no gradient, and gives none to its weight above."""
    W, w, x, t = _small_net(generator)
    W = W * torch.tensor([[-1.0], [1.0]], dtype=W.dtype)
    for got, exact in zip(parts(gradients(W, w, x, t), "W", "w"), _exact(W, w, x, t), strict=True):
        expect(got, exact, W=W, w=w, x=x, t=t)


# 01-2: foreign(widths, layer) -> (numbers of others, ticks of waiting)


def _architecture(generator: Generator) -> tuple[list[int], int]:
    depth = int(torch.randint(2, 7, (), generator=generator))
    return torch.randint(2, 100, (depth + 1,), generator=generator).tolist(), depth


@property_of("01-2", hint=1)
def counts_what_hidden_synapses_need(foreign: Any, generator: Generator) -> None:
    """In a hidden layer: one outgoing weight and one error for each neuron of the layer above."""
    widths, depth = _architecture(generator)
    for layer in range(1, depth):
        got, _ = parts(foreign(widths, layer), "numbers", "ticks")
        expect(got, 2 * widths[layer + 1], widths=widths, layer=layer)


@property_of("01-2", hint=1)
def the_top_needs_one_number(foreign: Any, generator: Generator) -> None:
    """In the top layer the only foreign number is the wanted output."""
    widths, depth = _architecture(generator)
    expect(parts(foreign(widths, depth), "numbers", "ticks")[0], 1, widths=widths, layer=depth)


@property_of("01-2", hint=2)
def counts_the_ticks(foreign: Any, generator: Generator) -> None:
    """It holds its activity from tick ℓ, when its layer is active, to tick 2D + 2 − ℓ, when the error is back."""
    widths, depth = _architecture(generator)
    for layer in range(1, depth + 1):
        got = parts(foreign(widths, layer), "numbers", "ticks")[1]
        expect(got, (2 * depth + 2 - layer) - layer, widths=widths, layer=layer)


# 01-3: yardstick(updates, reference) -> (angle in degrees, SNR)


def _updates(generator: Generator, *shape: int) -> tuple[list[Tensor], Tensor]:
    reference = torch.randn(*shape, dtype=torch.float64, generator=generator)
    count = int(torch.randint(4, 9, (), generator=generator))
    noise = torch.randn(count, *shape, dtype=torch.float64, generator=generator)
    return list(reference + 0.5 + 0.7 * noise), reference


def _angle(u: Tensor, v: Tensor) -> float:
    cosine = float((u * v).sum() / (u.norm() * v.norm()))
    return math.degrees(math.acos(min(1.0, max(-1.0, cosine))))


@property_of("01-3", hint=1)
def the_angle_is_that_of_the_mean(yardstick: Any, generator: Generator) -> None:
    """The first number is the angle between the mean update and the reference, in degrees."""
    updates, reference = _updates(generator, 3)
    got, _ = parts(yardstick(updates, reference), "angle", "snr")
    given = {"updates": torch.stack(updates), "reference": reference}
    expect(got, _angle(torch.stack(updates).mean(0), reference), tolerance=1e-6, **given)


@property_of("01-3", hint=2)
def the_snr_is_signal_over_noise(yardstick: Any, generator: Generator) -> None:
    """The second number is ‖mean‖² over the sum of the variances of all entries (with n − 1)."""
    updates, reference = _updates(generator, 3)
    table = torch.stack(updates)
    mean = table.mean(0)
    noise = ((table - mean) ** 2).sum() / (len(table) - 1)
    _, got = parts(yardstick(updates, reference), "angle", "snr")
    expect(got, mean.square().sum() / noise, tolerance=1e-6, updates=table, reference=reference)


@property_of("01-3", hint=1)
def works_for_any_shape(yardstick: Any, generator: Generator) -> None:
    """Updates may be matrices or larger: all entries count as one long vector."""
    updates, reference = _updates(generator, 2, 3, 2)
    got = parts(yardstick(updates, reference), "angle", "snr")
    flat = parts(yardstick([update.flatten() for update in updates], reference.flatten()), "angle", "snr")
    for one, other in zip(got, flat, strict=True):
        expect(one, other, tolerance=1e-6, shape=(2, 3, 2))


@property_of("01-3", hint=2)
def size_does_not_matter(yardstick: Any, generator: Generator) -> None:
    """Updates a hundred times larger have the same angle and the same SNR."""
    updates, reference = _updates(generator, 4)
    got = parts(yardstick([100 * update for update in updates], reference), "angle", "snr")
    for one, other in zip(got, parts(yardstick(updates, reference), "angle", "snr"), strict=True):
        expect(one, float(other), tolerance=1e-6)


# 01-4: local_gradients(x, delta, k) -> (positions, filters, channels, k, k)


def _image(generator: Generator) -> tuple[Tensor, Tensor, int]:
    k = int(torch.randint(1, 4, (), generator=generator))
    x = torch.randn(2, 4, 5, dtype=torch.float64, generator=generator)
    return x, torch.randn(3, 5 - k, 6 - k, dtype=torch.float64, generator=generator), k


@property_of("01-4", hint=1)
def each_position_is_error_times_patch(local_gradients: Any, generator: Generator) -> None:
    """The entry of a position is its errors times its patch, positions counted row by row."""
    x, delta, k = _image(generator)
    want = [
        torch.einsum("f,cij->fcij", delta[:, row, column], x[:, row : row + k, column : column + k])
        for row in range(delta.shape[1])
        for column in range(delta.shape[2])
    ]
    expect(local_gradients(x, delta, k), torch.stack(want), x=x, delta=delta, k=k)


@property_of("01-4", hint=2)
def they_sum_to_the_convolution(local_gradients: Any, generator: Generator) -> None:
    """Summed over positions they are the gradient of the convolution's shared weights."""
    x, delta, k = _image(generator)
    weight = torch.zeros(3, 2, k, k, dtype=torch.float64, requires_grad=True)
    (shared,) = torch.autograd.grad((F.conv2d(x[None], weight)[0] * delta).sum(), weight)
    got = local_gradients(x, delta, k)
    expect(None if got is None or got is ... else got.sum(0), shared, x=x, delta=delta, k=k)


# 01-5 (research): a dictionary (delay, fade) -> (bias, SNR) of late errors times a fading trace


@property_of("01-5", hint=1)
def covers_delays_and_fades(report: Any, generator: Generator) -> None:
    """The report holds every pair of three delays or more, the longest at least 8, and three λ or more, in [0, 1)."""
    demand(isinstance(report, dict) and all(isinstance(key, tuple) for key in report), "expected {(delay, λ): …}")
    delays, fades = ({key[i] for key in report} for i in (0, 1))
    demand(len(delays) >= 3 and max(delays) >= 8, f"the delays are {sorted(delays)}")
    demand(len(fades) >= 3 and all(0 <= fade < 1 for fade in fades), f"the λ are {sorted(fades)}")
    demand(len(report) == len(delays) * len(fades), f"{len(report)} of {len(delays) * len(fades)} pairs are there")


@property_of("01-5", hint=1)
def reports_bias_and_snr(report: Any, generator: Generator) -> None:
    """Each entry is (bias, SNR): an angle from 0 to 180 and a number above 0."""
    for key, entry in report.items():
        bias, snr = (float(value) for value in parts(entry, "bias", "SNR"))
        demand(0 <= bias <= 180 and 0 < snr < math.inf, f"{key}: bias {bias}, SNR {snr}")


@property_of("01-5", hint=2)
def a_good_trace_is_unbiased_and_delay_costs_snr(report: Any, generator: Generator) -> None:
    """At the shortest delay the best λ has a bias below 20°, and the best SNR falls from there to the longest delay."""
    short, long = (pick(key[0] for key in report) for pick in (min, max))
    (snr, bias), (snr_long, _) = (_best(report, delay) for delay in (short, long))
    demand(bias < 20, f"delay {short}: a bias of {bias:.0f}°; average over more updates")
    demand(snr_long < snr, f"the best SNR is {snr:.3g} at delay {short} and {snr_long:.3g} at delay {long}")


@property_of("01-5", hint=1)
def a_long_wait_needs_a_long_memory(report: Any, generator: Generator) -> None:
    """At the longest delay a slowly fading trace has a better SNR than the one that fades fastest."""
    long, fast = max(key[0] for key in report), min(key[1] for key in report)
    snrs = {fade: float(snr) for (delay, fade), (_, snr) in report.items() if delay == long}
    demand(max(snrs.values()) > snrs[fast], f"delay {long}: SNR by λ {snrs}")


def _best(report: Any, delay: int) -> tuple[float, float]:
    """SNR and bias of the best λ at a delay."""
    return max((float(snr), float(bias)) for (d, _), (bias, snr) in report.items() if d == delay)
