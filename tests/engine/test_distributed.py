"""Two processes are one process on the joint batch: started as a reader would, by torchrun."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from biolearn_lite.nets.layers import DivisiveNorm
from biolearn_lite.nets.networks import mlp
from biolearn_lite.rules.hsic import bottleneck_objective, bottleneck_signal
from biolearn_lite.rules.kernels import label_kernel
from biolearn_lite.training import distributed
from biolearn_lite.training.checkpoint import Checkpoints
from biolearn_lite.training.fit import Batch, Explicit, fit

GROUPED = {"sigma": 1.0, "groups": 4, "power": 0.5}


def cross_entropy(seen, batch):
    return F.cross_entropy(seen, batch.labels)


def labels_kernel(batch):
    return label_kernel(batch.labels, 4, dtype=torch.float64)


def pairwise(seen, batch):
    return bottleneck_objective(seen, labels_kernel(batch), **GROUPED)


explicit = Explicit(lambda z, batch: bottleneck_signal(z, labels_kernel(batch), **GROUPED))


class Readout(nn.Module):
    """An objective that owns weights."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.linear = nn.Linear(8, 4).double()

    def forward(self, seen, batch):
        return F.cross_entropy(self.linear(seen), batch.labels)


class Prepared:
    """An objective that must know all blocks' activity of the whole batch first."""

    def prepare(self, all_seen, batch):
        self.target = all_seen[-1].mean(0)

    def __call__(self, seen, batch):
        return (seen.mean(1) - self.target.sum() * batch.inputs[:, 0]).square().mean()


