"""Circuits: neurons that could compute what the rules ask for.

A three-factor rule asks two things of the tissue around a synapse, and 001, appendix C, gives a circuit for each:

- *the change since the example before*, z_t - z_{t-1}. When one example replaces the other at once, a filter κ that
  takes a smoothed time derivative has it (Eq. 58). When the rate falls back to its background in between, a memory
  neuron keeps the last large deviation d from it (Eq. 59), and the filter reads the memory (Eq. 60):

      ẇ = d³ - tanh(|d|³) w - c w,     remembered deviation: w^(1/3)

  At rest nothing happens (but a leak c); a deviation well above 1 overwrites the memory. A whisper does harm: w settles
  at d³ / (tanh |d|³ + c), so a deviation of 0.3, held long, is remembered as 1.
- *the third factor M*, by a chain of four cells (Eq. 63-66; with groups, Eq. 68-70).

The contrastive hinge loss (`rules.contrastive`) asks how far apart two glances are, and 002, appendix A, sketches cells
for it: a short-term memory h of the first glance, and for each neuron two rectified differences D, whose sums S⁺ and S⁻
are the two halves of the L1 distance:

    D⁺ = (h - x)₊,   D⁻ = (x - h)₊        S⁺ = Σ D⁺,   S⁻ = Σ D⁻        S⁺ + S⁻ = ‖h - x‖₁

As printed, each half has a threshold of its own, and what is passed on is D⁺ alone. The loss needs one cell more, which
adds the halves before its threshold, and both signs: `pull` and `push` are that circuit.

Sleep (`rules.weight_sharing`) asks each neuron for its deviation from the mean answer of its module, and 004, section
4.2, gives one inhibitory cell for that: it listens to all excitatory ones and subtracts what it hears (Eq. 8-9).

CLAPP (`rules.predictive`) asks every layer for one number, surprise, and 003, appendix C, sketches who could find it: a
neuron bursts when its soma z and its dendrite's prediction ẑ are active together; two nuclei add up the bursts of all,
one those of like sign (ON), one those of unlike sign (OFF); a last cell compares both and knows whether the eye jumped.

Each is a differential equation, followed in steps of dt; inputs are held during a step, and the result is the state at
its end. Halving dt halves the error (quarters it for the filter). Chapters 05, 07, 10 and 14.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def integrate(derivative: Callable[[Tensor, Tensor], Tensor], start: Tensor, inputs: Tensor, *, dt: float) -> Tensor:
    """Euler's method: the states (steps, ...) after each step of ẇ = derivative(w, input), inputs (steps, ...)."""
    if not 0 < dt < math.inf:
        raise ValueError(f"dt={dt} must be a positive number")
    states, w = [], start
    for now in inputs:
        w = w + dt * derivative(w, now)
        states.append(w)
    trace = torch.stack(states)
    if not torch.isfinite(trace).all():
        raise ValueError(f"the circuit diverged or met NaN: check the inputs, then lower dt={dt}")
    return trace


def memory_neuron(deviation: Tensor, *, dt: float, leak: float = 0.0) -> Tensor:
    """The remembered deviation w^(1/3) of each neuron from its background, (steps, neurons), starting from 0.

    Args:
        deviation: rate minus background, (steps, neurons). Time is in units of the neuron's own time constant.
        dt: step, well below 1. leak: c, at least 0 and small; the memory fades as exp(-c t / 3).

    Raises: ValueError. Source: 001, Eq. 59-60. Good to 1 % for deviations of at least 1.5, held for some 10 units.
    """
    if not 0 <= leak < math.inf:
        raise ValueError(f"leak={leak} must be a number of at least 0")

    def derivative(w: Tensor, d: Tensor) -> Tensor:
        return d**3 - torch.tanh(d.abs() ** 3) * w - leak * w

    return cube_root(integrate(derivative, torch.zeros_like(deviation[0]), deviation, dt=dt))


def cube_root(w: Tensor) -> Tensor:
    """The real cube root, odd in w."""
    return w.sign() * w.abs() ** (1 / 3)


