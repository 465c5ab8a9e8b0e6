"""A few layers of 3×3 under a readout, with copied weights or without, on a sheet of any shape.

The smallest network that shows what copying is for (chapter 13). Black is silence: nothing has a bias but the readout,
so an empty sheet gets no answer from any layer and its borders none either. And what the layers find is handed up as
the largest response of each channel anywhere on the sheet, so the readout does not know where it was. Copied weights
(`local=False`) then make the network blind to where a picture stands, exactly, as long as nothing of it falls off.

`local=True` begins with the very same weights, at each position its own. So the two differ in nothing but learning.
"""

from collections.abc import Sequence

import torch
from torch import nn

from biolearn_lite.nets.layers import Conv2d, Layer, Linear, LocallyConnected2d
from biolearn_lite.nets.networks import Network

READOUTS = ("largest", "every place")


def stack(
    shape: tuple[int, int, int],
    channels: Sequence[int],
    *,
    local: bool = False,
    pool: int = 1,
    readout: str = "largest",
    classes: int = 10,
    seed: int = 0,
) -> Network:
    """Layers of 3×3 and tanh that keep the sheet's size, as one block with its readout.

    Args:
        shape: channels, height and width of a sheet. channels: of the layers, bottom first.
        local: whether every position has weights of its own, at birth the convolution's.
        pool: side of the squares of max-pooling between two layers, which must fit the sheet. readout: of the "largest"
            response of each channel, or of all channels at "every place".

    Raises: ValueError.
    """
    below, height, width = shape
    if readout not in READOUTS:
        raise ValueError(f"readout={readout!r}: choose from {', '.join(map(repr, READOUTS))}")
    side = pool ** (len(channels) - 1)
    if pool < 1 or not channels or height % side or width % side:
        raise ValueError(f"pool={pool} between layers of channels={tuple(channels)} does not fit the sheet {shape}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = []
        for depth, here in enumerate(channels):
            op = _layer(below, here, (height // pool**depth, width // pool**depth), local)
            layers.append(Layer(op, activation=nn.Tanh(), pool=nn.MaxPool2d(pool)))
            below = here
        layers[-1].pool = nn.AdaptiveMaxPool2d(1) if readout == "largest" else nn.Identity()
        layers[-1].after = nn.Flatten()
        places = 1 if readout == "largest" else height * width // side**2
        return Network([*layers, Layer(Linear(below * places, classes))])


def _layer(below: int, here: int, size: tuple[int, int], local: bool) -> nn.Module:
    """N(0, 2 / (channels · kernel area)), drawn once."""
    convolution = Conv2d(below, here, 3, padding=1, bias=False)
    nn.init.normal_(convolution.weight, std=(2 / (here * 9)) ** 0.5)
    if not local:
        return convolution
    with torch.random.fork_rng():
        uncopied = LocallyConnected2d(below, here, 3, input_size=size, padding=1)
    uncopied.weight.data.copy_(convolution.weight)  # to every position
    return uncopied
