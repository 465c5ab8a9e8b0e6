"""Files on disk: read like torchvision reads them, refused when damaged, fetched whole or not at all."""

import gzip
import hashlib
import io
import pickle
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zipfile
from http.client import IncompleteRead
from pathlib import Path

import numpy as np
import pytest
import torch

from biolearn_lite.data import _files, _torchvision, sets

RNG = np.random.RandomState(0)
BUNDLED = ("digits", "textures")


def md5(content):
    return hashlib.md5(content).hexdigest()


def idx_bytes(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def mnist_like(name, first_label=0):
    """The four files of a tiny MNIST-like set, by their path in the folder."""
    contents = {}
    for path in _files.FILES[name]:
        n = 12 if "train-" in path else 7
        values = RNG.randint(0, 256, (n, 28, 28)) if "images" in path else first_label + np.arange(n) % 10
        contents[path] = idx_bytes(values)
    return contents


def put(root, contents):
    for path, content in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


@pytest.fixture
def datasets():
    return _torchvision.import_torchvision().datasets


@pytest.fixture
def tiny_mnist(monkeypatch, datasets):
    """A tiny MNIST, its checksums in place of the published ones; torchvision may download it from `serve`."""
    contents = mnist_like("mnist")
    monkeypatch.setitem(_files.FILES, "mnist", {path: md5(content) for path, content in contents.items()})
    packed = {Path(path).name + ".gz": gzip.compress(content) for path, content in contents.items()}
    monkeypatch.setattr(datasets.MNIST, "resources", [(file, md5(content)) for file, content in packed.items()])
    return contents, packed


class Response:
    """What urlopen returns: read in pieces, perhaps cut short or broken off."""

    def __init__(self, url, content, broken_by):
        self.url, self.length, self._rest, self._broken_by = url, len(content), content, broken_by

    def __enter__(self):
        return self

    def __exit__(self, *args):
        return None

    def read(self, size):
        if self._broken_by and len(self._rest) < self.length:
            raise self._broken_by
        size = min(size, 50)
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


@pytest.fixture
def serve(monkeypatch):
    """Make urlopen answer from a dictionary, and count the calls."""
    calls = []

    def start(contents=None, *, refused=None, broken_by=None, broken_file=None):
        def urlopen(request, *args, **kwargs):
            calls.append(request.full_url)
            if refused:
                raise refused
            file = request.full_url.rsplit("/", 1)[-1]
            return Response(request.full_url, contents[file], broken_by if file == broken_file else None)

        monkeypatch.setattr(urllib.request, "urlopen", urlopen)
        return calls

    return start


def files_under(root):
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


# --- reading ---------------------------------------------------------------------------------------------------------


def test_kmnist_is_read_as_torchvision_reads_it(tmp_path, datasets):
    put(tmp_path, mnist_like("kmnist"))
    data = sets.load("kmnist", root=tmp_path, download=False)
    for train, images, labels in (
        (True, data.train_images, data.train_labels),
        (False, data.test_images, data.test_labels),
    ):
        theirs = datasets.KMNIST(tmp_path, train=train)
        assert torch.equal(images, theirs.data.unsqueeze(1))
        assert torch.equal(labels, theirs.targets)
    assert data.shape == (1, 28, 28)
    assert labels.dtype == torch.int64


def test_emnist_letters_stand_upright_and_count_from_zero(tmp_path, datasets):
    put(tmp_path, mnist_like("emnist", first_label=1))
    data = sets.load("emnist", root=tmp_path, download=False)
    theirs = datasets.EMNIST(tmp_path, split="letters", train=True)
    assert torch.equal(data.train_images[:, 0], theirs.data.transpose(1, 2))
    assert torch.equal(data.train_labels, theirs.targets - 1)
    assert [theirs.classes[t] for t in theirs.targets] == [data.classes[t] for t in data.train_labels]


def test_cifar100_is_read_as_torchvision_reads_it(tmp_path, monkeypatch, datasets):
    names = [f"class {k}" for k in range(100)]
    contents = {
        f"cifar-100-python/{part}": pickle.dumps(
            {"data": RNG.randint(0, 256, (n, 3072)).astype(np.uint8), "fine_labels": list(range(n))}, protocol=2
        )
        for part, n in (("train", 12), ("test", 7))
    } | {"cifar-100-python/meta": pickle.dumps({"fine_label_names": names}, protocol=2)}
    put(tmp_path, contents)
    sums = {path: md5(content) for path, content in contents.items()}
    monkeypatch.setitem(_files.FILES, "cifar100", sums)
    train, test, meta = sums.values()
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [["train", train]])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [["test", test]])
    monkeypatch.setattr(datasets.CIFAR100, "meta", datasets.CIFAR100.meta | {"md5": meta})
    data = sets.load("cifar100", root=tmp_path, download=False)
    theirs = datasets.CIFAR100(tmp_path, train=False)
    assert torch.equal(data.test_images, torch.from_numpy(theirs.data).permute(0, 3, 1, 2))
    assert data.test_labels.tolist() == theirs.targets
    assert data.classes == tuple(names)


