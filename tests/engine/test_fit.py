"""The training loop: two orders of execution, blocks that stay apart, and a plain loop to compare with."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import MultiStepLR

from biolearn_lite.nets.networks import Network, mlp
from biolearn_lite.rules.hsic import bottleneck_objective
from biolearn_lite.rules.kernels import label_kernel
from biolearn_lite.training.checkpoint import Checkpoints
from biolearn_lite.training.fit import Batch, Explicit, fit
from biolearn_lite.training.schedules import EndToEnd, Schedule

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-3)


def cross_entropy(seen, batch):
    return F.cross_entropy(seen, batch.labels)


def layer_objective(seen, batch):
    return bottleneck_objective(seen, label_kernel(batch.labels, 4).to(seen), sigma=1.0)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 6, dtype=torch.float64, generator=generator)
    return x, torch.randint(4, (50,), generator=generator)


def network(partition=None, dropout=0.0):
    after = partial(nn.Dropout, dropout)
    return mlp((6, 8, 7, 4), activation=nn.Tanh(), after=after, partition=partition, seed=1).double()


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def train(net, objectives, data, **options):
    settings = {"optimizers": SGD, "epochs": 3, "batch_size": 16, "progress": False} | options
    return fit(net, objectives, *data, **settings)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize(
    ("partition", "objectives"),
    [
        ((1, 1, 1), [layer_objective, layer_objective, cross_entropy]),
        ((2, 1), [layer_objective, cross_entropy]),
        ((3,), [cross_entropy]),
        ((1, 1, 1), [None, layer_objective, cross_entropy]),
    ],
)
def test_streamed_equals_summed(data, partition, objectives, dropout):
    results = []
    for order in ("streamed", "summed"):
        net = network(partition, dropout)
        results.append((train(net, objectives, data, order=order), weights(net)))
    (history_a, a), (history_b, b) = results
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    for one, two in zip(history_a, history_b, strict=True):
        assert one["losses"] == pytest.approx(two["losses"], abs=1e-12)
    assert not torch.equal(a, weights(network(partition)))


def test_one_block_is_backprop_by_a_plain_loop(data):
    net, plain = network((3,)), network((3,))
    rate = partial(MultiStepLR, milestones=[1, 2], gamma=0.25)
    train(net, [cross_entropy], data, schedule=EndToEnd(), scheduler=rate, seed=3)
    x, y = data
    optimizer = SGD(plain.parameters())
    scheduler, generator = rate(optimizer), torch.Generator().manual_seed(3)
    for _ in range(3):
        for index in torch.randperm(50, generator=generator).split(16):
            optimizer.zero_grad()
            F.cross_entropy(plain(x[index]), y[index]).backward()
            optimizer.step()
        scheduler.step()
    torch.testing.assert_close(weights(net), weights(plain), rtol=0, atol=1e-13)


def test_layerwise_training_equals_a_loop_with_detach(data):
    net, plain = network((1, 1, 1)), network()
    train(net, [layer_objective, layer_objective, cross_entropy], data, epochs=2, seed=5)
    x, y = data
    optimizer, generator = SGD(plain.parameters()), torch.Generator().manual_seed(5)
    for _ in range(2):
        for index in torch.randperm(50, generator=generator).split(16):
            optimizer.zero_grad()
            z, batch = x[index], Batch(x[index], y[index])
            for layer, objective in zip(plain.layers, [layer_objective] * 2 + [cross_entropy], strict=True):
                z = layer.activity(z.detach())
                objective(z, batch).backward()
            optimizer.step()
    torch.testing.assert_close(weights(net), weights(plain), rtol=0, atol=1e-13)


class OnlyBlock(Schedule):
    def __init__(self, block):
        self.block = block
        self.steps = []

    def active(self, step, num_blocks):
        return [self.block]

    def after_step(self, step, network):
        self.steps.append(step)


@pytest.mark.parametrize("order", ["streamed", "summed"])
@pytest.mark.parametrize("chosen", [0, 1, 2])
def test_only_the_scheduled_block_moves(data, chosen, order):
    """Momentum and weight decay would move a block whose gradient is zero; a block whose gradient is None stays."""
    net = network((1, 1, 1))
    before = [weights(block).clone() for block in net.blocks]
    schedule = OnlyBlock(chosen)
    history = train(net, [layer_objective, layer_objective, cross_entropy], data, schedule=schedule, order=order)
    moved = [not torch.equal(old, weights(block)) for old, block in zip(before, net.blocks, strict=True)]
    assert moved == [b == chosen for b in range(3)]
    assert [loss is None for loss in history[-1]["losses"]] == [b != chosen for b in range(3)]
    assert schedule.steps == list(range(3 * 4))


def test_an_objective_may_own_weights(data):
    class Readout(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 4).double()

        def forward(self, seen, batch):
            return F.cross_entropy(self.linear(seen), batch.labels)

    readout = Readout()
    before = weights(readout).clone()
    train(network((1, 1, 1)), [readout, None, None], data)
    assert not torch.equal(before, weights(readout))


def test_partitions_hold_the_same_weights_and_function(data):
    nets = [network(p) for p in [(3,), (1, 1, 1), (2, 1)]]
    for net in nets[1:]:
        assert torch.equal(weights(net), weights(nets[0]))
        assert torch.equal(net(data[0]), nets[0](data[0]))


def test_the_seed_decides_and_the_global_random_state_is_left_alone(data):
    objectives = [layer_objective, layer_objective, cross_entropy]
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    a, b, c = (network((1, 1, 1), dropout=0.1) for _ in range(3))
    train(a, objectives, data, seed=1)
    assert torch.rand(1) == expected
    train(b, objectives, data, seed=1)
    train(c, objectives, data, seed=2)
    assert torch.equal(weights(a), weights(b))
    assert not torch.equal(weights(a), weights(c))


def test_memory_of_the_streamed_order_does_not_grow_with_depth():
    """What autograd keeps for backward at any one time: flat when streamed, growing when summed."""

    def peak(depth, order):
        net = mlp((16, *[16] * depth, 4), activation=nn.Tanh(), partition=[1] * (depth + 1))
        x, y = torch.randn(8, 16), torch.randint(4, (8,))
        held = [0, 0]

        class Held:
            def __init__(self, tensor):
                self.tensor = tensor
                held[0] += 1
                held[1] = max(held)

            def __del__(self):
                held[0] -= 1

        with torch.autograd.graph.saved_tensors_hooks(Held, lambda kept: kept.tensor):
            objectives = [lambda z, batch: z.square().mean()] * depth + [cross_entropy]
            fit(net, objectives, x, y, optimizers=SGD, epochs=1, batch_size=8, order=order, progress=False)
        return held[1]

    assert peak(12, "streamed") == peak(3, "streamed")
    assert peak(12, "summed") > 2 * peak(3, "summed")


class Diverging:
    """A loss of 7, 8, 9 ... that is lost at one step."""

    def __init__(self, at):
        self.at, self.step = at, -1

    def __call__(self, seen, batch):
        self.step += 1
        return seen.sum() * 0 + (7 + self.step if self.step != self.at else float("nan"))


@pytest.mark.parametrize("at", [1, 5, 12, 40, 63, 64, 90])
def test_divergence_names_the_block_the_step_and_the_last_finite_loss(data, at):
    """Four steps per epoch; losses are read a good many at a time, and yet the step is exact."""
    bad = [layer_objective, Diverging(at), cross_entropy]
    told = rf"block 1 diverged: its loss is nan at step {at}, the last finite one was {6 + at} at step {at - 1}; lower"
    with pytest.raises(FloatingPointError, match=told):
        train(network((1, 1, 1)), bad, data, epochs=30)


@pytest.mark.parametrize("batch_size", [2, 50])
def test_divergence_is_found_before_anything_else_is_asked_or_kept(data, tmp_path, batch_size):
    """After the bad step no epoch is finished: no metric, line or state comes of weights that are not finite."""
    epochs = []
    bad = [layer_objective, Diverging(50 // batch_size * 2 + 50 // batch_size // 2), cross_entropy]
    options = {"checkpoints": Checkpoints(tmp_path / "states", every=0), "log": tmp_path / "log.jsonl"}
    options |= {"after_epoch": lambda epoch: epochs.append(epoch) or {}, "batch_size": batch_size}
    with pytest.raises(FloatingPointError):
        train(network((1, 1, 1)), bad, data, epochs=9, **options)
    assert epochs == [1, 2]
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2
    assert len(options["checkpoints"].load()["history"]) == 2


def test_a_first_loss_that_is_not_finite(data):
    with pytest.raises(FloatingPointError, match=r"block 1 .* nan at step 0, with no finite one before"):
        train(network((1, 1, 1)), [None, Diverging(0), cross_entropy], data)


def test_an_explicit_update_that_grows_beyond_bounds_is_named_before_the_blocks_above(data):
    growing = Explicit(lambda z, batch: torch.full_like(z, 1e200))
    with pytest.raises(FloatingPointError, match=r"block 1 diverged: its update's norm is (inf|nan) at step"):
        train(network((1, 1, 1)), [layer_objective, growing, cross_entropy], data, epochs=9)


def test_losses_are_not_read_at_every_step(data, monkeypatch):
    """Reading waits for the device: once per epoch here, whatever the number of steps and blocks."""
    reads = []
    item, tolist = torch.Tensor.item, torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "item", lambda self: reads.append(self) or item(self))
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: reads.append(self) or tolist(self))
    sgd = partial(torch.optim.SGD, lr=0.1, fused=True)
    train(network((1, 1, 1)), [layer_objective, layer_objective, cross_entropy], data, optimizers=sgd, batch_size=5)
    assert len(reads) == 3


def test_the_losses_of_an_epoch_are_means_over_examples(data):
    """Batches of 16, 16, 16 and 2 count for what they hold, and a block that was not asked says None."""
    told = iter(range(1, 9))
    net = network((1, 1, 1))
    history = train(net, [None, lambda seen, batch: seen.sum() * 0 + next(told), None], data, epochs=2)
    assert [epoch["losses"][1] for epoch in history] == [
        pytest.approx((16 * (1 + 2 + 3) + 2 * 4) / 50),
        pytest.approx((16 * (5 + 6 + 7) + 2 * 8) / 50),
    ]
    assert history[0]["losses"][::2] == [None, None]


def test_bad_input_is_named(data):
    net = network((1, 1, 1))
    three = [None, None, cross_entropy]
    with pytest.raises(ValueError, match=r"objectives: got 1.*3 blocks"):
        train(net, [cross_entropy], data)
    with pytest.raises(ValueError, match=r"optimizers: got 2.*3 blocks"):
        train(net, three, data, optimizers=[SGD, SGD])
    with pytest.raises(ValueError, match="order='sideways'"):
        train(net, three, data, order="sideways")
    with pytest.raises(ValueError, match="batch_size=0"):
        train(net, three, data, batch_size=0)
    with pytest.raises(ValueError, match=r"inputs \(50\) and labels \(49\)"):
        train(net, three, (data[0], data[1][:-1]))
    with pytest.raises(ValueError, match="one block"):
        train(net, three, data, schedule=EndToEnd())
    with pytest.raises(ValueError, match="add up to the 3 layers"):
        Network(net.layers, (2, 2))
