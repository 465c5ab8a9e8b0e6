"""TinyImageNet: 200 classes of ImageNet at 64×64, from a folder that you have.

Nothing is downloaded. `load` looks for `tiny-imagenet-200`, the archive's own folder, in the folder of the other data
sets (`data.sets.folder`), decodes 110,000 files once, and keeps the pixels beside it for the next time. Its test images
have no labels, so its validation images are the test images here, as in 004. Chapters 13 to 15.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from biolearn_lite.data import sets

FOLDER, SIDE = "tiny-imagenet-200", 64
KEPT = "biolearn-pixels.pt"


def load(root: str | os.PathLike[str] | None = None) -> sets.DataSet:
    """The whole set. Raises: FileNotFoundError, if the folder is not there or not whole."""
    folder = (Path(root) if root is not None else sets.folder()) / FOLDER
    if not (folder / "wnids.txt").is_file():
        raise FileNotFoundError(f"{folder} has no wnids.txt: unpack tiny-imagenet-200.zip there, or set BIOLEARN_DATA")
    classes = tuple((folder / "wnids.txt").read_text().split())
    if not (folder / KEPT).is_file():
        torch.save([*_train(folder, classes), *_validation(folder, classes)], folder / KEPT)
    x, y, x_test, y_test = torch.load(folder / KEPT, weights_only=True)
    return sets.DataSet("tinyimagenet", x, y, x_test, y_test, classes, mean=sets.RGB_HALF, std=sets.RGB_HALF)


def _train(folder: Path, classes: Sequence[str]) -> tuple[Tensor, Tensor]:
    files = [sorted((folder / "train" / name / "images").glob("*.JPEG")) for name in classes]
    labels = torch.arange(len(classes)).repeat_interleave(torch.tensor([len(each) for each in files]))
    return _decoded([file for each in files for file in each]), labels


def _validation(folder: Path, classes: Sequence[str]) -> tuple[Tensor, Tensor]:
    lines = [line.split("\t") for line in (folder / "val" / "val_annotations.txt").read_text().splitlines()]
    images = _decoded([folder / "val" / "images" / line[0] for line in lines])
    return images, torch.tensor([classes.index(line[1]) for line in lines])


def _decoded(files: Sequence[Path]) -> Tensor:
    """(n, 3, 64, 64), uint8; gray pictures in three equal channels."""
    from PIL import Image

    if not files:
        raise FileNotFoundError(f"no pictures in {FOLDER}: its folders are not whole, unpack it again")
    pixels = np.empty((len(files), SIDE, SIDE, 3), np.uint8)
    for place, file in zip(pixels, files, strict=True):
        with Image.open(file) as picture:
            place[:] = np.asarray(picture.convert("RGB"))
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
