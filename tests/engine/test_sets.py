"""Data sets as a user meets them: the bundled two, the real ones where they are, splits, scaling, errors."""

import hashlib
import importlib.metadata
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from biolearn_lite.data import _files, sets, textures
from biolearn_lite.data._torchvision import import_torchvision

DIGITS_DIGEST = "00d41903ab9011a9"
TEXTURES_DIGEST = "7189306e42fac1b8"


def digest(*tensors):
    """One fingerprint of several tensors; fixed here, so that no release of a library can change a set unseen."""
    return hashlib.sha256(b"".join(t.contiguous().numpy().tobytes() for t in tensors)).hexdigest()[:16]


def numbered(n=100, test=20, num_classes=4):
    """A data set whose every image is its own number, so that what a split does can be read off."""
    images = torch.arange(n + test, dtype=torch.uint8).view(-1, 1, 1, 1)
    labels = torch.arange(n + test) % 7 % num_classes
    return sets.DataSet(
        "numbered",
        *(images[:n], labels[:n], images[n:], labels[n:]),
        classes=tuple("abcd"[:num_classes]),
        mean=(0.5,),
        std=(0.25,),
    )


def values(images):
    return images.flatten().tolist()


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """No socket opens, and no cache of an earlier download can be found."""

    def refuse(*args, **kwargs):
        raise AssertionError("a bundled data set used the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("BIOLEARN_DATA", raising=False)
    for variable in ("HOME", "XDG_CACHE_HOME", "SKIMAGE_DATADIR", "SCIKIT_LEARN_DATA"):
        monkeypatch.setenv(variable, str(tmp_path))
    return tmp_path


def test_digits_are_the_ones_of_scikit_learn_split_by_class():
    from sklearn.datasets import load_digits

    digits = sets.load("digits")
    assert digits.train_images.shape == (1347, 1, 8, 8)
    assert digits.test_images.shape == (450, 1, 8, 8)
    assert digits.train_images.dtype == torch.uint8
    assert digits.train_labels.dtype == torch.int64
    together = torch.cat([digits.train_images, digits.test_images]).flatten(1)
    labels = torch.cat([digits.train_labels, digits.test_labels])
    source = load_digits()
    ours = sorted(zip(together.tolist(), labels.tolist(), strict=True))
    assert ours == sorted(zip(source.data.astype(int).tolist(), source.target.tolist(), strict=True))
    share = digits.test_labels.bincount() - torch.from_numpy(np.bincount(source.target)) * 450 / 1797
    assert share.abs().max() < 1
    assert digest(digits.train_images, digits.train_labels, digits.test_images, digits.test_labels) == DIGITS_DIGEST


def test_digits_are_scaled_to_minus_one_to_one():
    digits = sets.load("digits")
    x, y = digits.train()
    assert x.dtype == torch.float32
    assert torch.equal(x, digits.train_images / 8 - 1)
    assert torch.equal(y, digits.train_labels)
    x, y = digits.test()
    assert torch.equal(x, digits.test_images / 8 - 1)
    assert torch.equal(y, digits.test_labels)


def test_textures_have_equally_many_crops_of_each_picture():
    t = sets.load("textures")
    assert t.train_images.shape == (1600, 1, 96, 96)
    assert t.test_images.shape == (500, 1, 96, 96)
    assert t.train_images.dtype == torch.uint8
    assert t.classes == tuple(textures.PICTURES)
    assert t.train_labels.bincount().tolist() == [160] * 10
    assert t.test_labels.bincount().tolist() == [50] * 10
    assert digest(t.train_images, t.train_labels, t.test_images, t.test_labels) == TEXTURES_DIGEST


def test_texture_labels_name_the_picture_the_crop_is_from():
    import skimage

    t = sets.load("textures")
    for name, crop in zip(("brick", "grass", "gravel"), t.train_images[[160, 1120, 1280], 0], strict=True):
        first_of_class = t.train_labels.tolist().index(t.classes.index(name))
        assert torch.equal(t.train_images[first_of_class, 0], crop)
        assert np.array_equal(crop.numpy(), getattr(skimage.data, name)()[:96, :96])


def test_no_pixel_is_in_both_parts_and_none_is_left_out(monkeypatch):
    line = 260  # 65 % of 400
    columns = np.broadcast_to(np.arange(400, dtype=np.int32), (300, 400))
    monkeypatch.setattr(textures, "picture", lambda file: columns)
    parts = textures.read()
    assert set(values(parts.train[0])) == set(range(line))
    assert set(values(parts.test[0])) == set(range(line, 400))
    rows = np.broadcast_to(np.arange(300, dtype=np.int32)[:, None], (300, 400))
    monkeypatch.setattr(textures, "picture", lambda file: rows)
    parts = textures.read()
    assert set(values(parts.train[0])) == set(values(parts.test[0])) == set(range(300))


def test_textures_come_with_scikit_image_and_nothing_is_fetched(no_network):
    shipped = {str(path) for path in importlib.metadata.files("scikit-image")}
    assert {f"skimage/data/{file}" for file in textures.PICTURES.values()} <= shipped
    sets.load("textures")
    assert not list(no_network.iterdir())


def test_digits_need_no_network(no_network):
    sets.load("digits")


@pytest.mark.parametrize(
    ("name", "mean", "first"),
    [
        ("mnist", [0.1307], [5, 0, 4, 1, 9]),
        ("fashion", [0.2860], [9, 0, 0, 3, 0]),
        ("cifar10", [0.4914, 0.4822, 0.4465], [6, 9, 9, 4, 1]),
    ],
)
def test_real_sets_equal_what_torchvision_reads(name, mean, first):
    if not sets.available(name):
        pytest.skip(f"real {name} is not in {sets.folder()}; set BIOLEARN_DATA to a folder that holds it")
    data = sets.load(name, download=False)
    assert (len(data.train_labels), len(data.test_labels)) == (50_000 if name == "cifar10" else 60_000, 10_000)
    assert data.train_labels[:5].tolist() == first
    assert (data.train_images.float() / 255).mean((0, 2, 3)).tolist() == pytest.approx(mean, abs=5e-5)
    reader = getattr(import_torchvision().datasets, _files.SOURCES[name][0])
    for train, images, labels in (
        (True, data.train_images, data.train_labels),
        (False, data.test_images, data.test_labels),
    ):
        theirs = reader(sets.folder(), train=train)
        assert torch.equal(images, torch.as_tensor(theirs.data).view(len(images), *images.shape[2:], -1).movedim(-1, 1))
        assert labels.tolist() == list(theirs.targets)
    if name == "cifar10":
        x, _ = data.train()
        assert x.mean((0, 2, 3)).abs().max() < 1e-3
        assert (x.std((0, 2, 3)) - 1).abs().max() < 5e-3


def test_inputs_divide_by_white_then_subtract_the_mean_then_divide_by_the_deviation():
    data = numbered()
    assert data.inputs(torch.tensor([[[255]]], dtype=torch.uint8)).item() == (1 - 0.5) / 0.25
    colour = sets.DataSet("c", *[torch.zeros(0)] * 4, ("a",), mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0), white=10)
    x = colour.inputs(torch.full((2, 3, 4, 5), 5, dtype=torch.uint8))
    assert x.shape == (2, 3, 4, 5)
    assert x[0, :, 0, 0].tolist() == pytest.approx([0.4, 0.15, 0.05])


