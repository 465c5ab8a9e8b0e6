"""Colours of whole batches, each image changed by its own number.

A pixel's red, green and blue say how much light there is of each; its hue (a place on the colour circle), saturation
(how far from gray) and value (the brightest of the three) say what is seen. Changing the light on a thing moves the
second three far more simply than the first. `data.views` uses these functions; all of them keep pixels within 0 to 1.
"""

import torch
from torch import Tensor


def recolour(pixels: Tensor, factor: Tensor, turn: Tensor) -> Tensor:
    """RGB images (m, 3, H, W) with saturation times a factor (m,), at most 1, and hue turned by (m,) circles."""
    h, s, v = rgb_to_hsv(pixels).unbind(1)
    s = (s * factor.view(-1, 1, 1).to(s)).clamp_(max=1)
    return hsv_to_rgb(torch.stack([(h + turn.view(-1, 1, 1).to(h)) % 1, s, v], dim=1))


def rgb_to_hsv(pixels: Tensor) -> Tensor:
    """(m, 3, H, W) of red, green, blue to hue, saturation, value, all from 0 to 1; gray has hue 0."""
    r, g, b = pixels.unbind(1)
    v, chroma = pixels.amax(1), pixels.amax(1) - pixels.amin(1)
    c = chroma.masked_fill(chroma == 0, 1)
    sixth = torch.where(v == r, (g - b) / c, torch.where(v == g, (b - r) / c + 2, (r - g) / c + 4))
    return torch.stack([sixth / 6 % 1, chroma / v.masked_fill(v == 0, 1), v], dim=1)


def hsv_to_rgb(pixels: Tensor) -> Tensor:
    """(m, 3, H, W) of hue, saturation, value to red, green, blue: v - v s t, where t is 0, 1 or a ramp around the
    circle, for each primary a third of a turn away from the next."""
    h, s, v = (channel.unsqueeze(1) for channel in pixels.unbind(1))
    primaries = torch.tensor([5.0, 3.0, 1.0], device=pixels.device, dtype=pixels.dtype).view(1, 3, 1, 1)
    k = (primaries + 6 * h) % 6
    return v - v * s * torch.minimum(k, 4 - k).clamp_(0, 1)


def luminance(pixels: Tensor) -> Tensor:
    """How bright each pixel is to the eye, (m, 1, H, W): 0.299 red + 0.587 green + 0.114 blue; or the gray itself."""
    if pixels.shape[1] == 1:
        return pixels
    weights = torch.tensor([0.299, 0.587, 0.114], device=pixels.device, dtype=pixels.dtype)
    return torch.einsum("mchw,c->mhw", pixels, weights).unsqueeze(1)


def brightness(view: Tensor, factor: Tensor) -> Tensor:
    """More or less light: (m, C, H, W) times (m,), at most 1."""
    return (view * each(factor)).clamp_(0, 1)


def contrast(view: Tensor, factor: Tensor) -> Tensor:
    """Pixels nearer to or farther from the image's mean luminance."""
    return _away_from(luminance(view).mean((1, 2, 3), keepdim=True), view, factor)


def saturation(view: Tensor, factor: Tensor) -> Tensor:
    """Pixels nearer to or farther from their own gray."""
    return _away_from(luminance(view), view, factor)


def hue(view: Tensor, turn: Tensor) -> Tensor:
    """Hue turned by a number of circles; gray images as they are."""
    return view if view.shape[1] == 1 else recolour(view, torch.ones_like(turn), turn)


JITTERS = (brightness, contrast, saturation, hue)


def _away_from(centre: Tensor, view: Tensor, factor: Tensor) -> Tensor:
    """Factor 0 is the centre, 1 the view as it is, 2 twice as far from the centre."""
    return torch.lerp(centre.expand_as(view), view, each(factor).to(view)).clamp_(0, 1)


def each(numbers: Tensor) -> Tensor:
    """One number per image, as a factor of (m, C, H, W)."""
    return numbers.view(-1, 1, 1, 1)