def temporal_difference(trace: Tensor, *, dt: float, c1: float, c2: float) -> Tensor:
    """(κ * z)(t) for z of shape (steps, neurons): c1 after a step in z it reads the height of the step.

    κ(t) = -(t - c1) exp(-c2 |t - c1|) for t > 0, divided by its integral up to c1. Before the trace, z is taken to have
    had its first value. The response dies away only for c1 c2 well above 1: what is cut off at t = 0 leaves a fraction
    (1 + c1 c2) exp(-c1 c2) of every step behind, with the wrong sign.

    Raises: ValueError. Source: 001, Eq. 58.
    """
    if trace.dim() != 2 or not torch.isfinite(trace).all():
        raise ValueError(f"trace of shape {tuple(trace.shape)}: expected finite numbers, (steps, neurons)")
    kernel = difference_kernel(dt=dt, c1=c1, c2=c2, steps=len(trace)).to(trace)
    changed = (trace - trace[0]).T.unsqueeze(1)
    return F.conv1d(F.pad(changed, (len(kernel) - 1, 0)), kernel.flip(0)[None, None]).squeeze(1).T


def difference_kernel(*, dt: float, c1: float, c2: float, steps: int) -> Tensor:
    """κ in the middle of each of the first steps, times dt. Source: 001, Eq. 58, normalized."""
    if not (0 < dt < math.inf and 0 < c1 < math.inf and 0 < c2 < math.inf):
        raise ValueError(f"dt={dt}, c1={c1} and c2={c2} must be positive numbers")
    height = (1 - (1 + c1 * c2) * math.exp(-c1 * c2)) / c2**2
    t = dt * (torch.arange(steps, dtype=torch.float64) + 0.5)
    return -(t - c1) * torch.exp(-c2 * (t - c1).abs()) * dt / height


class ThirdFactor(NamedTuple):
    """What the cells of `third_factor_cells` do over time: b1, b2, b3 and M of shape (steps,), b4 (steps, groups)."""

    b1: Tensor
    b2: Tensor
    b3: Tensor
    M: Tensor
    b4: Tensor

    @property
    def M_groups(self) -> Tensor:
        """M_α, one per group, (steps, groups). Source: 001, Eq. 70."""
        return self.M[:, None] * self.b4


def third_factor_cells(
    change: Tensor,
    label_similarity: Tensor,
    *,
    dt: float,
    sigma: float = 5.0,
    balance: float = 2.0,
    tau: float = 0.02,
    tau_mean: float = 20.0,
) -> ThirdFactor:
    """Four cells that settle at the third factor, all starting from 0.

    Args:
        change: z_t - z_{t-1} (then use M) or v_t - v_{t-1} (then M_groups), (steps, neurons or groups).
        label_similarity: k(y_t, y_{t-1}), (steps,).
        tau: time constant of every cell but b3; tau_mean: of b3. For examples of duration T, β = exp(-T / tau_mean).

    Raises: ValueError. Source: 001, Eq. 63-66, 68-70, each cell relaxing to the right-hand side of its equation.
    """
    if not (0 < sigma < math.inf and 0 < tau < math.inf and 0 < tau_mean < math.inf):
        raise ValueError(f"sigma={sigma}, tau={tau} and tau_mean={tau_mean} must be positive numbers")
    slow = change.new_tensor([tau, tau, tau_mean, tau] + [tau] * change.shape[1])

    def derivative(b: Tensor, now: Tensor) -> Tensor:
        b1, b2, b3, b4 = b[0], b[1], b[2], b[4:]
        k = torch.exp(-b1 / (2 * sigma**2))
        settled = torch.stack([b4.square().sum(), balance * now[-1] - 2 * k, b2, -(b2 - b3) * k / sigma**2])
        return (torch.cat([settled, now[:-1]]) - b) / slow

    inputs = torch.cat([change, label_similarity[:, None]], 1)
    b = integrate(derivative, torch.zeros_like(slow), inputs, dt=dt)
    return ThirdFactor(b[:, 0], b[:, 1], b[:, 2], b[:, 3], b[:, 4:])


class Comparison(NamedTuple):
    """What a memory holds and how the present differs: h, D⁺ and D⁻ (..., neurons), their sums S⁺ and S⁻ (...)."""

    memory: Tensor
    plus: Tensor
    minus: Tensor
    sum_plus: Tensor
    sum_minus: Tensor


