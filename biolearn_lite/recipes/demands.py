"""The recipe of chapter 01: one small network, and what each of backprop's four demands is worth to it.

Two convolutional layers and a readout learn 8×8 digits that lie anywhere on a 12×12 sheet (three layers for MNIST on
40×40). Each row switches one demand off and leaves the rest as it is, from the same initial weights (`ROWS`):

- *redrawn wires*: the error comes down through new random wires at every step (`nets.layers`, feedback "redrawn");
- *late errors*: the error at the hidden layers is that of the batch before, while their activity is that of this one
  (`Late`). *late but remembered*: their whole update is that of the batch before, so that error and activity belong
  together again: what it takes is memory;
- *5 % of labels*: 67 labelled images and exact gradients, for as many steps as with all labels;
- *no copies*: every position has weights of its own (`nets.layers.LocallyConnected2d`), equal at birth, and learns from
  what it sees itself;
- *hidden frozen*: only the readout learns. This is the line that a row must beat, and so is its `probe`, what an
  exactly solved readout finds in the top hidden layer.

After every epoch the updates of layer 1 over the training batches are put to the book's yardstick: the angle of their
mean to what backprop would do at the same weights with all labels and copies, and the SNR of single ones.

No paper has this table. A row has one rate for all its weights, chosen among 0.003 (in two rows), 0.01, 0.03, 0.1, 0.3
and, for the readout alone, 1, 3 and 10 by the mean accuracy on held-out training digits (320 of them, three splits),
never on the test images. MNIST takes the rates of the digits as they are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import MultiStepLR

from biolearn_lite.data import sets
from biolearn_lite.nets.layers import Conv2d, Layer, Linear, LocallyConnected2d
from biolearn_lite.nets.networks import Network, layer_gradients
from biolearn_lite.recipes.dense import cross_entropy, percent
from biolearn_lite.recipes.engine import Metrics, Recipe, Scale, known, setting
from biolearn_lite.rules.feedback import bias_and_variance
from biolearn_lite.training.checkpoint import Checkpoints
from biolearn_lite.training.fit import Batch, fit
from biolearn_lite.training.probes import linear_probe

ROWS: dict[str, dict[str, Any]] = {
    "backprop": {"rate": 0.1},
    "redrawn wires": {"rate": 0.1, "feedback": "redrawn"},
    "late errors": {"rate": 0.03, "late": "error"},
    "late but remembered": {"rate": 0.03, "late": "update"},
    "5 % of labels": {"rate": 0.3, "labelled": 0.05},
    "no copies": {"rate": 0.1, "copies": False},
    "hidden frozen": {"rate": 10.0, "learns": "readout"},
}
"""What each row switches off, and its rate."""

COLUMNS: dict[str, dict[str, Any]] = {
    "digits anywhere": {"data": "digits", "sheet": 12, "channels": (16, 32), "epochs": 20, "drops": (12, 16)},
    "mnist anywhere": {"data": "mnist", "sheet": 40, "channels": (16, 32, 64), "epochs": 5, "drops": (3, 4)},
}
"""The images, the sheet they lie on, the layers that learn them, and for how long."""

MEASURED = 32
"""At most so many batches are measured after an epoch."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One run."""

    data: str = setting("data set of square images, by its name in data.sets")
    rate: float = setting("learning rate of stochastic gradient descent")
    learns: str = setting("'all' layers or the 'readout' only", default="all")
    feedback: str = setting("wires of the error, one of nets.layers.FEEDBACK", default="backprop")
    late: str = setting("what the hidden layers get a batch late: 'nothing', 'error' or 'update'", default="nothing")
    labelled: float = setting("share of the training images whose labels are known", default=1.0)
    copies: bool = setting("whether all positions of a layer share their weights", default=True)
    channels: tuple[int, ...] = setting("of the convolutional layers, bottom first")
    sheet: int = setting("height and width of the sheet that a digit lies on")
    momentum: float = setting("of stochastic gradient descent", default=0.9)
    epochs: int = setting("passes through the training set")
    drops: tuple[int, ...] = setting("epochs after which the rate falls to a quarter", in_epochs=True)
    batch_size: int = setting("examples per step, and per measured update", default=64)