def test_stl10_is_read_as_torchvision_reads_it(tmp_path, monkeypatch, datasets):
    def images(n):
        return RNG.randint(0, 256, n * 3 * 96 * 96).astype(np.uint8).tobytes()

    def labels(n):
        return (np.arange(n) % 10 + 1).astype(np.uint8).tobytes()

    contents = dict(zip(_files.FILES["stl10"], (images(12), labels(12), images(3), labels(3), images(2)), strict=True))
    put(tmp_path, contents)
    sums = {path: md5(content) for path, content in contents.items()}
    unlabelled = "stl10_binary/unlabeled_X.bin"
    monkeypatch.setitem(_files.FILES, "stl10", sums | {unlabelled: len(contents[unlabelled])})
    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda self: True)
    data = sets.load("stl10", root=tmp_path, download=False)
    for split, ours, our_labels in (
        ("train", data.train_images, data.train_labels),
        ("test", data.test_images, data.test_labels),
        ("unlabeled", data.unlabeled_images, None),
    ):
        theirs = datasets.STL10(tmp_path, split=split)
        assert torch.equal(ours, torch.from_numpy(theirs.data.copy()))
        assert our_labels is None or our_labels.tolist() == theirs.labels.tolist()
    (tmp_path / unlabelled).write_bytes(contents[unlabelled][:-1])
    with pytest.raises(ValueError, match=r"unlabeled_X\.bin is damaged.*Delete"):
        sets.load("stl10", root=tmp_path, download=False)


def test_paths_and_checksums_agree_with_torchvision(datasets):
    assert list(_files.SOURCES) == list(_files.FILES) == [name for name in sets.CARDS if name not in BUNDLED]
    for name, ours in _files.FILES.items():
        source = getattr(datasets, _files.SOURCES[name][0])
        if name in ("cifar10", "cifar100", "stl10"):
            published = {f"{source.base_folder}/{file}": md5 for file, md5 in source.train_list + source.test_list}
            if name != "stl10":
                published[f"{source.base_folder}/{source.meta['filename']}"] = source.meta["md5"]
            assert ours == published | {path: size for path, size in ours.items() if isinstance(size, int)}
        elif name != "emnist":
            assert set(ours) == {f"{source.__name__}/raw/{file.removesuffix('.gz')}" for file, _ in source.resources}
    assert _files.FILES["stl10"]["stl10_binary/unlabeled_X.bin"] == 2_764_800_000


# --- damaged files ---------------------------------------------------------------------------------------------------


def flipped(content):
    return content[:-1] + bytes([content[-1] ^ 1])


