"""Data sets by name, each as a few whole tensors.

    digits = sets.load("digits")            # bundled: no network, no folder
    x, y = digits.train()                   # float32 (1347, 1, 8, 8) and int64 (1347,)

The sets of this book are small enough to live in memory whole, on the device that trains. So a set is four tensors,
not a loader: images stay uint8, a batch is an index, and views and deformations are batched tensor operations. Pixels
become numbers around zero in one place, `DataSet.inputs`, with the constants of one table, `CARDS`.

Two sets are bundled (`digits`, `textures`) and are the default everywhere offline. The others are read from the folder
`folder()` names, after comparing checksums, and downloaded there on first use. Where each comes from, its licence and
how to cite it: data/README.md.

Two ways to hold data back. `validation_split` is for choosing rates: it puts some of the training images in place of
the test images, so that a search cannot see the test set even by mistake. `subset` is for few labels or little time.
Both draw with NumPy's RandomState, whose numbers are frozen for good: a seed means the same images everywhere.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from biolearn_lite.data import _files, _formats, textures
from biolearn_lite.data._files import DataFile, folder
from biolearn_lite.data._formats import Parts

__all__ = ["CARDS", "Card", "DataSet", "available", "folder", "load"]

DIGIT_NAMES = tuple("0123456789")
LETTER_NAMES = tuple("abcdefghijklmnopqrstuvwxyz")
FASHION_NAMES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
KMNIST_NAMES = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
DIGITS_TEST = 450


@dataclass(frozen=True, eq=False, repr=False)
class DataSet:
    """A whole data set: uint8 images (n, C, H, W) with values 0..white, int64 labels (n,), names of the classes.

    mean, std: per channel, of pixels scaled to 0..1; what `inputs` subtracts and divides by.
    unlabeled_images: STL-10 only, (100000, 3, 96, 96), read from disk as they are touched.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    white: int = 255
    unlabeled_images: Tensor | None = None

    def __repr__(self) -> str:
        size = " × ".join(str(n) for n in self.shape)
        return (
            f"{self.name}: {len(self.train_labels):,} training and {len(self.test_labels):,} test images, "
            f"{size}, {len(self.classes)} classes"
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of one image."""
        return tuple(self.train_images.shape[1:])

    def train(self) -> tuple[Tensor, Tensor]:
        """Training inputs, float32 (n, C, H, W), and labels (n,)."""
        return self.inputs(self.train_images), self.train_labels

    def test(self) -> tuple[Tensor, Tensor]:
        """Test inputs, float32 (n, C, H, W), and labels (n,)."""
        return self.inputs(self.test_images), self.test_labels

    def inputs(self, images: Tensor) -> Tensor:
        """(images / white − mean) / std, float32: uint8 images (..., C, H, W) of this set as a network sees them."""
        if images.dtype != torch.uint8:
            raise TypeError(f"images are {images.dtype}; give uint8 images with values 0..{self.white}")
        if images.ndim < 3 or images.shape[-3] != len(self.mean):
            raise ValueError(f"images have shape {tuple(images.shape)}; give (..., {len(self.mean)}, H, W)")
        mean, std = (torch.tensor(v, dtype=torch.float32, device=images.device) for v in (self.mean, self.std))
        return images.float().div_(self.white).sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1))

    def validation_split(self, fraction: float = 0.1, *, seed: int = 0) -> "DataSet":
        """The same set with a random part of its training images in place of the test images.

        With the defaults this is the split of papers 001 and 004: a permutation by RandomState(0), its first tenth
        held out. Raises ValueError if either part would be empty.
        """
        n = len(self.train_labels)
        held_out = round(n * fraction)
        if not 0 < held_out < n:
            raise ValueError(f"fraction = {fraction} of {n} training images leaves a part empty; give one in (0, 1)")
        order = torch.from_numpy(np.random.RandomState(seed).permutation(n))
        out, kept = order[:held_out].sort().values, order[held_out:].sort().values
        return replace(
            self._select_train(kept),
            name=f"{self.name} (validation split)",
            test_images=self.train_images[out],
            test_labels=self.train_labels[out],
        )

    def subset(self, train: int, test: int | None = None, *, seed: int = 0) -> "DataSet":
        """The same set with fewer images, every class keeping its share to within one; `test=None` keeps all of them.

        Raises ValueError if there are not that many.
        """
        part = self._select_train(_share(self.train_labels, train, seed=seed, argument="train"))
        if test is None:
            return part
        index = _share(self.test_labels, test, seed=seed, argument="test")
        return replace(part, test_images=self.test_images[index], test_labels=self.test_labels[index])

    def _select_train(self, index: Tensor) -> "DataSet":
        return replace(self, train_images=self.train_images[index], train_labels=self.train_labels[index])


def _share(labels: Tensor, count: int, *, seed: int, argument: str) -> Tensor:
    """`count` indices, ascending: shuffle, sort by class, then take evenly spaced ones, so no class is favoured."""
    n = len(labels)
    if not 0 < count <= n:
        raise ValueError(f"{argument} = {count}; give a number of images in 1..{n}")
    order = torch.from_numpy(np.random.RandomState(seed).permutation(n))
    by_class = order[labels.cpu()[order].sort(stable=True).indices]
    return by_class[torch.arange(count) * n // count].sort().values


@dataclass(frozen=True)
class Card:
    """How one set is read from its files, and the constants that scale its pixels."""

    read: Callable[[Sequence[DataFile]], Parts]
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    white: int = 255


def _digits(_: Sequence[DataFile]) -> Parts:
    """scikit-learn's 1,797 digits; 450 of them, equally many of each class, are the test images."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images.astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    test = torch.zeros(len(labels), dtype=torch.bool)
    test[_share(labels, DIGITS_TEST, seed=0, argument="test")] = True
    return Parts((images[~test], labels[~test]), (images[test], labels[test]), DIGIT_NAMES)


def _textures(_: Sequence[DataFile]) -> Parts:
    return textures.read()


RGB_HALF = (0.5, 0.5, 0.5)

# One line per set. Mean and deviation ½ put pixels in −1..1 (001, 002); CIFAR-10's are those of 001.
CARDS: dict[str, Card] = {
    "digits": Card(_digits, white=16),
    "textures": Card(_textures),
    "mnist": Card(partial(_formats.idx, classes=DIGIT_NAMES)),
    "fashion": Card(partial(_formats.idx, classes=FASHION_NAMES)),
    "kmnist": Card(partial(_formats.idx, classes=KMNIST_NAMES)),
    "emnist": Card(partial(_formats.idx, classes=LETTER_NAMES, first_label=1, transposed=True)),
    "cifar10": Card(_formats.cifar10, (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)),
    "cifar100": Card(_formats.cifar100, RGB_HALF, RGB_HALF),
    "stl10": Card(_formats.stl10, RGB_HALF, RGB_HALF),
}


def load(
    name: str,
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = True,
    device: torch.device | str = "cpu",
) -> DataSet:
    """Load a data set whole, onto `device`; download it first if its files are not there and `download` allows it.

    root: the folder of the data files, by default `folder()`; bundled sets need none.
    Raises ValueError for an unknown name or a damaged file (and names the file to delete), FileNotFoundError or
    OSError when the files are not there and cannot be had (and says what to set).
    """
    card = _card(name)
    missing = _files.missing(name, root)
    if missing and not download:
        raise FileNotFoundError(f"{missing[0]} is missing and download is off. {_files.how_to_provide(name)}")
    if missing:
        _files.fetch(name, root)
    parts = card.read(_files.files_of(name, root))
    (train_images, train_labels), (test_images, test_labels), classes, unlabeled = parts
    return DataSet(
        name,
        train_images.to(device),
        train_labels.to(device),
        test_images.to(device),
        test_labels.to(device),
        classes,
        mean=card.mean,
        std=card.std,
        white=card.white,
        unlabeled_images=None if unlabeled is None else unlabeled.to(device),
    )


def available(name: str, *, root: str | os.PathLike[str] | None = None) -> bool:
    """Whether `load` would find the set without a download: it is bundled, or all its files are in the folder."""
    _card(name)
    return not _files.missing(name, root)


def _card(name: str) -> Card:
    if name not in CARDS:
        raise ValueError(f"unknown data set {name!r}; known are {', '.join(CARDS)}")
    return CARDS[name]
