"""One step of 784-3×1024-10 with divisive normalization, batch 256: explicit update, objective, backprop.

Readout and optimizers included: eight steps of `fit`, momentum and weight decay on.
"""

from functools import partial

import timing
import torch
import torch.nn.functional as F
from torch import nn

from biolearn_lite.nets.layers import DivisiveNorm
from biolearn_lite.nets.networks import mlp
from biolearn_lite.rules.hsic import bottleneck_objective, bottleneck_signal
from biolearn_lite.rules.kernels import label_kernel
from biolearn_lite.training.fit import Explicit, fit

SIZES, BATCH, GROUPS = (784, 1024, 1024, 1024, 10), 256, 32
OPTIONS = {"groups": GROUPS, "power": 0.2}
X, Y = torch.rand(8 * BATCH, 784) * 2 - 1, torch.randint(10, (8 * BATCH,))


def cross_entropy(seen, batch):
    return F.cross_entropy(seen, batch.labels)


def objective(z, batch):
    return bottleneck_objective(z, label_kernel(batch.labels, 10), **OPTIONS)


explicit = Explicit(lambda z, batch: bottleneck_signal(z, label_kernel(batch.labels, 10), **OPTIONS))


def steps(objectives):
    """A function that trains for one epoch of eight batches."""
    partition = (1,) * len(objectives) if len(objectives) > 1 else (len(SIZES) - 1,)
    norm = partial(DivisiveNorm, GROUPS, power=0.2)
    net = mlp(SIZES, activation=nn.LeakyReLU(0.01), after=norm, partition=partition)
    sgd = partial(torch.optim.SGD, lr=1e-3, momentum=0.95, weight_decay=1e-7, fused=True)
    return partial(fit, net, objectives, X, Y, optimizers=sgd, epochs=1, batch_size=BATCH, progress=False)


if __name__ == "__main__":
    seconds = timing.least(
        {
            "explicit update": steps([explicit] * 3 + [cross_entropy]),
            "objective, autograd": steps([objective] * 3 + [cross_entropy]),
            "backprop": steps([cross_entropy]),
        }
    )
    timing.table(
        "eight layer-wise steps (goals: 0.8 × the objective, 0.7 × backprop)", seconds, floor="objective, autograd"
    )
    timing.table("the same", seconds, floor="backprop")
