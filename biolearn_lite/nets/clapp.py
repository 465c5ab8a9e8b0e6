"""Networks that predict their next glance, and the eye they share.

An image comes as patches (`data.patches`), and each patch is encoded alone, so a batch of m images is a batch of
m · columns · rows small ones, time running down the columns. A block shows its objective one vector per glance, the
mean of its map over positions, and hands the map itself, detached, to the next block.

What a block learns from is its own `Prediction`: W_pred, one matrix for every number of steps ahead, W_retro if the way
back has weights of its own, and a rule of `rules.predictive`. Where to look next is decided once, for all blocks, by
the one `Eye` they share (`nets.eye`).

    eye = Eye(grid=(7, 7))
    network = glance_encoder(VGG6, partition=(1,) * 6)
    fit(network, predictions(network, eye, retro=True), Glances(images), labels, ...)

What a step must hold is the graph of one block, in pieces if asked for (`GlanceBlock`). Pieces help end-to-end learning
little: what it must hold is the graph of all layers at once.

End to end is one block (CPC, "Hinge Loss CPC"), Greedy InfoMax three blocks with `rule="info_nce"`. Chapter 10.
"""

from collections.abc import Sequence
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from biolearn_lite.nets.encoders import Stage
from biolearn_lite.nets.eye import Eye
from biolearn_lite.nets.layers import Conv2d, Layer, default_draw
from biolearn_lite.nets.networks import Block, Network
from biolearn_lite.rules import predictive

VGG6 = tuple(
    Stage(channels, nn.ReLU, pool)
    for channels, pool in ((128, False), (256, True), (256, False), (512, True), (1024, True), (1024, True))
)
"""003, Table 2, for gray patches of 16×16; with biases, as published."""

PARTITIONS = {
    "1 module": (6,),
    "2 modules": (3, 3),
    "3 modules": (2, 2, 2),
    "4 modules upper": (3, 1, 1, 1),
    "4 modules lower": (1, 1, 1, 3),
    "6 modules": (1, 1, 1, 1, 1, 1),
}
"""003, Table 3, under the names of its Table 6: layers of each module, bottom first."""


def glance_encoder(
    stages: Sequence[Stage] = VGG6,
    *,
    channels: int = 1,
    partition: Sequence[int] | None = None,
    seed: int = 0,
    pieces: int = 1,
) -> Network:
    """A row of 3×3 convolutions with bias that keep a patch's size, cut into blocks of `GlanceBlock`.

    Args:
        stages: the layers, bottom first. channels: of the patches. partition: see `Network`.
        seed: of the initial weights, PyTorch's default U(±1/√fan_in).
        pieces: see `GlanceBlock`. More of them take less memory, up to the gradient of all weights for each.
    """
    below = [channels, *(stage.channels for stage in stages)]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [
            Layer(
                Conv2d(width, stage.channels, 3, padding=1),
                activation=stage.activation(),
                pool=nn.MaxPool2d(2) if stage.pool else None,
            )
            for width, stage in zip(below, stages, strict=False)
        ]
    network = Network(layers, partition)
    network.blocks = nn.ModuleList(
        GlanceBlock(list(cast(Any, block).layers), pieces=pieces) for block in network.blocks
    )
    return network


@final
class GlanceBlock(Block):
    """A block that shows the mean of its map over positions, (n, C), and passes on the map, (n, C, h, w).

    pieces: of a batch, each with a graph of its own. What a backward pass needs for a moment, it needs for a piece.
    """

    def __init__(self, layers: Sequence[Layer], *, pieces: int = 1) -> None:
        super().__init__(layers)
        if pieces < 1:
            raise ValueError(f"pieces={pieces}: give at least 1")
        self.pieces = pieces

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        seen, passed = zip(*map(self._see, x.chunk(self.pieces)), strict=True)
        return torch.cat(seen), torch.cat(passed)

    def _see(self, x: Tensor) -> tuple[Tensor, Tensor]:
        *below, top = cast(Sequence[Layer], self.layers)
        for layer in below:
            x = layer(x)
        z = top.activity(x)
        return z.mean((2, 3)), top.after(z.detach())


@torch.no_grad()
def layer_features(network: Network, patches: Tensor, *, glances: int) -> list[Tensor]:
    """What each layer says about each image, bottom first: (m, C), averaged over positions and over glances.

    patches: (m · glances, C, h, w), as `data.patches` makes them.
    """
    return [z.mean((2, 3)).unflatten(0, (-1, glances)).mean(1) for z in network.activities(patches)]


@final
class Prediction(nn.Module):
    """The objective of a block that predicts its own next glance. Its weights learn with the block.

    Args:
        features: of the block, per glance. eye: shared by all blocks of a network.
        rule: "clapp", or "info_nce", for which the eye must offer `others`.
        retro: whether the way back from z to c has weights of its own (Eq. 14). one_gate, block: as in
            `predictive.clapp_hinge`.

    Shape: seen (m · glances, features) → scalar, the mean over numbers of steps. Raises: ValueError.
    """

    def __init__(
        self,
        features: int,
        eye: Eye,
        *,
        rule: str = "clapp",
        retro: bool = False,
        one_gate: bool = False,
        block: str | None = None,
    ) -> None:
        super().__init__()
        if rule not in ("clapp", "info_nce"):
            raise ValueError(f"rule={rule!r}: choose 'clapp' or 'info_nce'")
        if rule == "info_nce" and (eye.others is None or retro or block):
            raise ValueError("rule='info_nce' needs an eye with others, and knows neither retro nor block")
        self.eye, self.rule, self.one_gate, self.block = eye, rule, one_gate, block
        self.W_pred = _matrices(eye.steps, features, features)
        self.W_retro = _matrices(eye.steps, features, features) if retro else None

    def forward(self, seen: Tensor, batch: object) -> Tensor:
        if self.W_retro is not None and self.eye.independent:  # each half of the loss with saccades of its own
            to_z = self._mean(seen, batch, self.W_pred, block="context")
            return to_z + self._mean(seen, batch, self.W_retro.mT, block="target")
        return self._mean(seen, batch, self.W_pred, self.W_retro, block=self.block)

    def _mean(
        self, seen: Tensor, batch: object, W_pred: Tensor, W_retro: Tensor | None = None, *, block: str | None = None
    ) -> Tensor:
        losses = []
        for k, (context, target, y) in enumerate(self.eye.events(seen, batch)):
            c, z = seen[context], seen[target]
            if self.rule == "info_nce":
                losses.append(predictive.info_nce(c, z, W_pred[k]))
                continue
            back = None if W_retro is None else W_retro[k]
            losses.append(predictive.clapp_hinge(c, z, y, W_pred[k], W_retro=back, one_gate=self.one_gate, block=block))
        return torch.stack(losses).mean()


