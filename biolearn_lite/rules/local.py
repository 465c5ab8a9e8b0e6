"""Locally connected: the patches of a convolution, without copied weights.

A convolution uses one kernel at every position (h, w) of an image. Synapses cannot do that: thousands of them, which
never meet, would have to change together. A locally connected layer keeps the small patches and gives every position
weights of its own (004, section 2):

    a[h, w] = W[h, w] · patch(h, w),       weight (height, width, out, in / groups, *kernel_size)

so `weight[h, w]` is a kernel as `conv2d` has it, and equal kernels everywhere are a convolution. The update needs no
sum over positions any more: ΔW[h, w] = post[h, w] × patch(h, w), all of it present at that synapse. Border neurons keep
whole kernels; those of their synapses that face the padding never change. Chapters 13 and 14.

In memory, activity lies location by location, as (height, width, channels, m): every position is then one small matrix
product, and the result lies as the next layer wants it. To the outside it is (m, channels, height, width), as ever.
Patches are built for a few rows of positions at a time, a *band*, and used while they are in the cache.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import cast, final

import torch
import torch.nn.functional as F
from torch import Tensor

CACHE_BYTES, LARGE_BYTES = 2**20, 2**28
"""Memory for the patches of a band: on a CPU what a cache holds, elsewhere a lot, as few large products are faster."""


@final
@dataclass(frozen=True)
class LocallyConnected:
    """A kernel for every position, weight (height, width, out, in / groups, *kernel_size), then max-pooling by `pool`.

    Raises: ValueError, if the images, the weight and this operation's options do not fit.
    """

    kernel_size: tuple[int, int]
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, int] = 0
    groups: int = 1
    pool: int = 1

    def __post_init__(self) -> None:
        sizes = (*self.kernel_size, *_pair(self.stride), self.groups, self.pool)
        if min(sizes) < 1 or min(_pair(self.padding)) < 0:
            raise ValueError(f"{self}: sizes, stride, groups and pool start at 1, padding at 0")

    def __call__(self, pre: Tensor, weight: Tensor) -> Tensor:
        self._check(pre.shape, weight)
        x = self._padded(pre)
        a = ((band, _kernels(weight[band], self.groups) @ patches) for band, patches in self._bands(x))
        return _images(_gathered(a, (*weight.shape[:3], len(pre))))

    def correlate(self, pre: Tensor, post: Tensor) -> Tensor:
        """Each position's post times the patch it saw. No sum over positions: this is what sharing would add."""
        x, delta = self._padded(pre), _locations(post)
        dW = ((band, _posts(delta[band], self.groups) @ patches.mT) for band, patches in self._bands(x))
        return _gathered(dW, (*delta.shape[:3], pre.shape[1] // self.groups, *self.kernel_size))

    def project(self, post: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        """Every position paints its post, through its own kernel, onto the patch it saw."""
        self._check(shape, weight)
        (ph, pw), (m, channels, height, width) = _pair(self.padding), shape
        delta = _locations(post)
        x = delta.new_zeros(height + 2 * ph, width + 2 * pw, channels, m)
        windows = self._windows(x)
        for band in self._split(windows):
            painted = _kernels(weight[band], self.groups).mT @ _posts(delta[band], self.groups)
            painted = painted.view(-1, delta.shape[1], channels, *self.kernel_size, m)
            for i, j in product(*map(range, self.kernel_size)):
                windows[band, ..., i, j] += painted[..., i, j, :]
        return _images(x[ph : ph + height, pw : pw + width])

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of positions on images of this size, as in `conv2d`; ValueError if there are none."""
        sizes = zip((height, width), self.kernel_size, _pair(self.stride), _pair(self.padding), strict=True)
        rows, columns = ((size + 2 * p - k) // s + 1 for size, k, s, p in sizes)
        if min(rows, columns) < 1:
            raise ValueError(f"{self} has no position on images of {height} × {width}")
        return rows, columns

    def _padded(self, pre: Tensor) -> Tensor:
        """Activity by location, with its border of zeros."""
        ph, pw = _pair(self.padding)
        return F.pad(_locations(pre), (0, 0, 0, 0, pw, pw, ph, ph)).contiguous()

    def _windows(self, x: Tensor) -> Tensor:
        """A view of padded x: (rows, columns, channels, m, *kernel_size)."""
        (kh, kw), (sh, sw) = self.kernel_size, _pair(self.stride)
        return x.unfold(0, kh, sh).unfold(1, kw, sw)

    def _bands(self, x: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """The rows of positions in bands, each with its patches (positions · groups, patch, m)."""
        windows = self._windows(x)
        synapses, m = windows[0, 0, :, 0].numel() // self.groups, windows.shape[3]
        for band in self._split(windows):
            yield band, torch.einsum("hwcmij->hwcijm", windows[band]).reshape(-1, synapses, m)

    def _split(self, windows: Tensor) -> list[slice]:
        """Bands of rows, as many rows in each as fit its memory, at least one."""
        limit = CACHE_BYTES if windows.device.type == "cpu" else LARGE_BYTES
        rows = max(1, limit // max(1, windows[0].numel() * windows.element_size()))
        return [slice(start, start + rows) for start in range(0, len(windows), rows)]

    def _check(self, shape: torch.Size, weight: Tensor) -> None:
        if len(shape) != 4:
            raise ValueError(f"pre has shape {tuple(shape)}: expected images (m, channels, height, width)")
        expected = (*self.output_size(*shape[2:]), shape[1] // self.groups, *self.kernel_size)
        fits = weight.dim() == 6 and (*weight.shape[:2], *weight.shape[3:]) == expected
        if not fits or shape[1] % self.groups or weight.shape[2] % self.groups:
            size = f"({expected[0]}, {expected[1]}, out, {', '.join(map(str, expected[2:]))})"
            raise ValueError(
                f"weight has shape {tuple(weight.shape)}; images of shape {tuple(shape)} with groups={self.groups}, "
                f"stride={self.stride} and padding={self.padding} need {size}"
            )


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _locations(images: Tensor) -> Tensor:
    """(height, width, channels, m). Images that lie one by one are turned at once: torch is fast at whole matrices."""
    if images.is_contiguous():
        images = images.flatten(1).T.contiguous().T.view(images.shape)
    return torch.einsum("mchw->hwcm", images)


def _images(locations: Tensor) -> Tensor:
    return torch.einsum("hwcm->mchw", locations)


def _gathered(bands: Iterable[tuple[slice, Tensor]], shape: tuple[int, ...]) -> Tensor:
    """Bands as they come, in one tensor: a list for `torch.cat` would need fresh memory for each."""
    whole = None
    for band, values in bands:
        whole = values.new_empty(shape) if whole is None else whole
        whole[band] = values.view_as(whole[band])
    return cast(Tensor, whole)


def _kernels(weight: Tensor, groups: int) -> Tensor:
    """(positions · groups, out / groups, patch) from (rows, columns, out, in / groups, *kernel_size)."""
    return weight.reshape(-1, weight.shape[2] // groups, weight[0, 0, 0].numel())


def _posts(delta: Tensor, groups: int) -> Tensor:
    """(positions · groups, out / groups, m) from (rows, columns, out, m)."""
    return delta.reshape(-1, delta.shape[2] // groups, delta.shape[3])
