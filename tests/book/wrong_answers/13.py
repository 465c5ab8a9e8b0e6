"""Three or more wrong answers to each exercise of chapter 13, the likely ones; each must be told why it is wrong."""

import math

import torch
import torch.nn.functional as F


def _seen(x, k, stride=1, border=None):
    border = k // 2 if border is None else border
    return F.pad(x, (border,) * 4).unfold(2, k, stride).unfold(3, k, stride)


def layer_without_border(x, weight, stride):
    return torch.einsum("mchwij,hwocij->mohw", _seen(x, weight.shape[-1], stride, border=0), weight)


def layer_that_copies(x, weight, stride):
    return F.conv2d(x, weight[0, 0], stride=stride, padding=weight.shape[-1] // 2)


def layer_that_flips(x, weight, stride):
    return torch.einsum("mchwij,hwocij->mohw", _seen(x, weight.shape[-1], stride), weight.flip(-1, -2))


def layer_without_stride(x, weight, stride):
    seen = _seen(x, weight.shape[-1])
    return torch.einsum("mchwij,hwocij->mohw", seen[:, :, : weight.shape[0], : weight.shape[1]], weight)


def layer_turned(x, weight, stride):
    return torch.einsum("mchwij,hwocij->mowh", _seen(x, weight.shape[-1], stride), weight)


def update_mean(x, post, k):
    return torch.einsum("mohw,mchwij->hwocij", post, _seen(x, k)) / len(x)


def update_summed(x, post, k):
    summed = torch.einsum("mohw,mchwij->ocij", post, _seen(x, k))
    return summed.expand(*x.shape[2:], *summed.shape)


def update_shared_out(x, post, k):  # its sum is right
    summed = torch.einsum("mohw,mchwij->ocij", post, _seen(x, k))
    return summed.expand(*x.shape[2:], *summed.shape) / x[0, 0].numel()


def update_against(x, post, k):
    return -torch.einsum("mohw,mchwij->hwocij", post, _seen(x, k))


def update_turned(x, post, k):
    return torch.einsum("mohw,mchwij->hwocji", post, _seen(x, k))


def show_twice(n, q):
    return [0, *range(0, n, q)]


WRONG = {
    "13-1": [layer_without_border, layer_that_copies, layer_that_flips, layer_without_stride, layer_turned],
    "13-2": [update_mean, update_summed, update_shared_out, update_against, update_turned],
    "13-3": [
        lambda q1, p, q2, limit: list(range(q1, limit + 1, q1)),  # only the first layer
        lambda q1, p, q2, limit: list(range(math.lcm(q1, q2), limit + 1, math.lcm(q1, q2))),  # no pool
        lambda q1, p, q2, limit: list(range(math.lcm(q1, p, q2), limit + 1, math.lcm(q1, p, q2))),  # in pixels
        lambda q1, p, q2, limit: list(range(q1 * p * q2, limit + 1, q1 * p * q2)),  # the product
        lambda q1, p, q2, limit: list(range(0, limit + 1, math.lcm(q1, p * q2))),  # shift 0, too
    ],
    "13-4": [
        lambda n, q: list(range(n)),  # a convolution
        lambda n, q: list(range(q)),  # neighbours
        lambda n, q: list(range(q, n, q)),  # not at home
        lambda n, q: list(range(0, n, n // q)),  # as many as modules
        lambda n, q: list(range(0, n + 1, q)),  # once round
        show_twice,
    ],
    "13-5": [
        lambda h, w, q: q / math.sqrt(h * w),  # more modules than places
        lambda h, w, q: min(q, h) * min(q, w) / (h * w),  # a variance
        lambda h, w, q: 1 / math.sqrt(h * w),  # one module
        lambda h, w, q: math.sqrt(h * w) / q,
        lambda h, w, q: 1 / math.sqrt(max(1, h // q) * max(1, w // q)),  # all as small as the smallest
    ],
    "13-6": [
        {1: [(90, 20), (91, 22), (89, 21)], 4: [(90, 60), (91, 62), (89, 61)]},  # two numbers of places
        {k: [(90, 20 + k), (91, 22 + k)] for k in (1, 3, 7)},  # two seeds
        {k: [(90, 20 + k)] * 3 for k in (1, 3, 7)},  # one seed
        {k: [(0.90, 0.2 + k / 10), (0.91, 0.3), (0.89, 0.25)] for k in (1, 3, 7)},  # not in %
        {k: [(90, 95), (91, 96), (89, 94)] for k in (1, 3, 7)},  # the wrong way round
        {k: [(90, 30 - k), (91, 32 - k), (89, 31 - k)] for k in (1, 3, 7)},  # more places do not help
        {k: [90, 91, 92] for k in (1, 3, 7)},  # one number
    ],
}
