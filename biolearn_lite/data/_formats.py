"""Reading the three file formats of the downloaded sets into tensors, and refusing files that cannot be right.

* IDX (MNIST and its relatives): two zero bytes, a type byte, the number of dimensions, each size as four bytes with the
  highest first, then the values. The header gives the exact length of the file.
* CIFAR: a pickled dictionary per batch, a row of 3072 bytes per image. Opening a pickle can run code, so it is opened
  only after its MD5 was compared.
* STL-10: bare bytes, three colour planes per image, each plane column by column.
"""

import math
import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biolearn_lite.data._files import DataFile

UNSIGNED_BYTE = 8


class Parts(NamedTuple):
    """What a reader returns: (uint8 images (n, C, H, W), int64 labels (n,)) twice, and the names of the classes."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    classes: tuple[str, ...]
    unlabeled_images: Tensor | None = None


def idx(
    files: Sequence[DataFile], *, classes: tuple[str, ...], first_label: int = 0, transposed: bool = False
) -> Parts:
    """Four IDX files: training images and labels, test images and labels.

    Labels count from `first_label`; `transposed` images are stored column by column. Returns images (n, 1, H, W).
    """
    train, test = (
        _idx_pair(*pair, last_label=first_label + len(classes) - 1, first_label=first_label)
        for pair in (files[:2], files[2:])
    )
    if transposed:
        train, test = ((images.mT.contiguous(), labels) for images, labels in (train, test))
    return Parts(train, test, classes)


def _idx_pair(
    images_file: DataFile, labels_file: DataFile, *, first_label: int, last_label: int
) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(read_idx(images_file, dims=3)).unsqueeze(1)
    labels = torch.from_numpy(read_idx(labels_file, dims=1)).long()
    if not 0 < len(labels) == len(images):
        raise labels_file.damaged(f"{len(labels)} labels for {len(images)} images in {images_file.path.name}")
    if labels.min() < first_label or labels.max() > last_label:
        raise labels_file.damaged(f"a label outside {first_label}..{last_label}")
    return images, labels - first_label


def read_idx(file: DataFile, *, dims: int) -> NDArray[np.uint8]:
    """One IDX file of unsigned bytes with `dims` dimensions."""
    content = file.content()
    header, values = content[: 4 + 4 * dims], content[4 + 4 * dims :]
    if len(header) < 4 + 4 * dims or header[:4].tolist() != [0, 0, UNSIGNED_BYTE, dims]:
        raise file.damaged(f"it does not begin as an IDX file of bytes with {dims} dimensions")
    sizes = header[4:].view(">u4").tolist()
    if len(values) != math.prod(sizes):
        raise file.damaged(f"{len(values):,} values where its header promises {math.prod(sizes):,}")
    return values.reshape(sizes)


def cifar10(files: Sequence[DataFile]) -> Parts:
    """Five training batches, a test batch, and the names of the classes."""
    *train, test, meta = (_unpickle(file) for file in files)
    return Parts(_cifar(train, "labels"), _cifar([test], "labels"), tuple(meta["label_names"]))


def cifar100(files: Sequence[DataFile]) -> Parts:
    """One training and one test batch with the 100 fine classes, and their names."""
    train, test, meta = (_unpickle(file) for file in files)
    return Parts(_cifar([train], "fine_labels"), _cifar([test], "fine_labels"), tuple(meta["fine_label_names"]))


def _unpickle(file: DataFile) -> dict[str, Any]:
    entry: dict[str, Any] = pickle.loads(file.content().data, encoding="latin1")
    return entry


def _cifar(batches: list[dict[str, Any]], label_key: str) -> tuple[Tensor, Tensor]:
    images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
    return torch.from_numpy(images), torch.tensor([label for batch in batches for label in batch[label_key]])


STL10_CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


def stl10(files: Sequence[DataFile]) -> Parts:
    """Labelled images for training and testing; the 100,000 unlabelled ones stay on disk until they are touched."""
    *labelled, unlabelled = files
    train_x, train_y, test_x, test_y = (torch.from_numpy(file.content()) for file in labelled)
    size = unlabelled.path.stat().st_size
    if size != unlabelled.check:
        raise unlabelled.damaged(f"{size:,} bytes instead of {unlabelled.check:,}")
    mapped = torch.from_file(str(unlabelled.path), shared=False, size=size, dtype=torch.uint8)
    train, test = (_planes(train_x), train_y.long() - 1), (_planes(test_x), test_y.long() - 1)
    return Parts(train, test, STL10_CLASSES, _planes(mapped))


def _planes(content: Tensor) -> Tensor:
    """(n · 3 · 96 · 96,) bytes, each plane column by column → (n, 3, 96, 96) with rows first."""
    return content.view(-1, 3, 96, 96).transpose(2, 3)