DAMAGE = {
    "cut short": lambda content: content[:-1],
    "too long": lambda content: content + b"\0",
    "cut within its header": lambda content: content[:6],
    "empty": lambda content: b"",
    "not IDX": lambda content: b"\1" + content[1:],
    "of another type": lambda content: content[:2] + b"\x0d" + content[3:],
    "of other dimensions": lambda content: content[:3] + bytes([content[3] ^ 2]) + content[4:],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("position", range(4))
def test_a_damaged_idx_file_is_named(tmp_path, position, damage):
    contents = mnist_like("kmnist")
    path = list(contents)[position]
    put(tmp_path, contents | {path: damage(contents[path])})
    with pytest.raises(ValueError, match=f"{tmp_path / path} is damaged.*Delete this file"):
        sets.load("kmnist", root=tmp_path, download=False)


@pytest.mark.parametrize("position", range(4))
def test_one_flipped_bit_is_found_by_the_checksum(tmp_path, tiny_mnist, position):
    contents, _ = tiny_mnist
    put(tmp_path, contents)
    sets.load("mnist", root=tmp_path, download=False)
    path = list(contents)[position]
    (tmp_path / path).write_bytes(flipped(contents[path]))
    with pytest.raises(ValueError, match=f"{tmp_path / path} is damaged: its MD5 is .*Delete this file"):
        sets.load("mnist", root=tmp_path, download=False)


def test_labels_that_cannot_be_are_refused(tmp_path):
    contents = mnist_like("kmnist")
    path = "KMNIST/raw/t10k-labels-idx1-ubyte"
    put(tmp_path, contents | {path: idx_bytes(np.full(7, 10))})
    with pytest.raises(ValueError, match=rf"{path} is damaged: a label outside 0\.\.9"):
        sets.load("kmnist", root=tmp_path, download=False)
    put(tmp_path, {path: idx_bytes(np.zeros(6))})
    with pytest.raises(ValueError, match=f"{path} is damaged: 6 labels for 7 images"):
        sets.load("kmnist", root=tmp_path, download=False)
    letters = mnist_like("emnist", first_label=0)
    with pytest.raises(ValueError, match=r"labels.* is damaged: a label outside 1\.\.26"):
        sets.load("emnist", root=put(tmp_path, letters), download=False)


def test_a_pickle_is_not_opened_before_its_checksum_was_compared(tmp_path, monkeypatch):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    put(tmp_path, {path: pickle.dumps(Trap()) for path in _files.FILES["cifar100"]})
    with pytest.raises(ValueError, match="cifar-100-python/train is damaged"):
        sets.load("cifar100", root=tmp_path, download=False)
    assert not (tmp_path / "sprung").exists()


# --- downloads -------------------------------------------------------------------------------------------------------


def test_a_download_leaves_the_files_and_nothing_else(tmp_path, tiny_mnist, serve):
    contents, packed = tiny_mnist
    calls = serve(packed)
    root = tmp_path / "new"
    assert not sets.available("mnist", root=root)
    data = sets.load("mnist", root=root)
    assert len(data.train_labels) == 12
    assert {path: (root / path).read_bytes() for path in files_under(root)} == contents
    assert not [path for path in root.iterdir() if path.name.startswith(".")]
    assert sets.available("mnist", root=root)
    before = len(calls)
    sets.load("mnist", root=root)
    assert len(calls) == before, "what is there is not downloaded again"


def test_emnist_is_downloaded_from_the_archive_of_all_splits(tmp_path, monkeypatch, datasets, serve):
    contents = mnist_like("emnist", first_label=1)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        for path, content in contents.items():
            packed.writestr(f"gzip/{Path(path).name}.gz", gzip.compress(content))
        packed.writestr("gzip/emnist-digits-test-labels-idx1-ubyte.gz", gzip.compress(b"another split"))
    monkeypatch.setattr(datasets.EMNIST, "md5", md5(archive.getvalue()))
    serve({"gzip.zip": archive.getvalue()})
    assert len(sets.load("emnist", root=tmp_path).train_labels) == 12
    assert files_under(tmp_path) == set(contents)


def test_a_deleted_file_is_downloaded_anew(tmp_path, tiny_mnist, serve):
    contents, packed = tiny_mnist
    put(tmp_path, contents)
    path = next(iter(contents))
    (tmp_path / path).unlink()
    serve(packed)
    sets.load("mnist", root=tmp_path)
    assert (tmp_path / path).read_bytes() == contents[path]


@pytest.mark.parametrize("position", [0, 3])
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), ConnectionResetError("reset"), TimeoutError("silent"), IncompleteRead(b"")]
)
def test_an_interrupted_download_leaves_no_file(tmp_path, tiny_mnist, serve, position, error):
    _, packed = tiny_mnist
    serve(packed, broken_by=error, broken_file=list(packed)[position])
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else OSError):
        sets.load("mnist", root=tmp_path)
    assert not files_under(tmp_path)
    serve(packed)
    assert len(sets.load("mnist", root=tmp_path).test_labels) == 7


def test_a_download_with_a_wrong_checksum_leaves_no_file(tmp_path, tiny_mnist, serve):
    _, packed = tiny_mnist
    last = list(packed)[-1]
    serve(packed | {last: packed[last][:-3]})
    with pytest.raises(OSError, match=r"'mnist' could not be downloaded"):
        sets.load("mnist", root=tmp_path)
    assert not files_under(tmp_path)


