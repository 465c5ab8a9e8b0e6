"""Training without batches, epochs or gradients: examples come one at a time, and are gone.

An online rule is a step: what was remembered and one example go in, what is added to the weights and what to remember
come out. It never sees a class, only what the teacher says about this example and the one before it. All that is left
for a trainer is to show the examples in their order, which now matters. Chapter 05.
"""

from typing import Any, Protocol

import torch
from torch import Tensor


class OnlineRule(Protocol):
    """`dW, memory = rule(memory, pre=..., weight=..., label_similarity=...)`; the memory is None at first."""

    def __call__(
        self, memory: Any, /, *, pre: Tensor, weight: Tensor, label_similarity: float
    ) -> tuple[Tensor, Any]: ...


@torch.no_grad()
def stream(
    rule: OnlineRule,
    weight: Tensor,
    inputs: Tensor,
    labels: Tensor,
    order: Tensor,
    *,
    teacher: Tensor,
    rate: float,
    every: int | None = None,
) -> Tensor:
    """Show `inputs[order]` one at a time; after each example `weight` grows by `rate` times what the rule adds.

    Args:
        rule: an online rule; `weight`: where it starts, left as it is.
        inputs, labels: all examples, (n, ...) and (n,). order: their indices in time, any length, repeats allowed.
        teacher: (classes, classes); entry [y, y_before] is what the rule is told about two examples in a row.
        every: keep the weights after so many examples; by default only at the end.

    Returns: (1 + len(order) // every, *weight.shape), the weights over time, the first as given.
    Raises: ValueError, IndexError: arguments that do not fit. FloatingPointError: weights that are not finite.
    """
    every = len(order) if every is None else every
    _check(inputs, labels, order, teacher, every)
    W, memory, kept = weight.clone(), None, [weight.clone()]
    classes, said = labels[order].tolist(), teacher.tolist()
    for t, i in enumerate(order.tolist()):
        told = said[classes[t]][classes[t - 1]]  # at t = 0 there is no example before, and the rule adds nothing
        dW, memory = rule(memory, pre=inputs[i : i + 1], weight=W, label_similarity=told)
        W += rate * dW
        if (t + 1) % every == 0:
            kept.append(W.clone())
    weights = torch.stack(kept)
    if not weights.isfinite().all():
        raise FloatingPointError(f"the weights grew beyond all bounds within {len(order)} examples: lower rate={rate}")
    return weights


def _check(inputs: Tensor, labels: Tensor, order: Tensor, teacher: Tensor, every: int) -> None:
    if len(inputs) != len(labels):
        raise ValueError(f"{len(inputs)} inputs and {len(labels)} labels: give one label per input")
    if order.ndim != 1 or len(order) == 0 or order.is_floating_point():
        raise ValueError(f"order is {tuple(order.shape)} of {order.dtype}: give at least one index, as whole numbers")
    if order.min() < 0 or order.max() >= len(inputs):
        raise IndexError(f"order runs from {order.min()} to {order.max()}: the examples are 0 to {len(inputs) - 1}")
    if teacher.ndim != 2 or labels.min() < 0 or labels.max() >= min(teacher.shape):
        raise ValueError(f"teacher has shape {tuple(teacher.shape)}: give a row and a column for each class in labels")
    if not 1 <= every <= len(order):
        raise ValueError(f"every={every}: give a number from 1 to the {len(order)} examples of the stream")