class Data(NamedTuple):
    """Sheets (n, 1, height, width) and labels (n,), for training and testing, on the device of the run."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def settings(row: str, column: str) -> Settings:
    """A cell of the table."""
    return Settings(**known("row", row, ROWS), **known("column", column, COLUMNS))


def load(settings: Settings, device: torch.device) -> Data:
    """Digits somewhere on their sheets, the same for every run; a last, short batch is left out."""
    images = sets.load(settings.data, device=device)
    (x, y), (x_test, y_test) = images.train(), images.test()
    generator = torch.Generator().manual_seed(0)
    whole = len(y) - len(y) % settings.batch_size
    train = somewhere(x[:whole], settings.sheet, generator), y[:whole]
    return Data(train, (somewhere(x_test, settings.sheet, generator), y_test))


def somewhere(images: Tensor, sheet: int, generator: torch.Generator) -> Tensor:
    """Each image (n, c, h, w) at a random place of a sheet of its darkest colour."""
    room = sheet - images.shape[-1]
    padded = F.pad(images, (room, room, room, room), value=images.min().item())
    places = padded.unfold(2, sheet, 1).unfold(3, sheet, 1)
    row, column = torch.randint(room + 1, (2, len(images)), generator=generator)
    return places[torch.arange(len(images)), :, row, column]


def random(settings: Settings, steps: int) -> Data:
    """Noise of the true shapes, enough for that many steps (at least two: a scatter needs as many)."""
    generator = torch.Generator().manual_seed(0)
    n = max(steps, 2) * settings.batch_size
    x = torch.randn(n, 1, settings.sheet, settings.sheet, generator=generator)
    y = torch.randint(10, (n,), generator=generator)
    return Data((x, y), (x, y))


@final
class Late(nn.Module):
    """Gives back what it was given one batch before; at first zero.

    In evaluation it delays nothing.
    """

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.register_buffer("kept", torch.zeros(shape))

    def swap(self, gradient: Tensor) -> Tensor:
        if not self.training:
            return gradient
        earlier, self.kept = self.get_buffer("kept"), gradient.detach().clone()
        return earlier

    def forward(self, z: Tensor) -> Tensor:
        """z as it is; the error that comes back to it is late."""
        if z.requires_grad:
            z.register_hook(self.swap)
        return z


def uncopied(convolution: Conv2d, size: int) -> LocallyConnected2d:
    """The same at every position of a map of that height and width, but with weights of its own from now on."""
    below, here, kernel = convolution.in_channels, convolution.out_channels, convolution.kernel_size
    padding = cast(tuple[int, int], convolution.padding)
    local = LocallyConnected2d(below, here, cast(tuple[int, int], kernel), input_size=size, padding=padding)
    local.weight.data.copy_(convolution.weight)  # to every position
    return local


def build(settings: Settings, seed: int) -> Network:
    """Convolution, tanh, pooling; twice, the second time over the whole sheet; then a readout."""
    layers, below = [], 1
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for here in settings.channels:
            convolution = Conv2d(below, here, 3, padding=1, bias=False, feedback=settings.feedback)
            layers.append(Layer(convolution, activation=nn.Tanh(), pool=nn.MaxPool2d(2)))
            below = here
        readout = Layer(Linear(below, 10, feedback=settings.feedback))
    if not settings.copies:
        for depth, layer in enumerate(layers):
            layer.op = uncopied(cast(Conv2d, layer.op), settings.sheet // 2**depth)
    layers[-1].pool, layers[-1].after = nn.AdaptiveMaxPool2d(1), nn.Flatten()
    delay(layers, settings.late, torch.Size([settings.batch_size, below]))
    return Network([*layers, readout], (len(layers) + 1,) if settings.learns == "all" else (len(layers), 1))


def delay(layers: list[Layer], what: str, shape: torch.Size) -> None:
    """Make the error that reaches the hidden layers a batch late, or their updates, or nothing."""
    if what == "error":
        layers[-1].after = nn.Sequential(layers[-1].after, Late(shape))
    elif what == "update":
        for layer in layers:
            weight = cast(Tensor, layer.op.weight)
            layer.op.late = Late(weight.shape)
            weight.register_hook(layer.op.late.swap)
    elif what != "nothing":
        raise ValueError(f"late={what!r}: choose 'nothing', 'error' or 'update'")


def train(settings: Settings, data: Data, seed: int, progress: bool, checkpoints: Checkpoints | None) -> Metrics:
    """One run: build, train, measure. Epoch 0 of the history is the network as it was born."""
    network = build(settings, seed).to(data.train[0].device)
    objectives = [cross_entropy] if settings.learns == "all" else [None, cross_entropy]
    taught = with_labels(data.train, settings.labelled, seed)
    measure = partial(_measure, settings, network, data, taught)
    born = measure(0)
    history = fit(
        network,
        objectives,
        *taught,
        optimizers=partial(SGD, lr=settings.rate, momentum=settings.momentum),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=seed + 1000,  # not the weights' own, or the first redrawn wires would be the right ones
        scheduler=partial(MultiStepLR, milestones=settings.drops, gamma=0.25),
        after_epoch=measure,
        checkpoints=checkpoints,
        progress=progress,
    )
    features = [(_top_hidden(network, x), y) for x, y in data]
    return {
        "test_accuracy": percent(network, data.test),
        "train_accuracy": percent(network, data.train),
        "probe": 100 * linear_probe(*features, num_classes=10),
        "history": [{"epoch": 0, "losses": [None] * len(objectives)} | born, *history],
    }


def with_labels(examples: tuple[Tensor, Tensor], share: float, seed: int) -> tuple[Tensor, Tensor]:
    """A random share of the examples, shown over and over: as many in all as there were."""
    x, y = examples
    if share == 1:
        return x, y
    known = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))[: round(share * len(y))]
    again = known.repeat(-(-len(y) // len(known)))[: len(y)].to(y.device)
    return x[again], y[again]


def yardstick(network: Network, taught: list[Batch], everything: list[Batch]) -> Metrics:
    """Of layer 1's updates: the angle of their mean to backprop's, with all labels and copies (degrees); their SNR."""
    with network.exact_feedback():
        exact = torch.stack([layer_gradients(network, [cross_entropy], batch)[0] for batch in everything]).mean(0)
    if isinstance(network.layers[0].op, LocallyConnected2d):
        exact = exact.mean((0, 1)).expand_as(exact)
    angle, snr = bias_and_variance(updates(network, taught), exact)
    return {"angle": round(angle, 2), "snr": float(f"{snr:.4g}")}


def updates(network: Network, batches: list[Batch]) -> Iterator[Tensor]:
    """The gradient that layer 1 is given at each batch, late if the network is."""
    network.train()
    kept = {module: module.kept for module in network.modules() if isinstance(module, Late)}
    for batch in batches:
        seen, _ = network.blocks[0](batch.inputs)
        (update,) = torch.autograd.grad(cross_entropy(seen, batch), cast(Tensor, network.layers[0].op.weight))
        yield update
    for module, gradient in kept.items():
        module.kept = gradient
    network.eval()


def _measure(settings: Settings, network: Network, data: Data, taught: tuple[Tensor, Tensor], epoch: int) -> Metrics:
    network.eval()
    with torch.random.fork_rng():  # wires redrawn for a measurement leave those of the training alone
        score = {"test_accuracy": percent(network, data.test)}
        if settings.learns == "readout":
            return score
        return score | yardstick(network, _batches(taught, settings), _batches(data.train, settings))


def _batches(examples: tuple[Tensor, Tensor], settings: Settings) -> list[Batch]:
    pairs = zip(*(part.split(settings.batch_size) for part in examples), strict=True)
    return [Batch(*pair) for pair in islice(pairs, MEASURED)]


@torch.no_grad()
def _top_hidden(network: Network, x: Tensor) -> Tensor:
    return torch.cat([network.activities(part)[-2].flatten(1) for part in x.split(1024)])


RECIPES = (
    Recipe(
        name="demands",
        about="Chapter 01: one small network, and what each of backprop's four demands is worth to it",
        rows=tuple(ROWS),
        scales={
            "lite": Scale(("digits anywhere",), (0, 1, 2, 3, 4)),
            "colab": Scale(("mnist anywhere",), (0,)),
            "full": Scale(("mnist anywhere",), (0, 1, 2, 3, 4)),
        },
        settings=settings,
        load=load,
        random=random,
        train=train,
        measures=("test_accuracy", "probe"),
        paper=lambda row, column: None,
    ),
)
