"""The circuits of paper 001, appendix C: what they settle at, how well the steps follow them, where they fail."""

import math

import pytest
import torch

from biolearn_lite.rules.circuits import (
    cube_root,
    difference_kernel,
    integrate,
    memory_neuron,
    temporal_difference,
    third_factor_cells,
)
from biolearn_lite.rules.online import running_third_factor


def held(values, *, before, during, after, dt):
    """Rest, then the given deviations, then rest, (steps, len(values))."""
    rest, shown = torch.zeros(len(values), dtype=torch.float64), torch.tensor(values, dtype=torch.float64)
    parts = ((rest, before), (shown, during), (rest, after))
    return torch.cat([value.expand(round(time / dt), -1) for value, time in parts])


def halving(run, exact, dts=(0.02, 0.01)):
    """Error with the first step over error with the second, half as long."""
    coarse, fine = (abs(run(dt) - exact) for dt in dts)
    return coarse / fine


def test_euler_is_of_first_order():
    """ẇ = -w + 1 from 0 reaches 1 - 1/e at time 1."""

    def run(dt):
        ones = torch.ones(round(1 / dt), 1, dtype=torch.float64)
        return integrate(lambda w, now: now - w, torch.zeros(1, dtype=torch.float64), ones, dt=dt)[-1].item()

    assert run(0.01) == pytest.approx(1 - math.exp(-1), abs=0.002)
    assert halving(run, 1 - math.exp(-1)) == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("sign", [1, -1])
def test_memory_keeps_large_deviations_to_one_percent(sign):
    values = [sign * d for d in (1.5, 1.7, 2.0, 2.5, 3.0, 4.0)]
    recall = memory_neuron(held(values, before=5, during=15, after=40, dt=0.01), dt=0.01)[-1]
    assert max(abs(r.item() / d - 1) for r, d in zip(recall, values, strict=True)) < 0.01


def test_memory_overwrites_what_it_held():
    first, second = (held([d], before=1, during=15, after=5, dt=0.01) for d in (3.0, -1.5))
    recall = memory_neuron(torch.cat([first, second]), dt=0.01)
    assert recall[len(first) - 1].item() == pytest.approx(3.0, rel=0.01)
    assert recall[-1].item() == pytest.approx(-1.5, rel=0.01)


def test_memory_fails_for_small_deviations():
    """It settles at (d³ / tanh |d|³)^(1/3): a whisper, held long, is remembered as 1."""
    values = [0.3, 0.5, 1.0, 1.2]
    recall = memory_neuron(held(values, before=0, during=800, after=10, dt=0.05), dt=0.05)[-1]
    settled = [(d**3 / math.tanh(d**3)) ** (1 / 3) for d in values]
    torch.testing.assert_close(recall, torch.tensor(settled, dtype=torch.float64), rtol=1e-3, atol=0)
    assert recall[0].item() == pytest.approx(1.0, abs=0.01)
    assert recall[2].item() == pytest.approx(1.095, abs=0.002)
    assert min(r.item() / d for r, d in zip(recall, values, strict=True)) > 1.02


def test_leak_forgets_at_a_third_of_its_rate():
    with_leak = memory_neuron(held([2.0], before=0, during=15, after=20, dt=0.002), dt=0.002, leak=0.05)
    settled = (8 / (math.tanh(8) + 0.05)) ** (1 / 3)
    assert with_leak[round(15 / 0.002) - 1].item() == pytest.approx(settled, rel=1e-4)
    assert with_leak[-1].item() == pytest.approx(settled * math.exp(-0.05 * 20 / 3), rel=1e-3)
    assert memory_neuron(held([2.0], before=0, during=15, after=20, dt=0.01), dt=0.01)[-1].item() == pytest.approx(
        2.0, rel=1e-3
    )


def test_memory_step_error_halves_with_the_step():
    """On the way up, against the closed form w(t) = d³ (1 - exp(-λt)) / λ with λ = tanh d³."""
    rate = math.tanh(1.2**3)
    exact = 1.2**3 * (1 - math.exp(-rate)) / rate

    def run(dt):
        return memory_neuron(held([1.2], before=0, during=1, after=0, dt=dt), dt=dt)[-1].item() ** 3

    assert halving(run, exact) == pytest.approx(2, abs=0.05)
    assert run(0.001) == pytest.approx(exact, rel=1e-3)


