"""Examples one at a time: what the rule is told, in which order, and what comes back."""

import pytest
import torch

from biolearn_lite.training.stream import stream

INPUTS = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 1])
TEACHER = torch.tensor([[1.0, -0.5], [-0.25, 2.0]], dtype=torch.float64)  # not symmetric, so that an exchange shows
ORDER = torch.tensor([2, 0, 0, 1, 2])


class Recorder:
    """A rule that adds the example to every row of the weights, and writes down what it was given."""

    def __init__(self):
        self.calls = []

    def __call__(self, memory, /, *, pre, weight, label_similarity):
        self.calls.append((memory, pre.clone(), weight.clone(), label_similarity))
        return pre.expand_as(weight).clone(), len(self.calls)


def run(rule=None, **changes):
    options = {"teacher": TEACHER, "rate": 0.5}
    arguments = {"weight": torch.ones(3, 2, dtype=torch.float64), "inputs": INPUTS, "labels": LABELS, "order": ORDER}
    return stream(rule or Recorder(), **(arguments | options | changes))


def test_the_rule_meets_each_example_in_order_with_its_own_memory_and_todays_weights():
    rule, weight = Recorder(), torch.ones(3, 2, dtype=torch.float64)
    for (memory, pre, seen, _), i, t in zip(_calls(rule), ORDER.tolist(), range(5), strict=True):
        assert memory == (None if t == 0 else t)
        assert torch.equal(pre, INPUTS[i : i + 1])
        assert torch.equal(seen, weight)
        weight = weight + 0.5 * INPUTS[i]


def _calls(rule):
    run(rule)
    return rule.calls


def test_the_teacher_speaks_about_this_example_and_the_one_before():
    told = [told for *_, told in _calls(Recorder())][1:]
    assert told == [-0.5, 1.0, -0.25, 2.0]  # 0 after 1, 0 after 0, 1 after 0, 1 after 1


def test_weights_over_time():
    start = torch.ones(3, 2, dtype=torch.float64)
    kept = run(every=2)
    assert kept.shape == (3, 3, 2)
    for step, weights in zip((0, 2, 4), kept, strict=True):
        assert torch.equal(weights, start + 0.5 * INPUTS[ORDER[:step]].sum(0))
    assert torch.equal(run()[-1], start + 0.5 * INPUTS[ORDER].sum(0))
    assert len(run()) == 2


def test_the_given_weights_stay_and_no_graph_is_kept():
    weight = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    weights = run(weight=weight)
    assert torch.equal(weight, torch.ones(3, 2, dtype=torch.float64))
    assert not weights.requires_grad


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"labels": LABELS[:2]}, ValueError, "3 inputs and 2 labels"),
        ({"order": ORDER[:0]}, ValueError, "at least one index"),
        ({"order": ORDER.double()}, ValueError, "whole numbers"),
        ({"order": torch.tensor([0, 3])}, IndexError, "0 to 2"),
        ({"order": torch.tensor([-1, 0])}, IndexError, "0 to 2"),
        ({"teacher": TEACHER[:1]}, ValueError, r"teacher has shape \(1, 2\)"),
        ({"labels": torch.tensor([0, 1, 2])}, ValueError, "a row and a column for each class"),
        ({"every": 6}, ValueError, "from 1 to the 5 examples"),
        ({"every": 0}, ValueError, "from 1 to the 5 examples"),
        ({"rate": float("nan")}, FloatingPointError, "lower rate"),
    ],
)
def test_what_does_not_fit_is_named(changes, error, says):
    with pytest.raises(error, match=says):
        run(**changes)
