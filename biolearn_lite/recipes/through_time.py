"""The recipe of chapter 11: what a recurrent layer can learn if its errors cannot go back in time, or only a little.

One GRU layer reads a sequence, and a linear readout of its last state is asked a question, once, at the end. The rows
differ in one thing, the road of the errors from a moment to the one before (`rules.eprop.ROADS`): all wires (BPTT),
each neuron's own memory (e-prop), none (memory cut). No paper has this table. 003 compares two of the rows on speech,
where a recurrent layer on top of CLAPP reads phonemes: 61.7 % with BPTT, 58.6 % with e-prop.

- digits by rows: the 8×8 digits, a row of pixels per moment, from top to bottom; which digit was it?
- recall: one of four cues, then noise as loud as the cue; which cue was it? A memory is all it takes, each neuron has
  one, and e-prop tells each when to fill it and to keep it.
- compare: one of two cues, noise, and again one of two; were they the same? The first cue alone tells
  nothing: it must meet the second, in another neuron, of which only BPTT can tell, or in its keeper's own memory gate.

The noise must be loud. The weights of the last moment are those of every moment, so a layer that hears of the last
alone can still learn to keep whatever it has. Half as loud, the noise let it: with a rate of 0.3 the memory cut, too,
recalled the cue in each of three held-out trials (100 %), and compared in one of them (92 %, chance is 50 %).

The honest baseline is the row "untrained": the layer stays as it was drawn and its own readout is trained; its `probe`
is what an exactly solved readout of its last state finds. Every row has that probe. After every epoch, the gradient of
the layer over the whole training set is compared with BPTT's at the same weights, as an angle.

Adam steps every row. The rates are ours, chosen by the mean accuracy of three runs on held-out examples, never on the
test set: for digits among 3e-3, 1e-2, 3e-2 and 0.1, on three held-out fifths of the training images; for the other
tasks among 1e-2, 3e-2, 0.1 and 0.3, on sequences made for this alone (0.3 not for BPTT, which needed no more, and of
the untrained layer, at chance anyway, 1e-2 and 0.1 alone). Of equally good rates the smaller one counts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.optim import Adam

from biolearn_lite.data import sets
from biolearn_lite.nets.recurrent import LastState, RecurrentBlock, RecurrentNetwork, recurrent_network
from biolearn_lite.recipes.engine import Metrics, Recipe, Scale, setting
from biolearn_lite.rules.feedback import alignment_angle
from biolearn_lite.training.checkpoint import Checkpoints
from biolearn_lite.training.fit import Batch, fit
from biolearn_lite.training.probes import accuracy, linear_probe

ROWS = {"BPTT": "bptt", "e-prop": "eprop", "memory cut": "cut", "untrained": "cut"}
"""The road of the errors; in the last row none enters the layer at all."""

Examples = tuple[Tensor, Tensor]


def recall(n: int, *, ticks: int = 16, noise: float = 1.0, seed: int) -> Examples:
    """One of four cues, then noise alone: (n, ticks, 4), and which cue it was, (n,)."""
    generator = torch.Generator().manual_seed(seed)
    cue = torch.randint(4, (n,), generator=generator)
    x = noise * torch.randn(n, ticks, 4, generator=generator)
    x[:, 0] = _one_hot(cue, 4)
    return x, cue


def compare(n: int, *, ticks: int = 16, noise: float = 1.0, seed: int) -> Examples:
    """One of two cues, noise, one of two cues: (n, ticks, 2), and whether they were the same, 1 or 0, (n,)."""
    generator = torch.Generator().manual_seed(seed)
    first, last = torch.randint(2, (2, n), generator=generator)
    x = noise * torch.randn(n, ticks, 2, generator=generator)
    x[:, 0], x[:, -1] = _one_hot(first, 2), _one_hot(last, 2)
    return x, (first == last).long()


def _one_hot(cue: Tensor, kinds: int) -> Tensor:
    return torch.nn.functional.one_hot(cue, kinds).float()


class Task(NamedTuple):
    """What a column asks: moments, inputs at a moment, possible answers; recurrent units; who makes examples."""

    ticks: int
    inputs: int
    classes: int
    units: int
    make: Callable[..., Examples] | None = None


TASKS = {
    "digits by rows": Task(8, 8, 10, 64),
    "recall": Task(16, 4, 4, 32, recall),
    "compare": Task(16, 2, 2, 32, compare),
}

EXAMPLES = {"train": 2000, "test": 1000}
"""Sequences of the made tasks."""

RATES = {
    "BPTT": (1e-2, 3e-2, 0.1),
    "e-prop": (1e-2, 0.1, 3e-2),
    "memory cut": (3e-3, 0.3, 0.1),
    "untrained": (0.1, 0.1, 0.1),
}
"""Rates of Adam, one per task."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One run."""

    task: str = setting("one of TASKS")
    through: str = setting("road of the errors, one of rules.eprop.ROADS")
    learns: str = setting("'all' or the 'readout' only", default="all")
    rate: float = setting("of Adam")
    units: int = setting("of the recurrent layer")
    epochs: int = setting("passes through the training set", default=20)
    batch_size: int = setting("sequences per step", default=50)


