"""A dense network, trained one way or another: what the recipes of dense networks share.

One `Settings` says everything about a run; `train` does it. End to end is one block with the cross-entropy at the top;
layer by layer is a block per layer, each with its own bottleneck objective and its own optimizer, under a readout with
another. Order within a layer, as in the published runs of 001 (appendix D.1):

    linear → nonlinearity → [the objective looks here] → divisive normalization → dropout → the next layer

So normalization and dropout change only what the next layer receives. Both stand before the readout too, and the
normalization is there at test time. A short last batch is kept.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import MultiStepLR

from biolearn_lite.data import sets
from biolearn_lite.nets.layers import DivisiveNorm
from biolearn_lite.nets.networks import Network, mlp
from biolearn_lite.recipes.engine import Metrics, known, setting
from biolearn_lite.rules import kernels
from biolearn_lite.rules.hsic import bottleneck_objective, bottleneck_signal, hsic, phsic
from biolearn_lite.training.checkpoint import Checkpoints
from biolearn_lite.training.fit import Batch, Explicit, Objective, fit
from biolearn_lite.training.probes import accuracy, layer_probes

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "leaky relu": partial(nn.LeakyReLU, 0.01),
    "selu": nn.SELU,
    "tanh": nn.Tanh,
}

Objectives = list[Objective | Explicit | None]
Maker = Callable[[list[nn.Parameter]], Optimizer]
Makers = list[Maker]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One run. The defaults are those of the paper's dense networks."""

    data: str = setting("data set, by its name in data.sets")
    shape: tuple[int, ...] = setting("channels, height and width of an image")
    classes: int = setting("number of classes", default=10)
    augment: bool = setting("random crops after padding by 4 black pixels, and random flips", default=False)
    hidden: tuple[int, ...] = setting("units of the hidden layers, bottom first", default=(1024, 1024, 1024))
    activation: str = setting("nonlinearity of the hidden layers: 'leaky relu', 'selu' or 'tanh'", default="leaky relu")
    dropout: float = setting("share of units silenced after each hidden layer", default=0.01)
    learns: str = setting("'all' by backprop, 'layers' each by its objective, 'readout' only, or 'nothing'")
    against: str = setting("what a layer should not repeat: 'itself', Eq. 9, or the 'input', Eq. 2", default="itself")
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
    update: str = setting(
        "'objective': autograd of each layer's scalar; 'explicit': the same step as a neuron could do it, and faster",
        default="objective",
        same_result=True,
    )

    @property
    def compares(self) -> bool:
        """Whether hidden layers learn by comparing points."""
        return self.learns == "layers"


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
    history = descend(network, objectives, makers, settings, data, seed, progress, checkpoints)
    probes = layer_probes(network, data.train, data.test, num_classes=settings.classes)
    return {
        "test_accuracy": percent(network, data.test),
        "train_accuracy": percent(network, data.train),
        **{f"probe_{i}": 100 * probe for i, probe in enumerate(probes[:-1], start=1)},
        "history": history,
    }


def descend(
    network: Network,
    objectives: Objectives,
    makers: Makers,
    settings: Settings,
    data: Data,
    seed: int,
    progress: bool,
    checkpoints: Checkpoints | None,
) -> list[Metrics]:
    """Train as the settings say. After every epoch the history tells, all in percent but `gap`:

    `test_accuracy`; `running_accuracy`, of the training batches as they went by; `gap`, where layers compare points.
    """
    scores = Scores()

    def measure(epoch: int) -> Metrics:
        running, test = scores.read(), percent(network, data.test)
        gap = {"gap": gaps(network, settings, data.train[0])} if settings.compares else {}
        return {"test_accuracy": test, "running_accuracy": running} | gap

    return fit(
        network,
        [scores if objective is cross_entropy else objective for objective in objectives],
        *data.train,
        optimizers=makers,
        epochs=settings.epochs if settings.learns != "nothing" else 0,
        batch_size=settings.batch_size,
        seed=seed,
        scheduler=partial(MultiStepLR, milestones=settings.drops, gamma=settings.drop_factor),
        after_epoch=measure,
        checkpoints=checkpoints,
        progress=progress,
    )


