"""One run of learning by predicting the next glance: see, learn, freeze, read out every layer.

What `recipes.clapp` has rows and columns of. The encoder learns from images in glances (`data.patches`), moving about;
then it is frozen, and a readout of each layer learns from still images with labels. A layer says of an image what it
says of its glances, averaged.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim import Adam

from biolearn_lite.data import imagenette, patches, sets, views
from biolearn_lite.nets import clapp
from biolearn_lite.nets.encoders import Stage
from biolearn_lite.nets.eye import Eye
from biolearn_lite.nets.networks import Network
from biolearn_lite.recipes.engine import Metrics, known, setting
from biolearn_lite.training.checkpoint import Checkpoints
from biolearn_lite.training.evaluation import adam_readout, score
from biolearn_lite.training.fit import fit
from biolearn_lite.training.probes import linear_probe


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One run."""

    data: str = setting("what is seen: a column")
    rule: str = setting("'clapp', 'info_nce', 'labels', or 'nothing' is learned", default="clapp")
    partition: str = setting("into modules, as in Table 3")
    both: bool = setting("whether fixation and saccade are seen at every step, or one of them by chance", default=True)
    others: int = setting("other glances per step, where both are seen", default=16)
    retro: bool = setting("whether W_retro is a matrix of its own", default=False)
    block: str | None = setting("side of the prediction that no gradient passes", default=None)
    above: bool = setting("whether the layer above predicts", default=False)
    independent: bool = setting("whether every layer and half of the loss draws saccades of its own", default=False)
    stages: str = setting("layers of the network, one of STAGES", default="vgg6")
    side: int = setting("of the crop that is cut into patches, in pixels", default=64)
    grid: tuple[int, int] = setting("columns and rows of glances", default=(7, 7))
    steps: int = setting("predicted ahead", default=5)
    skip: int = setting("glances left out before the first prediction", default=1)
    rate: float = setting("of Adam", default=2e-4)
    epochs: int = setting("passes through the images", default=300)
    batch_size: int = setting("images per step", default=32)
    labels: int | None = setting("for the readout; None: all there are", default=None)
    readout_epochs: int = setting("of Adam; 0: the readout is solved", default=300)


STAGES = {
    "vgg6": clapp.VGG6,
    "small": tuple(Stage(channels, nn.ReLU, True) for channels in (32, 64, 128)),
    "smaller": tuple(Stage(channels, nn.ReLU, True) for channels in (16, 32, 64)),
}
CLASSES = 10
PARTITIONS = clapp.PARTITIONS | {
    "small, 1 module": (3,),
    "small, 2 modules": (2, 1),
    "small, layer by layer": (1, 1, 1),
}


class Source(Protocol):
    """Images as a network sees them: `source[index]` is a batch, (m · glances, 1, height, width)."""

    def __getitem__(self, index: Tensor, /) -> Tensor: ...
    def __len__(self) -> int: ...


class Data(NamedTuple):
    """shown: what the encoder learns from. fitted: what a readout learns from. test: what it is tested on. glances: at
    each image of the last two."""

    shown: tuple[Source, Tensor]
    fitted: tuple[Source, Tensor]
    test: tuple[Source, Tensor]
    glances: int


def load(settings: Settings, device: torch.device) -> Data:
    """The images, in glances."""
    if settings.data == "imagenette":
        return prepare(settings, imagenette.load(device=device))
    return prepare(settings, sets.load(settings.data, device=device))


def prepare(settings: Settings, images: sets.DataSet) -> Data:
    """What is learned from moves about; what is read out stands still."""
    if settings.data == "digits":
        return _strips(settings, images)
    still = partial(patches.Glances, side=settings.side, still=True)
    shown, labels = images.train_images, images.train_labels
    if images.unlabeled_images is not None and settings.rule != "labels":
        shown = images.unlabeled_images
        labels = torch.zeros(len(shown), dtype=torch.long, device=labels.device)
    columns, rows = settings.grid
    return Data(
        (patches.Glances(shown, side=settings.side), labels),
        (still(images.train_images), images.train_labels),
        (still(images.test_images), images.test_labels),
        columns * rows,
    )


def _strips(settings: Settings, images: sets.DataSet) -> Data:
    """Strips to learn from, single deformed digits to read out, the same ones in every run."""
    generator = torch.Generator().manual_seed(0)
    fitted, test = (
        patches.deformed(views.to_pixels(part, white=images.white), generator=generator)
        for part in (images.train_images, images.test_images)
    )
    strips = patches.Strips(images.train_images, images.train_labels, grid=settings.grid, white=images.white)
    return Data((strips, images.train_labels), (fitted, images.train_labels), (test, images.test_labels), 1)


