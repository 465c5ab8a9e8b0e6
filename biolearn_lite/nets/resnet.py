"""ResNet20, with copied weights or without: one network, one choice.

A stem of 16 channels, three stages of three blocks with 16, 32 and 64, and a readout of averages over all positions. A
*block* is two layers of 3×3 beside a shortcut; where a stage begins, its first layer and a 1×1 layer on the shortcut
take every second position. Batch norm stands behind every layer, and nothing has a bias but the readout.

`local=False` is the convolutional network, with 272,474 weights. With `local=True` all 21 layers of it, the 1×1 ones
too, are locally connected, and there are 40,814,762. Both begin with N(0, 2 / (channels · kernel area)), drawn once per
layer or once per position, as published (004, section 5). Not made local: batch norm, whose statistics and scales still
belong to whole maps, and the readout.

`share` is a night of sleep in one step, `drift` says how far the neurons went apart since. Chapters 13 to 15.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

from biolearn_lite.nets.layers import BatchNorm2d, Conv2d, Layer, Linear, LocallyConnected2d
from biolearn_lite.nets.networks import Network
from biolearn_lite.rules.weight_sharing import modules, share_instantly, weight_snr

Connect = Callable[[int, int, int, int, int], nn.Module]
"""(channels below, channels here, kernel, side of the map below, stride) ↦ a layer with its batch norm."""


def resnet(
    *,
    shape: tuple[int, int, int] = (3, 32, 32),
    channels: Sequence[int] = (16, 32, 64),
    blocks: int = 3,
    classes: int = 10,
    local: bool = False,
    seed: int = 0,
) -> Network:
    """A residual network as one block; the defaults are ResNet20.

    Args:
        shape: channels, height and width of an image, which must be square. channels: of each stage; only the first
            keeps the map's size. blocks: per stage. local: whether every position has weights of its own.

    Raises: ValueError.
    """
    below, height, width = shape
    if height != width or not channels or blocks < 1:
        raise ValueError(f"shape={shape}, channels={channels}, blocks={blocks}: give squares, a stage, and a block")
    connect, relu = _local if local else _convolution, nn.ReLU()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        side = height
        layers = [Layer(connect(below, channels[0], 3, side, 1), activation=relu)]
        for stage, (below, here) in enumerate(pairwise((channels[0], *channels))):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                layers.append(Layer(Residual(connect, here if block else below, here, side, stride), activation=relu))
                side = (side - 1) // stride + 1
        layers[-1].after = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return Network([*layers, Layer(Linear(channels[-1], classes))])


@final
class Residual(nn.Module):
    """Two 3×3 layers, and a shortcut around them, added up; the nonlinearity behind the sum is the `Layer`'s."""

    def __init__(self, connect: Connect, below: int, here: int, side: int, stride: int) -> None:
        super().__init__()
        smaller = (side - 1) // stride + 1
        self.body = nn.Sequential(connect(below, here, 3, side, stride), nn.ReLU(), connect(here, here, 3, smaller, 1))
        changed = below != here or stride > 1
        self.shortcut = connect(below, here, 1, side, stride) if changed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.body(x) + self.shortcut(x)
        return total


def locally_connected(network: nn.Module) -> list[LocallyConnected2d]:
    """The locally connected layers of a network, bottom first."""
    return [module for module in network.modules() if isinstance(module, LocallyConnected2d)]


def share(network: nn.Module) -> None:
    """Give all neurons of a module the mean of their weights, in every locally connected layer.

    Source: 004, section 5: grids with the step of the layer's kernel, so a 1×1 layer becomes a convolution.
    """
    for layer in locally_connected(network):
        share_instantly(layer.weight, layer.operation.kernel_size)


@torch.no_grad()
def drift(network: nn.Module) -> list[Tensor]:
    """-log SNR of the weights of every locally connected layer: the higher, the further its neurons are apart.

    The SNR of a layer is the mean over its modules of at least two neurons. Source: 004, Eq. 6, Fig. 6.
    """
    return [-_snr(layer).log() for layer in locally_connected(network)]


def _snr(layer: LocallyConnected2d) -> Tensor:
    parts = [part for part in modules(layer.weight, layer.operation.kernel_size) if len(part) > 1]
    if not parts:
        raise ValueError(f"{layer}: its map is too small for its kernel, no two neurons share their weights")
    return torch.stack([weight_snr(part) for part in parts]).mean()


def _local(below: int, here: int, kernel: int, side: int, stride: int) -> nn.Module:
    layer = LocallyConnected2d(below, here, kernel, input_size=side, stride=stride, padding=kernel // 2)
    return nn.Sequential(layer, BatchNorm2d(here))


def _convolution(below: int, here: int, kernel: int, side: int, stride: int) -> nn.Module:
    layer = Conv2d(below, here, kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.normal_(layer.weight, std=(2 / (here * kernel**2)) ** 0.5)
    return nn.Sequential(layer, nn.BatchNorm2d(here))
