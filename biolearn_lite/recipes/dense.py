"""A dense network, trained one way or another: what the recipes of dense networks share.

One `Settings` says everything about a run; `train` does it. End to end is one block with the cross-entropy at the top;
layer by layer is a block per layer, each with its own bottleneck objective and its own optimizer, under a readout with
another. Order within a layer, as in the published runs of 001 (appendix D.1):

    linear → nonlinearity → [the objective looks here] → divisive normalization → dropout → the next layer

So normalization and dropout change only what the next layer receives. Both stand before the readout too, and the
normalization is there at test time. A short last batch is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import MultiStepLR

from biolearn_lite.data import sets
from biolearn_lite.nets.layers import DivisiveNorm
from biolearn_lite.nets.networks import Network, mlp
from biolearn_lite.recipes.engine import Metrics, known, setting
from biolearn_lite.rules.hsic import bottleneck_objective
from biolearn_lite.rules.kernels import label_kernel
from biolearn_lite.training.checkpoint import Checkpoints
from biolearn_lite.training.fit import Batch, Objective, fit
from biolearn_lite.training.probes import accuracy, layer_probes

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"leaky relu": partial(nn.LeakyReLU, 0.01), "tanh": nn.Tanh}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One run. The defaults are those of the paper's dense networks."""

    data: str = setting("data set, by its name in data.sets")
    shape: tuple[int, ...] = setting("channels, height and width of an image")
    classes: int = setting("number of classes", default=10)
    augment: bool = setting("random crops after padding by 4 black pixels, and random flips", default=False)
    hidden: tuple[int, ...] = setting("units of the hidden layers, bottom first", default=(1024, 1024, 1024))
    activation: str = setting("nonlinearity of the hidden layers: 'leaky relu' or 'tanh'", default="leaky relu")
    dropout: float = setting("share of units silenced after each hidden layer", default=0.01)
    learns: str = setting("'all' by backprop, 'layers' each by its objective, 'readout' only, or 'nothing'")
    estimator: str = setting("of the layer objective: 'phsic' or 'hsic'", default="phsic")
    kernel: str = setting("of the layer objective: 'gaussian' or 'cosine'", default="gaussian")
    sigma: float = setting("width of the Gaussian kernel", default=5.0)
    balance: float = setting("weight of the labels' term, the paper's gamma", default=2.0)
    groups: int | None = setting("groups of units per layer; none: no grouping, no normalization", default=None)
    grouped_objective: bool = setting("whether the objective compares groups", default=False)
    normalized: bool = setting("whether layers pass on divisively normalized activity", default=False)
    power: float = setting("exponent of the normalization, the paper's p", default=0.2)
    epochs: int = setting("passes through the training set", default=100)
    batch_size: int = setting("examples per step", default=256)
    rate: float = setting("learning rate of the layer objectives", default=0.0)
    readout_rate: float = setting("learning rate of the readout, or of backprop", default=0.0)
    drops: tuple[int, ...] = setting("epochs after which the rates drop", default=(50, 75, 90), in_epochs=True)
    drop_factor: float = setting("what the rates are multiplied by at a drop", default=0.25)
    momentum: float = setting("of stochastic gradient descent", default=0.95)
    decay: float = setting("weight decay of the layer objectives", default=1e-7)
    readout_decay: float = setting("weight decay of the readout, or of backprop", default=1e-6)


