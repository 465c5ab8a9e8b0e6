"""Views: the same thing, seen again.

Learning without labels needs two looks at every thing: whatever stays the same between them is worth knowing. Here the
looks are made from one picture. Two worlds are known:

- `Deform`, paper 002's Appendix B: a linear map and a shift for half of the looks; a mirror for half; in colour, a
  change of saturation and hue.
- `SimCLR`, its section 3.1: a crop blown up to full size, a mirror, jitter of brightness, contrast, saturation and hue
  (in random order), and gray now and then.

A world draws numbers (`draw`: one row per image, nothing else is random), and the numbers are applied to the pictures
(`apply`). So a figure can show what was done, and the same numbers can be done again:

    first, second = two_views(images, Deform(), generator=generator)
    first.pixels                                # (m, C, H, W), floats from 0 to 1
    first.look.affine, first.look.hue           # what was done to each image

Every image and every look has its own draw, yet nothing loops over images: all maps of a batch are one `grid_sample`,
and colours are formulas over whole tensors. (torchvision draws once per call, so that a whole batch would turn by one
angle.) The draws are made where the generator lives, so a generator on the CPU gives the same views on any device.

The data decide what is learned: features that no longer notice shifts and hues are what these looks ask for. Chapters
07 and 12.
"""

import math
from dataclasses import dataclass, fields
from typing import NamedTuple, Protocol, final

import torch
import torch.nn.functional as F
from torch import Tensor

from biolearn_lite.data import colours
from biolearn_lite.data.drawn import Drawn

Generator = torch.Generator | None


class Look(Protocol):
    """What is done to each image of a batch."""

    def apply(self, pixels: Tensor) -> Tensor: ...


class World(Protocol):
    """A way to look at things again: draws what is done to each of the images (m, C, H, W)."""

    def draw(self, images: Tensor, *, generator: Generator = None) -> Look: ...


class View(NamedTuple):
    """pixels: (m, C, H, W), floats from 0 to 1. look: what was done to them."""

    pixels: Tensor
    look: Look


def two_views(images: Tensor, world: World, *, white: int = 255, generator: Generator = None) -> tuple[View, View]:
    """Two independent looks at every image.

    Args:
        images: (m, C, H, W), gray or RGB; uint8 with values 0..white, or floats from 0 to 1.
        generator: of all draws; default: PyTorch's own on the CPU.
    """
    pixels = to_pixels(images, white=white)
    first, second = (world.draw(pixels, generator=generator) for _ in range(2))
    return View(first.apply(pixels), first), View(second.apply(pixels), second)


@final
class Viewed(Drawn):
    """A data set that looks anew at its images whenever it is asked for some.

        fit(network, objectives, Viewed(data.train_images, Deform(), white=data.white), data.train_labels, ...)

    Args:
        images: (n, C, H, W), as in `two_views`. looks: 2 for pairs, 1 to show each image deformed once.

    `viewed[index]` is (looks · m, C, H, W), all first views above all second ones.
    """

    def __init__(self, images: Tensor, world: World, *, looks: int = 2, white: int = 255) -> None:
        if looks not in (1, 2):
            raise ValueError(f"looks={looks}: give 2 for pairs of views, or 1")
        to_pixels(images[:1], white=white)  # raises where images are none
        super().__init__(images)
        self.world, self.looks, self.white = world, looks, white

    def __getitem__(self, index: Tensor) -> Tensor:
        pixels = to_pixels(self.images[index], white=self.white)
        return torch.cat([self.world.draw(pixels).apply(pixels) for _ in range(self.looks)])


def to_pixels(images: Tensor, *, white: int = 255) -> Tensor:
    """Images (m, C, H, W) as floats from 0 to 1; uint8 is divided by `white`, floats are taken as they are.

    white: of the images' own set (`data.white`): mostly 255, but 16 for digits, which 255 would leave nearly black.
    """
    if images.dim() != 4 or images.shape[1] not in (1, 3) or images.numel() == 0:
        raise ValueError(f"images have shape {tuple(images.shape)}; give (m, 1, H, W) or (m, 3, H, W), none of them 0")
    if images.dtype == torch.uint8 and images.max() > white:
        raise ValueError(f"images reach {images.max().item()}, white={white}: give the set's own, `data.white`")
    if images.dtype == torch.uint8:
        return images.float().div_(white)
    if not images.is_floating_point():
        raise TypeError(f"images are {images.dtype}; give uint8, or floats from 0 to 1")
    low, high = torch.aminmax(images)
    if not (low >= 0 and high <= 1):
        raise ValueError(f"images run from {low.item():g} to {high.item():g}; give raw pixels as floats from 0 to 1")
    return images