def test_cube_root_is_real_and_odd():
    w = torch.tensor([-27.0, -1e-6, 0.0, 8.0], dtype=torch.float64)
    torch.testing.assert_close(cube_root(w), torch.tensor([-3.0, -0.01, 0.0, 2.0], dtype=torch.float64))


@pytest.mark.parametrize("height", [2.0, -0.7])
def test_filter_reads_the_height_of_a_step_c1_later_and_then_forgets(height):
    dt, c1, c2 = 0.05, 12.0, 1.0
    response = temporal_difference(held([height], before=20, during=60, after=0, dt=dt), dt=dt, c1=c1, c2=c2)[:, 0]
    peak = response.abs().argmax().item()
    assert (peak + 1) * dt == pytest.approx(20 + c1, abs=2 * dt)
    assert response[peak].item() == pytest.approx(height, rel=1e-3)
    left_over = -height * (1 + c1 * c2) * math.exp(-c1 * c2) / (1 - (1 + c1 * c2) * math.exp(-c1 * c2))
    assert response[-1].item() == pytest.approx(left_over, rel=0.05, abs=1e-5)
    assert response[: round(20 / dt)].abs().max() == 0


def test_filter_ignores_what_was_always_there():
    trace = held([2.0], before=0, during=30, after=0, dt=0.1)
    assert temporal_difference(trace, dt=0.1, c1=10.0, c2=1.0).abs().max() == 0


def test_filter_step_error_quarters_with_the_step():
    def run(dt):
        trace = held([1.0], before=10, during=40, after=0, dt=dt)
        return temporal_difference(trace, dt=dt, c1=10.0, c2=1.0)[round(20 / dt) - 1].item()

    assert halving(run, 1.0, (0.1, 0.05)) == pytest.approx(4, abs=0.1)


def test_kernel_against_a_loop():
    kernel = difference_kernel(dt=0.5, c1=2.0, c2=0.7, steps=9)
    height = (1 - (1 + 1.4) * math.exp(-1.4)) / 0.49
    for k in range(9):
        t = 0.5 * (k + 0.5)
        assert kernel[k].item() == pytest.approx(-(t - 2.0) * math.exp(-0.7 * abs(t - 2.0)) * 0.5 / height)


def test_memory_and_filter_together_give_the_change_between_examples():
    """Rates fall back to rest between two examples; still the filter reads z_t - z_{t-1} (Eq. 60)."""
    dt, first, second = 0.1, [2.0, -1.5, 3.0], [-2.0, 1.6, 1.8]
    trace = torch.cat([held(v, before=100, during=60, after=140, dt=dt) for v in (first, second)])
    read = temporal_difference(memory_neuron(trace, dt=dt), dt=dt, c1=80.0, c2=0.1)
    change = torch.tensor(second, dtype=torch.float64) - torch.tensor(first, dtype=torch.float64)
    at_peak = read[round((300 + 100 + 81) / dt)]
    torch.testing.assert_close(at_peak, change, rtol=0.02, atol=0)
    without_memory = temporal_difference(trace, dt=dt, c1=80.0, c2=0.1)[round((300 + 100 + 81) / dt)]
    assert ((without_memory - change).abs() > 0.2 * change.abs()).all()


def examples(seed=0, count=6, neurons=3):
    generator = torch.Generator().manual_seed(seed)
    changes = torch.randn(count, neurons, generator=generator, dtype=torch.float64)
    same = torch.rand(count, generator=generator) < 0.5
    return changes, torch.where(same, 1.0, -1 / 9).double()