def build(settings: Settings, seed: int) -> Network:
    """The network: one block for backprop, else one block per layer."""
    layers = len(settings.hidden) + 1
    network = mlp(
        (prod(settings.shape), *settings.hidden, settings.classes),
        activation=known("activation", settings.activation, ACTIVATIONS)(),
        after=partial(between, settings),
        partition=partition(settings, layers),
        seed=seed,
    )
    return augmented(network, settings)


def partition(settings: Settings, layers: int) -> tuple[int, ...]:
    """One block for backprop, else a block per layer."""
    return (layers,) if settings.learns == "all" else (1,) * layers


def augmented(network: Network, settings: Settings) -> Network:
    """With random crops and flips in front of the first layer, where the settings ask for them."""
    if settings.augment:
        first = network.layers[0]
        first.op = nn.Sequential(CropAndFlip(settings.shape, black=_black(settings.data)), first.op)
    return network


def learning(settings: Settings) -> tuple[Objectives, Makers]:
    """One objective and one maker of optimizers per block."""
    rules: dict[str, Objective | Explicit] = {
        "objective": partial(layer_objective, settings=settings),
        "explicit": Explicit(partial(layer_signal, settings=settings)),
    }
    rule = known("update", settings.update, rules)
    if settings.update == "explicit" and settings.against != "itself":
        raise ValueError(f"update='explicit' is Eq. 9; against={settings.against!r} needs update='objective'")
    return assign(settings, [rule] * len(settings.hidden), partial(SGD, momentum=settings.momentum))


def assign(
    settings: Settings, rules: Sequence[Objective | Explicit], optimizer: Callable[..., Optimizer]
) -> tuple[Objectives, Makers]:
    """Who learns from what: the hidden layers by `rules`, each its own, or all from the readout's scalar."""
    fused = partial(optimizer, fused=True)
    readout = partial(fused, lr=settings.readout_rate, weight_decay=settings.readout_decay)
    local = partial(fused, lr=settings.rate, weight_decay=settings.decay)
    untrained = [None] * len(rules)
    objectives: dict[str, Objectives] = {
        "all": [cross_entropy],
        "layers": [*rules, cross_entropy],
        "readout": [*untrained, cross_entropy],
        "nothing": [*untrained, None],
    }
    chosen = known("learns", settings.learns, objectives)
    return chosen, [*[local] * (len(chosen) - 1), readout]


def cross_entropy(seen: Tensor, batch: Batch) -> Tensor:
    """The readout's scalar, and backprop's."""
    return F.cross_entropy(seen, batch.labels)


class Scores:
    """Cross-entropy that counts on the side how many answers were right, without making a GPU wait."""

    def __init__(self) -> None:
        self.right: Tensor | int = 0
        self.seen = 0

    def __call__(self, seen: Tensor, batch: Batch) -> Tensor:
        self.right = self.right + (seen.detach().argmax(1) == batch.labels).sum()
        self.seen += len(seen)
        return cross_entropy(seen, batch)

    def read(self) -> float:
        """Percent right since it was last read."""
        percent = 100 * float(self.right) / max(self.seen, 1)
        self.right, self.seen = 0, 0
        return percent


def layer_objective(seen: Tensor, batch: Batch, *, settings: Settings) -> Tensor:
    """A hidden layer's scalar, 001 Eq. 9 or 2, on groups where the row says so."""
    with _divergence(seen):
        labels = kernels.label_kernel(batch.labels, settings.classes, dtype=seen.dtype)
        if settings.against == "input":
            estimate = {"hsic": hsic, "phsic": phsic}[settings.estimator]
            repeated = kernels.gaussian_kernel(batch.inputs, sigma=settings.sigma)
            return estimate(activity_kernel(seen, settings), repeated - settings.balance * labels)
        return bottleneck_objective(seen, labels, **_options(settings))