class Data(NamedTuple):
    """Sequences (n, ticks, inputs) and labels (n,), for training and testing, on the device of the run."""

    train: Examples
    test: Examples


def settings(row: str, column: str) -> Settings:
    """A cell of the table."""
    return Settings(
        task=column,
        through=ROWS[row],
        learns="readout" if row == "untrained" else "all",
        rate=RATES[row][list(TASKS).index(column)],
        units=TASKS[column].units,
    )


def load(settings: Settings, device: torch.device) -> Data:
    """Digits cut into rows, or sequences made for the task, the same in every run."""
    make = TASKS[settings.task].make
    if make is None:
        digits = sets.load("digits", device=device)
        return Data(*((x.flatten(1, 2), y) for x, y in (digits.train(), digits.test())))
    parts = (make(n, seed=seed) for seed, n in enumerate(EXAMPLES.values()))
    return Data(*((x.to(device), y.to(device)) for x, y in parts))


def random(settings: Settings, steps: int) -> Data:
    """Noise of the true shapes, enough for that many steps."""
    task, generator = TASKS[settings.task], torch.Generator().manual_seed(0)
    x = torch.randn(steps * settings.batch_size, task.ticks, task.inputs, generator=generator)
    y = torch.randint(task.classes, (len(x),), generator=generator)
    return Data((x, y), (x, y))


def train(settings: Settings, data: Data, seed: int, progress: bool, checkpoints: Checkpoints | None) -> Metrics:
    """One run: build, train, measure. Epoch 0 of the history is the network as it was born."""
    network, objective = build(settings, seed)
    network, objective = network.to(data.train[0].device), objective.to(data.train[0].device)
    measure = partial(_measure, settings, network, objective, data)
    born = measure(0)
    history = fit(
        network,
        [objective],
        *data.train,
        optimizers=partial(Adam, lr=settings.rate),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=seed,
        after_epoch=measure,
        checkpoints=checkpoints,
        progress=progress,
    )
    last = Data(_last(network, data.train), _last(network, data.test))
    return {
        "test_accuracy": _percent(objective, last.test),
        "train_accuracy": _percent(objective, last.train),
        "probe": 100 * linear_probe(*last, num_classes=TASKS[settings.task].classes),
        "history": [{"epoch": 0, "losses": [None]} | born, *history],
    }


def build(settings: Settings, seed: int) -> tuple[RecurrentNetwork, LastState]:
    """A recurrent layer and the readout that is its objective; an untrained layer learns nothing."""
    task = TASKS[settings.task]
    network = recurrent_network(task.inputs, settings.units, through=settings.through, seed=seed)
    network.requires_grad_(settings.learns == "all")
    return network, LastState(settings.units, task.classes, seed=seed)


def angle_to_bptt(network: RecurrentNetwork, objective: LastState, batch: Batch) -> float:
    """Degrees between the gradient of the recurrent layer, by its own road, and backprop through time's."""
    block = cast(RecurrentBlock, network.blocks[0])
    own, found = block.through, []
    for road in (own, "bptt"):
        block.through = road
        gradient = torch.autograd.grad(objective(block(batch.inputs)[0], batch), list(block.weights))
        found.append(torch.cat([part.flatten() for part in gradient]))
    block.through = own
    return alignment_angle(*found)


def _measure(settings: Settings, network: RecurrentNetwork, objective: LastState, data: Data, epoch: int) -> Metrics:
    score = {"test_accuracy": _percent(objective, _last(network, data.test))}
    if settings.learns == "readout":
        return score
    return score | {"angle": round(angle_to_bptt(network, objective, Batch(*data.train)), 2)}


@torch.no_grad()
def _last(network: RecurrentNetwork, examples: Examples) -> Examples:
    """The last state of each sequence, and its label."""
    return network(examples[0])[:, -1], examples[1]


@torch.no_grad()
def _percent(objective: LastState, last: Examples) -> float:
    """How many of the last states the readout gets right."""
    return 100 * accuracy(objective.readout(last[0]), last[1])


RECIPES = (
    Recipe(
        name="through-time",
        about="Chapter 11: a recurrent layer whose errors go back in time by all wires, some or none",
        rows=tuple(ROWS),
        scales=dict.fromkeys(("lite", "colab", "full"), Scale(tuple(TASKS), (0, 1, 2, 3, 4))),
        settings=settings,
        load=load,
        random=random,
        train=train,
        measures=("test_accuracy", "probe"),
        paper=lambda row, column: None,
    ),
)