def comparison_circuit(rate: Tensor, store: Tensor, *, dt: float, tau: float = 0.02) -> Comparison:
    """Cells that remember one glance and compare the next ones with it, over time, all starting from 0.

    Args:
        rate: x, of the embedding's neurons, (steps, neurons), as the deviation from their background.
        store: opens the memory, (steps,): τ ḣ = store (x - h). At 1 it follows the rate, at 0 it keeps what it has.
        tau: time constant of every cell. Two inhibitory ones stand between, u ≈ x and v ≈ h: D⁺ relaxes to (h - u)₊,
            D⁻ to (x - v)₊, S⁺ and S⁻ to their sums.

    Raises: ValueError. Source: 002, Appendix A, each cell relaxing to its right-hand side; the memory is our choice.
    """
    if not 0 < tau < math.inf:
        raise ValueError(f"tau={tau} must be a positive number")
    if rate.dim() != 2 or store.shape != rate.shape[:1]:
        raise ValueError(
            f"rate is {tuple(rate.shape)}, store {tuple(store.shape)}: expected (steps, neurons), (steps,)"
        )
    n = rate.shape[1]

    def derivative(state: Tensor, now: Tensor) -> Tensor:
        h, u, v, plus, minus, sums = state.split([n, n, n, n, n, 2])
        x, opened = now[:-1], now[-1]
        settled = [x, h, F.relu(h - u), F.relu(x - v), torch.stack([plus.sum(), minus.sum()])]
        relaxing = torch.cat(settled) - torch.cat([u, v, plus, minus, sums])
        return torch.cat([opened * (x - h), relaxing]) / tau

    states = integrate(derivative, rate.new_zeros(5 * n + 2), torch.cat([rate, store[:, None].to(rate)], 1), dt=dt)
    h, _, _, plus, minus, sums = states.split([n, n, n, n, n, 2], dim=1)
    return Comparison(h, plus, minus, sums[:, 0], sums[:, 1])


def comparison_balance(remembered: Tensor, now: Tensor) -> Comparison:
    """Where `comparison_circuit` settles for glances (..., neurons) that stay. Source: 002, Appendix A."""
    plus, minus = F.relu(remembered - now), F.relu(now - remembered)
    return Comparison(remembered, plus, minus, plus.sum(-1), minus.sum(-1))


def pull(cells: Comparison, *, margin: float) -> Tensor:
    """What the neurons hear from a partner, (..., neurons): -δ^b of 002, Eq. 5, sgn(remembered - now) if it is too far.

    One cell adds both halves before the threshold; two cells per neuron say which half it belongs to.
    """
    far = cells.sum_plus + cells.sum_minus > margin
    return far.unsqueeze(-1) * _sign(cells)


def push(cells: Comparison, *, margin: float) -> Tensor:
    """What the neurons hear from a thing that is no partner: -δ^b of 002, Eq. 6, away from the memory if too near."""
    near = cells.sum_plus + cells.sum_minus < margin
    return near.unsqueeze(-1) * -_sign(cells)


def pull_as_printed(cells: Comparison, *, margin_positive: float, margin_negative: float) -> Tensor:
    """What 002, Appendix A, passes on for a partner: D⁺ if S⁺ > m₁ or S⁻ > m₂. Not Eq. 5.

    For m₁ ≤ m₂ it never speaks where Eq. 5 is silent, but stays silent up to a distance of m₁ + m₂. What it passes on
    is graded, and it can only raise a neuron's rate, never lower it.
    """
    passed = (cells.sum_plus > margin_positive) | (cells.sum_minus > margin_negative)
    return passed.unsqueeze(-1) * cells.plus


def _sign(cells: Comparison) -> Tensor:
    """sgn(remembered - now), as two cells per neuron know it."""
    return (cells.plus > 0).to(cells.plus) - (cells.minus > 0).to(cells.minus)


class Inhibition(NamedTuple):
    """Rates of excitatory neurons, r (..., neurons), and of their inhibitory neuron, r_inh (...)."""

    r: Tensor
    r_inh: Tensor


