"""Chapter 14, sleep. The formulas are written out anew here, independent of `rules`."""

import math
from typing import Any

import torch
from torch import Generator, Tensor

from biolearn_lite.show.exercises import Unanswered, demand, expect, property_of

# 14-1: after_a_perfect_night(weights, q), a row of neurons (neurons, d) with every module at its mean


def _row(generator: Generator) -> tuple[Tensor, int]:
    """3 to 11 neurons with weights, and a period that need not divide their number."""
    neurons, q = (int(torch.randint(low, high, (), generator=generator)) for low, high in ((3, 12), (2, 5)))
    return torch.randn(neurons, 2, dtype=torch.float64, generator=generator), q


@property_of("14-1", hint=1)
def each_has_its_modules_mean(after_a_perfect_night: Any, generator: Generator) -> None:
    """Every neuron ends with the mean of those that are a multiple of q away from it, itself included."""
    weights, q = _row(generator)
    same = (torch.arange(len(weights))[:, None] - torch.arange(len(weights))) % q == 0
    want = same.double() @ weights / same.sum(1, keepdim=True)
    expect(after_a_perfect_night(weights, q), want, weights=weights, q=q)


@property_of("14-1", hint=2)
def long_periods_share_nothing(after_a_perfect_night: Any, generator: Generator) -> None:
    """With a period longer than the row nobody has a partner, and nothing changes."""
    weights, _ = _row(generator)
    q = len(weights) + 2
    expect(after_a_perfect_night(weights, q), weights, weights=weights, q=q)


# 14-2: moment_of_sleep(w, x, w_init, pull, alpha), what Eq. 21 adds to w (N, d) for one input x (d)


def _moment(generator: Generator) -> tuple[Tensor, Tensor, Tensor, float, float]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    pull, alpha = (float(torch.rand((), generator=generator)) + 0.1 for _ in range(2))
    return normal(4, 3), normal(3), normal(4, 3), pull, 10 * alpha


@property_of("14-2", hint=2)
def it_is_eq_21(moment_of_sleep: Any, generator: Generator) -> None:
    """Neuron n gets −(z_n − z̄ α / (1 + α)) x − λ (w_n − w_n^init)."""
    w, x, w_init, pull, alpha = _moment(generator)
    z = [float((row * x).sum()) for row in w]
    kept = alpha / (1 + alpha) * sum(z) / len(z)
    rows = [-(answer - kept) * x - pull * (w[n] - w_init[n]) for n, answer in enumerate(z)]
    expect(moment_of_sleep(w, x, w_init, pull, alpha), torch.stack(rows), w=w, x=x, pull=pull, alpha=alpha)


@property_of("14-2", hint=1)
def strong_inhibition_keeps_the_mean(moment_of_sleep: Any, generator: Generator) -> None:
    """At bedtime, with α = 1e12, the steps of all neurons add up to nothing, so that the mean weight stays."""
    w, x, _, pull, _ = _moment(generator)
    step = moment_of_sleep(w, x, w.clone(), pull, 1e12)
    if step is None or step is ...:
        raise Unanswered
    expect(torch.as_tensor(step).sum(0), torch.zeros(3), w=w, x=x, pull=pull)


# 14-3: end_of_a_noisy_night(w_init, pull, alpha, noise), where the averaged update is zero for C = I


def _noisy(generator: Generator) -> tuple[Tensor, float, float, float]:
    pull, alpha, noise = (float(torch.rand((), generator=generator)) + 0.1 for _ in range(3))
    w_init = 1 + torch.randn(3, 2, dtype=torch.float64, generator=generator)
    return w_init, pull, 5 * alpha, noise


@property_of("14-3", hint=1)
def the_averaged_update_is_zero(end_of_a_noisy_night: Any, generator: Generator) -> None:
    """At the end the update, averaged over white inputs and all private noise, is zero."""
    w_init, pull, alpha, noise = _noisy(generator)
    w = end_of_a_noisy_night(w_init, pull, alpha, noise)
    if w is None or w is ...:
        raise Unanswered
    demand(torch.is_tensor(w) and w.shape == w_init.shape, f"expected weights of shape {tuple(w_init.shape)}")
    kept = alpha / (1 + alpha)
    common = math.sqrt(2) * torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64)  # C = I
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 6).view(-1, 3, 2)
    x = (common[:, None, None] + noise * signs).flatten(0, 1)
    z = (w.double() * x).sum(2)
    deviation = z - kept * z.mean(1, keepdim=True)
    update = -(deviation[:, :, None] * x).mean(0) - pull * (w - w_init)
    expect(update, torch.zeros(3, 2), w_init=w_init, pull=pull, alpha=alpha, noise=noise)


@property_of("14-3", hint=2)
def without_noise_it_is_eq_25(end_of_a_noisy_night: Any, generator: Generator) -> None:
    """Without noise it is Eq. 25, and for strong inhibition Eq. 20."""
    w_init, pull, alpha, _ = _noisy(generator)
    for strength in (alpha, 1e12):
        want = pull / (1 + pull) * (strength / (1 + pull * (1 + strength)) * w_init.mean(0) + w_init)
        got = end_of_a_noisy_night(w_init, pull, strength, 0.0)
        expect(got, want, w_init=w_init, pull=pull, alpha=strength, noise=0.0)


