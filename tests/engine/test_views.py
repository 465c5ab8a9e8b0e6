"""Views: every number drawn does what its name says, to the image it was drawn for, and nothing else."""

import colorsys
import importlib
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from biolearn_lite.data import colours, sets
from biolearn_lite.data._torchvision import import_torchvision
from biolearn_lite.data.views import (
    Augmentation,
    Deform,
    Deformation,
    Move,
    SimCLR,
    Viewed,
    to_pixels,
    two_views,
    unmoved,
    warp,
)
from biolearn_lite.nets.encoders import Stage, encoder, heads
from biolearn_lite.rules.contrastive import contrastive_hinge
from biolearn_lite.training.checkpoint import Checkpoints
from biolearn_lite.training.fit import fit

WORLDS = {"deform": Deform(), "move": Move(), "simclr": SimCLR(), "small simclr": SimCLR(side=9)}


def random_images(m=6, channels=3, height=12, width=12, seed=0):
    return torch.rand(m, channels, height, width, generator=torch.Generator().manual_seed(seed))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def deformation(m, **changes):
    """Nothing is done, except for the changes."""
    no = torch.zeros(m, dtype=torch.bool)
    return replace(Deformation(unmoved(m), no, torch.ones(m), torch.zeros(m)), **changes)


def augmentation(images, **changes):
    m = len(images)
    no, factors = torch.zeros(m, dtype=torch.bool), torch.tensor([1.0, 1, 1, 0]).repeat(m, 1)
    side, order = tuple(images.shape[2:]), torch.arange(4).repeat(m, 1)
    return replace(Augmentation(unmoved(m), no, no, factors, order, no, side), **changes)


def moved(m, change):
    """Maps that are the identity but for `change`, (m, 2, 3) or (2, 3)."""
    return unmoved(m) + torch.as_tensor(change)


def yes(m, *chosen):
    mask = torch.zeros(m, dtype=torch.bool)
    mask[list(chosen)] = True
    return mask


def torchvision_functional():
    import_torchvision()
    return importlib.import_module("torchvision.transforms.functional")


close = {"rtol": 0, "atol": 3e-5}


@pytest.mark.parametrize("channels", [1, 3])
def test_doing_nothing_gives_the_image_back(channels):
    images = random_images(channels=channels, width=9)
    torch.testing.assert_close(deformation(6).apply(images), images, **close)
    torch.testing.assert_close(augmentation(images).apply(images), images, **close)
    torch.testing.assert_close(augmentation(images, jittered=yes(6, *range(6))).apply(images), images, **close)
    still = Deform(share=0.0, mirror=0.0, octaves=0.0, hue=0.0), Move(degrees=0.0, size=(1.0, 1.0), shift=0.0)
    for world in (*still, SimCLR(area=(1.0, 1.0), aspect=(1.0, 1.0), mirror=0.0, jitter=0.0, gray=0.0)):
        if not isinstance(world, SimCLR) or images.shape[2] == images.shape[3]:
            for view in two_views(images, world, generator=seeded()):
                torch.testing.assert_close(view.pixels, images, **close)


@pytest.mark.parametrize(("right", "down"), [(3, 0), (0, 2), (-4, 1)])
def test_a_shift_by_whole_pixels(right, down):
    """Looking further right moves the image to the left; black comes in."""
    images = random_images(2, height=8, width=10)
    shift = torch.tensor([[0, 0, 2 * right / 10], [0, 0, 2 * down / 8]])
    padded = F.pad(images, (10, 10, 8, 8))
    expected = padded[:, :, 8 + down : 16 + down, 10 + right : 20 + right]
    torch.testing.assert_close(deformation(2, affine=moved(2, shift)).apply(images), expected, **close)
    assert (expected == 0).any()


def test_quarter_turns_and_halving():
    images = random_images(3, height=8, width=8)
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0]]).repeat(3, 1, 1)
    torch.testing.assert_close(warp(images, quarter), images.rot90(1, (2, 3)), **close)
    double = torch.tensor([[2.0, 0, 0], [0, 2, 0]]).repeat(3, 1, 1)
    halved = warp(images, double)
    torch.testing.assert_close(halved[:, :, 2:6, 2:6], F.avg_pool2d(images, 2), **close)
    assert halved[:, :, :2].abs().max() == 0


