"""CLAPP's question, asked about two views of a picture instead of two glances: the CLAPP rows of 002's Table 1.

The first view is the context, the second one what is predicted from it: W_pred works on the embeddings, and learns with
them. Same picture: a fixation. The next picture of the batch: a saccade. Both are asked at every step. Images, views,
networks, heads and readouts are those of `recipes.two_views`, so a row differs from its kin in recipe `hinge` in the
question alone. How 002 joined the two is not in its text; this is our reading.

The patch-based CLAPP rows of its Table 2 are 003's own experiment: recipe `clapp`, rows "Hinge Loss CPC" (end to end)
and "CLAPP-s" (layer by layer). The rates for digits are those of the hinge, without a search of their own.
"""

from typing import Any, final

import torch
from torch import Tensor, nn

from biolearn_lite.nets.layers import default_draw
from biolearn_lite.recipes import hinge, two_views
from biolearn_lite.recipes.engine import Metrics, Recipe, Scale
from biolearn_lite.recipes.two_views import Data, Settings
from biolearn_lite.rules.predictive import clapp_hinge
from biolearn_lite.training.checkpoint import Checkpoints

ROWS = {"CLAPP E2E": "end to end", "CLAPP GLL": "greedy"}
COLUMNS = ("digits", "cifar100", "cifar10")
PRINTED = {"CLAPP E2E": "CLAPP, E2E, BP", "CLAPP GLL": "CLAPP, GLL, N/A"}


@final
class PredictedView(nn.Module):
    """The second view should be predicted from the first, and not from the first view of the picture before it.

    Shape: embeddings a, b (m, features) → scalar, both cases as means. Source: 003, Eq. 3; 002, Table 1.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.W_pred = nn.Parameter(default_draw(torch.empty(features, features)))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        views, events = torch.stack([b, b.roll(-1, 0)]), torch.tensor([1, -1], device=a.device)
        return clapp_hinge(a, views, events, self.W_pred)


def settings(row: str, column: str) -> Settings:
    """The hinge's, but for the rule."""
    like: dict[str, Any] = hinge.COLUMNS[column] | {"rule": "clapp", "schedule": ROWS[row]}
    if column == "digits" and row == "CLAPP GLL":
        like["rate"] = 2e-3
    return Settings(**like)


def train(settings: Settings, data: Data, seed: int, progress: bool, checkpoints: Checkpoints | None) -> Metrics:
    """One run: build, learn, freeze, read out."""
    network, objectives = two_views.build(settings, seed)
    with torch.random.fork_rng():
        torch.manual_seed(_PREDICTIONS + seed)
        for objective in objectives:
            objective.compare = PredictedView(settings.head)
    for module in (network, *objectives):
        module.to(data.shown[0].device)
    history = two_views.learn(settings, network, objectives, data.shown, seed, progress, checkpoints)
    return two_views.judge(settings, network, objectives[-1], data, seed, progress) | {"history": history}


_PREDICTIONS = 13_000_027
"""Keeps W_pred's random numbers apart from those of an encoder or a head with the same seed."""

RECIPES = (
    Recipe(
        name="clapp-views",
        about="Table 1 of 002, its CLAPP rows: two views in the place of two glances",
        rows=tuple(ROWS),
        scales={
            "lite": Scale(("digits",), (0, 1, 2, 3, 4)),
            "colab": Scale(("cifar10",), (0,)),
            "full": Scale(("cifar100", "cifar10"), (0, 1, 2, 3, 4)),
        },
        settings=settings,
        load=two_views.load,
        random=two_views.random,
        train=train,
        measures=("test_accuracy", "embedding"),
        paper=lambda row, column: None if column == "digits" else ("002-1", PRINTED[row], "Acc."),
        rehearsal_batch=2,
    ),
)
