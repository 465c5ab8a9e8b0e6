"""The recipe of chapter 02: how deep can a network be before wrong feedback stops teaching it?

Dense tanh networks of 1, 3, 6 and 10 hidden layers of 64 units learn the 8×8 digits; only the wires of the error differ
from row to row (`nets.layers.FEEDBACK`). No paper has this table: 001 (Table 2) and 002 (Table 1) compare feedback at
one depth each, on pictures. After every epoch each layer is put to the book's yardstick over the same batches of the
training set: the angle between its mean update and backprop's, and the signal-to-noise ratio of the single updates
(`rules.feedback.bias_and_variance`).

- All initial weights, forward and random feedback, are √3 times PyTorch's default, so their variance is 1/fan_in:
  neither activity nor error fades with depth, and what goes wrong in deep networks is the direction alone.
- Adam steps every row, since sign symmetry's errors grow eightfold per layer, and only a rule that ignores the size of
  a gradient can use them. W and B get the same steps from it, too, so W − B stays constant.
- The rates are ours, chosen among 3e-4, 1e-3, 2e-3, 3e-3, 1e-2 and 3e-2 (for the last layer up to 1) by the mean
  accuracy on a held-out fifth of the training images, never on the test images: three splits, and five for URF at ten
  layers, where starts differ most.

The honest baselines are in the row "last layer": its hidden layers stay as they were drawn, its own readout is trained,
and its `probe` is what an exactly solved readout finds in untrained features.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Adam

from biolearn_lite.data import sets
from biolearn_lite.nets.networks import Network, layer_gradients, mlp
from biolearn_lite.recipes.dense import cross_entropy, percent
from biolearn_lite.recipes.engine import Metrics, Recipe, Scale, setting
from biolearn_lite.rules.feedback import bias_and_variance
from biolearn_lite.training.checkpoint import Checkpoints
from biolearn_lite.training.fit import Batch, fit
from biolearn_lite.training.probes import layer_probes

ROWS = {
    "backprop": "backprop",
    "RF": "random",
    "URF": "updated",
    "sign symmetry": "sign",
    "redrawn": "redrawn",
    "last layer": "backprop",
}
"""The feedback of each row; in the last one no error goes down."""

DEPTHS = {"1 hidden layer": 1, "3 hidden layers": 3, "6 hidden layers": 6, "10 hidden layers": 10}

RATES = {
    "backprop": (3e-2, 1e-2, 3e-3, 1e-3),
    "RF": (1e-2, 1e-2, 2e-3, 3e-3),
    "URF": (1e-2, 1e-2, 2e-3, 1e-3),
    "sign symmetry": (3e-2, 1e-2, 3e-3, 2e-3),
    "redrawn": (3e-3, 1e-3, 1e-3, 3e-4),
    "last layer": (0.3, 0.1, 0.1, 0.3),
}
"""Rates of Adam, one per depth."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One run."""

    hidden: int = setting("number of hidden layers")
    feedback: str = setting("wires of the error, one of nets.layers.FEEDBACK")
    learns: str = setting("'all' layers or the 'readout' only", default="all")
    rate: float = setting("of Adam")
    width: int = setting("units of a hidden layer", default=64)
    gain: float = setting("initial weights and feedback, times PyTorch's default", default=math.sqrt(3))
    epochs: int = setting("passes through the training set", default=20)
    batch_size: int = setting("examples per step, and per measured update", default=64)


FEATURES, CLASSES = 64, 10


class Data(NamedTuple):
    """Digits (n, 64) and labels (n,), for training and testing, on the device of the run."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def settings(row: str, column: str) -> Settings:
    """A cell of the table."""
    return Settings(
        hidden=DEPTHS[column],
        feedback=ROWS[row],
        learns="readout" if row == "last layer" else "all",
        rate=RATES[row][list(DEPTHS).index(column)],
    )


def load(settings: Settings, device: torch.device) -> Data:
    """The digits, flattened."""
    digits = sets.load("digits", device=device)
    (x, y), (x_test, y_test) = digits.train(), digits.test()
    return Data((x.flatten(1), y), (x_test.flatten(1), y_test))


def random(settings: Settings, steps: int) -> Data:
    """Noise of the true shapes, enough for that many steps (at least two: a scatter needs as many)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(max(steps, 2) * settings.batch_size, FEATURES, generator=generator)
    y = torch.randint(CLASSES, (len(x),), generator=generator)
    return Data((x, y), (x, y))


