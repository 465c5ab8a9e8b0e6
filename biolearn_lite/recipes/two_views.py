"""What the recipes of paper 002 compute: an encoder taught by pairs of views, frozen, and read out.

One run is four choices, and everything else is shared: what is asked of a pair (`rule`), who learns when (`schedule`),
through which wires errors come down (`feedback`), and what is looked at in the end (`judged_on`, `tested_in`). The rows
and columns are in `recipes.hinge`.

Two controls belong to every table. *random encoder*: nothing learns, and the readout is the same. *supervised*: the
same layers under a linear classifier learn the labels by backprop.

A run's metrics, in percent: `test_accuracy`, of a readout of the top layer (of a supervised network's own classifier
where `readout` is "own"), on the test images as `tested_in` says; `plain_accuracy`, the same on images that nobody
deformed, if the readout learned from such; `embedding`, of a readout of the head's embedding (of the classifier, in a
supervised network); `layers`, of readouts of every layer, bottom first (or of the top one alone). `same` and `other`
are mean L1 distances of embeddings: of two views of one test image, and of two images. The history has per epoch the
`losses` of all blocks (002, Eq. 2: sums over a batch), None where a block did not learn: greedy layers take turns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam

from biolearn_lite.data import imagenette, sets
from biolearn_lite.data.views import Deform, Move, SimCLR, Viewed, World, to_pixels, two_views
from biolearn_lite.nets.encoders import CIFAR, MNIST, STL, Stage, encoder, heads
from biolearn_lite.nets.networks import Network
from biolearn_lite.recipes.engine import Metrics, known, setting
from biolearn_lite.rules.contrastive import contrastive_hinge, nt_xent
from biolearn_lite.training.checkpoint import Checkpoints
from biolearn_lite.training.evaluation import adam_readout, check_collapse, features, in_batches, pair_distances, score
from biolearn_lite.training.fit import Batch, fit
from biolearn_lite.training.probes import accuracy, linear_probe
from biolearn_lite.training.schedules import EndToEnd, LayerByLayer, RandomLayer, Schedule

STAGES = {"small": tuple(Stage(c, nn.Tanh, True) for c in (16, 32, 64)), "cifar": CIFAR, "mnist": MNIST, "stl": STL}

PLAIN = "as they are"

WORLDS: dict[str, World | None] = {
    PLAIN: None,
    "shifts and maps": Deform(shift=0.25, share=1.0, mirror=0.0),
    "Appendix B": Deform(),
    "section 3.1": SimCLR(side=64),
    "turns, sizes and shifts": Move(),
}
"""How images are looked at; the first deformation is ours, for digits, which have no mirror image and little room."""

SCHEDULES = ("end to end", "greedy", "random layer", "top layer")

CLASSES, DEFORMED, SHOWN = 10, 99, 500
"""The labels' classes; the seed of the deformed images, the same for all runs; the test images that are compared."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One run. The defaults are those of the paper's CIFAR runs (section 4.1)."""

    data: str = setting("images the encoder learns from; a supervised one learns from `judged_on`")
    judged_on: str = setting("labelled images that are read out")
    labels: int | None = setting("how many labelled images the readout learns from; None: all", default=None)
    shape: tuple[int, ...] = setting("channels, height and width of what the network sees", default=(3, 32, 32))
    stages: str = setting("layers of the encoder: 'small', 'cifar', 'mnist' or 'stl'", default="cifar")
    rule: str = setting("what is asked of a pair: 'hinge', 'simclr'; or of an image: 'labels'; or 'nothing'")
    schedule: str = setting("who learns when: 'end to end', 'greedy', 'random layer' or 'top layer'")
    feedback: str = setting("wires of the error, one of nets.layers.FEEDBACK", default="backprop")
    stop_first_view: bool = setting("whether the first view is only remembered", default=False)
    negatives: int | None = setting("with how many next images a first view is compared; None: all", default=None)
    margins: tuple[float, ...] = setting("of positive and negative pairs", default=(1.0, 3.0))
    temperature: float = setting("of SimCLR's softmax", default=0.1)
    head: int = setting("numbers an embedding has", default=64)
    average: int = setting("side of the squares that features are averaged over before head and readout", default=1)
    world: str = setting("how the encoder's images are looked at", default="Appendix B")
    fitted_in: str = setting("how the readout's training images are looked at", default=PLAIN)
    tested_in: str = setting("how its test images are looked at", default=PLAIN)
    rate: float = setting("of Adam, which teaches the encoder", default=1e-4)
    epochs: int = setting(
        "passes through the encoder's images, for every layer that has a time of its own", default=400
    )
    batch_size: int = setting("images per step", default=500)
    readout: str = setting("how features are read out: 'ridge', 'adam', or 'own' classifier", default="adam")
    readout_rate: float = setting("of Adam, which teaches the readout", default=1e-3)
    readout_epochs: int = setting("of the readout", default=400)
    layers: str = setting("which layers are read out: 'all', or the 'top'", default="all")


class Data(NamedTuple):
    """Images (n, C, H, W), bytes or floats from 0 to 1, and labels (n,), on the device of the run.

    shown: what the encoder learns from. fitted: what a readout learns from. tests: what it is tested on; if only the
    test images are deformed, then also on the same as they are.
    """

    shown: tuple[Tensor, Tensor]
    fitted: tuple[Tensor, Tensor]
    tests: tuple[tuple[Tensor, Tensor], ...]


def load(settings: Settings, device: torch.device) -> Data:
    """The encoder's images, and the readout's, looked at as the settings say; the same for every seed."""
    judged = find(settings.judged_on, device)
    if settings.labels is not None:
        judged = judged.subset(settings.labels)
    return prepare(settings, judged, judged if settings.rule == "labels" else find(settings.data, device))


def find(name: str, device: torch.device) -> sets.DataSet:
    """A data set by name: of `data.sets`, or the folder "imagenette-96", our stand-in for STL-10."""
    return imagenette.load(device=device) if name == "imagenette" else sets.load(name, device=device)


def prepare(settings: Settings, judged: sets.DataSet, shown: sets.DataSet) -> Data:
    """Pixels from 0 to 1, of the size the network sees; a small crop is the middle of its image."""
    generator = torch.Generator().manual_seed(DEFORMED)
    x, x_test = (_sized(settings, images, judged.white) for images in (judged.train_images, judged.test_images))
    fitted = _looked_at(x, settings.fitted_in, generator), judged.train_labels
    tests = [(_looked_at(x_test, settings.tested_in, generator), judged.test_labels)]
    if settings.fitted_in == PLAIN != settings.tested_in:
        tests.append((x_test, judged.test_labels))
    return Data(_pool(settings, shown), fitted, tuple(tests))


def _pool(settings: Settings, shown: sets.DataSet) -> tuple[Tensor, Tensor]:
    """What the encoder learns from: half of the unlabelled images, where there are any (002, section 4.2)."""
    images, labels = shown.train_images, shown.train_labels
    if shown.unlabeled_images is not None and settings.rule != "labels":
        order = torch.randperm(len(shown.unlabeled_images), generator=torch.Generator().manual_seed(0))
        images = shown.unlabeled_images[order[: len(order) // 2].sort().values]
        labels = torch.zeros(len(images), dtype=torch.long, device=images.device)
    crops = isinstance(WORLDS[settings.world], SimCLR)  # then a view has its own size
    return images if crops else _sized(settings, images, shown.white), labels


def _sized(settings: Settings, images: Tensor, white: int) -> Tensor:
    """Small images are enlarged, large ones cropped to the middle."""
    pixels, side = to_pixels(images, white=white), settings.shape[-1]
    edge = pixels.shape[-1] - side
    if edge < 0:
        return F.interpolate(pixels, size=side, mode="bilinear", align_corners=False)
    return pixels[..., edge // 2 : edge // 2 + side, edge // 2 : edge // 2 + side]


def _looked_at(pixels: Tensor, name: str, generator: torch.Generator) -> Tensor:
    world = known("world", name, WORLDS)
    return pixels if world is None else world.draw(pixels, generator=generator).apply(pixels)


def random(settings: Settings, steps: int) -> Data:
    """Coarse noise of the true shapes, enough for that many steps."""
    generator = torch.Generator().manual_seed(0)
    n, (channels, *size) = steps * settings.batch_size, settings.shape
    x = F.interpolate(torch.rand(n, channels, 4, 4, generator=generator), size=size)
    y = torch.randint(CLASSES, (n,), generator=generator)
    return Data((x, y), (x, y), ((x, y),))


def train(settings: Settings, data: Data, seed: int, progress: bool, checkpoints: Checkpoints | None) -> Metrics:
    """One run: build, learn, freeze, read out."""
    network, objectives = build(settings, seed)
    for module in (network, *objectives):
        if module is not None:
            module.to(data.shown[0].device)
    history = learn(settings, network, objectives, data.shown, seed, progress, checkpoints)
    return judge(settings, network, objectives[-1], data, seed, progress) | {"history": history}


@final
class Classifier(nn.Module):
    """The objective of a supervised encoder: cross-entropy of a linear classifier of its top layer."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), CLASSES))

    def forward(self, seen: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(self.head(seen), batch.labels)


def build(settings: Settings, seed: int) -> tuple[Network, list[Any]]:
    """The encoder, cut into blocks by its schedule, and an objective per block; the last one has the head on top."""
    stages, hinge = known("stages", settings.stages, STAGES), settings.rule == "hinge"
    known("schedule", settings.schedule, dict.fromkeys(SCHEDULES))
    tall = {"end to end": (len(stages),), "top layer": (len(stages) - 1, 1)}
    network = encoder(
        stages,
        channels=settings.shape[0],
        partition=tall.get(settings.schedule, (1,) * len(stages)),
        seed=seed,
        feedback=settings.feedback,
        remember_first=hinge and settings.stop_first_view,
    )
    if settings.rule == "labels":
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            top = network.eval()(torch.zeros(1, *settings.shape))
            return network, [Classifier(tuple(top.shape[1:]))]
    objectives = heads(
        network,
        settings.shape,
        comparison(settings),
        size=settings.head,
        average=settings.average,
        seed=seed,
        feedback=settings.feedback,
    )
    return network, [None, objectives[-1]] if settings.schedule == "top layer" else list(objectives)


def comparison(settings: Settings) -> Any:
    """The rule that compares two views; a random encoder has one, too, and never asks it."""
    if settings.rule == "simclr":
        return partial(nt_xent, temperature=settings.temperature)
    return partial(
        contrastive_hinge,
        margin_positive=settings.margins[0],
        margin_negative=settings.margins[1],
        negatives=settings.negatives,
        stop_first_view=settings.stop_first_view,
    )


def learn(
    settings: Settings,
    network: Network,
    objectives: list[Any],
    shown: tuple[Tensor, Tensor],
    seed: int,
    progress: bool,
    checkpoints: Checkpoints | None,
) -> list[Metrics]:
    """The encoder learns; a schedule in which layers take turns goes through the images once more for each of them."""
    if settings.rule == "nothing":
        return []
    images, labels = shown
    world, looks = known("world", settings.world, WORLDS), 1 if settings.rule == "labels" else 2
    inputs: object = images if world is None else Viewed(images, world, looks=looks)
    steps = settings.epochs * -(-len(labels) // settings.batch_size)
    schedules: dict[str, Schedule] = {
        "end to end": EndToEnd(),
        "greedy": LayerByLayer(steps),
        "random layer": RandomLayer(seed=seed),
    }
    return fit(
        network,
        objectives,
        cast(Tensor, inputs),
        labels,
        optimizers=partial(Adam, lr=settings.rate),
        epochs=settings.epochs * (len(network.blocks) if settings.schedule in ("greedy", "random layer") else 1),
        batch_size=settings.batch_size,
        seed=seed,
        schedule=schedules.get(settings.schedule),
        checkpoints=checkpoints,
        progress=progress,
    )


def judge(settings: Settings, network: Network, top: Any, data: Data, seed: int, progress: bool) -> Metrics:
    """Freeze the encoder and read out its layers and its embedding; see above for the metrics."""
    parts, layers = (data.fitted, *data.tests), []
    for i, activities in enumerate(zip(*(features(network, x) for x, _ in parts), strict=True)):
        if settings.readout != "own" and (settings.layers == "all" or i == len(network.layers) - 1):
            layers.append(_read(settings, activities, parts, seed, progress))
    embedded = [in_batches(top.head, activity) for activity in activities]
    if settings.rule == "labels":
        embedding = [100 * accuracy(scores, y) for scores, (_, y) in zip(embedded[1:], data.tests, strict=True)]
    else:
        embedding = _read(replace(settings, average=1), embedded, parts, seed, progress)
    layers = layers or [embedding]
    accuracies = layers[-1]
    plain = {"plain_accuracy": accuracies[-1]} if settings.fitted_in == PLAIN else {}
    found = {"test_accuracy": accuracies[0], "embedding": embedding[0], "layers": [layer[0] for layer in layers]}
    return found | plain | _distances(settings, network, top, data.tests[-1][0][:SHOWN])


def _read(
    settings: Settings, z: Sequence[Tensor], parts: Sequence[tuple[Tensor, Tensor]], seed: int, progress: bool
) -> list[float]:
    """Accuracies in percent, on each of the tests, of a readout of the first features."""
    averaged = [F.avg_pool2d(part, settings.average) if settings.average > 1 else part for part in z]
    train, *tests = [(part, y) for part, (_, y) in zip(averaged, parts, strict=True)]
    if settings.readout != "adam":
        return [100 * linear_probe(train, test, num_classes=CLASSES) for test in tests]
    rate, epochs = settings.readout_rate, settings.readout_epochs
    readout = adam_readout(*train, num_classes=CLASSES, rate=rate, epochs=epochs, seed=seed, progress=progress)
    return [100 * score(readout, *test) for test in tests]


def _distances(settings: Settings, network: Network, top: Any, pixels: Tensor) -> Metrics:
    """Mean distances of embeddings of two views of an image, and of two images; warns if nothing is apart."""
    world = WORLDS[settings.world]
    if settings.rule == "labels" or world is None:
        return {}
    views = two_views(pixels, world, generator=torch.Generator().manual_seed(DEFORMED))
    a, b = (in_batches(lambda x: top.head(network(x)), view.pixels) for view in views)
    if settings.rule == "simclr":
        a, b = F.normalize(a), F.normalize(b)
    same, other = (distances.mean().item() for distances in pair_distances(a, b))
    if settings.rule == "hinge" and settings.epochs > 1:  # a rehearsal leaves no time to part
        check_collapse(a, smallest=max(settings.margins))
    return {"same": same, "other": other}
