"""Waking and sleeping: nights come when they should, gather what should be alike, and a killed run misses none."""

from functools import partial
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from biolearn_lite.data.crops import Crops, framed
from biolearn_lite.nets.resnet import drift, locally_connected, resnet, share
from biolearn_lite.rules.weight_sharing import modules
from biolearn_lite.training.checkpoint import Checkpoints
from biolearn_lite.training.fit import fit
from biolearn_lite.training.schedules import EndToEnd, RandomLayer, Schedule, Simultaneous
from biolearn_lite.training.wake_sleep import WakeSleep

SIDE, N, BATCH = 7, 20, 8
STEPS_PER_EPOCH = 3


def build(seed=0):
    return resnet(shape=(1, SIDE, SIDE), channels=(4,), blocks=1, classes=3, local=True, seed=seed)


def examples():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(N, 1, SIDE, SIDE, generator=generator), torch.randint(3, (N,), generator=generator)


def cross_entropy(seen, batch):
    return F.cross_entropy(seen, batch.labels.repeat(len(seen) // len(batch.labels)))


def train(network, schedule, *, epochs=2, inputs=None, **options):
    x, y = examples()
    adam = partial(torch.optim.AdamW, lr=1e-2)
    options = {"optimizers": adam, "batch_size": BATCH, "progress": False} | options
    return fit(
        network, [cross_entropy], x if inputs is None else inputs, y, epochs=epochs, schedule=schedule, **options
    )


def agrees(layer):
    return all((module == module[0]).all() for module in modules(layer.weight, layer.operation.kernel_size))


@pytest.mark.parametrize(
    ("every", "steps_per_epoch", "nights"),
    [
        (1, None, range(12)),
        (5, None, [4, 9]),
        (1, 4, range(12)),
        (3, 4, [0, 3, 4, 7, 8, 11]),
        (100, 4, [0, 4, 8]),  # as published: once per epoch, after its first step
    ],
)
def test_nights_come_when_they_should(every, steps_per_epoch, nights):
    slept = []
    schedule = WakeSleep(EndToEnd(), slept.append, every=every, steps_per_epoch=steps_per_epoch)
    network, found = torch.nn.Linear(1, 1), []
    for step in range(12):
        schedule.after_step(step, network)
        if slept:
            assert slept.pop() is network
            found.append(step)
    assert found == list(nights)


def test_published_nights_of_cifar():
    """98 steps per epoch: ws(10) is ten nights per epoch with one gap of 8, ws(100) is one, right at the start."""

    def nights(n):
        return [
            step for step in range(196) if WakeSleep(EndToEnd(), share, every=n, steps_per_epoch=98).sleeps_after(step)
        ]

    assert nights(100) == [0, 98]
    assert [b - a for a, b in pairwise(nights(10))] == [*[10] * 9, 8, *[10] * 9]


class Look(Schedule):
    """Which layers' modules agree after each step."""

    def __init__(self, schedule):
        self.schedule, self.seen = schedule, []

    def active(self, step, num_blocks):
        return self.schedule.active(step, num_blocks)

    def after_step(self, step, network):
        self.schedule.after_step(step, network)
        self.seen.append([agrees(layer) for layer in locally_connected(network)])


def test_every_step_of_sharing_keeps_each_grid_equal_and_the_rest_free():
    """Every night the weights of a module are equal, after a step awake they are not, and modules stay different."""
    network, looked = build(), {}
    for every in (1, 3):
        network = build()
        looked[every] = Look(WakeSleep(Simultaneous(), share, every=every))
        train(network, looked[every])
    assert looked[1].seen == [[True] * 3] * 6
    assert looked[3].seen == [[False] * 3, [False] * 3, [True] * 3] * 2
    for layer in locally_connected(network):
        kernels = {tuple(module[0].tolist()) for module in modules(layer.weight, 3)}
        assert len(kernels) == 9


def test_the_night_comes_after_what_the_inner_schedule_does():
    """Nested: what is done every step sees the network before the night."""
    before = []
    look = WakeSleep(Simultaneous(), lambda network: before.append(agrees(locally_connected(network)[1])), every=1)
    train(build(), WakeSleep(look, share, every=1), epochs=1)
    assert before == [False] * STEPS_PER_EPOCH


def test_sharing_keeps_the_means_and_leaves_other_weights():
    network, before = build(), build()
    share(network)
    for layer, old in zip(locally_connected(network), locally_connected(before), strict=True):
        for module, was in zip(modules(layer.weight, 3), modules(old.weight, 3), strict=True):
            torch.testing.assert_close(module.mean(0), was.mean(0))
    assert torch.equal(network.layers[-1].op.weight, before.layers[-1].op.weight)
    assert drift(network) == [-torch.inf] * 3
    assert all(value.isfinite() for value in drift(before))


@pytest.mark.parametrize("stop_after", [1, 2])
def test_resumed_is_uninterrupted(tmp_path, stop_after):
    """Bit for bit, moving pictures and nights included, wherever the run is killed."""
    x, _ = examples()
    pictures = Crops(framed(x, SIDE + 4), size=(SIDE, SIDE), reach=2, copies=2)

    def run(network, folder, dies=False):
        def after_epoch(epoch):
            if dies and epoch == stop_after + 1:
                raise KeyboardInterrupt
            return {"drift": [value.item() for value in drift(network)]}

        schedule = WakeSleep(Simultaneous(), share, every=4)  # nights fall differently in each epoch
        saved = Checkpoints(tmp_path / folder, every=0)
        return train(network, schedule, epochs=4, inputs=pictures, after_epoch=after_epoch, checkpoints=saved)

    whole, killed = build(), build()
    history = run(whole, "whole")
    with pytest.raises(KeyboardInterrupt):
        run(killed, "killed", dies=True)
    resumed = build(seed=9)
    assert run(resumed, "killed") == history
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )


def test_the_inner_schedules_state_is_kept():
    schedule = WakeSleep(RandomLayer(seed=3), share, every=2)
    [schedule.active(step, 3) for step in range(5)]
    kept = schedule.state_dict()
    expected = [schedule.active(step, 3) for step in range(20)]
    resumed = WakeSleep(RandomLayer(seed=9), share, every=2)
    resumed.load_state_dict(kept)
    assert [resumed.active(step, 3) for step in range(20)] == expected


BAD = {
    "every": (lambda: WakeSleep(EndToEnd(), share, every=0), "every=0"),
    "steps": (lambda: WakeSleep(EndToEnd(), share, every=1, steps_per_epoch=0), "steps_per_epoch=0"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_named(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
