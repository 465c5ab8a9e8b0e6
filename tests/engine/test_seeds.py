"""Seeds trained at once end where each would have ended alone."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import MultiStepLR

from biolearn_lite.nets.layers import DivisiveNorm
from biolearn_lite.nets.networks import mlp
from biolearn_lite.rules.hsic import bottleneck_objective
from biolearn_lite.rules.kernels import label_kernel
from biolearn_lite.training.fit import Explicit
from biolearn_lite.training.seeds import fit_seeds

SEEDS = (3, 0, 11)
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-2)
ADAM = partial(torch.optim.Adam, lr=0.01)


def cross_entropy(seen, batch):
    return F.cross_entropy(seen, batch.labels)


def pairwise(seen, batch, **options):
    return bottleneck_objective(seen, label_kernel(batch.labels, 4, dtype=seen.dtype), **options)


def looks_at_inputs(seen, batch):
    return (seen.mean(1) - batch.inputs[:, 0]).square().mean()


grouped = partial(pairwise, sigma=1.0, groups=4)
hsic = partial(pairwise, estimator="hsic", kernel="cosine")


def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(37, 6, dtype=torch.float64, generator=generator)
    return x, torch.randint(4, (37,), generator=generator)


def build(partition, *, after=nn.Identity, feedback="backprop", hidden=8, seeds=SEEDS):
    sizes, tanh = (6, hidden, 8, 4), nn.Tanh()
    return [mlp(sizes, activation=tanh, after=after, partition=partition, seed=s, feedback=feedback) for s in seeds]


def train(networks, objectives, together, *, optimizers=SGD, epochs=4, seeds=SEEDS, **options):
    networks = [network.double() for network in networks]
    x, y = data()

    def after_epoch(s, epoch):
        return {"mean": networks[s].eval()(x).mean().item(), "which": (s, epoch)}

    options = {"after_epoch": after_epoch, "progress": False, "together": together} | options
    history = fit_seeds(
        networks, objectives, x, y, seeds=seeds, optimizers=optimizers, epochs=epochs, batch_size=16, **options
    )
    return torch.stack([torch.cat([p.detach().flatten() for p in n.parameters()]) for n in networks]), history


def agree(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(agree(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(agree, a, b))
    return a == (pytest.approx(b, abs=1e-9) if isinstance(b, float) else b)


@pytest.mark.parametrize(
    ("partition", "objectives", "options", "training"),
    [
        ((1, 1, 1), [grouped, hsic, cross_entropy], {"after": partial(DivisiveNorm, 4)}, {"optimizers": SGD}),
        ((3,), [cross_entropy], {}, {"optimizers": ADAM}),
        ((1, 2), [None, cross_entropy], {}, {"optimizers": [SGD, ADAM]}),
        ((2, 1), [looks_at_inputs, cross_entropy], {"feedback": "updated"}, {"optimizers": ADAM}),
        ((3,), [cross_entropy], {"feedback": "random"}, {"scheduler": partial(MultiStepLR, milestones=[1, 3])}),
    ],
    ids=["layer-wise", "backprop", "readout", "updated feedback", "random feedback"],
)
def test_together_is_one_after_the_other(partition, objectives, options, training):
    weights, history = train(build(partition, **options), objectives, True, **training)
    expected, expected_history = train(build(partition, **options), objectives, False, **training)
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-9)
    assert agree(history, expected_history)
    assert [len(epochs) for epochs in history] == [4, 4, 4]
    assert (weights[0] - weights[1]).abs().max() > 0.1


def test_order_of_examples_is_the_seeds_own():
    """From the same weights, seeds differ by nothing but the order in which they read."""
    weights, _ = train(build((3,), seeds=(1, 1, 1)), [cross_entropy], True, seeds=(5, 5, 6))
    assert torch.equal(weights[0], weights[1])
    assert (weights[0] - weights[2]).abs().max() > 1e-6


def test_dropout_is_drawn_per_seed_and_repeats():
    networks = partial(build, (3,), after=partial(nn.Dropout, 0.5), seeds=(1, 1, 1))
    weights, _ = train(networks(), [cross_entropy], True, seeds=(5, 5, 5))
    assert (weights[0] - weights[1]).abs().max() > 1e-6
    assert torch.equal(weights, train(networks(), [cross_entropy], True, seeds=(5, 5, 5))[0])


def test_a_seed_that_diverges_is_found():
    networks = build((1, 1, 1))
    networks[1].blocks[1].layers[0].op.weight.data[0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="block 1"):
        train(networks, [pairwise, pairwise, cross_entropy], True)


def test_what_cannot_be_stacked_is_refused():
    three = [pairwise, pairwise, cross_entropy]
    networks = build((1, 1, 1))
    with pytest.raises(ValueError, match="3 networks and 2 seeds"):
        train(networks, three, True, seeds=(1, 2))
    with pytest.raises(ValueError, match="share weights"):
        train([networks[0]] * 3, three, True)
    with pytest.raises(ValueError, match=r"networks\[2\] is another architecture"):
        train([*networks[:2], build((1, 1, 1), after=nn.Tanh)[0]], three, True)
    with pytest.raises(ValueError, match=r"objectives\[0\] owns weights"):
        train(networks, [nn.Linear(1, 1), None, None], True)
    with pytest.raises(ValueError, match=r"Explicit.*together=False"):
        train(networks, [Explicit(lambda z, batch: z), None, None], True)
    with pytest.raises(ValueError, match=r"LBFGS may mix.*together=False"):
        train(networks, three, True, optimizers=torch.optim.LBFGS)
