"""Learning from pairs of views with the CIFAR encoder of 002, section 4.1: what a step is made of, and what saves time.

Batch 64 (128 views). The parts of an end-to-end step: views (goal: at most 10 %), loss (at most 3 %). The step with the
first view only remembered, beside one that teaches both (goal: at most 0.75 ×). And a greedy step of every layer,
beside the least it can be: the layers below without a graph, and one layer that is trained (goal: at most 1.15 ×).
"""

from collections.abc import Callable
from functools import partial

import torch
from timing import least, table
from torch import Tensor
from torch.optim import Adam

from biolearn_lite.data.views import Deform, Viewed
from biolearn_lite.nets.encoders import CIFAR, PairObjective, encoder, heads
from biolearn_lite.nets.networks import Network
from biolearn_lite.rules.contrastive import contrastive_hinge
from biolearn_lite.training.step import Batch, Precision, Step

BATCH, SHAPE, ROUNDS = 64, (3, 32, 32), 8
RULE = partial(contrastive_hinge, negatives=5)
LABELS, ALL = torch.zeros(BATCH), torch.arange(BATCH)
VIEWS = torch.rand(2 * BATCH, *SHAPE)


def learner(*, partition: tuple[int, ...], remember: bool) -> tuple[Network, list[PairObjective], list[Adam]]:
    network = encoder(CIFAR, partition=partition, remember_first=remember).train()
    objectives = heads(network, SHAPE, partial(RULE, stop_first_view=remember))
    owned = zip(network.blocks, objectives, strict=True)
    return network, objectives, [Adam([*block.parameters(), *top.parameters()], lr=1e-4) for block, top in owned]


def step(active: int = 0, *, partition: tuple[int, ...] = (5,), remember: bool) -> Callable[[], object]:
    """One step of the package's trainer, in which one block learns."""
    network, objectives, optimizers = learner(partition=partition, remember=remember)
    precision = Precision(None, torch.device("cpu"))
    learn = Step(list(network.blocks), objectives, optimizers, precision, order="streamed", clip_norm=None)
    return lambda: learn(Batch(VIEWS, LABELS), [active])


def parts(b: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """The layers below layer b, without a graph; and a step of that layer alone, on what they would hand it."""
    network, objectives, optimizers = learner(partition=(1,) * 5, remember=True)

    @torch.no_grad()
    def prefix() -> Tensor:
        x = VIEWS
        for layer in network.layers[:b]:
            x = layer.after(layer.activity(x))
        return x

    x = prefix()

    def one_layer() -> None:
        objectives[b](network.blocks[b](x)[0]).backward()
        optimizers[b].step()
        optimizers[b].zero_grad(set_to_none=True)

    return prefix, one_layer


if __name__ == "__main__":
    torch.set_num_threads(1)
    viewed = Viewed((255 * torch.rand(BATCH, *SHAPE)).byte(), Deform())
    embeddings = torch.randn(2, BATCH, 64).requires_grad_()
    seconds = least(
        {
            "E2E step, both views": step(remember=False),
            "E2E step, first view remembered": step(remember=True),
            "views": lambda: viewed[ALL],
            "loss, T = 5, with its gradient": lambda: RULE(*embeddings).backward(),
            "loss, all negatives": lambda: contrastive_hinge(*embeddings).backward(),
        },
        rounds=ROUNDS,
    )
    table("Parts of a step, CIFAR encoder, batch 64", seconds, floor="E2E step, both views", goal=0.75)
    for b in range(5):
        prefix, one_layer = parts(b)
        greedy = step(b, partition=(1,) * 5, remember=True)
        seconds = least({"layers below": prefix, "one layer": one_layer, "greedy step": greedy}, rounds=ROUNDS)
        seconds["layers below + one layer"] = seconds["layers below"] + seconds["one layer"]
        table(f"Greedy step of layer {b + 1}", seconds, floor="layers below + one layer", goal=1.15)
