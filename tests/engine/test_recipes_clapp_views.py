"""CLAPP's question about two views: its loss by a slow loop, W_pred learns, the printed numbers, two true steps."""

from dataclasses import replace

import pytest
import torch

from biolearn_lite.recipes import clapp_views as page
from biolearn_lite.recipes import engine, papers, two_views

(RECIPE,) = page.RECIPES


def test_the_loss_by_a_slow_loop():
    torch.manual_seed(0)
    objective = page.PredictedView(3).double()
    a, b = torch.randn(2, 5, 3, dtype=torch.float64)
    W = objective.W_pred.tolist()

    def score(i, j):
        return sum(b[j][p].item() * W[p][q] * a[i][q].item() for p in range(3) for q in range(3))

    same = sum(max(0.0, 1 - score(i, i)) for i in range(5)) / 5
    other = sum(max(0.0, 1 + score(i, (i + 1) % 5)) for i in range(5)) / 5
    assert objective(a, b).item() == pytest.approx(same + other, abs=1e-12)


def test_the_predictions_learn_with_the_heads(monkeypatch):
    settings = page.settings("CLAPP GLL", "digits")
    data = two_views.random(settings, 2)
    seen = {}

    class Watched(page.PredictedView):
        def forward(self, a, b):
            seen.setdefault(id(self), []).append(self.W_pred.detach().clone())
            return super().forward(a, b)

    monkeypatch.setattr(page, "PredictedView", Watched)
    page.train(replace(settings, epochs=1), data, 0, False, None)
    assert len(seen) == 3
    assert all(not torch.equal(weights[0], weights[-1]) for weights in seen.values())


def test_the_printed_numbers():
    places = [RECIPE.paper(row, "cifar100") for row in page.ROWS]
    assert [papers.number(*place) for place in places] == [69.05, 68.93]
    assert RECIPE.paper("CLAPP E2E", "digits") is None


@pytest.mark.parametrize("run", engine.plan(RECIPE, "full", seeds=[0], columns=["cifar10"]), ids=str)
def test_two_steps_at_true_size(run):
    metrics = engine.rehearse(RECIPE, run)
    assert len(metrics["layers"]) == 5
    assert metrics["history"]
