"""Images as glances: patches against a slow crop loop, their order, what chance decides and what it does not."""

import pytest
import torch
from torch import nn

from biolearn_lite.data import imagenette, patches, sets
from biolearn_lite.data.patches import Glances, Strips
from biolearn_lite.nets.clapp import glance_encoder, layer_features
from biolearn_lite.nets.encoders import Stage


def gray(n=3, height=96, width=96):
    return torch.randint(256, (n, 1, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def patch_list(image, side, stride):
    """All patches of one gray image, a list of rows: column by column, each from top to bottom."""
    return [
        [row[left : left + side] for row in image[top : top + side]]
        for left in range(0, len(image[0]) - side + 1, stride)
        for top in range(0, len(image) - side + 1, stride)
    ]


def numbered(n, height, width):
    return torch.arange(n * height * width).view(n, 1, height, width).float()


@pytest.mark.parametrize(("height", "width", "side", "stride"), [(64, 64, 16, 8), (10, 13, 4, 3), (5, 5, 5, 1)])
def test_patches_equal_a_slow_loop_and_run_down_the_columns(height, width, side, stride):
    images = numbered(2, height, width)
    found = patches.patches(images, side=side, stride=stride)
    columns, rows = (width - side) // stride + 1, (height - side) // stride + 1
    assert found.shape == (2, columns, rows, 1, side, side)
    assert found.data_ptr() == images.data_ptr()  # a view
    for image, ours in zip(images, found, strict=True):
        assert ours.flatten(0, 1).squeeze(1).tolist() == patch_list(image[0].tolist(), side, stride)


def test_half_of_a_patch_is_in_the_next_and_none_in_the_one_after():
    seen = patches.patches(numbered(1, 64, 64))[0, :, :, 0]
    assert seen.shape[:2] == (7, 7)
    assert torch.equal(seen[2, 3, 8:], seen[2, 4, :8])  # down
    assert torch.equal(seen[2, 3, :, 8:], seen[3, 3, :, :8])  # to the right
    assert not set(seen[2, 3].flatten().tolist()) & set(seen[2, 5].flatten().tolist())


def test_half_of_the_images_are_mirrored():
    images = numbered(1, 3, 3).expand(1000, 1, 3, 3)
    found = patches.mirror(images, generator=torch.Generator().manual_seed(0))
    turned = (found == images.flip(-1)).all((1, 2, 3))
    assert ((found == images).all((1, 2, 3)) | turned).all()
    assert 0.45 < turned.double().mean() < 0.55


def test_glances_by_hand():
    """Gray levels of 0 to 1, scaled as published; still ones are the middle's patches, image by image."""
    images = torch.randint(256, (3, 3, 96, 96), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    found = Glances(images, still=True)[torch.tensor([2, 0])]
    assert found.shape == (2 * 49, 1, 16, 16)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    for image, ours in zip(images[[2, 0]], found.view(2, 49, 16, 16), strict=True):
        level = ((image.float() / 255 * weights).sum(0) - 0.4120) / 0.2570
        expected = patch_list(level[16:80, 16:80].tolist(), 16, 8)
        torch.testing.assert_close(ours, torch.tensor(expected))


def test_chance_is_pytorchs_own_and_still_glances_have_none():
    data, index = Glances(gray()), torch.arange(3)
    torch.manual_seed(5)
    first, second = data[index], data[index]
    torch.manual_seed(5)
    assert torch.equal(data[index], first)
    assert not torch.equal(first, second)
    still = Glances(gray(), still=True)
    assert torch.equal(still[index], still[index])
    assert (len(data), data.dim(), data.grid, data.device) == (3, 4, (7, 7), torch.device("cpu"))
    assert Glances(gray(), side=40).grid == (4, 4)


def test_a_patch_alone_is_encoded_as_in_the_grid():
    """Padding is within each patch, so nothing of one patch gets into the code of another."""
    network = glance_encoder([Stage(4, nn.ReLU, True), Stage(6, nn.ReLU)], seed=1)
    seen = Glances(gray(2), still=True)[torch.arange(2)]
    together = network.activities(seen)
    for place in (0, 48, 60):
        for whole, alone in zip(together, network.activities(seen[place : place + 1]), strict=True):
            torch.testing.assert_close(whole[place : place + 1], alone)
    for z, features in zip(together, layer_features(network, seen, glances=49), strict=True):
        torch.testing.assert_close(features[1], torch.stack([one.mean((1, 2)) for one in z[49:]]).mean(0))


def test_strips_are_of_one_class_and_always_new():
    """Constant images, whose brightness says which one it is."""
    level = torch.arange(12).view(12, 1, 1, 1).expand(12, 1, 4, 4).to(torch.uint8)
    labels = torch.tensor([0, 1, 2] * 4)
    strips = Strips(level, labels, grid=(2, 6), deform=0.0, white=12)
    index = torch.tensor([4, 2, 0])
    torch.manual_seed(0)
    seen = (strips[index] + 1) / 2 * 12
    assert seen.shape == (3 * 12, 1, 4, 4)
    which = seen.flatten(1).mean(1).round().long().view(3, 12)
    assert torch.equal(labels[which], labels[index].unsqueeze(1).expand(3, 12))
    assert all(len(set(row.tolist())) > 1 for row in which)  # different things
    assert not torch.equal(strips[index], strips[index])
    many = ((torch.cat([strips[index] for _ in range(80)]) + 1) / 2 * 12).flatten(1).mean(1).round().long()
    assert (many.bincount(minlength=12) > 0).all()  # all members of a class come by


def test_deformed_digits_keep_their_range_and_their_number():
    digits = sets.load("digits")
    pixels = digits.train_images[:20].float() / 16
    found = patches.deformed(pixels, generator=torch.Generator().manual_seed(0))
    assert found.shape == pixels.shape
    assert found.min() == -1
    assert found.max() <= 1
    torch.testing.assert_close(patches.deformed(pixels, reach=0.0), 2 * pixels - 1)
    assert (found - (2 * pixels - 1)).abs().mean() > 0.05


BAD = {
    "a patch larger than the image": (lambda: patches.patches(torch.rand(2, 1, 8, 8)), "side=16"),
    "no image": (lambda: patches.patches(torch.rand(8, 8)), "shape"),
    "a standing eye": (lambda: patches.patches(torch.rand(2, 1, 32, 32), stride=0), "stride=0"),
    "patches larger than the crop": (lambda: Glances(gray(2, 32, 32), side=12), "side=12"),
    "glances at small images": (lambda: Glances(gray(2, 32, 32)), "side=64"),
    "a strip without labels": (
        lambda: Strips(gray(4, 8, 8), torch.zeros(3, dtype=torch.long)),
        "4 images and 3 labels",
    ),
    "glances at nothing": (lambda: Glances(gray(0)), "images have shape"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_named(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_imagenette_is_read_from_a_folder(tmp_path):
    image = pytest.importorskip("PIL.Image")
    with pytest.raises(FileNotFoundError, match="BIOLEARN_DATA"):
        imagenette.load(root=tmp_path)
    for part, count in (("train", 3), ("val", 2)):
        for level, name in ((10, "b"), (200, "a")):
            folder = tmp_path / "imagenette-96" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                image.new("RGB", (96, 96), (level, i, 0)).save(folder / f"{i}.png")
    data = imagenette.load(root=tmp_path)
    assert data.classes == ("a", "b")
    assert data.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.test_labels.tolist() == [0, 0, 1, 1]
    assert data.train_images[:, :2, 5, 7].tolist() == [[200, 0], [200, 1], [200, 2], [10, 0], [10, 1], [10, 2]]
    image.new("RGB", (50, 96)).save(tmp_path / "imagenette-96" / "val" / "a" / "9.png")
    with pytest.raises(ValueError, match="resize"):
        imagenette.load(root=tmp_path)
