"""The threshold circuit of paper 002, Appendix A: against loops, against the rule, and where its print goes wrong."""

import pytest
import torch

from biolearn_lite.rules.circuits import comparison_balance, comparison_circuit, pull, pull_as_printed, push
from biolearn_lite.rules.contrastive import contrastive_hinge_signal
from oracles import comparison_loops as slow

M1, M2 = 1.0, 3.0


def quarters(*shape, seed=0):
    """Exact in floating point: sums hit thresholds exactly, and coordinates coincide."""
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(*shape, dtype=torch.float64, generator=generator)).round() / 4


def rows(*tensors):
    return zip(*(tensor.tolist() for tensor in tensors), strict=True)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def test_settled_cells_and_what_they_pass_on_against_loops():
    a, b = quarters(400, 3), quarters(400, 3, seed=1)
    cells = comparison_balance(a, b)
    above, below = zip(*(slow.halves(*row) for row in rows(a, b)), strict=True)
    assert torch.equal(torch.stack([cells.sum_plus, cells.sum_minus]), tensor([above, below]))
    assert torch.equal(pull(cells, margin=M1), tensor([slow.needed_from_partner(*row, M1) for row in rows(a, b)]))
    assert torch.equal(push(cells, margin=M2), tensor([slow.needed_from_other(*row, M2) for row in rows(a, b)]))
    printed = pull_as_printed(cells, margin_positive=M1, margin_negative=M2)
    assert torch.equal(printed, tensor([slow.printed(*row, M1, M2) for row in rows(a, b)]))
    distance = cells.sum_plus + cells.sum_minus
    assert (distance == M1).any()
    assert (distance == M2).any()
    assert (cells.sum_plus == M1).any()


def test_repaired_circuit_is_the_rule():
    a, b = quarters(30, 5), quarters(30, 5, seed=1)
    options = {"margin_positive": M1, "margin_negative": M2, "stop_first_view": True}
    _, partner = contrastive_hinge_signal(a, b, negatives=0, **options)
    torch.testing.assert_close(pull(comparison_balance(a, b), margin=M1), partner, rtol=0, atol=0)
    _, both = contrastive_hinge_signal(a, b, negatives=1, **options)
    other = push(comparison_balance(a[:-1], b[1:]), margin=M2)
    torch.testing.assert_close(both[1:] - partner[1:], other, rtol=0, atol=0)
    assert other.any()


def test_printed_circuit_misses_exactly_one_region():
    """It is silent for a pair that Eq. 5 teaches just where S⁺ ≤ m₁ and S⁻ ≤ m₂; it never speaks out of turn."""
    a, b = quarters(3000, 2), quarters(3000, 2, seed=1)
    cells = comparison_balance(a, b)
    speaks = (cells.sum_plus > M1) | (cells.sum_minus > M2)
    taught = pull(cells, margin=M1).any(1)
    missed = (cells.sum_plus + cells.sum_minus > M1) & (cells.sum_plus <= M1) & (cells.sum_minus <= M2)
    assert torch.equal(taught & ~speaks, missed)
    assert not (speaks & ~taught).any()
    assert missed.any()
    assert (speaks & taught).any()
    passed = pull_as_printed(cells, margin_positive=M1, margin_negative=M2)
    assert not passed[~speaks].any()
    assert (passed >= 0).all()


def test_the_example_of_the_book():
    """(0, 0.8) against (0.8, 0): L1 is 1.6 > m₁, yet each half is 0.8 and stays silent."""
    cells = comparison_balance(tensor([0.0, 0.8]), tensor([0.8, 0.0]))
    assert pull(cells, margin=M1).tolist() == [-1.0, 1.0]
    assert pull_as_printed(cells, margin_positive=M1, margin_negative=M2).tolist() == [0.0, 0.0]


def glances(*values, dt, each=0.4):
    return tensor(values).repeat_interleave(round(each / dt), 0)


def test_circuit_over_time_against_loops():
    generator = torch.Generator().manual_seed(2)
    rate = torch.randn(40, 3, dtype=torch.float64, generator=generator)
    store = (torch.arange(40) < 15).double()
    cells = comparison_circuit(rate, store, dt=0.004, tau=0.02)
    trace = slow.followed(rate.tolist(), store.tolist(), 0.004, 0.02)
    for got, want in zip(cells, zip(*trace, strict=True), strict=True):
        torch.testing.assert_close(got, tensor(want), rtol=1e-12, atol=1e-12)


def test_circuit_keeps_the_first_glance_and_settles_at_the_comparison():
    dt, first, partner, other = 0.001, [0.5, -1.0, 2.0], [1.5, -1.25, 0.0], [-0.5, 3.0, 1.0]
    rate = glances(first, partner, other, dt=dt)
    store = (torch.arange(len(rate)) < 400).double()
    cells = comparison_circuit(rate, store, dt=dt)
    for end, now in ((799, partner), (1199, other)):
        settled = comparison_balance(tensor(first), tensor(now))
        for got, want in zip(cells, settled, strict=True):
            torch.testing.assert_close(got[end], want, rtol=0, atol=1e-5)
    always = comparison_circuit(rate, torch.ones(len(rate)), dt=dt)  # a memory that never closes has nothing to tell
    assert always.sum_plus[799] + always.sum_minus[799] < 1e-5


@pytest.mark.parametrize(
    ("rate", "store", "options", "message"),
    [
        (torch.zeros(5), torch.zeros(5), {}, r"rate is \(5,\)"),
        (torch.zeros(5, 2), torch.zeros(4), {}, r"store \(4,\)"),
        (torch.zeros(5, 2), torch.zeros(5), {"tau": 0.0}, "tau=0.0"),
        (torch.full((5, 2), torch.nan), torch.zeros(5), {}, "NaN"),
    ],
)
def test_bad_input(rate, store, options, message):
    with pytest.raises(ValueError, match=message):
        comparison_circuit(rate, store, dt=0.001, **options)