def inhibitory_circuit(
    drive: Tensor,
    *,
    inhibition: float,
    dt: float,
    tau: float = 30.0,
    bias: float = 1.0,
    start: Inhibition | None = None,
) -> Inhibition:
    """The rates (steps, ..., neurons) and (steps, ...) of τ ṙ = -r + z - α r_inh + b, τ ṙ_inh = -r_inh + r̄ - b.

    Args:
        drive: z = w·x of each neuron at each step, (steps, ..., neurons). dt, tau: step, time constant, in ms.
        inhibition: α, at least 0. bias: b, which keeps rates positive. start: the rates before; default: all 0.

    It rings at √α / τ while it settles with τ, whatever α. Steps of dt follow only for α < 2τ/dt - 1; above that they
    grow, though the circuit itself is stable. Raises: ValueError. Source: 004, Eq. 8.
    """
    if not (0 <= inhibition < math.inf and 0 < tau < math.inf):
        raise ValueError(f"inhibition={inhibition} must be at least 0, tau={tau} positive, both finite")
    if drive.dim() < 2 or drive.shape[-1] < 1:
        raise ValueError(f"drive has shape {tuple(drive.shape)}: expected (steps, ..., neurons)")

    def derivative(state: Tensor, z: Tensor) -> Tensor:
        r, r_inh = state[..., :-1], state[..., -1:]
        return (torch.cat([z - inhibition * r_inh + bias, r.mean(-1, keepdim=True) - bias], -1) - state) / tau

    before = start or Inhibition(torch.zeros_like(drive[0]), torch.zeros_like(drive[0, ..., 0]))
    states = integrate(derivative, torch.cat([before.r, before.r_inh.unsqueeze(-1)], -1), drive, dt=dt)
    return Inhibition(states[..., :-1], states[..., -1])


def inhibitory_balance(drive: Tensor, *, inhibition: float, bias: float = 1.0) -> Inhibition:
    """Where `inhibitory_circuit` settles for a drive (..., neurons) that stays: r - b = z - z̄ α / (1 + α).

    Source: 004, Eq. 9.
    """
    if not 0 <= inhibition < math.inf:
        raise ValueError(f"inhibition={inhibition} must be a finite number of at least 0")
    r_inh = drive.mean(-1) / (1 + inhibition)
    return Inhibition(bias + drive - inhibition * r_inh.unsqueeze(-1), r_inh)


class Surprise(NamedTuple):
    """Both nuclei, on and off (steps, ...), and what is broadcast to the layer: gamma (steps, ...), one of -1, 0, 1."""

    on: Tensor
    off: Tensor
    gamma: Tensor


def surprise_circuit(z: Tensor, prediction: Tensor, y: Tensor, *, dt: float, tau: float = 1.0) -> Surprise:
    """Nuclei that follow the bursts, τ ȯn = -on + Σ (z ẑ)₊ and τ ȯff = -off + Σ (-z ẑ)₊, from 0; and γ = y if
    y (on - off) < 1, else 0.

    Args:
        z, prediction: the layer's activity and ẑ = W_pred c, (steps, ..., neurons). y: 1 where the eye stayed, -1 where
            it jumped, (steps, ...). dt, tau: step, and the nuclei's time constant.

    Settled, on - off is the score u = z·ẑ, and γ that of Eq. 4. Raises: ValueError. Source: 003, appendix C.
    """
    if z.shape != prediction.shape or z.shape[:-1] != y.shape or z.dim() < 2:
        shapes = tuple(z.shape), tuple(prediction.shape), tuple(y.shape)
        raise ValueError(f"z, prediction and y are {shapes}: give (steps, ..., neurons) twice, and (steps, ...)")
    if not (y.abs() == 1).all() or not 0 < tau < math.inf:
        raise ValueError(f"y must hold 1 and -1 alone, and tau={tau} be positive")
    bursts = z * prediction
    inputs = torch.stack([F.relu(bursts).sum(-1), F.relu(-bursts).sum(-1)], dim=1)
    on, off = integrate(lambda r, heard: (heard - r) / tau, torch.zeros_like(inputs[0]), inputs, dt=dt).unbind(1)
    return Surprise(on, off, y * (y * (on - off) < 1))