def test_pixels_are_scaled_as_in_paper_001():
    cards = sets.CARDS
    assert (cards["cifar10"].mean, cards["cifar10"].std) == ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261))
    for name in ("mnist", "fashion", "kmnist"):
        assert (cards[name].mean, cards[name].std, cards[name].white) == ((0.5,), (0.5,), 255)


def test_inputs_leave_the_images_alone():
    data = numbered()
    before = data.train_images.clone()
    data.train()
    assert torch.equal(data.train_images, before)


def test_inputs_refuse_what_is_not_an_image_of_this_set():
    data = numbered()
    with pytest.raises(TypeError, match=r"float32.*uint8"):
        data.inputs(torch.zeros(2, 1, 1, 1))
    with pytest.raises(ValueError, match=r"\(2, 3, 1, 1\).*\(\.\.\., 1, H, W\)"):
        data.inputs(torch.zeros(2, 3, 1, 1, dtype=torch.uint8))


def test_validation_split_hides_the_test_images_and_keeps_the_two_parts_apart():
    data = numbered()
    split = data.validation_split()
    assert len(split.test_labels) == 10
    assert sorted(values(split.train_images) + values(split.test_images)) == list(range(100))
    for images, labels in ((split.train_images, split.train_labels), (split.test_images, split.test_labels)):
        assert torch.equal(labels, data.train_labels[images.flatten().long()])
    assert len(data.test_labels) == 20, "the original is unchanged"
    assert "validation" in split.name


def test_validation_split_is_the_papers_split_by_default():
    order = np.random.RandomState(0).permutation(100)
    assert values(numbered().validation_split().test_images) == sorted(order[:10])
    assert order[:3].tolist() == [26, 86, 2], "NumPy's RandomState is frozen"
    assert values(numbered().validation_split(seed=1).test_images) != sorted(order[:10])
    assert len(numbered().validation_split(0.25).test_labels) == 25


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 0.004])
def test_validation_split_refuses_an_empty_part(fraction):
    with pytest.raises(ValueError, match="fraction"):
        numbered().validation_split(fraction)


@pytest.mark.parametrize("count", [4, 37, 99, 100])
def test_subset_keeps_every_class_share_to_within_one(count):
    data = numbered()
    small = data.subset(count, seed=3)
    chosen = values(small.train_images)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == count
    assert torch.equal(small.train_labels, data.train_labels[chosen])
    share = small.train_labels.bincount(minlength=4) - data.train_labels.bincount() * count / 100
    assert share.abs().max() < 1
    assert torch.equal(small.test_images, data.test_images)


def test_subset_of_the_test_images_and_seeds():
    data = numbered()
    small = data.subset(40, 8, seed=1)
    assert len(small.test_labels) == 8
    assert torch.equal(small.test_labels, data.test_labels[(small.test_images.flatten() - 100).long()])
    assert torch.equal(small.train_images, data.subset(40, seed=1).train_images)
    assert not torch.equal(small.train_images, data.subset(40, seed=2).train_images)


def test_subset_refuses_more_than_there_is():
    with pytest.raises(ValueError, match=r"train = 101.*1\.\.100"):
        numbered().subset(101)
    with pytest.raises(ValueError, match=r"test = 0.*1\.\.20"):
        numbered().subset(5, 0)


def test_a_set_prints_as_one_line():
    assert repr(sets.load("digits")) == "digits: 1,347 training and 450 test images, 1 × 8 × 8, 10 classes"


def test_tensors_are_on_the_device_asked_for():
    data = sets.load("digits", device="meta")
    kinds = {t.device.type for t in (data.train_images, data.train_labels, data.test_images, data.test_labels)}
    assert kinds == {data.train()[0].device.type} == {"meta"}


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'minst'.*digits, textures, mnist, fashion.*stl10"):
        sets.load("minst")
    with pytest.raises(ValueError, match="'imagenet'"):
        sets.available("imagenet")


def test_importing_sets_imports_no_data_library():
    code = """
import sys
import biolearn_lite
biolearn_lite.data.sets.load
heavy = {"torchvision", "sklearn", "skimage", "PIL"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)