def test_no_network_says_what_to_set(tmp_path, tiny_mnist, serve):
    serve(refused=urllib.error.URLError("Name or service not known"))
    with pytest.raises(OSError, match="'mnist' could not be downloaded") as caught:
        sets.load("mnist", root=tmp_path)
    message = str(caught.value)
    for part in (str(tmp_path), "BIOLEARN_DATA", "MNIST/raw/train-images-idx3-ubyte", "Name or service", "'digits'"):
        assert part in message
    assert "\n" not in message
    assert not files_under(tmp_path)


def test_a_folder_that_cannot_be_written_says_what_to_set(tmp_path, tiny_mnist, serve):
    serve({})
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"could not be downloaded.*BIOLEARN_DATA"):
        sets.load("mnist", root=tmp_path / "file")


def test_download_false_uses_no_network(tmp_path, tiny_mnist, serve):
    calls = serve(refused=AssertionError("used the network"))
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte is missing.*BIOLEARN_DATA"):
        sets.load("mnist", root=tmp_path, download=False)
    assert not calls


def test_a_silent_server_counts_as_absent(tmp_path, monkeypatch, tiny_mnist, datasets):
    silent = socket.create_server(("127.0.0.1", 0))
    hang_up = threading.Timer(10, silent.close)
    hang_up.start()
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{silent.getsockname()[1]}/"])
    monkeypatch.setattr(_files, "PATIENCE", 0.2)
    with pytest.raises(OSError, match=r"could not be downloaded.*timed out"):
        sets.load("mnist", root=tmp_path)
    hang_up.cancel()
    silent.close()
    assert socket.getdefaulttimeout() is None


# --- folders ---------------------------------------------------------------------------------------------------------


def test_the_folder_is_root_then_biolearn_data_then_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("BIOLEARN_DATA", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert sets.folder() == Path("/home/someone/.cache/biolearn_lite")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert sets.folder() == Path("/cache/biolearn_lite")
    monkeypatch.setenv("BIOLEARN_DATA", "")
    assert sets.folder() == Path("/cache/biolearn_lite")
    monkeypatch.setenv("BIOLEARN_DATA", "~/data")
    assert sets.folder() == Path("/home/someone/data")
    assert sets.folder(tmp_path) == tmp_path


def test_load_reads_from_biolearn_data(monkeypatch, tmp_path):
    put(tmp_path, mnist_like("kmnist"))
    monkeypatch.setenv("BIOLEARN_DATA", str(tmp_path))
    assert len(sets.load("kmnist", download=False).train_labels) == 12


# --- torchvision beside any torch ------------------------------------------------------------------------------------


def test_torchvision_imports_in_a_fresh_process():
    code = """
from biolearn_lite.data._torchvision import import_torchvision
torchvision = import_torchvision()
assert torchvision is import_torchvision()
import torch
from torchvision import datasets, models
from torchvision.transforms import v2
assert datasets is torchvision.datasets
assert v2.RandomCrop(4)(torch.zeros(3, 8, 8)).shape == (3, 4, 4)
assert models.resnet18().eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def fake_import(monkeypatch, *outcomes):
    """Make the import of torchvision end as told, one outcome per attempt; return what was declared meanwhile."""
    remaining, declared = list(outcomes), []

    def import_module(name):
        assert name == "torchvision"
        outcome = remaining.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(_torchvision.importlib, "import_module", import_module)
    monkeypatch.setattr(torch.library, "define", lambda name, signature: declared.append(name))
    return declared


def test_operators_are_declared_only_when_they_are_missing(monkeypatch):
    declared = fake_import(monkeypatch, "the module")
    assert _torchvision.import_torchvision() == "the module"
    assert declared == []
    declared = fake_import(monkeypatch, RuntimeError("operator torchvision::nms does not exist"), "the module")
    assert _torchvision.import_torchvision() == "the module"
    assert declared == ["torchvision::nms", "torchvision::qnms"]


@pytest.mark.parametrize("error", [RuntimeError("Couldn't load CUDA"), ImportError("no torchvision")])
def test_other_failures_of_torchvision_are_passed_on(monkeypatch, error):
    declared = fake_import(monkeypatch, error)
    with pytest.raises(type(error), match=str(error)):
        _torchvision.import_torchvision()
    assert declared == []