@pytest.mark.parametrize("sigma", [1.0, 2.5])
def test_cells_settle_at_the_formula(sigma):
    """At the end of every example: M, b₃ and the groups' M_α of Eq. 63-70, with β = exp(-T / tau_mean)."""
    changes, similarity = examples()
    dt, duration, tau_mean = 0.002, 1.0, 4.0
    steps = round(duration / dt)
    cells = third_factor_cells(
        changes.repeat_interleave(steps, 0),
        similarity.repeat_interleave(steps),
        dt=dt,
        sigma=sigma,
        balance=1.7,
        tau=0.01,
        tau_mean=tau_mean,
    )
    mean = torch.zeros((), dtype=torch.float64)
    for t, (change, same) in enumerate(zip(changes, similarity, strict=True)):
        M, mean = running_third_factor(
            change.square().sum(), same.item(), mean, sigma=sigma, balance=1.7, decay=math.exp(-duration / tau_mean)
        )
        end = (t + 1) * steps - 1
        assert cells.b1[end].item() == pytest.approx(change.square().sum().item(), rel=1e-6)
        assert cells.b3[end].item() == pytest.approx(mean.item(), abs=0.01)
        assert cells.M[end].item() == pytest.approx(M.item(), abs=0.01 / sigma**2)
        torch.testing.assert_close(cells.M_groups[end], cells.M[end] * change, rtol=1e-6, atol=1e-9)
        assert cells.M[end].sign() == M.sign()


def test_cells_step_error_halves_with_the_step():
    changes, similarity = examples(count=1)

    def run(dt):
        steps = round(0.5 / dt)
        cells = third_factor_cells(
            changes.expand(steps, -1), similarity.expand(steps), dt=dt, sigma=1.0, tau=0.1, tau_mean=1.0
        )
        return cells.M[-1].item()

    exact = 2 * run(0.00025) - run(0.0005)
    assert halving(run, exact, (0.005, 0.0025)) == pytest.approx(2, abs=0.1)


def test_running_mean_is_that_of_consecutive_pairs():
    """b₃ converges to the mean of b₂ over neighbours in time, which never pair a point with itself (k = 1)."""
    points = torch.randn(12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    distance = torch.cdist(points, points).square()
    generator = torch.Generator().manual_seed(1)
    order = torch.randint(12, (4000,), generator=generator)
    order = order[1:][order[1:] != order[:-1]]
    mean, total = torch.zeros(()), []
    for i, j in zip(order[1:], order[:-1], strict=True):
        _, mean = running_third_factor(distance[i, j], 0.0, mean, sigma=1.0, balance=2.0, decay=0.998)
        total.append(mean.item())
    others = -2 * torch.exp(-distance / 2)[~torch.eye(12, dtype=torch.bool)].mean().item()
    everyone = -2 * torch.exp(-distance / 2).mean().item()
    recent = sum(total[-1000:]) / 1000
    assert abs(recent - others) < 0.05
    assert abs(recent - everyone) > 2 * abs(recent - others)


BAD = {
    "dt 0": (lambda: memory_neuron(torch.ones(3, 1), dt=0.0), "dt=0.0"),
    "negative leak": (lambda: memory_neuron(torch.ones(3, 1), dt=0.1, leak=-1.0), "leak=-1.0"),
    "too long a step": (lambda: memory_neuron(torch.full((900, 1), 5.0), dt=5.0), "lower dt=5.0"),
    "NaN": (lambda: memory_neuron(torch.full((9, 1), float("nan")), dt=0.1), "NaN"),
    "c1": (lambda: temporal_difference(torch.ones(9, 1), dt=0.1, c1=0.0, c2=1.0), "c1=0.0"),
    "flat trace": (lambda: temporal_difference(torch.ones(9), dt=0.1, c1=1.0, c2=1.0), r"\(9,\)"),
    "NaN in the trace": (
        lambda: temporal_difference(torch.full((9, 1), float("nan")), dt=0.1, c1=1.0, c2=1.0),
        "finite",
    ),
    "tau": (lambda: third_factor_cells(torch.ones(9, 1), torch.ones(9), dt=0.1, tau=0.0), "tau=0.0"),
    "sigma": (lambda: third_factor_cells(torch.ones(9, 1), torch.ones(9), dt=0.1, sigma=-1.0), "sigma=-1.0"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_named(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