# 14-4: largest_step(alpha, tau), below which Euler's method does not grow


def _ringing(alpha: float, tau: float, dt: float) -> float:
    """How much louder the mean rings after 10,000 steps of Eq. 8 than at the start, in logarithms."""
    r, r_inh, grown = 1.0, 0.0, 0.0
    for _ in range(10_000):
        r, r_inh = r + dt / tau * (-r - alpha * r_inh), r_inh + dt / tau * (r - r_inh)
        size = math.hypot(r, math.sqrt(alpha) * r_inh)
        r, r_inh, grown = r / size, r_inh / size, grown + math.log(size)
    return grown


@property_of("14-4", hint=1)
def below_it_dies_above_it_grows(largest_step: Any, generator: Generator) -> None:
    """With steps 2 % shorter the ringing dies out, with steps 2 % longer it grows."""
    draw = torch.rand(2, generator=generator, dtype=torch.float64)
    alpha, tau = 1 + 50 * float(draw[0]), 10 + 40 * float(draw[1])
    dt = largest_step(alpha, tau)
    if dt is None or dt is ...:
        raise Unanswered
    dt = float(dt)
    demand(dt > 0, f"a step of {dt} goes nowhere", alpha=alpha, tau=tau)
    demand(_ringing(alpha, tau, 0.98 * dt) < 0, f"already {0.98 * dt:.4g} ms is too long", alpha=alpha, tau=tau)
    demand(_ringing(alpha, tau, 1.02 * dt) > 0, f"{1.02 * dt:.4g} ms would still do", alpha=alpha, tau=tau)


# 14-5: honest_snr(w), for weights (N, d)


def _shared(ratios: list[float], generator: Generator) -> Tensor:
    """Weights of 50 neurons whose mean² over variance is given, per weight."""
    w = torch.randn(50, len(ratios), dtype=torch.float64, generator=generator)
    w = (w - w.mean(0)) / w.std(0, correction=0)
    return 1 + w / torch.tensor(ratios, dtype=torch.float64).sqrt()


@property_of("14-5", hint=1)
def it_is_eq_6_when_all_agree_alike(honest_snr: Any, generator: Generator) -> None:
    """Where all weights are equally well shared, it is Eq. 6."""
    ratio = 1 + 1000 * float(torch.rand((), generator=generator))
    expect(honest_snr(_shared([ratio] * 4, generator)), ratio, tolerance=1e-6, ratio_of_every_weight=ratio)


@property_of("14-5", hint=2)
def one_bad_weight_shows(honest_snr: Any, generator: Generator) -> None:
    """It is never above Eq. 6, and between the worst weight's ratio and d times it."""
    ratios = [float(10 ** (4 * torch.rand((), generator=generator))) for _ in range(5)]
    got = honest_snr(_shared(ratios, generator))
    if got is None or got is ...:
        raise Unanswered
    low, high, value = min(ratios), min(5 * min(ratios), sum(ratios) / 5), float(got)
    fine = low * (1 - 1e-6) <= value <= high * (1 + 1e-6)
    demand(fine, f"got {value:.4g}, expected {low:.4g} to {high:.4g}", ratios=torch.tensor(ratios))


@property_of("14-5", hint=1)
def units_do_not_matter(honest_snr: Any, generator: Generator) -> None:
    """Measuring one input in other units, for all neurons, changes nothing."""
    w = _shared([2.0, 30.0, 400.0], generator)
    units = torch.tensor([1.0, 0.01, 100.0], dtype=torch.float64)
    got = honest_snr(w)
    if got is None or got is ...:
        raise Unanswered
    expect(honest_snr(w * units), got, tolerance=1e-6, units=units)


# 14-6 (research): time_to_wake(alpha, pull), in units of rate × moments, for mean and spread 1 at bedtime


def _best_time(alpha: float, pull: float, dt: float = 0.002) -> float:
    """The two equations in small steps, until deviations no longer shrink faster than the mean."""
    mean = spread = 1.0
    for step in range(100_000):
        fall = -spread - pull * (spread - 1), -mean / (1 + alpha) - pull * (mean - 1)
        if fall[0] / spread > fall[1] / mean:
            return step * dt
        spread, mean = spread + dt * fall[0], mean + dt * fall[1]
    return math.inf


@property_of("14-6", hint=1)
def nobody_agrees_better_later(time_to_wake: Any, generator: Generator) -> None:
    """Your time is the lowest point of −log SNR, to 2 %."""
    draw = torch.rand(2, generator=generator, dtype=torch.float64)
    alpha, pull = 2 + 20 * float(draw[0]), float(10 ** (-3 + 2 * draw[1]))
    expect(time_to_wake(alpha, pull), _best_time(alpha, pull), tolerance=0.02, alpha=alpha, pull=pull)


@property_of("14-6", hint=2)
def a_smaller_pull_means_a_longer_night(time_to_wake: Any, generator: Generator) -> None:
    """With a tenth of the pull the best night is longer."""
    alpha = 2 + 20 * float(torch.rand((), generator=generator))
    nights = [time_to_wake(alpha, pull) for pull in (0.001, 0.01)]
    if any(night is None or night is ... for night in nights):
        raise Unanswered
    long, short = map(float, nights)
    demand(long > short, f"{long:.4g} for 0.001, {short:.4g} for 0.01", alpha=alpha)
