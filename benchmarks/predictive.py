"""A step of CLAPP with VGG-6, layer by layer, beside the same loss end to end: time, memory at its peak, patches.

Goals: at most 1.25 × the time and 0.6 × the memory; cutting images into patches at most 3 % of the step.
`python benchmarks/predictive.py [images per step] [rounds]`; memory counts gradients of weights, which do not grow with
the batch, so give it some 8 images.
"""

import sys

import timing
import torch
from target_prop import peak_bytes

from biolearn_lite.data.patches import Glances
from biolearn_lite.nets.clapp import PARTITIONS, VGG6, glance_encoder, predictions
from biolearn_lite.nets.eye import Eye
from biolearn_lite.training.step import Batch, Precision, Step

IMAGES = int(sys.argv[1]) if len(sys.argv) > 1 else 8
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else timing.ROUNDS
DATA = Glances(torch.randint(256, (IMAGES, 3, 96, 96), dtype=torch.uint8))
SEEN = DATA[torch.arange(IMAGES)]


def step(modules, pieces):
    """One training step, as `training.fit` takes it, on patches that are there."""
    network = glance_encoder(VGG6, partition=PARTITIONS[modules], pieces=pieces)
    objectives = predictions(network, Eye(), retro=True)
    optimizers = [
        torch.optim.Adam([*block.parameters(), *objective.parameters()], lr=2e-4, fused=True)
        for block, objective in zip(network.blocks, objectives, strict=True)
    ]
    precision = Precision(None, SEEN.device)
    learn = Step(network.blocks, objectives, optimizers, precision, order="streamed", clip_norm=None)
    return lambda: learn(Batch(SEEN, torch.zeros(IMAGES)), range(len(objectives)))


if __name__ == "__main__":
    steps = {
        "end to end": step("1 module", 1),
        "end to end, in 8 pieces": step("1 module", 8),
        "layer by layer, in one piece": step("6 modules", 1),
        "layer by layer": step("6 modules", 8),
    }
    contestants = steps | {"patches": lambda: DATA[torch.arange(IMAGES)]}
    seconds = timing.least(contestants, rounds=ROUNDS)
    timing.table(f"CLAPP, VGG-6, {IMAGES} images", seconds, floor="end to end", goal=1.25)
    peaks = {name: peak_bytes(run) for name, run in steps.items()}
    for name, peak in peaks.items():
        print(f"  {name:<42} {peak / 1e6:9.1f} MB   {peak / peaks['end to end']:5.2f} × at its peak")