def data():
    """Batches of 16, the last one of 5: shares of 8 and 8, then of 3 and 2."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(37, 6, dtype=torch.float64, generator=generator)
    return x, torch.randint(4, (37,), generator=generator)


def train(objectives, *, partition=(1, 1, 1), dropout=0.0, init=1, norm=None, **options):
    after = partial(nn.Dropout, dropout) if norm is None else norm
    net = mlp((6, 8, 8, 4), activation=nn.Tanh(), after=after, partition=partition, seed=init).double()
    settings = {"optimizers": partial(torch.optim.SGD, lr=0.3, momentum=0.9), "epochs": 3, "batch_size": 16, "seed": 2}
    history = fit(net, objectives, *data(), progress=False, **settings | options)
    owned = [o for o in objectives if isinstance(o, nn.Module)]
    return torch.cat([p.detach().flatten() for m in (net, *owned) for p in m.parameters()]), history[-1]["losses"]


norm = partial(DivisiveNorm, 4)
CASES = {
    "pointwise, end to end": lambda: train([cross_entropy], partition=(3,)),
    "pairwise, streamed": lambda: train([pairwise, pairwise, cross_entropy], norm=norm),
    "pairwise, summed": lambda: train([pairwise, pairwise, cross_entropy], norm=norm, order="summed"),
    "pairwise, clipped": lambda: train([pairwise, pairwise, cross_entropy], norm=norm, clip_norm=0.1),
    "pairwise, a block asleep": lambda: train([None, pairwise, cross_entropy]),
    "explicit": lambda: train([explicit, explicit, cross_entropy], norm=norm),
    "explicit on a block asleep": lambda: train([None, explicit, cross_entropy], norm=norm),
    "prepared": lambda: train([Prepared(), None, cross_entropy]),
    "owned weights": lambda: train([pairwise, Readout(), None]),
}


class Dropper(nn.Module):
    def forward(self, x):
        return F.dropout(x), x


def masks():
    """What a layer drew for each example of a batch, and what comes next in the common stream."""
    torch.manual_seed(0)
    with distributed.joined([Dropper()]) as (block,):
        seen, _ = block(torch.ones(8, 50))
    return seen, torch.rand(()).item()


def resumable(folder, epochs):
    return train(
        [pairwise, pairwise, cross_entropy], epochs=epochs, checkpoints=folder and Checkpoints(folder, every=0)
    )


def refusal(run):
    try:
        run()
    except ValueError as error:
        return str(error)
    return "not refused"


def job(folder):
    """What each of the two processes does."""
    with distributed.processes():
        rank = torch.distributed.get_rank()
        found = {name: run() for name, run in CASES.items()}
        found["other first weights"] = train([pairwise, pairwise, cross_entropy], norm=norm, init=1 + rank)
        found["dropout"] = train([cross_entropy], partition=(3,), dropout=0.5)
        resumable(Path(folder), 1)
        found["resumed"] = resumable(Path(folder), 2)
        found["masks"] = masks()
        found["first"] = distributed.is_first(), distributed.from_first(rank + 7)
        found["other seeds"] = refusal(lambda: train([cross_entropy], partition=(3,), seed=rank))
        found["too few"] = refusal(lambda: train([cross_entropy], partition=(3,), batch_size=9))
        found["batch norm"] = refusal(lambda: train([cross_entropy], partition=(3,), norm=lambda: nn.BatchNorm1d(8)))
        torch.save(found, Path(folder) / f"{rank}.pt")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__, folder]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=120)
    return [torch.load(folder / f"{rank}.pt") | {"folder": folder} for rank in range(2)]


@pytest.mark.parametrize("case", list(CASES))
def test_two_processes_are_one_on_the_joint_batch(two, case):
    weights, losses = CASES[case]()
    for theirs, their_losses in (found[case] for found in two):
        torch.testing.assert_close(theirs, weights, rtol=0, atol=1e-10)
        assert their_losses == pytest.approx(losses, abs=1e-10)


def test_the_mean_over_shards_is_another_objective():
    """Why averaging gradients is not enough: right for the mean of a loss over examples, wrong for pairs of them."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(64, 4, generator=generator, dtype=torch.float64)
    batch = Batch(z, torch.randint(4, (64,), generator=generator))

    def cosine(objective):
        gradients = []
        for shares in (1, 4):
            w = torch.eye(4, dtype=torch.float64, requires_grad=True)
            parts = zip(z.chunk(shares), batch.labels.chunk(shares), strict=True)
            sum(objective(x @ w, Batch(x, y)) for x, y in parts).backward()
            gradients.append(w.grad.flatten())
        return F.cosine_similarity(*gradients, dim=0)

    assert cosine(cross_entropy) > 1 - 1e-12
    assert cosine(lambda seen, batch: bottleneck_objective(seen, labels_kernel(batch), sigma=1.0)) < 0.99


def test_all_processes_hold_the_same_weights(two):
    """Whatever they drew for themselves, and whoever started with what."""
    one, other = two
    for case in ("other first weights", "dropout", "owned weights"):
        assert torch.equal(one[case][0], other[case][0])
    expected, _ = CASES["pairwise, streamed"]()
    torch.testing.assert_close(other["other first weights"][0], expected, rtol=0, atol=1e-10)


def test_each_process_draws_its_own_masks_and_all_go_on_alike(two):
    (seen, then), (other_seen, other_then) = (found["masks"] for found in two)
    assert torch.equal(seen, other_seen)
    assert not torch.equal(seen[:4], seen[4:])
    assert then == other_then


def test_any_number_of_processes_goes_on_from_a_checkpoint(two):
    for found in two:
        torch.testing.assert_close(found["resumed"][0], resumable(None, 2)[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(resumable(two[0]["folder"], 4)[0], resumable(None, 4)[0], rtol=0, atol=1e-10)


def test_one_process_speaks(two):
    assert [found["first"] for found in two] == [(True, 7), (False, 7)]
    assert distributed.is_first()
    assert distributed.from_first("mine") == "mine"


def test_what_cannot_be_shared_is_refused_by_all(two):
    for found in two:
        assert "different batches" in found["other seeds"]
        assert "a batch of 1 cannot be shared by 2 processes" in found["too few"]
        assert "convert_sync_batchnorm" in found["batch norm"]


if __name__ == "__main__":
    job(sys.argv[1])
