"""Glances: a still image as what an eye sees of it, one patch after the other.

A wandering eye sees a sequence, and neighbouring moments belong together. An image has no time, so 003 (appendix B.1,
after CPC and Greedy InfoMax) makes some: a crop of 64×64 is cut into 7×7 patches of 16×16 that overlap by half, and
time runs down each column, one patch per step. A sequence is a column; an image is seven of them.

    glances = Glances(images)                # images: uint8 (n, C, 96, 96)
    fit(network, objectives, glances, labels, ...)

Every patch is an image of its own for the network: a batch of m images is 49 m patches, in the order image, column,
row. All is done by views and one copy, a batch at a time.

`Strips` is the same in small, for tests and quick runs: columns of handwritten digits of one class. Beware: within a
strip the class never changes, so what can be predicted of the next digit is its class. Labels choose what is seen, and
nothing learned there is learned without them. The eye that stays on one thing has the same advantage, and for the same
reason: things last.
"""

from typing import final

import torch
from torch import Tensor

from biolearn_lite.data import colours, views
from biolearn_lite.data.crops import anywhere, crop
from biolearn_lite.data.drawn import Drawn

GRAY_STL = (0.4120, 0.2570)
"""Mean and deviation of gray pixels (0 to 1), as the published run scales them."""


def patches(images: Tensor, *, side: int = 16, stride: int = 8) -> Tensor:
    """All patches of each image, a view: (m, columns, rows, C, side, side) of (m, C, H, W), from the top left.

    `patches(...)[:, j, i]` starts at pixel (i · stride, j · stride): time, the third axis, runs down the columns. What
    is left at the right and below is dropped. Raises: ValueError.
    """
    if images.dim() != 4 or stride < 1 or not 1 <= side <= min(images.shape[-2:]):
        raise ValueError(f"side={side} and stride={stride} do not cut images of shape {tuple(images.shape)}: (m,C,H,W)")
    return images.unfold(2, side, stride).unfold(3, side, stride).permute(0, 3, 2, 1, 4, 5)


def mirror(images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Each image, or with probability one half its mirror image."""
    coin = torch.rand(len(images), generator=generator).to(images.device) < 0.5
    return torch.where(colours.each(coin), images.flip(-1), images)


@final
class Glances(Drawn):
    """A data set that shows images as gray patches.

    Args:
        images: (n, C, H, W), uint8 with values 0..white, or floats from 0 to 1; gray, or RGB, which is turned gray.
        side: of the crop. patch, stride: as in `patches`.
        still: crop the middle and mirror nothing, for measuring; else both are left to chance.
        mean, std: of gray pixels scaled to 0..1.

    `glances[index]` is (m · columns · rows, 1, patch, patch). Source: 003, appendix B.1; sizes as published.
    """

    def __init__(
        self,
        images: Tensor,
        *,
        side: int = 64,
        patch: int = 16,
        stride: int = 8,
        still: bool = False,
        white: int = 255,
        mean: float = GRAY_STL[0],
        std: float = GRAY_STL[1],
    ) -> None:
        super().__init__(images)
        self.side, self.patch, self.stride = side, patch, stride
        self.still, self.white, self.mean, self.std = still, white, mean, std
        views.to_pixels(images[:1], white=white)  # raises where images are none
        if not patch <= side <= min(images.shape[2:]):
            raise ValueError(f"side={side}: give one from {patch}, a patch, to {min(images.shape[2:])}, the images")
        columns, rows = patches(images[:1, :, :side, :side], side=patch, stride=stride).shape[1:3]
        self.grid = (columns, rows)

    def __getitem__(self, index: Tensor) -> Tensor:
        size = self.side, self.side
        seen = (crop if self.still else anywhere)(self.images[index], size)
        gray = colours.luminance(views.to_pixels(seen, white=self.white))
        gray = (gray if self.still else mirror(gray)).sub(self.mean).div_(self.std)
        return patches(gray, side=self.patch, stride=self.stride).flatten(0, 2)


@final
class Strips(Drawn):
    """Columns of things of one class.

    Args:
        images: (n, C, H, W), as in `Glances`. labels: (n,). The i-th strip is made of things of the i-th one's class.
        grid: columns and rows. deform: reach of the linear map and of the shift that each thing undergoes, see
            `views.Deform`.

    `strips[index]` is (m · columns · rows, C, H, W), pixels from -1 to 1; things and deformations are drawn anew every
    time.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, *, grid: tuple[int, int] = (2, 6), deform: float = 0.15, white: int = 255
    ) -> None:
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images and {len(labels)} labels: give one label per image")
        super().__init__(views.to_pixels(images, white=white))
        self.labels, self.grid, self.deform = labels, grid, deform
        self.by_class = labels.argsort(stable=True)
        self.counts = labels.bincount()
        self.starts = self.counts.cumsum(0) - self.counts

    def __getitem__(self, index: Tensor) -> Tensor:
        y = self.labels[index].unsqueeze(1)
        uniform = torch.rand(len(index), self.grid[0] * self.grid[1]).to(y.device)
        member = self.starts[y] + (uniform * self.counts[y]).long()
        return deformed(self.images[self.by_class[member.flatten()]], reach=self.deform)


def deformed(pixels: Tensor, *, reach: float = 0.15, generator: torch.Generator | None = None) -> Tensor:
    """Each image (m, C, H, W), pixels from 0 to 1, mapped by I + U(±reach) and shifted by U(±reach) half images: pixels
    from -1 to 1."""
    world = views.Deform(linear=reach, shift=reach, share=1.0, mirror=0.0)
    return world.draw(pixels, generator=generator).apply(pixels).mul(2).sub_(1)
