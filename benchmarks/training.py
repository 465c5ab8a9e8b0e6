"""What a run costs beside its steps, and whether it survives: batches, checkpoints, a hundred kills.

Goals: drawing batches at most 5 % of a step; checkpoints at most 2 % of a run; kill -9 a hundred times, and the weights
and metrics are those of the uninterrupted run, bit for bit.
"""

import multiprocessing
import random
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import timing
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from biolearn_lite.nets.layers import Conv2d, Layer, Linear
from biolearn_lite.nets.networks import Network, mlp
from biolearn_lite.rules.hsic import bottleneck_objective
from biolearn_lite.rules.kernels import label_kernel
from biolearn_lite.training.checkpoint import SHARE, Checkpoints
from biolearn_lite.training.fit import batches, fit
from biolearn_lite.training.schedules import RandomLayer

BATCH, STEPS, KILLS, EPOCHS = 128, 4, 100, 500
SGD = partial(torch.optim.SGD, lr=1e-3, momentum=0.95, weight_decay=1e-7)
ADAM = partial(torch.optim.Adam, lr=1e-3)


def cross_entropy(seen, batch):
    return F.cross_entropy(seen, batch.labels)


def pairwise(z, batch):
    return bottleneck_objective(z, label_kernel(batch.labels, 10))


def dense():
    return mlp((784, 1024, 1024, 1024, 10), activation=nn.LeakyReLU(0.01), partition=(1, 1, 1, 1))


def convolutional():
    sizes = zip((3, 32, 64), (32, 64, 128), strict=True)
    options = {"activation": nn.ReLU(), "pool": nn.MaxPool2d(2)}
    hidden = [Layer(Conv2d(below, here, 3, padding=1, bias=False), **options) for below, here in sizes]
    return Network([*hidden, Layer(nn.Sequential(nn.Flatten(), Linear(128 * 16, 10)))], (1, 1, 1, 1))


def examples(*shape):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(STEPS * BATCH, *shape, generator=generator)
    return x, torch.randint(10, (len(x),), generator=generator)


def compare_batches(title, net, data):
    """Seconds of an epoch of training, and of drawing its batches alone."""
    generators = [torch.Generator().manual_seed(0)]
    options = {"optimizers": SGD, "epochs": 1, "batch_size": BATCH, "progress": False}
    contestants = {
        f"{STEPS} steps": partial(fit, net, [pairwise] * 3 + [cross_entropy], *data, **options),
        "their batches": lambda: list(batches(*data, batch_size=BATCH, generators=generators)),
    }
    timing.table(title, timing.least(contestants), floor=f"{STEPS} steps", goal=0.05)


class Timed(Checkpoints):
    """Checkpoints that know how long each save took, the disk included."""

    def save(self, state):
        start = time.perf_counter()
        super().save(state)
        self.seconds = [*getattr(self, "seconds", []), time.perf_counter() - start]


def time_saves(title, net, optimizers, data):
    """Seconds of a save, and its share of a run that saves as often as by default, every 60 seconds."""
    with tempfile.TemporaryDirectory() as folder:
        states = Timed(folder, every=0)
        objectives = [pairwise] * 3 + [cross_entropy]
        options = {"optimizers": optimizers, "epochs": 12, "batch_size": STEPS * BATCH, "progress": False}
        fit(net, objectives, *data, checkpoints=states, **options)
        size = max(path.stat().st_size for path in Path(folder).iterdir())
    median = sorted(states.seconds)[len(states.seconds) // 2]
    share = 100 * median / (Checkpoints(folder).every + median)
    print(f"  {title:<42} {median * 1e3:9.1f} ms   {share:5.2f} %   ({size / 1e6:.0f} MB)")


def small_run(folder=None, pause=0.0):
    """A run with all that has a state; `(metrics, weights)`."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(96, 20, generator=generator), torch.randint(10, (96,), generator=generator)
    net = mlp((20, 32, 32, 10), activation=nn.Tanh(), after=partial(nn.Dropout, 0.1), partition=(1, 1, 1))
    options = {"optimizers": ADAM, "epochs": EPOCHS, "batch_size": 32, "schedule": RandomLayer(), "progress": False}
    if folder:
        options |= {"checkpoints": Checkpoints(folder / "states", every=0), "log": folder / "log.jsonl"}

    def wait(epoch):
        time.sleep(pause)
        return {}

    history = fit(net, [pairwise, pairwise, cross_entropy], x, y, after_epoch=wait, **options)
    return history, [p.detach().clone() for p in net.parameters()]


def run_to_be_killed(folder):
    tqdm.set_lock(threading.RLock())  # its own is shared by processes, and a kill would leave it behind
    small_run(folder, pause=0.005)


def epochs_logged(folder):
    log = folder / "log.jsonl"
    return log.read_text().count("\n") if log.exists() else -1


def kill(folder, draws):
    """Start or resume the run, let it go on for some epochs, kill it without warning; whether it was still running."""
    process = multiprocessing.get_context("forkserver").Process(target=run_to_be_killed, args=(folder,))
    process.start()
    goal = max(epochs_logged(folder), 0) + draws.randint(0, 5)
    while epochs_logged(folder) < goal and process.is_alive():
        time.sleep(0.001)
    time.sleep(draws.uniform(0, 0.02))
    process.kill()
    process.join()
    return process.exitcode == -9


def survive():
    multiprocessing.get_context("forkserver").set_forkserver_preload(["torch._dynamo", "timing"])
    history, weights = small_run()
    with tempfile.TemporaryDirectory() as name:
        folder, draws = Path(name), random.Random(0)
        killed = sum(kill(folder, draws) for _ in range(KILLS))
        reached = epochs_logged(folder)
        resumed, found = small_run(folder)
        logged = epochs_logged(folder)
    same = resumed == history and logged == EPOCHS and all(map(torch.equal, found, weights))
    print(f"Killed {killed} times within {reached} of {EPOCHS} epochs (goal: {KILLS} times), then left to end")
    print(f"  weights, metrics and log are {'the same as' if same else 'NOT THOSE OF'} the uninterrupted run's")


if __name__ == "__main__":
    images = examples(3, 32, 32)
    compare_batches("784-3×1024-10, layer by layer, batch 128", dense(), examples(784))
    compare_batches("3×32×32, three convolutions, layer by layer, batch 128", convolutional(), images)
    print(f"One save, and its share of a run that saves every minute (goal: at most 2 %; held to {100 * SHARE:g} %)")
    time_saves("784-3×1024-10, SGD with momentum", dense(), SGD, examples(784))
    time_saves("784-3×1024-10, Adam", dense(), ADAM, examples(784))
    time_saves("three convolutions, Adam", convolutional(), ADAM, images)
    survive()
