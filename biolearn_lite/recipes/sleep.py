"""The recipe of 004's tables: what a network loses without copied weights, and what moving pictures or sleep give back.

One residual network (`nets.resnet`) in every cell; a row says how its weights are tied:

- "conv" copies them; "LC" does not.
- "LC - n reps" shows n crops of each picture in a step, with as many images per step as the others, and so takes n
  times as many steps (`data.crops`).
- "LC - ws(n)" sleeps after every n-th step: all neurons of a module take their mean weights (`nets.resnet.share`).

Tables 1 and 4 to 12 are CIFAR-10 and -100 and TinyImageNet, with crops that move by up to 0, 4 or 8 pixels; AdamW's
rates and decays are read from Tables 10 to 12. What the published runs did where the text leaves it open:

- Sleep is counted anew in each epoch, and comes after its first step (`training.wake_sleep`). With 98 steps per epoch,
  ws(100) is one night per epoch, at its beginning; the network is tested at its end.
- Every position starts from weights of its own. Neurons at the border sleep, too. Moments of AdamW are not shared.
- Frames around a picture have the value that is 0 for the network. TinyImageNet has real pixels there.
- float16 on GPUs, but for tests and sleep. No flips: the text says so, and the code has a switch for it.

In lite, digits stand in the middle of a black sheet, and training shows them there ("home") or up to 3 pixels away
("moved"); crops of `textures` move by up to 4 pixels. Networks of five and of three layers learn them, without strides,
so that sharing works for shifts by multiples of 3. An epoch has 21 to 25 steps, so ws(10) is three nights in it and
ws(100) one, after its first step. The lite rates are ours: for "conv", "LC" and "LC - ws(1)", 0.01 or 0.03, whichever
was better on a held-out fifth of the training images, unmoved, never on test images; "LC - 4 reps" has the rate of
"LC", other nights have that of "LC - ws(1)".

`by_shift` is test accuracy with pictures moved by 0, 1, 2 ... pixels, mean of four directions; `shifted_accuracy`, its
mean over all but 0. The history has -log SNR of the weights (Eq. 6, Figure 6): `drift`, per layer, after each epoch,
and `steps`, the mean over layers, after each of the run's first 150 steps, before the night if one follows. None: the
neurons of all modules agree exactly.

Left out: ImageNet (Tables 2, 3 and 13), whose network is another one and takes days.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import MultiStepLR

from biolearn_lite.data import sets, tiny_imagenet
from biolearn_lite.data.crops import Crops, crop, framed
from biolearn_lite.nets.networks import Network
from biolearn_lite.nets.resnet import drift, locally_connected, resnet, share
from biolearn_lite.recipes import papers
from biolearn_lite.recipes.engine import Metrics, Recipe, Scale, known, setting
from biolearn_lite.training.checkpoint import Checkpoints
from biolearn_lite.training.fit import Batch, fit
from biolearn_lite.training.schedules import EndToEnd, Schedule
from biolearn_lite.training.wake_sleep import WakeSleep

ROWS: dict[str, dict[str, Any]] = {
    "conv": {"local": False},
    "LC": {},
    "LC - 4 reps": {"copies": 4},
    "LC - 8 reps": {"copies": 8},
    "LC - 16 reps": {"copies": 16},
    "LC - ws(1)": {"every": 1},
    "LC - ws(10)": {"every": 10},
    "LC - ws(100)": {"every": 100},
}
"""What each row has, by its name in Table 1."""

PICTURES: dict[str, dict[str, Any]] = {
    "cifar10": {"shape": (3, 32, 32), "classes": 10},
    "cifar100": {"shape": (3, 32, 32), "classes": 100},
    "tinyimagenet": {"shape": (3, 48, 48), "classes": 200},
}
PRINTED = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "tinyimagenet": "TinyImageNet"}
PADDINGS = {0: ("004-4", "004-10"), 4: ("004-5", "004-11"), 8: ("004-6", "004-12")}
"""Tables of results and of rates, by padding."""

SMALL: dict[str, Any] = {"classes": 10, "channels": (8,), "batch_size": 64}
DIGITS: dict[str, Any] = SMALL | {
    **{"data": "digits", "shape": (1, 14, 14), "margin": 3, "fill": "dark"},
    **{"blocks": 2, "epochs": 10, "drops": (5, 8)},
}
LITE: dict[str, dict[str, Any]] = {
    "digits home": DIGITS | {"reach": 0},
    "digits moved": DIGITS | {"reach": 3},
    "textures moved": SMALL
    | {"data": "textures", "shape": (1, 16, 16), "margin": 4, "reach": 4, "pooled": 4}
    | {"blocks": 1, "epochs": 10, "drops": (5, 8)},
}
LITE_RATES = dict.fromkeys(ROWS, (0.01, 0.01, 0.01)) | {
    "conv": (0.03, 0.03, 0.03),
    "LC": (0.01, 0.01, 0.03),
    "LC - 4 reps": (0.01, 0.01, 0.03),
}
"""Rates of AdamW, one per lite column."""

FULL = tuple(f"{data} padding {padding}" for data in PICTURES for padding in PADDINGS)
STEPS_SHOWN = 150
"""Of a run, in the history."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One run. The defaults are the published runs' for CIFAR-10."""

    data: str = setting("data set, by its name in data.sets, or 'tinyimagenet'")
    shape: tuple[int, ...] = setting("channels, height and width of an image, as the network sees it")
    classes: int = setting("number of classes")
    pooled: int = setting("side of the squares of pixels that are averaged first", default=1)
    margin: int = setting("pixels around an image that crops and shifts can reach", default=8)
    fill: str = setting("what is there if the picture ends: its 'mean' or the 'dark'", default="mean")
    reach: int = setting("up to how many pixels crops are away from the middle in training")
    channels: tuple[int, ...] = setting("of the stages", default=(16, 32, 64))
    blocks: int = setting("per stage", default=3)
    local: bool = setting("whether every position has weights of its own", default=True)
    copies: int = setting("crops of each picture in a step", default=1)
    every: int | None = setting(
        "steps between nights, counted anew in each epoch, from its first; none: no sleep", default=None
    )
    rate: float = setting("learning rate of AdamW")
    decay: float = setting("weight decay of AdamW", default=1e-4)
    epochs: int = setting("passes through the training set", default=200)
    batch_size: int = setting("images per step, copies included", default=512)
    drops: tuple[int, ...] = setting("epochs after which the rate drops", default=(100, 150), in_epochs=True)
    drop_factor: float = setting("what the rate is multiplied by at a drop", default=0.25)