@final
@dataclass(frozen=True)
class Deform:
    """002, Appendix B. A look's map is I + U(±linear) on its 4 entries and a shift of U(±shift) half images.

    share: of looks that are mapped at all; the others keep their place. mirror: share that is mirrored.
    octaves: saturation is multiplied by 2^U(±octaves). hue: U(±hue) turns of the colour circle. Gray images have none.
    The paper's: as given, for CIFAR and (without colour) EMNIST.
    """

    linear: float = 0.25
    shift: float = 0.5
    share: float = 0.5
    mirror: float = 0.5
    octaves: float = 2.0
    hue: float = 0.1

    def __post_init__(self) -> None:
        _check_settings(self)

    def draw(self, images: Tensor, *, generator: Generator = None) -> "Deformation":
        m, draw = len(images), _Draws(images.device, generator)
        change = torch.cat([draw.around(self.linear, m, 2, 2), draw.around(self.shift, m, 2, 1)], dim=2)
        moved = draw.coin(self.share, m)
        affine = unmoved(m, images.device) + change * moved.view(m, 1, 1)
        mirrored = draw.coin(self.mirror, m)
        return Deformation(affine, mirrored, 2 ** draw.around(self.octaves, m), draw.around(self.hue, m))


@final
@dataclass(frozen=True)
class Move:
    """Turns, sizes and shifts alone: test images that a classifier of upright ones has not met (002, Table 4).

    A look is turned by U(±degrees), enlarged by a factor from `size`, and shifted by U(±shift) half images. The
    paper's ranges are not known; these are ours.
    """

    degrees: float = 30.0
    size: tuple[float, float] = (0.8, 1.2)
    shift: float = 0.2

    def __post_init__(self) -> None:
        _check_settings(self)

    def draw(self, images: Tensor, *, generator: Generator = None) -> "Deformation":
        m, draw = len(images), _Draws(images.device, generator)
        angle, size = math.radians(1) * draw.around(self.degrees, m), draw.between(*self.size, m)
        cos, sin = angle.cos() / size, angle.sin() / size
        aspect = images.shape[-2] / images.shape[-1]  # both axes run from -1 to 1, whatever their number of pixels
        turn = torch.stack([cos, -sin * aspect, sin / aspect, cos], dim=1).view(m, 2, 2)
        affine = torch.cat([turn, draw.around(self.shift, m, 2, 1)], dim=2)
        return Deformation(affine, draw.coin(0.0, m), torch.ones_like(angle), torch.zeros_like(angle))


@final
@dataclass(frozen=True)
class Deformation:
    """affine: (m, 2, 3), where in the image each place of the view is looked up (x right, y down, both from -1 to 1).
    mirrored: (m,), left and right exchanged afterwards. saturation: (m,) factors. hue: (m,) turns."""

    affine: Tensor
    mirrored: Tensor
    saturation: Tensor
    hue: Tensor

    def apply(self, pixels: Tensor) -> Tensor:
        view = warp(pixels, _mirror(self.affine, self.mirrored))
        return view if pixels.shape[1] == 1 else colours.recolour(view, self.saturation, self.hue)


@final
@dataclass(frozen=True)
class SimCLR:
    """002, section 3.1. side: of the views, in pixels; None: the image's own.

    area, aspect: a crop's share of the image, and its width / height. mirror, jitter, gray: shares of looks.
    brightness, contrast, saturation: factors from 1 - x (at least 0) to 1 + x. hue: U(±hue) turns.
    The paper's, for STL-10: as given, with side=64.
    """

    side: int | None = None
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    mirror: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.8
    contrast: float = 0.8
    saturation: float = 0.8
    hue: float = 0.2
    gray: float = 0.2

    def __post_init__(self) -> None:
        _check_settings(self)

    def draw(self, images: Tensor, *, generator: Generator = None) -> "Augmentation":
        m, draw = len(images), _Draws(images.device, generator)
        crop = self._crop(draw, m, *images.shape[-2:])
        mirrored, jittered, gray = (draw.coin(share, m) for share in (self.mirror, self.jitter, self.gray))
        ranges = ((max(1 - x, 0.0), 1 + x) for x in (self.brightness, self.contrast, self.saturation))
        factors = torch.stack([*(draw.between(*pair, m) for pair in ranges), draw.around(self.hue, m)], dim=1)
        order = draw.between(0, 1, m, 4).argsort(1)
        side = (self.side, self.side) if self.side is not None else tuple(images.shape[-2:])
        return Augmentation(crop, mirrored, jittered, factors, order, gray, (side[0], side[1]))

    def _crop(self, draw: "_Draws", m: int, height: int, width: int) -> Tensor:
        """(m, 2, 3): the drawn box, made to fit where it is too long; then a place for it inside the image."""
        pixels = height * width * draw.between(*self.area, m)
        ratio = draw.between(math.log(self.aspect[0]), math.log(self.aspect[1]), m).exp()
        size = torch.stack([(pixels * ratio).sqrt() / width, (pixels / ratio).sqrt() / height], dim=1).clamp(max=1)
        centre = draw.around(1.0, m, 2) * (1 - size)
        return torch.cat([torch.diag_embed(size), centre.unsqueeze(2)], dim=2)


