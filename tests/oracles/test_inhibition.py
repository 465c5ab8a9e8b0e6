"""The inhibitory circuit of paper 004: replayed by a loop, its fixed point, how it rings, when steps of dt grow."""

import math

import pytest
import torch

from biolearn_lite.rules.circuits import Inhibition, inhibitory_balance, inhibitory_circuit
from biolearn_lite.rules.weight_sharing import sleep_update
from oracles import sleep_loops as slow


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_replay_by_a_loop_that_goes_on_from_pattern_to_pattern():
    drive = normal(3, 4).repeat_interleave(20, 0)
    options = {"inhibition": 10.0, "dt": 1.0, "tau": 30.0, "bias": 1.0}
    whole = inhibitory_circuit(drive, **options)
    loops = slow.circuit(drive.tolist(), **options, r=[0.0] * 4, r_inh=0.0)
    torch.testing.assert_close(whole.r, torch.tensor([r for r, _ in loops], dtype=torch.float64))
    torch.testing.assert_close(whole.r_inh, torch.tensor([inh for _, inh in loops], dtype=torch.float64))
    first = inhibitory_circuit(drive[:20], **options)
    rest = inhibitory_circuit(drive[20:], start=Inhibition(first.r[-1], first.r_inh[-1]), **options)
    torch.testing.assert_close(rest.r, whole.r[20:])
    torch.testing.assert_close(rest.r_inh, whole.r_inh[20:])
    runs = inhibitory_circuit(torch.stack([drive, 2 * drive], 1), **options)
    torch.testing.assert_close(runs.r[:, 0], whole.r)
    assert runs.r_inh.shape == (60, 2)


@pytest.mark.parametrize("inhibition", [0.0, 1.0, 10.0])
@pytest.mark.parametrize("bias", [1.0, 0.3])
def test_it_settles_where_the_paper_says(inhibition, bias):
    """Eq. 9; nothing changes there; and the anti-Hebbian rule on it is Eq. 21's update."""
    z = normal(5)
    settled = inhibitory_circuit(z.expand(1200, -1), inhibition=inhibition, dt=1.0, bias=bias)
    balance = inhibitory_balance(z, inhibition=inhibition, bias=bias)
    torch.testing.assert_close(settled.r[-1], balance.r, rtol=0, atol=1e-10)
    torch.testing.assert_close(settled.r_inh[-1], balance.r_inh, rtol=0, atol=1e-10)
    as_printed = bias + z - z.mean() + z.mean() / (1 + inhibition)
    torch.testing.assert_close(balance.r, as_printed)
    stay = inhibitory_circuit(z.expand(3, -1), inhibition=inhibition, dt=1.0, bias=bias, start=balance)
    torch.testing.assert_close(stay.r[-1], balance.r, rtol=1e-12, atol=1e-12)
    w, x = normal(5, 3, seed=1), normal(3, seed=2)
    deviation = inhibitory_balance(w @ x, inhibition=inhibition, bias=bias).r - bias
    dW = sleep_update(w, x, torch.zeros_like(w), decay=0.0, inhibition=inhibition)
    torch.testing.assert_close(-deviation[:, None] * x, dW)


@pytest.mark.parametrize("inhibition", [1.0, 4.0, 25.0])
def test_the_mean_rings_and_fades_with_tau_alone(inhibition):
    """From a common push of 1 the mean goes as exp(-t/τ) cos(√α t/τ): eigenvalues (-1 ± i√α)/τ."""
    dt, tau = 0.001, 3.0
    rest, pushed = torch.zeros(6000, 2, dtype=torch.float64), torch.full((2,), 2.0, dtype=torch.float64)
    start = Inhibition(pushed, torch.zeros((), dtype=torch.float64))
    mean = inhibitory_circuit(rest, inhibition=inhibition, dt=dt, tau=tau, start=start).r.mean(-1) - 1
    t = dt * torch.arange(1, 6001, dtype=torch.float64)
    exact = torch.exp(-t / tau) * torch.cos(math.sqrt(inhibition) * t / tau)
    assert (mean - exact).abs().max() < 2e-3 * (1 + inhibition)


@pytest.mark.parametrize(("inhibition", "grows"), [(57.0, False), (61.0, True)])
def test_steps_of_one_millisecond_follow_below_59(inhibition, grows):
    """α < 2τ/dt - 1 = 59 for τ = 30 ms, though the circuit is stable for every α."""
    z = normal(4)
    r = inhibitory_circuit(z.expand(4000, -1), inhibition=inhibition, dt=1.0).r
    distance = (r - inhibitory_balance(z, inhibition=inhibition).r).norm(dim=-1)
    assert (distance[3800:].max() > distance[:200].max()) == grows
    fine = inhibitory_circuit(z.expand(4000, -1), inhibition=inhibition, dt=0.25).r[-1]
    torch.testing.assert_close(fine, inhibitory_balance(z, inhibition=inhibition).r, rtol=0, atol=1e-3)


def test_two_neurons_of_the_storyboard():
    """w = (1, 3), x = 1, α = 10, τ = 30 ms, steps of 1 ms: r - b at 10, 30, 60 and 150 ms, then the balance."""
    z = torch.tensor([1.0, 3.0], dtype=torch.float64)
    r = inhibitory_circuit(z.expand(150, -1), inhibition=10.0, dt=1.0).r - 1
    for ms, expected in {10: (-0.14, 0.44), 30: (0.02, 1.30), 60: (-0.88, 0.86), 150: (-0.80, 1.19)}.items():
        assert r[ms - 1].tolist() == pytest.approx(expected, abs=0.005)
    balance = inhibitory_balance(z, inhibition=10.0).r - 1
    assert balance.tolist() == pytest.approx((-0.8182, 1.1818), abs=1e-4)


BAD = {
    "inhibition": (lambda: inhibitory_circuit(torch.ones(3, 2), inhibition=-1.0, dt=1.0), "inhibition=-1.0"),
    "tau": (lambda: inhibitory_circuit(torch.ones(3, 2), inhibition=1.0, dt=1.0, tau=0.0), "tau=0.0"),
    "dt": (lambda: inhibitory_circuit(torch.ones(3, 2), inhibition=1.0, dt=0.0), "dt=0.0"),
    "flat drive": (lambda: inhibitory_circuit(torch.ones(3), inhibition=1.0, dt=1.0), r"\(3,\)"),
    "balance": (lambda: inhibitory_balance(torch.ones(3), inhibition=float("nan")), "inhibition=nan"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_named(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
