"""`textures`: which of ten pictures is this crop from?

Every crop is 96×96, gray, and cut from one of ten pictures that come with scikit-image; its label is the picture. A
vertical line at 65 % of the width divides each picture: training crops lie left of it, test crops right of it, so that
no pixel is in both parts and the two parts show different things: a classifier must learn the texture, not the place.
Neighbouring crops of one part overlap; there are far fewer independent ones than crops.

Only PNG files are used (decoded alike everywhere, so the data set is the same to the last bit), only those whose terms
of use are stated (data/README.md), and they are read from the installed package itself: nothing is ever fetched. All
are turned gray: half are gray already, and colour alone would tell the two kinds apart.
"""

from importlib import resources

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biolearn_lite.data._formats import Parts

PICTURES = {
    "astronaut": "astronaut.png",
    "brick": "brick.png",
    "camera": "camera.png",
    "cat": "chelsea.png",
    "cell": "cell.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "tissue": "ihc.png",
}
SIDE = 96
TRAIN_SHARE = 0.65
TRAIN_GRID = (16, 10)
TEST_GRID = (10, 5)


def read() -> Parts:
    """160 training and 50 test crops of each picture: uint8 (1600, 1, 96, 96) and (500, 1, 96, 96)."""
    train, test = [], []
    for file in PICTURES.values():
        gray = picture(file)
        line = int(TRAIN_SHARE * gray.shape[1])
        train.append(crops(gray[:, :line], *TRAIN_GRID))
        test.append(crops(gray[:, line:], *TEST_GRID))
    return Parts(_labelled(train), _labelled(test), tuple(PICTURES))


def picture(file: str) -> NDArray[np.uint8]:
    """A picture of the installed scikit-image as gray levels (H, W)."""
    from PIL import Image

    with resources.files("skimage").joinpath("data", file).open("rb") as stream:
        return np.asarray(Image.open(stream).convert("L"))


def crops(gray: NDArray[np.uint8], rows: int, columns: int) -> Tensor:
    """A grid of rows × columns crops, spread evenly from edge to edge: (rows · columns, 1, 96, 96)."""
    tops, lefts = (
        np.linspace(0, size - SIDE, count).round().astype(int)
        for size, count in zip(gray.shape, (rows, columns), strict=True)
    )
    windows = np.lib.stride_tricks.sliding_window_view(gray, (SIDE, SIDE))
    return torch.from_numpy(windows[tops[:, None], lefts].reshape(-1, 1, SIDE, SIDE))


def _labelled(per_class: list[Tensor]) -> tuple[Tensor, Tensor]:
    counts = torch.tensor([len(images) for images in per_class])
    return torch.cat(per_class), torch.arange(len(per_class)).repeat_interleave(counts)
