"""Crops: the same picture, seen from places a few pixels apart.

A locally connected network learns at every position only what it sees there. The plain cure is to move every picture
about, so that each position sees everything (004, section 3: data translation). How fast it works depends on how many
places a picture is seen from per step:

    fit(network, ..., Crops(pictures, size=(32, 32), reach=4, copies=8), labels, batch_size=64, ...)

takes 64 pictures per step and shows 8 random crops of each, 512 images in all. To compare like with like, images per
step stay the same: with n copies, give the n-th part of the batch size. An epoch then has n times as many steps.
Chapters 13 and 14.
"""

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from biolearn_lite.data.drawn import Drawn


@final
class Crops(Drawn):
    """A data set that crops its pictures anew whenever it is asked for some.

    Args:
        pictures: (n, C, H, W), as networks see them, with a margin around the middle that crops can reach.
        size: height and width of a crop. reach: the greatest distance of a crop from the middle, in each direction.
        copies: crops per picture.

    `crops[index]` is (copies · m, C, *size), all first copies above all second ones; labels stay m. Raises: ValueError.
    """

    def __init__(self, pictures: Tensor, *, size: tuple[int, int], reach: int, copies: int = 1) -> None:
        if copies < 1 or reach < 0:
            raise ValueError(f"copies={copies} must be at least 1, reach={reach} at least 0")
        crop(pictures[:1], size, down=reach, right=reach)
        super().__init__(pictures)
        self.size, self.reach, self.copies = size, reach, copies

    def __getitem__(self, index: Tensor) -> Tensor:
        height, width = (length + 2 * self.reach for length in self.size)
        reached = crop(self.images[index], (height, width))
        return anywhere(reached.repeat(self.copies, 1, 1, 1), self.size)


def anywhere(pictures: Tensor, size: tuple[int, int], *, generator: torch.Generator | None = None) -> Tensor:
    """A piece of each picture (m, C, H, W), all places equally likely: (m, C, *size). Raises: ValueError."""
    crop(pictures[:1], size)
    room = torch.tensor(pictures.shape[2:]) - torch.tensor(size)
    uniform = torch.rand(len(pictures), 2, generator=generator, dtype=torch.float64)
    top, left = (uniform * (room + 1)).long().to(pictures.device).unbind(1)
    places = pictures.unfold(2, size[0], 1).unfold(3, size[1], 1)
    return places[torch.arange(len(pictures), device=pictures.device), :, top, left]


def crop(pictures: Tensor, size: tuple[int, int], *, down: int = 0, right: int = 0) -> Tensor:
    """The middle of pictures (m, C, H, W), or what lies `down` and `right` of it: (m, C, *size), a view.

    Negative numbers mean up and left. Raises: ValueError where the pictures end.
    """
    if pictures.dim() != 4:
        raise ValueError(f"pictures have shape {tuple(pictures.shape)}: expected (m, C, H, W)")
    top, left = (
        (have - want) // 2 + by for have, want, by in zip(pictures.shape[2:], size, (down, right), strict=True)
    )
    bottom, end = top + size[0], left + size[1]
    if min(top, left, *size) < 0 or bottom > pictures.shape[2] or end > pictures.shape[3]:
        raise ValueError(
            f"crops of {size[0]} × {size[1]}, {down} down and {right} right of the middle, do not fit into pictures of "
            f"shape {tuple(pictures.shape)}: give them a margin (`framed`)"
        )
    return pictures[:, :, top:bottom, left:end]


def framed(pictures: Tensor, side: int, *, fill: float = 0.0) -> Tensor:
    """Pictures (m, C, H, W) as squares of this side: the middle of larger ones, smaller ones in a frame of `fill`."""
    missing = [side - length for length in (pictures.shape[3], pictures.shape[2])]
    frame = [part for total in missing for part in (total // 2, total - total // 2)]
    return F.pad(pictures, frame, value=fill)