@final
@dataclass(frozen=True)
class Augmentation:
    """crop: (m, 2, 3), as `Deformation.affine`. mirrored, jittered, gray: (m,), yes or no. factors: (m, 4), of
    brightness, contrast and saturation, and turns of hue. order: (m, 4), which of these comes first."""

    crop: Tensor
    mirrored: Tensor
    jittered: Tensor
    factors: Tensor
    order: Tensor
    gray: Tensor
    side: tuple[int, int]

    def apply(self, pixels: Tensor) -> Tensor:
        view = warp(pixels, _mirror(self.crop, self.mirrored), side=self.side, outside="border")
        for place in range(4):
            for kind, change in enumerate(colours.JITTERS):
                chosen = ((self.order[:, place] == kind) & self.jittered).nonzero().squeeze(1)
                view[chosen] = change(view[chosen], self.factors[chosen, kind])
        return torch.where(colours.each(self.gray), colours.luminance(view), view)


def unmoved(m: int, device: torch.device | str = "cpu") -> Tensor:
    """The map that leaves m images in place, (m, 2, 3)."""
    return torch.eye(2, 3, device=device).repeat(m, 1, 1)


def warp(pixels: Tensor, affine: Tensor, *, side: tuple[int, int] | None = None, outside: str = "zeros") -> Tensor:
    """Each image looked at through its map: view(x, y) = image(affine (x, y, 1)), bilinear.

    Args:
        pixels: (m, C, H, W). affine: (m, 2, 3), in coordinates that run from edge to edge of the image, -1 to 1.
        side: height and width of the views, by default the image's.
        outside: what is seen beyond the edge: "zeros", black, or "border", the nearest pixel.

    The published run measures from centre to centre of the outer pixels instead: its shifts are 31/32 of ours.
    """
    size = [*pixels.shape[:2], *(side or pixels.shape[-2:])]
    grid = F.affine_grid(affine.to(pixels.dtype), size, align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode=outside, align_corners=False)


def _mirror(affine: Tensor, mirrored: Tensor) -> Tensor:
    """The same map, looked at from the other side where mirrored: x becomes -x in the view."""
    sign = 1 - 2 * mirrored.to(affine)
    return torch.cat([affine[:, :, :1] * sign.view(-1, 1, 1), affine[:, :, 1:]], dim=2)


_SHARES = {"share", "mirror", "jitter", "gray"}


def _check_settings(world: Deform | Move | SimCLR) -> None:
    """Reaches and shares must be numbers of at least 0, shares at most 1, ranges rising from above 0."""
    for field in fields(world):
        value = getattr(world, field.name)
        if isinstance(value, tuple) and not 0 < value[0] <= value[1] < math.inf:
            raise ValueError(f"{field.name}={value}: give (low, high) with 0 < low <= high")
        high = 1 if field.name in _SHARES else math.inf
        if isinstance(value, int | float) and not (0 <= value <= high and value < math.inf):
            raise ValueError(f"{field.name}={value}: give a number from 0 to {high}")


class _Draws:
    """Uniform numbers on a device, from a generator that may live on another."""

    def __init__(self, device: torch.device, generator: Generator) -> None:
        self.device, self.generator = device, generator

    def between(self, low: float, high: float, *size: int) -> Tensor:
        home = self.generator.device if self.generator else None
        uniform = torch.rand(*size, generator=self.generator, device=home).to(self.device)
        return low + (high - low) * uniform

    def around(self, reach: float, *size: int) -> Tensor:
        return self.between(-reach, reach, *size)

    def coin(self, share: float, *size: int) -> Tensor:
        """Yes with probability `share`."""
        return self.between(0, 1, *size) < share