def random(settings: Settings, steps: int) -> Data:
    """Noise of the true shapes, enough for that many steps (and for a readout that is solved)."""
    generator = torch.Generator().manual_seed(0)
    shape, n = (
        {"digits": (1, 8, 8), "textures": (1, 96, 96)}.get(settings.data, (3, 96, 96)),
        steps * settings.batch_size,
    )
    few = n if settings.readout_epochs else max(n, 40)
    images = torch.randint(17, (few, *shape), generator=generator, dtype=torch.uint8)
    labels = torch.arange(few) % CLASSES
    noise = sets.DataSet("noise", images[:n], labels[:n], images, labels, (), (), (), white=16)
    data = prepare(settings, noise)
    return data._replace(fitted=data.test)


def train(settings: Settings, data: Data, seed: int, progress: bool, checkpoints: Checkpoints | None) -> Metrics:
    """One run: build, learn, freeze, read out."""
    network, objectives = build(settings, seed, data.fitted[1].device)
    shown, labels = data.shown
    history = fit(
        network,
        objectives,
        cast(Tensor, shown),
        labels,
        optimizers=partial(Adam, lr=settings.rate),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=seed + 1000,
        channels_last=labels.is_cuda,
        checkpoints=checkpoints,
        progress=progress,
    )
    return judge(settings, network, data, seed, progress) | {"history": history}


def build(settings: Settings, seed: int, device: torch.device | str = "cpu") -> tuple[Network, list[Any]]:
    """The encoder and the objectives of its modules."""
    partition = known("partition", settings.partition, PARTITIONS)
    stages = known("stages", settings.stages, STAGES)
    network = clapp.glance_encoder(stages, partition=partition, seed=seed).to(device)
    eye = Eye(
        grid=settings.grid,
        steps=settings.steps,
        skip=settings.skip,
        others=settings.others if settings.both else None,
        independent=settings.independent,
    )
    if settings.rule == "nothing":
        return network, [None] * len(partition)
    if settings.rule == "labels":
        return network, [*clapp.glance_readouts(network, CLASSES, seed=seed)]
    if settings.above:
        return network, [*clapp.predictions_from_above(network, eye, seed=seed)]
    return network, [
        *clapp.predictions(network, eye, rule=settings.rule, retro=settings.retro, block=settings.block, seed=seed)
    ]


def judge(settings: Settings, network: Network, data: Data, seed: int, progress: bool) -> Metrics:
    """Accuracy of the readout of each layer, bottom first, with the labels it is given and with all of them."""
    fitted, test = (_features(network, source, data.glances) for source, _ in (data.fitted, data.test))
    layers = [_read_out(settings, *pair, data, seed, progress) for pair in zip(fitted, test, strict=True)]
    metrics: Metrics = {"test_accuracy": layers[-1], "layers": layers}
    if settings.labels is None:
        return metrics
    pairs = zip(fitted, test, strict=True)
    exact = [linear_probe((a, data.fitted[1]), (b, data.test[1]), num_classes=CLASSES) for a, b in pairs]
    return metrics | {"all_labels": [100 * accuracy for accuracy in exact]}


def _features(network: Network, source: Source, glances: int) -> list[Tensor]:
    """Of every layer, (n, features)."""
    device = next(network.parameters()).device
    batches = torch.arange(len(source), device=device).split(BATCH)
    parts = [clapp.layer_features(network, source[index], glances=glances) for index in batches]
    return [torch.cat(layer) for layer in zip(*parts, strict=True)]


BATCH = 100
"""Images at a time, where nothing is learned; the result is the same with any."""


def _read_out(settings: Settings, x: Tensor, x_test: Tensor, data: Data, seed: int, progress: bool) -> float:
    """Percent right."""
    y, y_test = data.fitted[1], data.test[1]
    if settings.readout_epochs:
        readout = adam_readout(
            x, y, num_classes=CLASSES, epochs=settings.readout_epochs, batch_size=32, seed=seed, progress=progress
        )
        return 100 * score(readout, x_test, y_test)
    if settings.labels is None:
        return 100 * linear_probe((x, y), (x_test, y_test), num_classes=CLASSES)
    draws = [few(y, settings.labels, seed=draw) for draw in range(10)]
    found = [linear_probe((x[index], y[index]), (x_test, y_test), num_classes=CLASSES) for index in draws]
    return 100 * sum(found) / len(found)


def few(labels: Tensor, count: int, *, seed: int) -> Tensor:
    """Indices of so many labels, as many of each class, in random order."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator).to(labels.device)
    chosen = torch.cat([order[labels[order] == k][: count // CLASSES] for k in range(CLASSES)])
    return chosen[torch.randperm(len(chosen), generator=generator).to(labels.device)]
