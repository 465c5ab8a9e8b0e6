"""Five seeds of a network at once (`training.seeds`) beside five runs in a row; ten steps of 64 examples.

Goals: on a CPU the faster one is the default of `fit_seeds` (its `SMALL` is where they meet); on a GPU, by the wall
clock, at most 2.5 × one seed.
"""

import time
from functools import partial

import timing
import torch
import torch.nn.functional as F
from torch import nn

from biolearn_lite.nets.networks import mlp
from biolearn_lite.rules.hsic import bottleneck_objective
from biolearn_lite.rules.kernels import label_kernel
from biolearn_lite.training.seeds import fit_seeds

SEEDS, BATCH, STEPS = 5, 64, 10


def cross_entropy(seen, batch):
    return F.cross_entropy(seen, batch.labels)


def objective(z, batch):
    return bottleneck_objective(z, label_kernel(batch.labels, 10), sigma=2.0)


def epoch(sizes, objectives, device, *, seeds, together):
    """A function that trains so many seeds for one epoch."""
    partition = (1,) * len(objectives) if len(objectives) > 1 else (len(sizes) - 1,)
    x = torch.randn(STEPS * BATCH, sizes[0], device=device)
    y = torch.randint(10, (len(x),), device=device)
    nets = [mlp(sizes, activation=nn.Tanh(), partition=partition, seed=s).to(device) for s in range(seeds)]
    options = {"optimizers": partial(torch.optim.SGD, lr=1e-3, momentum=0.9), "epochs": 1, "batch_size": BATCH}
    return partial(fit_seeds, nets, objectives, x, y, seeds=range(seeds), together=together, progress=False, **options)


def least_by_the_wall_clock(contestants, rounds=timing.ROUNDS):
    """As `timing.least`, for work that a GPU does while the CPU goes on or waits."""
    best = dict.fromkeys(contestants, float("inf"))
    for _ in range(rounds + 1):
        for name, run in contestants.items():
            torch.cuda.synchronize()
            start = time.perf_counter()
            run()
            torch.cuda.synchronize()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


if __name__ == "__main__":
    device, least = torch.device("cpu"), timing.least
    if torch.cuda.is_available():
        device, least = torch.device("cuda"), least_by_the_wall_clock
    for sizes in ((64, 16, 16, 16, 10), (64, 64, 64, 64, 10), (784, 100, 100, 100, 10)):
        for rule, objectives in {"layer-wise": [objective] * 3 + [cross_entropy], "backprop": [cross_entropy]}.items():
            run = partial(epoch, sizes, objectives, device)
            seconds = least(
                {
                    "one seed": run(seeds=1, together=False),
                    f"{SEEDS} seeds in a row": run(seeds=SEEDS, together=False),
                    f"{SEEDS} seeds at once": run(seeds=SEEDS, together=True),
                }
            )
            timing.table(f"{'-'.join(map(str, sizes))}, {rule}, {device}", seconds, floor="one seed")