def test_a_mirror_comes_after_the_map_and_hits_only_its_own_image():
    images, shift = random_images(3, height=8, width=8), torch.tensor([[0, 0, 0.5], [0, 0, 0]])
    one_flipped = deformation(3, mirrored=yes(3, 1)).apply(images)
    torch.testing.assert_close(one_flipped[1], images[1].flip(2), **close)
    torch.testing.assert_close(one_flipped[[0, 2]], images[[0, 2]], **close)
    both = deformation(3, affine=moved(3, shift), mirrored=yes(3, 0, 1, 2)).apply(images)
    torch.testing.assert_close(both, deformation(3, affine=moved(3, shift)).apply(images).flip(3), **close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_colours_agree_with_colorsys(dtype):
    few = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=dtype)
    special = torch.cartesian_prod(few, few, few)  # grays, black, white, primaries, ties between channels
    rgb = torch.cat([special, torch.rand(400, 3, generator=seeded(), dtype=dtype)])
    image = rgb.T.reshape(1, 3, 1, -1)
    hsv = colours.rgb_to_hsv(image)
    expected = torch.tensor([colorsys.rgb_to_hsv(*pixel) for pixel in rgb.tolist()], dtype=dtype)
    tolerance = {"rtol": 0, "atol": 2e-6 if dtype == torch.float32 else 1e-12}
    torch.testing.assert_close(hsv[0, :, 0].T, expected, **tolerance)
    torch.testing.assert_close(colours.hsv_to_rgb(hsv), image, **tolerance)
    back = torch.tensor([colorsys.hsv_to_rgb(*pixel) for pixel in rgb.tolist()], dtype=dtype)
    torch.testing.assert_close(colours.hsv_to_rgb(image)[0, :, 0].T, back, **tolerance)


def test_a_third_of_a_turn_permutes_the_channels():
    images, third = random_images(2), torch.tensor([1 / 3, 0.0])
    turned = deformation(2, hue=third).apply(images)
    torch.testing.assert_close(turned[0], images[0].roll(1, 0), **close)
    torch.testing.assert_close(turned[1], images[1], **close)
    torch.testing.assert_close(deformation(2, hue=third - 1).apply(images), turned, **close)


def test_saturation_none_twice_and_full():
    images = random_images(3)
    changed = deformation(3, saturation=torch.tensor([0.0, 2.0, 1e6])).apply(images)
    gray = images[0].amax(0).expand(3, -1, -1)  # what is left is the value, the brightest channel
    torch.testing.assert_close(changed[0], gray, **close)
    before, after = (colours.rgb_to_hsv(x)[:, 1] for x in (images, changed))
    torch.testing.assert_close(after[1], (2 * before[1]).clamp(max=1), rtol=0, atol=1e-3)
    assert (changed[2].amin(0) < 1e-4).all()


def test_colours_of_gray_images_are_left_alone():
    images = random_images(channels=1)
    odd = deformation(6, saturation=torch.full((6,), 3.0), hue=torch.full((6,), 0.4))
    torch.testing.assert_close(odd.apply(images), images, **close)
    for world in WORLDS.values():
        for view in two_views(images, world, generator=seeded()):
            assert view.pixels.shape[:2] == (6, 1)


JITTERS = ["adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue"]


@pytest.mark.parametrize("kind", range(4))
@pytest.mark.parametrize("factor", [0.0, 0.3, 1.7])
def test_jitter_agrees_with_torchvision(kind, factor):
    images, factor = random_images(3), factor / 10 if kind == 3 else factor
    factors = torch.tensor([1.0, 1, 1, 0]).repeat(3, 1)
    factors[:, kind] = factor
    ours = augmentation(images, factors=factors, jittered=yes(3, 0, 2)).apply(images)
    theirs = getattr(torchvision_functional(), JITTERS[kind])(images, factor)
    torch.testing.assert_close(ours[[0, 2]], theirs[[0, 2]], rtol=0, atol=1e-4)
    torch.testing.assert_close(ours[1], images[1], **close)


