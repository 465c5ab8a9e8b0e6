"""What the recipes of chapter 09 compute: an encoder that learns by difference targets or backprop, and is read out.

One option, `credit`, says how layers hear of the loss: "backprop", "targets" (`nets.targets`), or "top block", the
control in which the top layer and the head alone learn, by backprop. Another, `downsampling`, puts strides in the place
of pools. Everything else is shared, the encoder's initial weights included. Images, readouts, tests and metrics are
those of `recipes.two_views`, and a run of rule "nothing" is a random encoder. The loss in the history is the overall
one, whatever the layers learn from. The rows and columns are in `recipes.dtp`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam

from biolearn_lite.data.views import Viewed
from biolearn_lite.nets.encoders import Stage, encoder, halves, heads
from biolearn_lite.nets.networks import Network
from biolearn_lite.nets.targets import DifferenceTargets, strided, target_network, two_rates
from biolearn_lite.recipes import two_views
from biolearn_lite.recipes.engine import Metrics, known, setting
from biolearn_lite.recipes.two_views import Data
from biolearn_lite.training.checkpoint import Checkpoints
from biolearn_lite.training.fit import Batch, fit

STAGES = two_views.STAGES | {"narrow": tuple(Stage(channels, nn.Tanh, True) for channels in (8, 16, 32))}

CREDIT = ("backprop", "targets", "top block")


@dataclass(frozen=True, kw_only=True)
class Settings(two_views.Settings):
    """One run: an encoder's settings, and how its layers hear of the loss."""

    schedule: str = setting("who learns when", default="end to end")
    credit: str = setting("how layers hear of the loss: 'backprop', 'targets' or 'top block'")
    downsampling: str = setting("'pool', or 'stride': the convolution takes the stride of its pool", default="pool")
    reading: str = setting(
        "first target at the top layer ('published') or the embedding ('printed')", default="published"
    )
    step: float = setting("η, from the top activity to its target, in gradients of the loss", default=0.5)
    noise: float = setting("standard deviation, in what inverses learn from", default=1.0)
    reduction: str = setting("layers' losses: 'sum' or 'mean' over activities", default="sum")
    corrected: bool = setting("whether targets are differences", default=True)
    inverse_rate: float = setting("of Adam, which teaches the inverses", default=1e-3)


def train(settings: Settings, data: Data, seed: int, progress: bool, checkpoints: Checkpoints | None) -> Metrics:
    """One run: build, learn, freeze, read out."""
    network, objectives, optimizers = build(settings, seed)
    top = objectives[-1]
    network.to(data.shown[0].device)
    top.to(data.shown[0].device)
    world, looks = two_views.WORLDS[settings.world], 1 if settings.rule == "labels" else 2
    inputs: object = data.shown[0] if world is None else Viewed(data.shown[0], world, looks=looks)
    history = (
        []
        if settings.rule == "nothing"
        else fit(
            network,
            objectives,
            cast(Tensor, inputs),
            data.shown[1],
            optimizers=optimizers,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            seed=seed,
            checkpoints=checkpoints,
            progress=progress,
        )
    )
    return two_views.judge(settings, network, top, data, seed, progress) | {"history": history}


def build(settings: Settings, seed: int) -> tuple[Network, list[Any], Callable[..., Adam]]:
    """The encoder, an objective per block (the last one has the head on top), and what makes their optimizers."""
    stages = known("stages", settings.stages, STAGES)
    known("credit", settings.credit, dict.fromkeys(CREDIT))
    network = encoder(
        stages,
        channels=settings.shape[0],
        partition=(len(stages) - 1, 1) if settings.credit == "top block" else None,
        seed=seed,
        remember_first=settings.stop_first_view and settings.credit != "targets",
    )
    if known("downsampling", settings.downsampling, {"pool": False, "stride": True}):
        strided(network)
    top = head(settings, network, seed)
    if settings.credit != "targets":
        return network, [None] * (len(network.blocks) - 1) + [top], partial(Adam, lr=settings.rate)
    network = target_network(network.layers)
    objective = DifferenceTargets(
        network,
        settings.shape,
        top.head,
        overall(settings),
        reading=settings.reading,
        step=settings.step,
        noise=settings.noise,
        reduction=settings.reduction,
        corrected=settings.corrected,
        seed=seed,
    )
    return network, [objective], two_rates(objective, settings.rate, inverse_rate=settings.inverse_rate)


def head(settings: Settings, network: Network, seed: int) -> Any:
    """The objective of backprop, with the head: a classifier, or a projection for pairs of views."""
    if settings.rule != "labels":
        compare = two_views.comparison(settings)
        return heads(network, settings.shape, compare, size=settings.head, average=settings.average, seed=seed)[-1]
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        top = network.eval()(torch.zeros(1, *settings.shape))
        return two_views.Classifier(tuple(top.shape[1:]))


def overall(settings: Settings) -> Callable[[Tensor, Batch], Tensor]:
    """The loss at the head: of scores, or of two views' embeddings, stacked."""
    if settings.rule == "labels":
        return lambda scores, batch: F.cross_entropy(scores, batch.labels)
    compare = two_views.comparison(settings)
    return lambda embedding, batch: compare(*halves(embedding))
