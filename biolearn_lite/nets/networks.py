"""Networks: a row of layers, and a partition of the row into blocks.

A block is a piece of network with its own scalar; no gradient crosses its edge. The same four layers can be one block
(end to end, what backprop trains), four blocks (layer by layer), or anything between: `(4,)`, `(1, 1, 1, 1)` and
`(3, 1)` hold the same weights and compute the same function. Only what a weight hears about differs.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from biolearn_lite.nets.layers import Conv2d, Feedback, Layer, Linear
from biolearn_lite.rules.feedback import alignment_angle


class Block(nn.Module):
    """Consecutive layers that learn from one scalar.

    Returns `(seen, passed)`: what the block's objective sees, with its graph, and what the next block receives,
    without one.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        *below, top = cast(Sequence[Layer], self.layers)
        for layer in below:
            x = layer.after(layer.activity(x))
        seen = top.activity(x)
        return seen, top.after(seen.detach())


class Network(nn.Module):
    """A row of layers cut into blocks.

    Args:
        layers: the layers, bottom first.
        partition: how many layers each block takes, bottom first; their sum is `len(layers)`. Default: one block.

    Raises:
        ValueError: if the partition does not add up to the number of layers.
    """

    def __init__(self, layers: Sequence[Layer], partition: Sequence[int] | None = None) -> None:
        super().__init__()
        partition = (len(layers),) if partition is None else tuple(partition)
        if sum(partition) != len(layers) or min(partition, default=0) < 1:
            raise ValueError(f"partition {partition} must be positive and add up to the {len(layers)} layers")
        rest = iter(layers)
        self.partition = partition
        self.blocks = nn.ModuleList(Block([next(rest) for _ in range(size)]) for size in partition)

    def forward(self, x: Tensor) -> Tensor:
        """Activity of the top layer, with gradients through all blocks."""
        return self.activities(x)[-1]

    def activities(self, x: Tensor) -> list[Tensor]:
        """Activity of every layer, bottom first, as its objective would see it."""
        seen = []
        for layer in self.layers:
            seen.append(layer.activity(x))
            x = layer.after(seen[-1])
        return seen

    @contextmanager
    def exact_feedback(self) -> Iterator[None]:
        """While it lasts, every layer sends its error down through its forward weights, as backprop does."""
        wires = [module for module in self.modules() if isinstance(module, Feedback)]
        for wire in wires:
            wire.exact = True
        try:
            yield
        finally:
            for wire in wires:
                wire.exact = False

    @property
    def layers(self) -> list[Layer]:
        """All layers, bottom first."""
        return [cast(Layer, layer) for block in self.blocks for layer in cast(Block, block).layers]


Objective = Callable[[Tensor, Any], Tensor]


def layer_gradients(network: Network, objectives: Sequence[Objective], batch: Any) -> list[Tensor]:
    """Gradient of every layer's weight, bottom first, from the objective of its block and with the feedback it has.

    Args:
        objectives: one per block, `objective(seen, batch)`. batch: has `inputs`.

    Nothing is changed: the network is in evaluation mode meanwhile, and no `grad` is touched.
    """
    training, x = network.training, batch.inputs
    gradients: list[Tensor] = []
    network.eval()
    for block, objective in zip(network.blocks, objectives, strict=True):
        seen, x = block(x)
        weights = [_weight(cast(Layer, layer)) for layer in cast(Block, block).layers]
        gradients += torch.autograd.grad(objective(seen, batch), weights)
    network.train(training)
    return gradients


def _weight(layer: Layer) -> nn.Parameter:
    """The weight of a layer's operation; batch norm behind it has only vectors."""
    return next(parameter for parameter in layer.op.parameters() if parameter.dim() > 1)


def alignment(network: Network, objectives: Sequence[Objective], batch: Any) -> list[float]:
    """Angle of every layer's gradient to backprop's at the same weights, bottom first, in degrees."""
    with network.exact_feedback():
        exact = layer_gradients(network, objectives, batch)
    sent = layer_gradients(network, objectives, batch)
    return [alignment_angle(u, v) for u, v in zip(sent, exact, strict=True)]


def mlp(
    sizes: Sequence[int],
    *,
    activation: nn.Module,
    after: Callable[[], nn.Module] = nn.Identity,
    partition: Sequence[int] | None = None,
    seed: int = 0,
    feedback: str = "backprop",
) -> Network:
    """Dense layers without bias under a linear readout with bias, as in 001, section 5.1.

    Args:
        sizes: features of the input, of one hidden layer or more, and of the readout. Inputs are (m, sizes[0]), so
            flatten images first.
        activation: pointwise nonlinearity of the hidden layers.
        after: makes what stands between a hidden layer's objective and the next layer (normalization, dropout).
        partition: see `Network`; the readout counts as a layer.
        seed: of the initial weights, PyTorch's default U(±1/√fan_in).
        feedback: of every layer, one of `nets.layers.FEEDBACK`.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = _dense(sizes, activation=activation, after=after, batch_norm=False, feedback=feedback)
    return Network(layers, partition)


def vgg(
    *,
    shape: tuple[int, int, int] = (3, 32, 32),
    channels: Sequence[int] = (128, 256, 256, 512, 512, 512),
    pooled: Collection[int] = (1, 3, 4, 5),
    hidden: Sequence[int] = (1024,),
    classes: int = 10,
    activation: nn.Module,
    batch_norm: bool = False,
    after: Callable[[], nn.Module] = nn.Identity,
    partition: Sequence[int] | None = None,
    seed: int = 0,
    feedback: str = "backprop",
) -> Network:
    """3×3 convolutions that keep the image's size, under dense layers; the defaults are 001's net, section 5.3.

    Args:
        shape: channels, height and width of an image.
        channels: of the convolutions, bottom first; its net "2x" has twice as many.
        pooled: which convolutions (counted from 0) end in max-pooling over squares of side 2, before their objective.
        hidden: units of the dense layers under the readout.
        batch_norm: between operation and nonlinearity, in every layer but the readout.
        The others as in `mlp`; `after` works on images, and they are flattened behind it.
    """
    below, height, width = shape
    side = 2 ** len(pooled)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = []
        for i, here in enumerate(channels):
            op: nn.Module = Conv2d(below, here, 3, padding=1, bias=False, feedback=feedback)
            op = nn.Sequential(op, nn.BatchNorm2d(here)) if batch_norm else op
            pool = nn.MaxPool2d(2) if i in pooled else None
            layers.append(Layer(op, activation=activation, pool=pool, after=after()))
            below = here
        layers[-1].after = nn.Sequential(layers[-1].after, nn.Flatten())
        sizes = (below * (height // side) * (width // side), *hidden, classes)
        layers += _dense(sizes, activation=activation, after=after, batch_norm=batch_norm, feedback=feedback)
    return Network(layers, partition)


def _dense(
    sizes: Sequence[int], *, activation: nn.Module, after: Callable[[], nn.Module], batch_norm: bool, feedback: str
) -> list[Layer]:
    """Hidden layers without bias, and a linear readout with one."""
    if len(sizes) < 3:
        raise ValueError(
            f"sizes={tuple(sizes)}: give those of the input, of one hidden layer or more, and of the readout"
        )
    *hidden, top, out = sizes
    layers = []
    for below, here in zip(hidden, [*hidden[1:], top], strict=True):
        op: nn.Module = Linear(below, here, bias=False, feedback=feedback)
        op = nn.Sequential(op, nn.BatchNorm1d(here)) if batch_norm else op
        layers.append(Layer(op, activation=activation, after=after()))
    return [*layers, Layer(Linear(top, out, feedback=feedback))]
