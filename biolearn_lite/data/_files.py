"""Where data files lie, and how they get there whole: the one page that knows paths and checksums.

A folder holds its sets in the layout that torchvision writes, so a folder filled by torchvision serves this package and
the other way round. Three promises:

* Nothing half written. A download goes into a hidden folder first and is renamed into place file by file; what has its
  final name is whole, however the download ended and however many jobs ran it at once.
* Nothing parsed unchecked. torchvision compares checksums of MNIST-like sets only while it downloads; here every file
  is compared at every load, by its MD5 where one is published for the unpacked file, else by the length it must have.
* No network is an answer, not a hang: a server that stays silent for `PATIENCE` seconds counts as absent, and the error
  says what to set.
"""

import contextlib
import hashlib
import http.client
import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from biolearn_lite.data._torchvision import import_torchvision

PATIENCE = 30.0

# What each file must be: an MD5, or a number of bytes, or None where the file's own header says how long it is.
FILES: dict[str, dict[str, str | int | None]] = {
    "mnist": {
        "MNIST/raw/train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "MNIST/raw/train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "MNIST/raw/t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "MNIST/raw/t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "fashion": {
        "FashionMNIST/raw/train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "FashionMNIST/raw/train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "FashionMNIST/raw/t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "FashionMNIST/raw/t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
    "kmnist": {
        "KMNIST/raw/train-images-idx3-ubyte": None,
        "KMNIST/raw/train-labels-idx1-ubyte": None,
        "KMNIST/raw/t10k-images-idx3-ubyte": None,
        "KMNIST/raw/t10k-labels-idx1-ubyte": None,
    },
    "emnist": {
        "EMNIST/raw/emnist-letters-train-images-idx3-ubyte": None,
        "EMNIST/raw/emnist-letters-train-labels-idx1-ubyte": None,
        "EMNIST/raw/emnist-letters-test-images-idx3-ubyte": None,
        "EMNIST/raw/emnist-letters-test-labels-idx1-ubyte": None,
    },
    "cifar10": {
        "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
        "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
        "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
        "cifar-10-batches-py/batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    },
    "cifar100": {
        "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
        "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "cifar-100-python/meta": "7973b15100ade9c7d40fb424638fde48",
    },
    "stl10": {
        "stl10_binary/train_X.bin": "918c2871b30a85fa023e0c44e0bee87f",
        "stl10_binary/train_y.bin": "5a34089d4802c674881badbb80307741",
        "stl10_binary/test_X.bin": "7f263ba9f9e0b06b93213547f721ac82",
        "stl10_binary/test_y.bin": "36f9794fa4beb8a2c72628de14fa638e",
        "stl10_binary/unlabeled_X.bin": 100_000 * 3 * 96 * 96,
    },
}

# The class in torchvision.datasets that knows where to download each set from, and its options.
SOURCES: dict[str, tuple[str, dict[str, str]]] = {
    "mnist": ("MNIST", {}),
    "fashion": ("FashionMNIST", {}),
    "kmnist": ("KMNIST", {}),
    "emnist": ("EMNIST", {"split": "letters"}),
    "cifar10": ("CIFAR10", {}),
    "cifar100": ("CIFAR100", {}),
    "stl10": ("STL10", {}),
}


@dataclass(frozen=True)
class DataFile:
    """One file on disk and what it must be: an MD5, a number of bytes, or None."""

    path: Path
    check: str | int | None

    def content(self) -> NDArray[np.uint8]:
        """All bytes of the file, after comparing their MD5 or their number."""
        content = np.fromfile(self.path, dtype=np.uint8)
        if isinstance(self.check, int) and len(content) != self.check:
            raise self.damaged(f"{len(content):,} bytes instead of {self.check:,}")
        if isinstance(self.check, str):
            found = hashlib.md5(content.data, usedforsecurity=False).hexdigest()
            if found != self.check:
                raise self.damaged(f"its MD5 is {found} instead of {self.check}")
        return content

    def damaged(self, why: str) -> ValueError:
        """The error to raise when this file cannot be trusted."""
        return ValueError(f"{self.path} is damaged: {why}. Delete this file and load the set again to download it anew")


def folder(root: str | os.PathLike[str] | None = None) -> Path:
    """Where data sets are kept: `root`, else $BIOLEARN_DATA, else biolearn_lite in the user's cache folder."""
    chosen = root or os.environ.get("BIOLEARN_DATA")
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(chosen or Path(cache) / "biolearn_lite").expanduser()


def files_of(name: str, root: str | os.PathLike[str] | None = None) -> list[DataFile]:
    """The files of a set, in the order of `FILES`, whether they exist or not; none for a bundled set."""
    return [DataFile(folder(root) / file, check) for file, check in FILES.get(name, {}).items()]


def missing(name: str, root: str | os.PathLike[str] | None = None) -> list[Path]:
    """The paths of a set's files that do not exist."""
    return [file.path for file in files_of(name, root) if not file.path.is_file()]


def fetch(name: str, root: str | os.PathLike[str] | None = None) -> None:
    """Download a set with torchvision, which verifies the archives, and move its files into place.

    Raises OSError, with what to set, if the network, the disk or the archive does not allow it.
    """
    goal = folder(root)
    try:
        goal.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=goal, prefix=".download-") as passing, _patience():
            _download(name, passing)
            for file in FILES[name]:
                (goal / file).parent.mkdir(parents=True, exist_ok=True)
                os.replace(Path(passing) / file, goal / file)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise OSError(f"{name!r} could not be downloaded to {goal} ({reason}). {how_to_provide(name)}") from error


def how_to_provide(name: str) -> str:
    """What to do when a set is neither there nor to be had."""
    first, *others = FILES[name]
    return (
        "Set the environment variable BIOLEARN_DATA to a folder, writable or not, that holds "
        f"{first} and the {len(others)} other files of this set as torchvision lays them out; "
        "'digits' and 'textures' are bundled and need neither network nor folder"
    )


def _download(name: str, passing: str) -> None:
    class_name, options = SOURCES[name]
    getattr(import_torchvision().datasets, class_name)(passing, download=True, **options)


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Give up on a silent server: urllib itself would wait for minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
