"""The recipes of paper 001 on convolutional networks: which layer-wise rules keep up with backprop on CIFAR-10.

`bottleneck-vgg` is Tables 2 and 8 to 11, and the runs of Figures 3 and 5 to 8: six convolutions and a dense layer of
1024 units, "2x" with twice as many channels, seven blocks that learn alone under a readout, or one that learns by
backprop. A row says what teaches, a column which network, optimizer and normalization. In lite, eight of the pixels of
a digit make an image's side, and the net is narrow: the same code, in seconds.

Rates, groups and drops of the rates are read from Tables 6 and 7. What the published runs did where the text leaves it
open, and what we chose:

- SELU with alpha dropout under SGD, leaky ReLU of slope 0.01 under AdamW; nothing divides by √fan_in for SELU.
- The exponent is 0.2 with pHSIC and backprop, ½ with wrong feedback and local classification, ½ for groups alone.
- A group is a block of channels with all their positions; normalization stands behind the pooling.
- Feedback alignment: fixed random feedback from PyTorch's initial law, in every layer and the readout, or, in
  "layer class.+FA", in the layers' own readouts alone. Sign symmetry: signs of the weights, not scaled; under SGD every
  gradient is replaced by its sign ("batch manhattan").
- Local classification averages images over rectangles to 2048 numbers: 4×4, 4×2, 2×2 or 2×1 of them.
- Columns "SGD" without normalization: where Tables 6 and 7 are empty, no rates worked (section D.7); we run those of
  the same row with normalization, and what comes is shown, divergence included.
- HSIC rows (Figures 7 and 8) take the settings of pHSIC; their accuracies are not printed.

The rates for digits are ours, chosen on held-out training images, never on the test images.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch.optim import SGD, AdamW, Optimizer

from biolearn_lite.data import sets
from biolearn_lite.nets.layers import LocalReadout
from biolearn_lite.nets.networks import Network, vgg
from biolearn_lite.recipes import dense, papers
from biolearn_lite.recipes.dense import Data, Maker, Makers, Objectives, percent
from biolearn_lite.recipes.engine import Metrics, Recipe, Scale, known, setting
from biolearn_lite.rules.feedback import batch_manhattan
from biolearn_lite.training.checkpoint import Checkpoints


@dataclass(frozen=True, kw_only=True)
class Settings(dense.Settings):
    """One run: a dense network's settings, and what convolutions add. The defaults are those of the paper's 1x net."""

    shape: tuple[int, ...] = setting("channels, height and width of an image", default=(3, 32, 32))
    channels: tuple[int, ...] = setting("of the convolutions, bottom first", default=(128, 256, 256, 512, 512, 512))
    pooled: tuple[int, ...] = setting("convolutions, from 0, that end in 2×2 max-pooling", default=(1, 3, 4, 5))
    hidden: tuple[int, ...] = setting("units of the dense layers", default=(1024,))
    dropout: float = setting("share of units silenced after each hidden layer", default=0.05)
    batch_norm: bool = setting("whether batch norm stands before each nonlinearity", default=False)
    objective: str = setting("of a layer that learns alone: 'bottleneck' or 'labels', by its own readout")
    outputs: int = setting("numbers an image is averaged to before its layer's own readout", default=2048)
    feedback: str = setting("wires of the error: through the network, or in the layers' own readouts")
    manhattan: bool = setting("whether optimizers see only signs of gradients", default=False)
    optimizer: str = setting("'sgd' or 'adamw'")
    epochs: int = setting("passes through the training set", default=500)
    batch_size: int = setting("examples per step", default=128)
    drops: tuple[int, ...] = setting("epochs after which rates drop", default=(300, 350, 450, 475), in_epochs=True)

    @property
    def compares(self) -> bool:
        return super().compares and self.objective == "bottleneck"


def load(settings: Settings, device: torch.device) -> Data:
    """The whole data set, as images."""
    data = sets.load(settings.data, device=device)
    return Data(data.train(), data.test())


def random(settings: Settings, steps: int) -> Data:
    """Noise of the true shapes, enough for that many steps."""
    (x, y), (x_test, y_test) = dense.random(settings, steps)
    return Data((x.unflatten(1, settings.shape), y), (x_test.unflatten(1, settings.shape), y_test))


def train(settings: Settings, data: Data, seed: int, progress: bool, checkpoints: Checkpoints | None) -> Metrics:
    """One run: build, train, measure."""
    network = build(settings, seed)
    objectives, makers = learning(settings, network, seed)
    device = data.train[0].device
    for module in (network, *objectives):
        if isinstance(module, torch.nn.Module):
            module.to(device)
    history = dense.descend(network, objectives, makers, settings, data, seed, progress, checkpoints)
    return {
        "test_accuracy": percent(network, data.test),
        "train_accuracy": percent(network, data.train),
        "history": history,
    }


def build(settings: Settings, seed: int) -> Network:
    """The network: one block for backprop, else one block per layer."""
    channels, height, width = settings.shape
    network = vgg(
        shape=(channels, height, width),
        channels=settings.channels,
        pooled=settings.pooled,
        hidden=settings.hidden,
        classes=settings.classes,
        activation=known("activation", settings.activation, dense.ACTIVATIONS)(),
        batch_norm=settings.batch_norm,
        after=partial(dense.between, settings),
        partition=dense.partition(settings, len(settings.channels) + len(settings.hidden) + 1),
        seed=seed,
        feedback=settings.feedback if settings.learns == "all" else "backprop",
    )
    return dense.augmented(network, settings)


def learning(settings: Settings, network: Network, seed: int) -> tuple[Objectives, Makers]:
    """One objective and one maker of optimizers per block."""
    hidden = len(network.layers) - 1
    rules: dict[str, Callable[[], list[Any]]] = {
        "bottleneck": lambda: [partial(dense.layer_objective, settings=settings)] * hidden,
        "labels": lambda: local_readouts(settings, network, seed),
    }
    optimizers: dict[str, Callable[..., Optimizer]] = {"sgd": partial(SGD, momentum=settings.momentum), "adamw": AdamW}
    chosen = known("objective", settings.objective, rules)()
    objectives, makers = dense.assign(settings, chosen, known("optimizer", settings.optimizer, optimizers))
    return objectives, [_signed(make) for make in makers] if settings.manhattan else makers


@torch.no_grad()
def local_readouts(settings: Settings, network: Network, seed: int) -> list[LocalReadout]:
    """A classifier for every hidden layer, fitting its activity."""
    seen = network.eval().activities(torch.zeros(1, *settings.shape))[:-1]
    with torch.random.fork_rng():
        torch.manual_seed(seed + 1)
        return [
            LocalReadout(z.shape[1:], settings.classes, outputs=settings.outputs, feedback=settings.feedback)
            for z in seen
        ]


def _signed(make: Maker) -> Maker:
    return lambda parameters: batch_manhattan(make(parameters))


ROWS: dict[str, dict[str, Any]] = {
    "backprop": {"learns": "all"},
    "FA": {"learns": "all", "feedback": "random", "power": 0.5},
    "sign symmetry": {"learns": "all", "feedback": "sign", "power": 0.5},
    "layer class.": {"learns": "layers", "objective": "labels", "power": 0.5},
    "layer class.+FA": {"learns": "layers", "objective": "labels", "feedback": "random", "power": 0.5},
    "pHSIC cosine": {"learns": "layers", "kernel": "cosine", "grouped_objective": True},
    "pHSIC gaussian": {"learns": "layers", "grouped_objective": True},
    "HSIC cosine": {"learns": "layers", "kernel": "cosine", "grouped_objective": True, "estimator": "hsic"},
    "HSIC gaussian": {"learns": "layers", "grouped_objective": True, "estimator": "hsic"},
    "last layer": {"learns": "readout"},
}
"""What teaches, in the order of Table 2; the HSIC rows are those of Figures 7 and 8, the last row is ours."""

PRINTED = {
    "FA": "FA",
    "sign symmetry": "sign sym.",
    "layer class.": "layer class.",
    "layer class.+FA": "layer class.: +FA",
}
"""The column of Tables 7 and 9 of each row that is not in Tables 6 and 8."""

WIDTHS = {"1x": (128, 256, 256, 512, 512, 512), "2x": (256, 512, 512, 1024, 1024, 1024)}

STEPS: dict[str, dict[str, Any]] = {
    "SGD": {"optimizer": "sgd", "activation": "selu"},
    "AdamW+bn": {"optimizer": "adamw", "activation": "leaky relu", "batch_norm": True},
}

FULL = tuple(f"{width} {step}{div}" for width in WIDTHS for step in STEPS for div in ("", "+div"))
LITE = ("digits SGD", "digits SGD+div", "digits AdamW+bn")

DIGITS_RATES = {
    "backprop": ((0.0, 0.03), (0.0, 0.03), (0.0, 3e-3)),
    "FA": ((0.0, 0.03), (0.0, 0.03), (0.0, 1e-2)),
    "sign symmetry": ((0.0, 3e-4), (0.0, 1e-3), (0.0, 3e-3)),
    "layer class.": ((0.01, 0.01), (0.03, 0.03), (1e-2, 1e-2)),
    "layer class.+FA": ((0.01, 0.01), (0.1, 0.1), (3e-3, 3e-3)),
    "pHSIC cosine": ((0.03, 0.1), (0.1, 0.3), (3e-3, 1e-2)),
    "pHSIC gaussian": ((0.03, 0.1), (0.1, 0.3), (3e-2, 1e-2)),
    "HSIC cosine": ((0.03, 0.1), (0.1, 0.3), (3e-3, 1e-2)),
    "HSIC gaussian": ((0.03, 0.1), (0.1, 0.3), (3e-2, 1e-2)),
    "last layer": ((0.0, 0.3), (0.0, 0.3), (0.0, 0.03)),
}
"""Rates of the layers and of the readout, one pair per lite column."""


def settings(row: str, column: str) -> Settings:
    """A cell: rates, groups and drops as printed; for digits, ours."""
    width, _, kind = column.partition(" ")
    step, normalized = kind.removesuffix("+div"), kind.endswith("+div")
    options = {"objective": "bottleneck", "feedback": "backprop"} | STEPS[step] | ROWS[row]
    options["manhattan"] = row == "sign symmetry" and step == "SGD"
    chosen = Settings(data="cifar10", normalized=normalized, augment=True, **options)
    if width == "digits":
        return _small(chosen, *DIGITS_RATES[row][LITE.index(column)])
    printed = _parameters(row, width, step, normalized)
    if row == "backprop" and step == "SGD":
        chosen = replace(chosen, drops=(100, 200, 250, 275))
    return replace(
        chosen,
        channels=WIDTHS[width],
        groups=int(printed["c^k"]) if normalized or chosen.grouped_objective else None,
        rate=float(printed.get("eta_l") or 0),
        readout_rate=float(printed["eta_f"]),
    )


def _small(chosen: Settings, rate: float, readout_rate: float) -> Settings:
    """A narrow net for images of 8×8."""
    small = replace(chosen, data="digits", shape=(1, 8, 8), augment=False, channels=(16, 32, 32, 64), pooled=(1, 3))
    groups = 16 if chosen.normalized or chosen.grouped_objective else None
    sized = replace(small, hidden=(64,), outputs=128, groups=groups, batch_size=64, epochs=10, drops=(6, 8))
    return replace(sized, dropout=0.01, rate=rate, readout_rate=readout_rate)


def _place(row: str, width: str, step: str, normalized: bool) -> tuple[str, str, str, str]:
    """Tables of parameters and of results, line and column of both, whether or not a number stands there."""
    if row in PRINTED:
        kind = {"SGD": "SGD + divnorm" if normalized else "SGD", "AdamW+bn": "AdamW + bn"}[step]
        return "001-7", "001-9", f"{width} wide net + {kind}", PRINTED[row]
    kind = {"SGD": "SGD", "AdamW+bn": "AdamW + batchnorm"}[step]
    name = {"cosine": "pHSIC cossim: grp", "gaussian": "pHSIC Gaussian: grp"}.get(row.partition(" ")[2], row)
    div = {"backprop": ": div"}.get(name, "+div") if normalized else ""
    return "001-6", "001-8", f"{width} wide net + {kind}", name + div


def _parameters(row: str, width: str, step: str, normalized: bool) -> dict[str, str]:
    """The printed parameters of a cell; where none worked, those of the same row with normalization."""
    table, _, line, column = _place(row, width, step, normalized)
    found = {cells["parameter"]: cells[column] for cells in papers.table(table) if cells["network"] == line}
    return found if found["eta_f"] else _parameters(row, width, step, True)


def printed_accuracy(row: str, column: str) -> tuple[str, str, str] | None:
    """Where Tables 8 and 9 have the number of a cell."""
    width, _, kind = column.partition(" ")
    if width not in WIDTHS or row.startswith(("HSIC", "last")):
        return None
    _, table, line, name = _place(row, width, kind.removesuffix("+div"), kind.endswith("+div"))
    return table, line, name


RECIPES = (
    Recipe(
        name="bottleneck-vgg",
        about="Tables 2, 8-11 of 001: seven-layer convolutional nets on CIFAR-10, each layer alone or by backprop",
        rows=tuple(ROWS),
        scales={
            "lite": Scale(LITE, (0, 1, 2, 3, 4)),
            "colab": Scale(("1x SGD+div", "1x AdamW+bn"), (0,)),
            "full": Scale(FULL, (0, 1, 2, 3, 4)),
        },
        settings=settings,
        load=load,
        random=random,
        train=train,
        measures=("test_accuracy", "train_accuracy"),
        paper=printed_accuracy,
        without=frozenset(
            {("last layer", column) for column in FULL}
            | {(row, f"{width} AdamW+bn+div") for width in WIDTHS for row in PRINTED}
            | {(row, f"digits {step}") for row in ("HSIC cosine", "HSIC gaussian") for step in STEPS}
        ),
        rehearsal_batch=2,
    ),
)