def train(settings: Settings, data: Data, seed: int, progress: bool, checkpoints: Checkpoints | None) -> Metrics:
    """One run: build, train, measure. Epoch 0 of the history is the network as it was born."""
    network = build(settings, seed).to(data.train[0].device)
    objectives = [cross_entropy] if settings.learns == "all" else [None, cross_entropy]
    measure = partial(_measure, settings, network, data)
    other = seed + 1000  # with the weights' own seed, redrawn feedback would begin as a copy of the weights
    with torch.random.fork_rng():
        torch.manual_seed(other)
        born = measure(0)
    history = fit(
        network,
        objectives,
        *data.train,
        optimizers=partial(Adam, lr=settings.rate),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=other,
        after_epoch=measure,
        checkpoints=checkpoints,
        progress=progress,
    )
    probes = layer_probes(network, data.train, data.test, num_classes=CLASSES)
    return {
        "test_accuracy": percent(network, data.test),
        "train_accuracy": percent(network, data.train),
        "probe": 100 * probes[-2],
        "probes": [100 * probe for probe in probes[:-1]],
        "history": [{"epoch": 0, "losses": [None] * len(objectives)} | born, *history],
    }


def build(settings: Settings, seed: int) -> Network:
    """One block, or, where the readout alone learns, two."""
    layers = settings.hidden + 1
    network = mlp(
        (FEATURES, *[settings.width] * settings.hidden, CLASSES),
        activation=nn.Tanh(),
        partition=(layers,) if settings.learns == "all" else (settings.hidden, 1),
        seed=seed,
        feedback=settings.feedback,
    )
    with torch.no_grad():
        for weight in (*network.parameters(), *network.buffers()):
            weight.mul_(settings.gain)
    return network


def yardstick(network: Network, batches: Sequence[Batch]) -> dict[str, list[float]]:
    """Per layer, bottom first: the angle of the mean update to backprop's (degrees), and the SNR of single updates."""
    with network.exact_feedback():
        exact = [torch.stack(layer).mean(0) for layer in _by_layer(network, batches)]
    found = [bias_and_variance(*pair) for pair in zip(_by_layer(network, batches), exact, strict=True)]
    return {
        "angles": [round(layer.angle, 2) for layer in found],
        "snrs": [float(f"{layer.snr:.4g}") for layer in found],
    }


def _by_layer(network: Network, batches: Sequence[Batch]) -> list[tuple[Tensor, ...]]:
    """The gradients of all batches, layer by layer."""
    return list(zip(*(layer_gradients(network, [cross_entropy], batch) for batch in batches), strict=True))


def _measure(settings: Settings, network: Network, data: Data, epoch: int) -> Metrics:
    score = {"test_accuracy": percent(network, data.test)}
    if settings.learns == "readout":
        return score
    x, y = (part.split(settings.batch_size) for part in data.train)
    whole = [Batch(*pair) for pair in zip(x, y, strict=True) if len(pair[1]) == settings.batch_size]
    return score | yardstick(network, whole)


RECIPES = (
    Recipe(
        name="feedback-depth",
        about="Chapter 02: dense networks of growing depth, whose errors come down through right and wrong wires",
        rows=tuple(ROWS),
        scales=dict.fromkeys(("lite", "colab", "full"), Scale(tuple(DEPTHS), (0, 1, 2, 3, 4))),
        settings=settings,
        load=load,
        random=random,
        train=train,
        measures=("test_accuracy", "probe"),
        paper=lambda row, column: None,
    ),
)
