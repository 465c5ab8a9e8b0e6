"""A step of difference target propagation beside a backprop step of the same network: time, and memory at its peak.

Targets put a rising activation after its pool, which `Network` does not. What backprop would gain by the same is in the
row "backprop, pooled first".
"""

import gc

import timing
import torch
import torch.nn.functional as F
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from biolearn_lite.nets.encoders import CIFAR, Stage, encoder
from biolearn_lite.nets.layers import Linear
from biolearn_lite.nets.networks import Network
from biolearn_lite.nets.targets import DifferenceTargets, strided, target_network, two_rates
from biolearn_lite.training.step import Batch, Precision, Step

DIGITS = tuple(Stage(channels, nn.Tanh, True) for channels in (16, 32, 64))
DEEP = tuple(Stage(channels, nn.Tanh, True) for channels in (32, 64, 128, 256))
CASES = {
    "digits, 1-16-32-64 on 16×16, batch 64": (DIGITS, (1, 16, 16), 64, False),
    "the same, strided": (DIGITS, (1, 16, 16), 64, True),
    "002's published net, 3-32-64-128-256 on 32×32, batch 32": (DEEP, (3, 32, 32), 32, False),
    "002's printed net, CONV6 on 32×32, batch 32": (CIFAR, (3, 32, 32), 32, False),
}


class TopLoss(nn.Module):
    """Cross-entropy of the head's scores: the objective of backprop."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, seen, batch):
        return cross_entropy(self.head(seen), batch)


def cross_entropy(scores, batch):
    return F.cross_entropy(scores, batch.labels)


RULES = ("backprop", "backprop, pooled first", "difference targets")


def steps(stages, shape, batch_size, stride, *, rule):
    """One training step, as `training.fit` takes it."""
    network = encoder(stages, channels=shape[0])
    if stride:
        strided(network)
    batch = Batch(torch.rand(batch_size, *shape), torch.arange(batch_size) % 10)
    features = network(batch.inputs)[0].numel()
    head = nn.Sequential(nn.Flatten(), Linear(features, 10, bias=False))
    if rule == "backprop, pooled first":
        for layer in network.layers:
            layer.activation, layer.pool = nn.Identity(), nn.Sequential(layer.pool, layer.activation)
    if rule == "difference targets":
        network = target_network(network.layers)
        objective = DifferenceTargets(network, shape, head, cross_entropy)
        optimizer = two_rates(objective, 1e-4, inverse_rate=1e-3)([*network.parameters(), *objective.parameters()])
    else:
        network, objective = Network(network.layers), TopLoss(head)
        optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=1e-4, fused=True)
    precision = Precision(None, batch.inputs.device)
    step = Step(network.blocks, [objective], [optimizer], precision, order="streamed", clip_norm=None)
    return lambda: step(batch, [0])


class Memory(TorchDispatchMode):
    """Bytes of all tensors that operations make, for as long as they live; views and in-place results count once.

    Weights and the optimizer's state were there before. What a kernel uses inside itself is not seen.
    """

    def __init__(self):
        super().__init__()
        self.alive, self.peak = {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = {tensor.untyped_storage()._cdata for tensor in tensors(args)}
        made = function(*args, **(kwargs or {}))
        self.alive = {key: held for key, held in self.alive.items() if not held[0].expired()}
        for storage in (tensor.untyped_storage() for tensor in tensors((made,))):
            if storage._cdata not in given:
                self.alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return made


def tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def peak_bytes(run):
    """Most bytes alive at once during a step, beyond weights and optimizer."""
    run()
    gc.collect()
    with Memory() as memory:
        run()
    return memory.peak


if __name__ == "__main__":
    for name, case in CASES.items():
        contestants = {rule: steps(*case, rule=rule) for rule in RULES}
        timing.table(name, timing.least(contestants), floor="backprop", goal=1.5)
        peaks = {rule: peak_bytes(run) for rule, run in contestants.items()}
        for rule, peak in peaks.items():
            print(f"  {rule:<42} {peak / 1e6:9.1f} MB   {peak / peaks['backprop']:5.2f} × at its peak")