@final
class FromAbove(nn.Module):
    """The objective of a block whose next glance the block above predicts; the top one predicts its own.

    c is the activity one block up, z this block's; both learn, each block from its own part of the loss (Eq. 6 and 7),
    and W_pred with z's block. All activities of a step are needed before any block learns: it costs a second forward
    pass. The scalar told is the loss of this block's own prediction.

    Args:
        features: of the block. contexts: of the block above, or its own at the top. below: the objective one block
            down. place: of the block, from 0 at the bottom. eye: as in `Prediction`.

    Source: 003, appendix, "Predicting from higher layers".
    """

    def __init__(self, features: int, contexts: int, eye: Eye, *, below: "FromAbove | None", place: int) -> None:
        super().__init__()
        self.eye, self.place = eye, place
        self.W_pred = _matrices(eye.steps, features, contexts)
        self._below = (below,)  # in a tuple, so that its weights are not taken for ours
        self._all: list[Tensor] = []

    def prepare(self, all_seen: list[Tensor], batch: object) -> None:
        self._all = all_seen

    def forward(self, seen: Tensor, batch: object) -> Tensor:
        (below,), top = self._below, self.place + 1 == len(self._all)
        above = seen if top else self._all[self.place + 1]
        loss = self._mean(above, seen, batch, self.W_pred, block=None if top else "context")
        if below is None:
            return loss
        told = self._mean(seen, self._all[self.place - 1], batch, below.W_pred.detach(), block="target")
        return loss + told - told.detach()

    def _mean(self, c: Tensor, z: Tensor, batch: object, W_pred: Tensor, *, block: str | None) -> Tensor:
        events = enumerate(self.eye.events(z, batch))
        losses = [predictive.clapp_hinge(c[e.context], z[e.target], e.y, W_pred[k], block=block) for k, e in events]
        return torch.stack(losses).mean()


@final
class GlanceReadout(nn.Module):
    """A linear classifier of images on a block's activity, averaged over glances, and an objective: its cross-entropy.

    Shape: seen (m · glances, features), batch.labels (m,) → scalar. Source: 003, appendix B.1, (greedy) supervised.
    """

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.readout = nn.Linear(features, num_classes)

    def forward(self, seen: Tensor, batch: Any) -> Tensor:
        labels = cast(Tensor, batch.labels)
        per_image = seen.unflatten(0, (len(labels), -1)).mean(1)
        return nn.functional.cross_entropy(self.readout(per_image), labels)


def predictions(
    network: Network,
    eye: Eye,
    *,
    rule: str = "clapp",
    retro: bool = False,
    one_gate: bool = False,
    block: str | None = None,
    seed: int = 0,
) -> list[Prediction]:
    """One `Prediction` per block, all with the same eye. seed: of their weights."""
    with torch.random.fork_rng():
        torch.manual_seed(_PREDICTIONS + seed)
        return [
            Prediction(features, eye, rule=rule, retro=retro, one_gate=one_gate, block=block).to(_device(network))
            for features in _features(network)
        ]


def predictions_from_above(network: Network, eye: Eye, *, seed: int = 0) -> list[FromAbove]:
    """One `FromAbove` per block, all with the same eye. seed: of their weights."""
    features, made = _features(network), cast(list[FromAbove], [])
    with torch.random.fork_rng():
        torch.manual_seed(_PREDICTIONS + seed)
        for place, (here, above) in enumerate(zip(features, [*features[1:], features[-1]], strict=True)):
            below = made[-1] if made else None
            made.append(FromAbove(here, above, eye, below=below, place=place).to(_device(network)))
    return made


def glance_readouts(network: Network, num_classes: int, *, seed: int = 0) -> list[GlanceReadout]:
    """One `GlanceReadout` per block. seed: of their weights."""
    with torch.random.fork_rng():
        torch.manual_seed(_PREDICTIONS + seed)
        return [GlanceReadout(features, num_classes).to(_device(network)) for features in _features(network)]


_PREDICTIONS = 5_000_011
"""Keeps the objectives' random numbers apart from those of a network with the same seed."""


def _features(network: Network) -> list[int]:
    """Of each block, per glance."""
    return [cast(int, cast(Any, block).layers[-1].op.out_channels) for block in network.blocks]


def _device(network: Network) -> torch.device:
    return next(network.parameters()).device


def _matrices(steps: int, features: int, contexts: int) -> nn.Parameter:
    """One matrix per number of steps, PyTorch's default U(±1/√fan_in)."""
    return nn.Parameter(torch.stack([default_draw(torch.empty(features, contexts)) for _ in range(steps)]))
