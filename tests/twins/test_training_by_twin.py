"""Training by the explicit update alone: no autograd anywhere in the hidden layers, and the same weights in the end."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from biolearn_lite.nets.layers import DivisiveNorm
from biolearn_lite.nets.networks import mlp
from biolearn_lite.rules.hsic import bottleneck_objective, bottleneck_signal
from biolearn_lite.rules.kernels import label_kernel
from biolearn_lite.training.fit import Explicit, fit

OPTIONS = {
    "plain": {"sigma": 1.0},
    "grouped": {"sigma": 0.5, "groups": 4, "power": 0.2},
    "cosine": {"kernel": "cosine"},
    "hsic": {"sigma": 1.0, "estimator": "hsic"},
}


def cross_entropy(seen, batch):
    return F.cross_entropy(seen, batch.labels)


def by_objective(options):
    return lambda z, batch: bottleneck_objective(z, label_kernel(batch.labels, 4).to(z), **options)


def by_twin(options):
    return Explicit(lambda z, batch: bottleneck_signal(z, label_kernel(batch.labels, 4).to(z), **options))


def train(rule, options, epochs=5):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(147, 6, dtype=torch.float64, generator=generator)  # 10 batches an epoch, the last one short
    y = torch.randint(4, (147,), generator=generator)
    after = partial(DivisiveNorm, 4) if options.get("groups") else nn.Identity
    net = mlp((6, 16, 12, 4), activation=nn.LeakyReLU(0.1), after=after, partition=(1, 1, 1), seed=3).double()
    sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.95, weight_decay=1e-4)
    history = fit(
        net,
        [rule(options), rule(options), cross_entropy],
        x,
        y,
        optimizers=sgd,
        epochs=epochs,
        batch_size=16,
        progress=False,
    )
    return history, [p.detach() for p in net.parameters()]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_fifty_steps_end_at_the_same_weights(options):
    history, expected = train(by_objective, options)
    assert history[-1]["losses"][0] is not None
    history, found = train(by_twin, options)
    assert history[-1]["losses"][:2] == [None, None]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
    start = mlp((6, 16, 12, 4), activation=nn.LeakyReLU(0.1), seed=3).double()
    assert (next(start.parameters()) - found[0]).abs().max() > 1e-2, "nothing was learned, nothing was compared"


def test_hidden_layers_learn_without_autograd(monkeypatch):
    """Only the readout may call backward: one call a step, reaching nothing below it."""
    calls = []
    backward = torch.Tensor.backward

    def counted(self, *args, **kwargs):
        calls.append(self)
        return backward(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "backward", counted)
    monkeypatch.setattr(torch.autograd, "grad", None)
    train(by_twin, OPTIONS["grouped"], epochs=1)
    assert len(calls) == 10


def test_an_explicit_update_is_for_one_layer():
    net = mlp((6, 8, 8, 4), activation=nn.Tanh(), partition=(2, 1))
    x, y = torch.randn(8, 6), torch.randint(4, (8,))
    with pytest.raises(ValueError, match=r"objectives\[0\].*one layer.*has 2"):
        fit(net, [by_twin({}), cross_entropy], x, y, optimizers=torch.optim.SGD, epochs=1, batch_size=4, progress=False)
