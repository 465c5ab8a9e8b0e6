"""What does a frozen layer know? A linear probe asks, and it must ask well.

A readout trained for a few epochs by gradient descent understates the features it reads: untrained wide layers then
look 15 points worse than they are, and every learning rule looks better. So the book's probe is solved, not trained:
ridge regression onto one-hot labels, in closed form, with the ridge chosen on held-out training examples.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def linear_probe(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], *, num_classes: int) -> float:
    """Test accuracy (0 to 1) of the exactly solved linear readout.

    Args:
        train, test: features (n, ...) and integer labels (n,).

    The ridge is chosen among `RIDGES` (times the mean feature variance) on the last fifth of the training examples,
    then the readout is solved again on all of them.
    """
    if min(len(train[0]), len(train[1])) < 5 or len(train[0]) != len(train[1]):
        raise ValueError(f"train has {len(train[0])} features and {len(train[1])} labels: give 5 pairs at the least")
    x, y = train[0].flatten(1).double(), train[1]
    held_out = len(y) // 5
    fitting, choosing = (x[:-held_out], y[:-held_out]), (x[-held_out:], y[-held_out:])
    scores = [accuracy(_ridge(*fitting, ridge, num_classes)(choosing[0]), choosing[1]) for ridge in RIDGES]
    best = RIDGES[max(range(len(RIDGES)), key=scores.__getitem__)]
    return accuracy(_ridge(x, y, best, num_classes)(test[0].flatten(1).double()), test[1])


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Share of rows of `scores` (n, classes) whose largest entry is the label, one of `labels` (n,).

    Raises: ValueError for other shapes; FloatingPointError for scores that are not finite.
    """
    if scores.dim() != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(f"scores {tuple(scores.shape)}, labels {tuple(labels.shape)}: give (n, classes) and (n,)")
    if not torch.isfinite(scores).all():
        raise FloatingPointError("scores hold NaN or infinity: what made them has diverged; lower its learning rate")
    return (scores.argmax(1) == labels).double().mean().item()


@torch.no_grad()
def layer_probes(
    network: nn.Module, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], *, num_classes: int
) -> list[float]:
    """The linear probe of every layer's activity, bottom first; features are computed once."""
    activities = cast(Callable[[Tensor], list[Tensor]], network.eval().activities)
    seen_train, seen_test = activities(train[0]), activities(test[0])
    return [
        linear_probe((a, train[1]), (b, test[1]), num_classes=num_classes)
        for a, b in zip(seen_train, seen_test, strict=True)
    ]


def _ridge(x: Tensor, y: Tensor, ridge: float, num_classes: int) -> nn.Linear:
    """Ridge regression of centred one-hot labels on features, as a linear layer."""
    mean = x.mean(0)
    centred = x - mean
    gram = centred.T @ centred / len(x)
    penalty = ridge * gram.diagonal().mean().clamp_min(1e-12)
    target = torch.nn.functional.one_hot(y, num_classes).to(x)
    weight = torch.linalg.solve(
        gram + penalty * torch.eye(len(gram)).to(x), centred.T @ (target - target.mean(0)) / len(x)
    )
    readout = nn.Linear(x.shape[1], num_classes).to(x).requires_grad_(False)
    readout.weight.copy_(weight.T)
    readout.bias.copy_(target.mean(0) - mean @ weight)
    return readout
