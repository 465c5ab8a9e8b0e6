"""Encoders: what is kept of learning without labels, and the heads that are thrown away.

An encoder is a row of 3×3 convolutions without bias, each a row of operation, nonlinearity and perhaps max-pooling. To
be taught by pairs of views (`rules.contrastive`), a block needs a small linear *head*, which projects what the block
shows to 64 numbers, where distances are measured. End to end is one block with one head on top; layer by layer, each
block has its own, and the head's gradient is the only thing that ever comes down into it (002, Fig. 4). So the heads'
feedback alone decides how a layer-wise network is taught:

    network = encoder(CIFAR, partition=(1,) * 5)
    objectives = heads(network, (3, 32, 32), contrastive_hinge, feedback="random")

Both views travel in one batch of 2m, all first views above all second ones; a head's objective parts them again. With
`remember_first=True` the first half runs without a graph. The gradients are the same, if the rule stops the first view
anyway; what is saved is a third of the step, and all of that view's memory. What was seen first is no more than
remembered.

`CIFAR`, `STL` and `MNIST` are the encoders of 002, sections 4.1 to 4.3. Where tanh follows a pool in print, it comes
before it here: it rises, so the winner of a pool is the same. Chapters 07 and 08.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast, final

import torch
from torch import Tensor, nn

from biolearn_lite.nets.layers import Conv2d, Layer, Linear
from biolearn_lite.nets.networks import Block, Network


class Stage(NamedTuple):
    """One layer of an encoder: output channels, nonlinearity, and whether max-pooling over 2×2 follows."""

    channels: int
    activation: type[nn.Module] = nn.Identity
    pool: bool = False


CIFAR = (
    Stage(32, nn.Hardtanh),
    Stage(32, pool=True),
    Stage(64, nn.Hardtanh),
    Stage(64, pool=True),
    Stage(512, pool=True),
)
"""002, section 4.1, for 32×32 RGB: 360,288 weights, features (512, 4, 4)."""

STL = tuple(
    Stage(channels, nn.Hardtanh, pool)
    for channels, pool in ((128, False), (256, True), (256, False), (512, True), (1024, True), (1024, True))
)
"""VGG6 of 002, section 4.2, for 64×64 RGB, features (1024, 4, 4); its heads average over 2×2 first. The paper does not
print the nonlinearity; Hardtanh is what the published run used."""

MNIST = (Stage(32, nn.Tanh, True), Stage(64, nn.Tanh, True), Stage(128, nn.Tanh, True))
"""002, section 4.3, for 28×28 gray: features (128, 3, 3)."""


def encoder(
    stages: Sequence[Stage],
    *,
    channels: int = 3,
    partition: Sequence[int] | None = None,
    seed: int = 0,
    feedback: str = "backprop",
    remember_first: bool = False,
) -> Network:
    """A row of 3×3 convolutions that keep the image's size, without bias.

    Args:
        stages: the layers, bottom first: `CIFAR`, `STL`, `MNIST`, or your own. channels: of the images.
        partition: see `Network`. seed: of the initial weights, PyTorch's default U(±1/√fan_in).
        feedback: of every layer, one of `nets.layers.FEEDBACK`; between blocks nothing comes down anyway.
        remember_first: in training, the first of two stacked views runs without a graph; see `MemoryBlock`.
    """
    below = [channels, *(stage.channels for stage in stages)]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [
            Layer(
                Conv2d(width, stage.channels, 3, padding=1, bias=False, feedback=feedback),
                activation=stage.activation(),
                pool=nn.MaxPool2d(2) if stage.pool else None,
            )
            for width, stage in zip(below, stages, strict=False)
        ]
    network = Network(layers, partition)
    if remember_first:
        blocks = [MemoryBlock(list(cast(Any, block).layers)) for block in network.blocks]
        network.blocks = nn.ModuleList(blocks)
    return network


@final
class MemoryBlock(Block):
    """A block that learns from the second of two stacked views, (2m, ...), and only remembers the first.

    In evaluation it is a plain block. Its weights have the same names as a plain block's.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not self.training:
            return super().forward(x)
        first, second = halves(x)
        with torch.no_grad():
            remembered = super().forward(first)
        seen, passed = (torch.cat(pair) for pair in zip(remembered, super().forward(second), strict=True))
        return seen, passed


@final
class PairObjective(nn.Module):
    """The objective of a block that sees both views, stacked: its own head projects them, a rule compares them.

    Args:
        head: from the block's activity (2m, ...) to embeddings (2m, d).
        compare: (a, b) ↦ scalar, as `rules.contrastive.contrastive_hinge` with its options bound, or `nt_xent`.
    """

    def __init__(self, head: nn.Module, compare: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.head, self.compare = head, compare

    def forward(self, seen: Tensor, batch: object = None) -> Tensor:
        return self.compare(*halves(self.head(seen)))


def heads(
    network: Network,
    shape: Sequence[int],
    compare: Callable[[Tensor, Tensor], Tensor],
    *,
    size: int = 64,
    average: int = 1,
    seed: int = 0,
    feedback: str = "backprop",
) -> list[PairObjective]:
    """One objective per block, each with a linear head of its own, without bias.

    Args:
        shape: (C, H, W) of an image. compare: see `PairObjective`.
        size: of the embeddings. average: side of the squares the head averages over first; 2 for `STL`.
        seed: of the heads' weights; the network's own may have the same. feedback: as in `encoder`.
    """
    images = next(network.parameters()).new_zeros(1, *shape)
    training = network.training
    with torch.no_grad():
        activities = network.eval().activities(images)
    network.train(training)
    tops = torch.tensor(network.partition).cumsum(0) - 1
    with torch.random.fork_rng():
        torch.manual_seed(_HEADS + seed)
        return [PairObjective(_head(activities[top], size, average, feedback), compare).to(images) for top in tops]


_HEADS = 7_000_003
"""Keeps the heads' random numbers apart from those of an encoder with the same seed."""


def _head(activity: Tensor, size: int, average: int, feedback: str) -> nn.Module:
    pool = nn.AvgPool2d(average) if average > 1 else nn.Identity()
    features = pool(activity).numel()
    return nn.Sequential(pool, nn.Flatten(), Linear(features, size, bias=False, feedback=feedback))


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """The two views of a batch that holds all first ones above all second ones."""
    if len(x) % 2:
        raise ValueError(f"a batch of {len(x)} is not two views of the same things: stack them, (2m, ...)")
    first, second = x.chunk(2)
    return first, second