class Data(NamedTuple):
    """Inputs (n, features) and labels (n,), for training and testing, on the device of the run."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def load(settings: Settings, device: torch.device) -> Data:
    """The whole data set, flattened."""
    data = sets.load(settings.data, device=device)
    (x, y), (x_test, y_test) = data.train(), data.test()
    return Data((x.flatten(1), y), (x_test.flatten(1), y_test))


def random(settings: Settings, steps: int) -> Data:
    """Noise of the true shapes, enough for that many steps."""
    generator = torch.Generator().manual_seed(0)
    n = steps * settings.batch_size
    x = torch.randn(2 * n, prod(settings.shape), generator=generator)
    y = torch.randint(settings.classes, (2 * n,), generator=generator)
    return Data((x[:n], y[:n]), (x[n:], y[n:]))


def train(settings: Settings, data: Data, seed: int, progress: bool, checkpoints: Checkpoints | None) -> Metrics:
    """One run: build, train, measure."""
    network = build(settings, seed).to(data.train[0].device)
    objectives, makers = learning(settings)
    history = fit(
        network,
        objectives,
        *data.train,
        optimizers=makers,
        epochs=settings.epochs if settings.learns != "nothing" else 0,
        batch_size=settings.batch_size,
        seed=seed,
        scheduler=partial(MultiStepLR, milestones=settings.drops, gamma=settings.drop_factor),
        after_epoch=lambda epoch: {"test_accuracy": _percent(network, data.test)},
        checkpoints=checkpoints,
        progress=progress,
    )
    probes = layer_probes(network, data.train, data.test, num_classes=settings.classes)
    return {
        "test_accuracy": _percent(network, data.test),
        "train_accuracy": _percent(network, data.train),
        **{f"probe_{i}": 100 * probe for i, probe in enumerate(probes[:-1], start=1)},
        "history": history,
    }


def build(settings: Settings, seed: int) -> Network:
    """The network: one block for backprop, else one block per layer."""
    layers = len(settings.hidden) + 1
    network = mlp(
        (prod(settings.shape), *settings.hidden, settings.classes),
        activation=known("activation", settings.activation, ACTIVATIONS)(),
        after=partial(_between, settings),
        partition=(layers,) if settings.learns == "all" else (1,) * layers,
        seed=seed,
    )
    if settings.augment:
        first = network.layers[0]
        first.op = nn.Sequential(CropAndFlip(settings.shape, black=_black(settings.data)), first.op)
    return network


def learning(settings: Settings) -> tuple[list[Objective | None], list[Callable[[list[nn.Parameter]], Optimizer]]]:
    """One objective and one maker of optimizers per block."""
    readout = partial(SGD, lr=settings.readout_rate, momentum=settings.momentum, weight_decay=settings.readout_decay)
    local = partial(SGD, lr=settings.rate, momentum=settings.momentum, weight_decay=settings.decay)
    hidden = len(settings.hidden)
    objectives: dict[str, list[Objective | None]] = {
        "all": [cross_entropy],
        "layers": [*[partial(layer_objective, settings=settings)] * hidden, cross_entropy],
        "readout": [*[None] * hidden, cross_entropy],
        "nothing": [None] * (hidden + 1),
    }
    chosen = known("learns", settings.learns, objectives)
    return chosen, [*[local] * (len(chosen) - 1), readout]


def cross_entropy(seen: Tensor, batch: Batch) -> Tensor:
    """The readout's scalar, and backprop's."""
    return F.cross_entropy(seen, batch.labels)


def layer_objective(seen: Tensor, batch: Batch, *, settings: Settings) -> Tensor:
    """A hidden layer's scalar, 001 Eq. 9, on groups where the row says so."""
    return bottleneck_objective(
        seen,
        label_kernel(batch.labels, settings.classes, dtype=seen.dtype),
        kernel=settings.kernel,
        sigma=settings.sigma,
        balance=settings.balance,
        estimator=settings.estimator,
        groups=settings.groups if settings.grouped_objective else None,
        power=settings.power if settings.normalized else 0.5,
    )


class CropAndFlip(nn.Module):
    """While training: shift each image by up to `padding` pixels over black, and mirror every second one by chance."""

    def __init__(self, shape: tuple[int, ...], *, black: Tensor, padding: int = 4) -> None:
        super().__init__()
        self.shape, self.padding = shape, padding
        self.register_buffer("black", black, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        (_, height, width), p, n = self.shape, self.padding, len(x)
        black = self.get_buffer("black")
        padded = F.pad(x.reshape(n, *self.shape) - black, (p, p, p, p)) + black
        top, left = torch.randint(2 * p + 1, (2, n, 1), device=x.device)
        mirrored = torch.rand(n, 1, device=x.device) < 0.5
        rows = top + torch.arange(height, device=x.device)
        columns = torch.arange(width, device=x.device)
        columns = left + torch.where(mirrored, columns.flip(0), columns)
        image = torch.arange(n, device=x.device)
        crops = padded[image[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        return crops.permute(0, 3, 1, 2).flatten(1)


def _between(settings: Settings) -> nn.Module:
    """What stands between a hidden layer's objective and the next layer."""
    dropout = nn.Dropout(settings.dropout)
    if not settings.normalized:
        return dropout
    return nn.Sequential(DivisiveNorm(settings.groups or 1, power=settings.power), dropout)


def _black(name: str) -> Tensor:
    """A black pixel as the network sees it, (C, 1, 1)."""
    card = sets.CARDS[name]
    return (-torch.tensor(card.mean) / torch.tensor(card.std)).view(-1, 1, 1)


@torch.no_grad()
def _percent(network: Network, examples: tuple[Tensor, Tensor]) -> float:
    network.eval()
    scores = torch.cat([network(x) for x in examples[0].split(4096)])
    return 100 * accuracy(scores, examples[1])
