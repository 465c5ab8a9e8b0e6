"""One training step with each kind of feedback, dense and convolutional, beside backprop's."""

import itertools

import timing
import torch
import torch.nn.functional as F
from torch import nn

from biolearn_lite.nets.layers import FEEDBACK, Conv2d, Linear

X = {
    "dense, 784-3×1024-10, batch 256": torch.randn(256, 784),
    "conv, 3-32-64-64, 16×16, batch 64": torch.randn(64, 3, 16, 16),
}


def dense(feedback):
    sizes = [784, 1024, 1024, 1024, 10]
    pairs = itertools.pairwise(sizes)
    return nn.Sequential(*[m for i, o in pairs for m in (Linear(i, o, feedback=feedback), nn.Tanh())][:-1])


def conv(feedback):
    pairs = [(3, 32), (32, 64), (64, 64)]
    layers = [m for i, o in pairs for m in (Conv2d(i, o, 3, padding=1, feedback=feedback), nn.ReLU())]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), Linear(64, 10, feedback=feedback))


def step(network, x):
    y = torch.arange(len(x)) % 10
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, fused=True)

    def run():
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


if __name__ == "__main__":
    for (name, x), make in zip(X.items(), (dense, conv), strict=True):
        seconds = timing.least({kind: step(make(kind), x) for kind in FEEDBACK})
        timing.table(f"{name} (goal: random ≤ 1.1 × backprop)", seconds, floor="backprop")