def layer_signal(z: Tensor, batch: Batch, *, settings: Settings) -> Tensor:
    """What a hidden layer's neurons are told, in place of `layer_objective`: minus its gradient, without autograd."""
    with _divergence(z):
        labels = kernels.label_kernel(batch.labels, settings.classes, dtype=z.dtype)
        return bottleneck_signal(z, labels, **_options(settings))


def activity_kernel(seen: Tensor, settings: Settings) -> Tensor:
    """How alike a layer finds its points, (m, m), as its objective compares them."""
    if settings.grouped_objective:
        seen = kernels.grouped_activity(seen, settings.groups or 1, power=_options(settings)["power"])
    return kernels.similarity(seen, kernel=settings.kernel, sigma=settings.sigma)


@torch.no_grad()
def gaps(network: Network, settings: Settings, inputs: Tensor, *, batches: int = 4) -> list[float | None]:
    """How far pHSIC(Z, Z) is from HSIC(Z, Z) in every hidden layer, as a share of it: 001, Eq. 71.

    Mean over the first batches of the training set; None for a layer that finds all points alike.
    """
    network.eval()
    parts = inputs[: batches * settings.batch_size].split(settings.batch_size)
    layers = zip(*(network.activities(x)[:-1] for x in parts), strict=True)
    return [_gap([activity_kernel(seen.double(), settings) for seen in layer]) for layer in layers]


def _gap(matrices: Sequence[Tensor]) -> float | None:
    """Eq. 71 of kernel matrices, their mean."""
    with _divergence(torch.stack([K.sum() for K in matrices])):
        plausible = torch.stack([phsic(K, K) for K in matrices])
        full = torch.stack([hsic(K, K) for K in matrices])
    rounding = 1e-24 * torch.stack([K.square().mean() for K in matrices])
    return ((plausible - full) / plausible).mean().item() if (plausible > rounding).all() else None


@contextmanager
def _divergence(seen: Tensor) -> Iterator[None]:
    """Activity beyond all bounds is a run that diverged, not a wrong argument."""
    try:
        yield
    except ValueError:
        if torch.isfinite(seen.detach().square().sum()):
            raise
        raise FloatingPointError(
            f"a hidden layer diverged: its activity {tuple(seen.shape)} is no longer finite; lower its learning rate"
        ) from None


def _options(settings: Settings) -> dict[str, Any]:
    """Of Eq. 9, for this row."""
    return {
        "kernel": settings.kernel,
        "sigma": settings.sigma,
        "balance": settings.balance,
        "estimator": settings.estimator,
        "groups": settings.groups if settings.grouped_objective else None,
        "power": settings.power if settings.normalized else 0.5,
    }


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
        return crops.permute(0, 3, 1, 2).reshape(x.shape)


def between(settings: Settings) -> nn.Module:
    """What stands between a hidden layer's objective and the next layer."""
    dropout = (nn.AlphaDropout if settings.activation == "selu" else nn.Dropout)(settings.dropout)
    if not settings.normalized:
        return dropout
    return nn.Sequential(DivisiveNorm(settings.groups or 1, power=settings.power), dropout)


def _black(name: str) -> Tensor:
    """A black pixel as the network sees it, (C, 1, 1)."""
    card = sets.CARDS[name]
    return (-torch.tensor(card.mean) / torch.tensor(card.std)).view(-1, 1, 1)


@torch.no_grad()
def percent(network: Network, examples: tuple[Tensor, Tensor]) -> float:
    """How many of the examples the network gets right."""
    network.eval()
    scores = torch.cat([network(x) for x in examples[0].split(512)])
    return 100 * accuracy(scores, examples[1])