def test_jitters_come_in_each_image_s_own_order():
    """Brightness clips before or after saturation pulls channels together: the results differ."""
    images = random_images(4)
    factors = torch.tensor([1.8, 1.6, 0.2, 0.1]).repeat(4, 1)
    order = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [0, 1, 2, 3]])
    ours = augmentation(images, factors=factors, order=order, jittered=yes(4, 0, 1, 2)).apply(images)
    transforms = torchvision_functional()
    for i, kinds in enumerate(order[:3].tolist()):
        expected = images[i : i + 1]
        for kind in kinds:
            expected = getattr(transforms, JITTERS[kind])(expected, factors[0, kind].item())
        torch.testing.assert_close(ours[i], expected[0], rtol=0, atol=5e-4)  # its luminance is 0.9999 of ours


def test_gray_looks():
    images = random_images(3)
    ours = augmentation(images, gray=yes(3, 1)).apply(images)
    expected = torchvision_functional().rgb_to_grayscale(images, num_output_channels=3)
    torch.testing.assert_close(ours[1], expected[1], rtol=0, atol=2e-4)
    torch.testing.assert_close(ours[[0, 2]], images[[0, 2]], **close)


def test_a_crop_is_blown_up_as_torchvision_does():
    images = random_images(2, height=12, width=12)
    top, left, height, width = 3, 4, 6, 4
    centre = [(2 * left + width) / 12 - 1, (2 * top + height) / 12 - 1]
    crop = torch.tensor([[width / 12, 0, centre[0]], [0, height / 12, centre[1]]]).repeat(2, 1, 1)
    ours = augmentation(images, crop=crop, side=(24, 16)).apply(images)
    theirs = F.interpolate(images[:, :, 3:9, 4:8], size=(24, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(ours[:, :, 2:-2, 2:-2], theirs[:, :, 2:-2, 2:-2], rtol=0, atol=1e-4)


def test_crops_stay_inside_and_have_the_drawn_sizes():
    images = torch.full((4000, 1, 8, 16), 0.5)
    look = SimCLR(area=(0.08, 0.3), side=5, jitter=0.0).draw(images, generator=seeded())
    size, centre = look.crop[:, [0, 1], [0, 1]], look.crop[:, :, 2]
    assert ((centre.abs() + size) <= 1 + 1e-6).all()
    area, aspect = size.prod(1), 16 * size[:, 0] / (8 * size[:, 1])
    assert 0.08 <= area.min() < 0.09
    assert 0.29 < area.max() <= 0.3 + 1e-6
    assert area.mean().item() == pytest.approx(0.19, abs=0.005)
    assert 0.75 - 1e-6 <= aspect.min() < 0.76
    assert 1.32 < aspect.max() <= 4 / 3 + 1e-6
    assert aspect.log().mean().abs() < 0.01
    torch.testing.assert_close(look.apply(images), images[:, :, :5, :5])  # at the image's edge, nothing darkens
    long = SimCLR(area=(1.0, 1.0)).draw(images, generator=seeded()).crop  # most do not fit: cut to the image
    assert long[:, [0, 1], [0, 1]].max() == 1
    assert (long[:, :, 2].abs() + long[:, [0, 1], [0, 1]] <= 1 + 1e-6).all()


def test_draws_of_the_paper_s_deformations():
    look = Deform().draw(torch.zeros(8000, 3, 4, 4), generator=seeded())
    change = look.affine - unmoved(8000)
    moves = change.flatten(1).abs().amax(1) > 0
    assert moves.float().mean().item() == pytest.approx(0.5, abs=0.02)
    linear, shift = change[moves][:, :, :2], change[moves][:, :, 2]
    for part, reach in ((linear, 0.25), (shift, 0.5), (look.hue, 0.1), (look.saturation.log2(), 2.0)):
        assert reach * 0.99 < part.abs().max() <= reach * (1 + 1e-6)
        assert part.mean().abs() < 0.05 * reach
        assert part.std().item() == pytest.approx(reach / math.sqrt(3), rel=0.03)
    assert look.mirrored.float().mean().item() == pytest.approx(0.5, abs=0.02)
    numbers = [*linear.flatten(1).T, *shift.T, look.hue[moves], look.mirrored[moves].float()]
    independent = torch.corrcoef(torch.stack(numbers)) - torch.eye(len(numbers))
    assert independent.abs().max() < 0.07


def test_draws_of_simclr():
    look = SimCLR().draw(torch.zeros(8000, 3, 4, 4), generator=seeded())
    for share, drawn in ((0.5, look.mirrored), (0.8, look.jittered), (0.2, look.gray)):
        assert drawn.float().mean().item() == pytest.approx(share, abs=0.02)
    assert look.factors.amin(0).tolist() == pytest.approx([0.2, 0.2, 0.2, -0.2], abs=0.01)
    assert look.factors.amax(0).tolist() == pytest.approx([1.8, 1.8, 1.8, 0.2], abs=0.01)
    assert len(look.order.unique(dim=0)) == 24
    assert SimCLR(contrast=3.0).draw(torch.zeros(500, 3, 4, 4)).factors.amin() >= -0.2


def test_moves_keep_shapes_and_turn_as_drawn():
    """A move is a turn and one size, in pixels, also where the image is not square."""
    look = Move(shift=0.0).draw(torch.zeros(2000, 1, 10, 20), generator=seeded())
    half = torch.tensor([10.0, 5.0])
    in_pixels = half[:, None] * look.affine[:, :, :2] / half
    size = in_pixels.det().rsqrt()
    torch.testing.assert_close(in_pixels @ in_pixels.mT, torch.eye(2) / size[:, None, None] ** 2, **close)
    angle = torch.atan2(in_pixels[:, 1, 0], in_pixels[:, 0, 0]).rad2deg()
    assert 29 < angle.abs().max() <= 30 + 1e-3
    assert 0.8 - 1e-5 <= size.min() < 0.81
    assert 1.19 < size.max() <= 1.2 + 1e-5


@pytest.mark.parametrize("world", list(WORLDS))
def test_the_same_generator_gives_the_same_views(world):
    images = random_images()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two = (two_views(images, WORLDS[world], generator=seeded(3)) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a.pixels, b.pixels)
        assert torch.equal(a.look.apply(images), a.pixels)
    assert not torch.equal(one[0].pixels, two_views(images, WORLDS[world], generator=seeded(4))[0].pixels)
    torch.manual_seed(3)
    assert torch.equal(one[0].pixels, two_views(images, WORLDS[world])[0].pixels)


@pytest.mark.parametrize("world", list(WORLDS))
def test_every_image_and_every_look_has_its_own_draw(world):
    """Copies of one image come out different from each other, and in the second view different again."""
    images = random_images(1).expand(40, -1, -1, -1)
    first, second = two_views(images, WORLDS[world], generator=seeded())
    looks = torch.cat([first.pixels, second.pixels]).flatten(1)
    apart = torch.cdist(looks, looks) + torch.eye(80)
    assert apart.min() > 1e-3
    assert first.pixels.shape == second.pixels.shape


def test_a_look_changes_only_its_own_image():
    images = random_images(8)
    look = Deform().draw(images, generator=seeded())
    other = images.clone()
    other[3] = 0
    changed = (look.apply(images) - look.apply(other)).abs().flatten(1).amax(1) > 0
    assert changed.nonzero().flatten().tolist() == [3]


def test_bytes_and_floats_are_the_same_pixels():
    digits = sets.load("digits")
    first, _ = two_views(digits.train_images[:20], Deform(), white=digits.white, generator=seeded())
    again, _ = two_views(digits.train_images[:20] / 16, Deform(), generator=seeded())
    assert torch.equal(first.pixels, again.pixels)
    assert first.pixels.min() >= 0
    assert 0.9 < first.pixels.max() <= 1 + 1e-6
    for world in WORLDS.values():
        pixels = two_views((255 * random_images()).byte(), world, generator=seeded())[0].pixels
        assert pixels.dtype == torch.float32
        assert pixels.min() >= -1e-6
        assert pixels.max() <= 1 + 1e-6


BAD = {
    "one image": (torch.rand(3, 8, 8), ValueError, r"\(3, 8, 8\)"),
    "two channels": (torch.rand(4, 2, 8, 8), ValueError, r"\(4, 2, 8, 8\)"),
    "none": (torch.rand(0, 3, 8, 8), ValueError, "none of them 0"),
    "int64": (torch.ones(4, 3, 8, 8, dtype=torch.long), TypeError, "int64"),
    "standardized": (torch.randn(4, 3, 8, 8), ValueError, "from 0 to 1"),
    "NaN": (torch.full((4, 3, 8, 8), math.nan), ValueError, "nan"),
}


def test_pixels_above_white_are_refused():
    with pytest.raises(ValueError, match="images reach 17, white=16"):
        to_pixels(torch.full((2, 1, 4, 4), 17, dtype=torch.uint8), white=16)


@pytest.mark.parametrize("case", list(BAD))
def test_bad_images_are_named(case):
    images, error, message = BAD[case]
    with pytest.raises(error, match=message):
        two_views(images, Deform())


@pytest.mark.parametrize(
    ("world", "setting"),
    [
        (Deform, {"share": 1.5}),
        (Deform, {"share": 2}),
        (Deform, {"linear": -0.1}),
        (Deform, {"hue": math.nan}),
        (Move, {"size": (1.2, 0.8)}),
        (Move, {"degrees": math.inf}),
        (SimCLR, {"gray": 2.0}),
        (SimCLR, {"area": (0.0, 1.0)}),
    ],
)
def test_bad_settings_are_named(world, setting):
    (name,) = setting
    with pytest.raises(ValueError, match=f"{name}="):
        world(**setting)


def test_a_data_set_that_looks_anew():
    """First views above second ones, in the order of the index, other ones each time, from the global stream."""
    images = (16 * random_images(m=9, channels=1)).byte()
    viewed, index = Viewed(images, Deform(share=0, mirror=0), white=16), torch.tensor([7, 0, 3])
    assert (len(viewed), viewed.dim(), viewed.device) == (9, 4, images.device)
    torch.testing.assert_close(viewed[index], images[[7, 0, 3, 7, 0, 3]] / 16)  # nothing is done in this world
    moving = Viewed(images, Move(), white=16)
    torch.manual_seed(5)
    one, two = moving[index], moving[index]
    assert one.shape == (6, 1, 12, 12)
    assert not torch.equal(one, two)
    assert not torch.equal(one[:3], one[3:])
    torch.manual_seed(5)
    assert torch.equal(moving[index], one)
    first, second = two_views(images[index], Move(), white=16, generator=seeded(5))
    assert torch.equal(one, torch.cat([first.pixels, second.pixels]))
    assert Viewed(images, Move(), looks=1, white=16)[index].shape == (3, 1, 12, 12)
    with pytest.raises(ValueError, match="looks=3"):
        Viewed(images, Move(), looks=3)
    with pytest.raises(ValueError, match=r"\(1, 12, 12\)"):
        Viewed(images[:, 0], Move())


def trained_on_views(epochs, *, folder=None, seed=0):
    images = random_images(m=10, channels=1)
    network = encoder((Stage(3, pool=True), Stage(4)), channels=1, seed=1)
    objectives = heads(network, (1, 12, 12), contrastive_hinge, size=5)
    checkpoints = Checkpoints(folder, every=0) if folder else None
    sgd = partial(torch.optim.SGD, lr=1e-3)
    options = {"optimizers": sgd, "batch_size": 4, "seed": seed, "checkpoints": checkpoints, "progress": False}
    fit(network, objectives, Viewed(images, Deform()), torch.zeros(10), epochs=epochs, **options)
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def test_training_on_views_is_seeded_and_resumes_with_the_same_views(tmp_path):
    whole = trained_on_views(3)
    assert torch.equal(whole, trained_on_views(3))
    assert not torch.equal(whole, trained_on_views(3, seed=1))
    trained_on_views(1, folder=tmp_path)
    assert torch.equal(whole, trained_on_views(3, folder=tmp_path))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA is absent: views on it NOT tested")
@pytest.mark.parametrize("world", list(WORLDS))
def test_a_cpu_generator_gives_the_same_views_on_cuda(world):
    images = random_images()
    here = two_views(images, WORLDS[world], generator=seeded())
    there = two_views(images.cuda(), WORLDS[world], generator=seeded())
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(b.pixels.cpu(), a.pixels, rtol=0, atol=1e-4)
    own = two_views(images.cuda(), WORLDS[world], generator=torch.Generator("cuda").manual_seed(0))
    assert own[0].pixels.is_cuda