class Data(NamedTuple):
    """Pictures with their margin, (n, C, H + 2 margin, W + 2 margin), and labels, for training and testing."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def settings(row: str, column: str) -> Settings:
    """A cell: rates as printed; in lite, ours."""
    options = known("row", row, ROWS)
    if column in LITE:
        return Settings(rate=LITE_RATES[row][list(LITE).index(column)], **LITE[column], **options)
    data, padding = _parts(column)
    rate, decay = (_printed_setting(row, column, what) for what in ("Learning rate", "Weight decay"))
    return Settings(data=data, reach=padding, rate=rate, decay=decay, **PICTURES[data], **options)


def load(settings: Settings, device: torch.device) -> Data:
    """The whole data set, with mean 0 and variance 1 in each channel."""
    source = tiny_imagenet.load() if settings.data == "tinyimagenet" else sets.load(settings.data)
    (x, y), (x_test, y_test) = prepare(settings, source)
    return Data((x.to(device), y.to(device)), (x_test.to(device), y_test.to(device)))


def prepare(settings: Settings, source: sets.DataSet) -> Data:
    """A data set's pictures as runs take them."""
    x, x_test = (F.avg_pool2d(source.inputs(i), settings.pooled) for i in (source.train_images, source.test_images))
    mean, deviation = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True)
    x, x_test = (x - mean) / deviation, (x_test - mean) / deviation
    fill = known("fill", settings.fill, {"mean": 0.0, "dark": x.min().item()})
    side = settings.shape[1] + 2 * settings.margin
    return Data(
        (framed(x, side, fill=fill), source.train_labels), (framed(x_test, side, fill=fill), source.test_labels)
    )


