"""Three or more wrong answers to each exercise of chapter 05, the likely ones; each must be told why it is wrong."""

import itertools

import torch


def updates_from_the_first(examples, third_factor):
    x_before = z_before = 0.0
    for x, z in examples:
        yield torch.outer(z - z_before, x - x_before) * (
            third_factor(z, z_before) if torch.is_tensor(z_before) else 1.0
        )
        x_before, z_before = x, z


def updates_after_the_last(examples, third_factor):
    examples = list(examples)
    for (x_before, z_before), (x, z) in itertools.pairwise(examples):
        yield third_factor(z, z_before) * torch.outer(z - z_before, x - x_before)


def updates_of_every_second(examples, third_factor):
    for (x_before, z_before), (x, z) in zip(examples, examples, strict=False):
        yield third_factor(z, z_before) * torch.outer(z - z_before, x - x_before)


def updates_without_differences(examples, third_factor):
    before = None
    for x, z in examples:
        if before is not None:
            yield third_factor(z, before) * torch.outer(z, x)
        before = z


def updates_backwards(examples, third_factor):
    before = None
    for x, z in examples:
        if before is not None:
            yield third_factor(before[1], z) * torch.outer(z - before[1], x - before[0])
        before = x, z


def updates_against_the_first(examples, third_factor):
    x_first, z_first = next(examples)
    for x, z in examples:
        yield third_factor(z, z_first) * torch.outer(z - z_first, x - x_first)


def without_the_ends(M, hebb):
    return torch.cat([torch.zeros(1, 2), (M[:-1] - M[1:])[:, None] * hebb[1:-1], torch.zeros(1, 2)])


def of_the_inside_only(M, hebb):
    return (M[:-1] - M[1:])[:, None] * hebb[1:-1]


def with_the_signs_exchanged(M, hebb):
    padded = torch.cat([M.new_zeros(1), M, M.new_zeros(1)])
    return padded.diff()[:, None] * hebb


def by_differences(M, hebb):
    return torch.cat([hebb.new_zeros(1, 2), M[:, None] * hebb.diff(dim=0)])


WRONG = {
    "05-1": [
        updates_from_the_first,
        updates_after_the_last,
        updates_of_every_second,
        updates_without_differences,
        updates_backwards,
        updates_against_the_first,
        lambda examples, third_factor: 0.0,
    ],
    "05-2": [without_the_ends, of_the_inside_only, with_the_signs_exchanged, by_differences],
    "05-3": [
        lambda tolerance: 1.1,
        lambda tolerance: torch.atanh(torch.tensor(1 / (1 + tolerance))) ** (1 / 3),  # of the cube, not of its root
        lambda tolerance: torch.atanh(torch.tensor((1 + tolerance) ** -3)),  # the cube itself
        lambda tolerance: torch.atanh(torch.tensor((1 - tolerance) ** 3)) ** (1 / 3),  # a reading that is too small
    ],
    "05-4": [
        {"19": (1, 0, 1), "20": (1, 0, 1), "21": (1, 0, 1), "22": (1, 0, 1)},
        {"19": (1, 0, 1), "20": (1, 0, 1), "21": (1, 0, 1), "22": (0, 1, 1)},  # one third factor only
        {"19": (2, 0, 1), "20": (1, 0, 1), "21": (1, 0, 1), "22": (0, 1, 2)},
        {"19": (1, 0, 1), "20": (1, 0, 1), "21": (1, 1, 1), "22": (0, 1, 2)},  # a trace that (21) does not need
        {"19": (1, 0, 1)},
    ],
    "05-5": [
        {0: [0.6, 0.61, 0.62], 0.1: [0.9, 0.91, 0.92], 0.5: [0.97, 0.98, 0.99]},  # three shares
        {0: [0.6, 0.61], 0.05: [0.8, 0.81], 0.1: [0.9, 0.91], 0.5: [0.97, 0.98]},  # two seeds
        {0: [0.6] * 3, 0.05: [0.8] * 3, 0.1: [0.9] * 3, 0.5: [0.97] * 3},  # one seed three times
        {0: [0.6, 0.61, 0.62], 0.05: [1.8, 1.81, 1.7], 0.1: [0.9, 0.91, 0.92], 0.5: [0.97, 0.98, 0.99]},
        {0: [0.6, 0.61, 0.62], 0.05: [0.6, 0.61, 0.63], 0.1: [0.6, 0.61, 0.64], 0.5: [0.6, 0.62, 0.65]},  # no effect
    ],
}
