"""Crops: windows of their own picture, in every place, all places equally likely."""

import pytest
import torch

from biolearn_lite.data.crops import Crops, anywhere, crop, framed


def test_crops_lie_anywhere_and_all_places_are_equally_likely():
    images = torch.arange(42.0).view(1, 1, 6, 7).expand(4000, 1, 6, 7)
    found = anywhere(images, (4, 4), generator=torch.Generator().manual_seed(0))
    tops, counts = found[:, 0, 0, 0].unique(return_counts=True)
    assert sorted(tops.tolist()) == [7.0 * i + j for i in range(3) for j in range(4)]
    assert counts.min() > 0.75 * 4000 / 12
    place = found[:, 0, 0, 0].long()
    for corner, one in zip(place[:50], found, strict=False):
        top, left = divmod(corner.item(), 7)
        assert torch.equal(one, images[0, :, top : top + 4, left : left + 4])
    assert torch.equal(crop(images[:2], (4, 4)), images[:2, :, 1:5, 1:5])


def test_crops_are_windows_of_their_own_picture_in_every_place_and_blocks_of_copies():
    """Pixels number their place, so that every crop tells where it was taken."""
    torch.manual_seed(0)
    place = torch.arange(7 * 9, dtype=torch.float32).view(7, 9)
    pictures = torch.stack([torch.stack([place, -place]) + 1000 * n for n in range(4)])
    crops = Crops(pictures, size=(3, 5), reach=2, copies=300)
    index = torch.tensor([2, 0])
    seen = crops[index]
    assert seen.shape == (600, 2, 3, 5)
    corners = seen[:, 0, 0, 0] - 1000 * index.repeat(300)
    tops, lefts = corners // 9, corners % 9
    for crop_, top, left, n in zip(seen, tops.int(), lefts.int(), index.repeat(300), strict=True):
        assert torch.equal(crop_, pictures[n, :, top : top + 3, left : left + 5])
    counts = torch.stack([tops[::2] * 5 + lefts[::2], tops[1::2] * 5 + lefts[1::2]]).long()
    assert all(len(row.unique()) == 25 for row in counts)
    assert not torch.equal(counts[0], counts[1])
    assert torch.equal(Crops(pictures, size=(7, 9), reach=0, copies=2)[index], pictures[index].repeat(2, 1, 1, 1))


def test_frames_and_moved_crops():
    x = torch.arange(1.0, 10).view(1, 1, 3, 3)
    wide = framed(x, 6, fill=-1)
    assert torch.equal(wide[0, 0, 1:4, 1:4], x[0, 0])
    assert wide.sum() == x.sum() - 27
    assert torch.equal(framed(wide, 4)[0, 0, :3, :3], x[0, 0])
    assert torch.equal(
        crop(framed(x, 5), (3, 3), down=1, right=-1)[0, 0], torch.tensor([[0.0, 4, 5], [0, 7, 8], [0, 0, 0]])
    )


BAD = {
    "copies": (lambda: Crops(torch.zeros(2, 1, 5, 5), size=(3, 3), reach=1, copies=0), "copies=0"),
    "reach": (lambda: Crops(torch.zeros(2, 1, 5, 5), size=(3, 3), reach=2), r"\(1, 1, 5, 5\)"),
    "negative reach": (lambda: Crops(torch.zeros(2, 1, 5, 5), size=(3, 3), reach=-1), "reach=-1"),
    "too far": (lambda: crop(torch.zeros(2, 1, 5, 5), (3, 3), right=-2), "-2 right"),
    "not images": (lambda: crop(torch.zeros(5, 5), (3, 3)), r"\(5, 5\)"),
    "larger than the picture": (lambda: anywhere(torch.rand(2, 1, 8, 8), (9, 8)), "9 × 8"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_named(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