def random(settings: Settings, steps: int) -> Data:
    """Noise of the true shapes, enough for that many steps."""
    generator = torch.Generator().manual_seed(0)
    n, side = steps * max(settings.batch_size // settings.copies, 1), settings.shape[1] + 2 * settings.margin
    x = torch.randn(n, settings.shape[0], side, side, generator=generator)
    y = torch.randint(settings.classes, (n,), generator=generator)
    return Data((x, y), (x, y))


def train(settings: Settings, data: Data, seed: int, progress: bool, checkpoints: Checkpoints | None) -> Metrics:
    """One run: build, train, measure."""
    (x, y), device = data.train, data.train[0].device
    network, originals = build(settings, seed).to(device), max(settings.batch_size // settings.copies, 1)
    watch = Watch(schedule(settings, -(-len(y) // originals)))
    history = fit(
        network,
        [cross_entropy],
        cast(Tensor, Crops(x, size=_size(settings), reach=settings.reach, copies=settings.copies)),
        y,
        optimizers=partial(AdamW, lr=settings.rate, weight_decay=settings.decay, fused=True),
        epochs=settings.epochs,
        batch_size=originals,
        seed=seed,
        schedule=watch,
        scheduler=partial(MultiStepLR, milestones=settings.drops, gamma=settings.drop_factor),
        autocast=torch.float16 if device.type == "cuda" else None,
        after_epoch=partial(_measure, settings, network, data, watch),
        checkpoints=checkpoints,
        progress=progress,
    )
    by_shift = [shifted(network, settings, data.test, by) for by in range(min(settings.margin, 4) + 1)]
    return {
        "test_accuracy": by_shift[0],
        "shifted_accuracy": sum(by_shift[1:]) / len(by_shift[1:]),
        "train_accuracy": shifted(network, settings, data.train, 0),
        "top5_accuracy": shifted(network, settings, data.test, 0, top=5),
        "by_shift": by_shift,
        "history": history,
    }


def build(settings: Settings, seed: int) -> Network:
    """The network of a cell, end to end."""
    channels, height, width = settings.shape
    return resnet(
        shape=(channels, height, width),
        channels=settings.channels,
        blocks=settings.blocks,
        classes=settings.classes,
        local=settings.local,
        seed=seed,
    )


@final
class Watch(Schedule):
    """A schedule that is looked at: after each of the first steps of a run, the mean over the layers of -log SNR."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.seen: list[Tensor] = []

    def active(self, step: int, num_blocks: int) -> Collection[int]:
        return self.schedule.active(step, num_blocks)

    def after_step(self, step: int, network: nn.Module) -> None:
        if step < STEPS_SHOWN and locally_connected(network):
            self.seen.append(torch.stack(drift(network)).mean())
        self.schedule.after_step(step, network)

    def read(self) -> list[float | None]:
        """What was seen since it was last read."""
        seen, self.seen = self.seen, []
        return numbers(seen)


def schedule(settings: Settings, steps_per_epoch: int) -> Schedule:
    """End to end, with nights if the row says so."""
    if settings.every is None:
        return EndToEnd()
    return WakeSleep(EndToEnd(), share, every=settings.every, steps_per_epoch=steps_per_epoch)


def cross_entropy(seen: Tensor, batch: Batch) -> Tensor:
    """The one scalar there is, of all copies of a batch."""
    return F.cross_entropy(seen, batch.labels.repeat(len(seen) // len(batch.labels)))


def numbers(values: list[Tensor]) -> list[float | None]:
    """Of -log SNR, as JSON can hold them; None where all neurons agree."""
    return [round(value, 4) if math.isfinite(value) else None for value in map(float, values)]


@torch.no_grad()
def shifted(network: Network, settings: Settings, examples: tuple[Tensor, Tensor], by: int, *, top: int = 1) -> float:
    """Percent right among the first `top` answers, with pictures moved by so many pixels in each of four directions."""
    network.eval()
    directions = {(down * by, right * by) for down, right in ((0, 1), (0, -1), (1, 0), (-1, 0))}
    right_ones = 0
    for down, right in directions:
        images = crop(examples[0], _size(settings), down=-down, right=-right)
        for x, y in zip(images.split(512), examples[1].split(512), strict=True):
            answers = network(x.contiguous()).topk(min(top, settings.classes)).indices
            right_ones += int((answers == y.unsqueeze(1)).sum())
    return 100 * right_ones / (len(directions) * len(examples[1]))


def _measure(settings: Settings, network: Network, data: Data, watch: Watch, epoch: int) -> Metrics:
    score = {"test_accuracy": shifted(network, settings, data.test, 0)}
    if not locally_connected(network):
        return score
    return score | {"drift": numbers(drift(network)), "steps": watch.read()}


def _size(settings: Settings) -> tuple[int, int]:
    return settings.shape[1], settings.shape[2]


def _parts(column: str) -> tuple[str, int]:
    """Data set and padding of a column of the paper's."""
    data, _, padding = column.partition(" padding ")
    return known("data", data, dict.fromkeys(PICTURES, data)), int(padding)


def _regularizer(row: str) -> str:
    """The first cell of a printed row."""
    return "Weight Sharing" if "ws" in row else "Data Translation" if "reps" in row else "-"


def _printed_setting(row: str, column: str, what: str) -> float:
    data, padding = _parts(column)
    (value,) = (
        cells[f"{PRINTED[data]}: {what}"]
        for cells in papers.table(PADDINGS[padding][1])
        if cells["Connectivity"] == row
    )
    return float(value)


def printed_accuracy(row: str, column: str) -> tuple[str, str, str] | None:
    """Where Tables 4 to 6 have the number of a cell."""
    if column in LITE:
        return None
    data, padding = _parts(column)
    return PADDINGS[padding][0], f"{_regularizer(row)}, {row}", f"{PRINTED[data]}: Top-1 accuracy (%)"


MANY = ("LC - 8 reps", "LC - 16 reps")
UNMOVED = ("cifar10 padding 0", "cifar100 padding 0", "tinyimagenet padding 0", "digits home")
"""Columns in which all copies of a picture would be the same."""

RECIPES = (
    Recipe(
        name="sleep",
        about="Tables 1, 4-12 of 004: residual networks without copied weights, helped by moving pictures or by sleep",
        rows=tuple(ROWS),
        scales={
            "lite": Scale(tuple(LITE), (0, 1, 2, 3, 4)),
            "colab": Scale(("cifar10 padding 4",), (0,)),
            "full": Scale(FULL, (0, 1, 2, 3, 4)),
        },
        settings=settings,
        load=load,
        random=random,
        train=train,
        measures=("test_accuracy", "shifted_accuracy", "train_accuracy"),
        paper=printed_accuracy,
        without=frozenset(
            {(row, column) for row in MANY for column in LITE}
            | {(row, column) for row in ("LC - 4 reps", *MANY) for column in UNMOVED}
        ),
        rehearsal_batch=16,
    ),
)
