"""Imagenette at 96×96: ten easy classes of ImageNet, a stand-in for STL-10 where that cannot be had.

Like STL-10 it shows single things in colour at 96×96; unlike it, it has no 100,000 images without labels, but 9,469
with them, and a number measured on it is never a number on STL-10. Nothing is downloaded. `load` looks for
`imagenette-96/{train,val}/<class>/*` in the folder of the other data sets (`data.sets.folder`), images in any format
that Pillow reads, already 96×96. Chapter 10.
"""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from biolearn_lite.data import sets

FOLDER, SIDE = "imagenette-96", 96


def load(*, root: str | os.PathLike[str] | None = None, device: torch.device | str = "cpu") -> sets.DataSet:
    """The whole set, its validation images as test images. Raises: FileNotFoundError, ValueError: another size."""
    folder = (Path(root) if root is not None else sets.folder()) / FOLDER
    classes = tuple(sorted(path.name for path in (folder / "train").glob("*") if path.is_dir()))
    if not classes:
        raise FileNotFoundError(
            f"{folder / 'train'} has no classes: put Imagenette at 96×96 there, or set BIOLEARN_DATA"
        )
    parts = [part.to(device) for split in ("train", "val") for part in _part(folder / split, classes)]
    x, y, x_test, y_test = parts
    return sets.DataSet("imagenette", x, y, x_test, y_test, classes, sets.RGB_HALF, sets.RGB_HALF)


def _part(folder: Path, classes: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    files = [sorted((folder / name).glob("*")) for name in classes]
    if not all(files):
        raise FileNotFoundError(f"{folder} has no images of {classes[[bool(f) for f in files].index(False)]}")
    labels = torch.arange(len(classes)).repeat_interleave(torch.tensor([len(each) for each in files]))
    return _decoded([file for each in files for file in each]), labels


def _decoded(files: list[Path]) -> Tensor:
    """(n, 3, 96, 96), uint8."""
    from PIL import Image

    pixels = np.empty((len(files), SIDE, SIDE, 3), np.uint8)
    for place, file in zip(pixels, files, strict=True):
        with Image.open(file) as picture:
            if picture.size != (SIDE, SIDE):
                raise ValueError(f"{file} is {picture.size}: resize the images to {SIDE}×{SIDE} first")
            place[:] = np.asarray(picture.convert("RGB"))
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
