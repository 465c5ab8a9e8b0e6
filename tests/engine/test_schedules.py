"""Who learns when: no gradient, no movement and no needless work outside the blocks that a schedule chose."""

from functools import partial
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR

from biolearn_lite.nets.layers import FEEDBACK, Conv2d, Layer, Linear, LocallyConnected2d
from biolearn_lite.nets.networks import Network
from biolearn_lite.rules.hsic import bottleneck_objective, bottleneck_signal
from biolearn_lite.rules.kernels import label_kernel
from biolearn_lite.training.fit import Explicit, fit
from biolearn_lite.training.schedules import EndToEnd, LayerByLayer, RandomLayer, Schedule, Simultaneous

WIDTH, SIDE, CLASSES, EXAMPLES, BATCH = 6, 4, 3, 13, 8
EPOCHS = 3
STEPS = EPOCHS * -(-EXAMPLES // BATCH)


class Readout(nn.Module):
    """A local readout: an objective that owns weights."""

    def __init__(self, seed):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.linear = nn.Linear(WIDTH, CLASSES).double()

    def forward(self, seen, batch):
        return F.cross_entropy(self.linear(seen.flatten(2).mean(2) if seen.dim() > 2 else seen), batch.labels)


def labels_kernel(batch):
    return label_kernel(batch.labels, CLASSES, dtype=torch.float64)


def pairwise(z, batch):
    return bottleneck_objective(z, labels_kernel(batch), sigma=1.0)


explicit = Explicit(lambda z, batch: bottleneck_signal(z, labels_kernel(batch), sigma=1.0))

OBJECTIVES = {
    "readout": lambda blocks: [Readout(b) for b in range(blocks)],
    "pairwise": lambda blocks: [pairwise] * blocks,
    "explicit": lambda blocks: [explicit] * (blocks - 1) + [pairwise],
}
SCHEDULES = {
    "simultaneous": Simultaneous,
    "end to end": EndToEnd,
    "layer by layer": lambda: LayerByLayer([1, 2, 0, 2]),
    "random layer": lambda: RandomLayer(seed=1),
}


def dense(feedback):
    return [Linear(WIDTH, WIDTH, bias=False, feedback=feedback) for _ in range(4)]


def convolutional(feedback):
    return [Conv2d(c, WIDTH, 3, padding=1, bias=False, feedback=feedback) for c in (1, WIDTH, WIDTH, WIDTH)]


def locally_connected(feedback):
    options = {"input_size": SIDE, "padding": 1, "feedback": feedback}
    return [LocallyConnected2d(c, WIDTH, 3, **options) for c in (1, WIDTH, WIDTH, WIDTH)]


CONNECTIVITY = {"dense": dense, "convolutional": convolutional, "locally connected": locally_connected}
GRID = [
    case
    for case in product(OBJECTIVES, SCHEDULES, CONNECTIVITY, FEEDBACK)
    if case[0] != "explicit"
    or (case[1] != "end to end" and case[3] == "backprop")  # one layer per block, no wires down
]


def build(connectivity, feedback, partition, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        ops = CONNECTIVITY[connectivity](feedback)
        return Network([Layer(op, activation=nn.Tanh(), after=nn.Dropout(0.1)) for op in ops], partition).double()


def examples(connectivity):
    generator = torch.Generator().manual_seed(1)
    shape = (WIDTH,) if connectivity == "dense" else (1, SIDE, SIDE)
    x = torch.randn(EXAMPLES, *shape, dtype=torch.float64, generator=generator)
    return x, torch.randint(CLASSES, (EXAMPLES,), generator=generator)


class Watched(Schedule):
    """A schedule under guard: what each step reached, moved and ran is compared with what was chosen."""

    def __init__(self, schedule, blocks, objectives):
        self.schedule, self.chosen = schedule, []
        self.groups = [
            [*block.parameters(), *(objective.parameters() if isinstance(objective, nn.Module) else [])]
            for block, objective in zip(blocks, objectives, strict=True)
        ]
        self.explicit = {b for b, objective in enumerate(objectives) if isinstance(objective, Explicit)}
        self.reached, self.ran = set(), []
        for b, block in enumerate(blocks):
            block.register_forward_hook(lambda _, __, out, b=b: self.ran.append((b, out[0].requires_grad)))
            for p in self.groups[b]:
                p.register_hook(lambda gradient, b=b: self.reached.add(b))

    def active(self, step, num_blocks):
        self.before = [[p.detach().clone() for p in group] for group in self.groups]
        self.reached.clear()
        self.ran.clear()
        self.chosen.append(set(self.schedule.active(step, num_blocks)))
        return self.chosen[-1]

    def after_step(self, step, network):
        chosen = self.chosen[step]
        moved = {
            b
            for b, (old, new) in enumerate(zip(self.before, self.groups, strict=True))
            if any(not torch.equal(p, q) for p, q in zip(old, new, strict=True))
        }
        assert moved == chosen
        assert self.reached == chosen - self.explicit
        explicit = chosen & self.explicit
        assert self.ran == [(b, b in chosen) for b in range(max(chosen, default=-1) + 1) if b not in explicit]
        assert all(p.grad is None for group in self.groups for p in group)


@pytest.mark.parametrize(("rule", "schedule", "connectivity", "feedback"), GRID)
def test_no_gradient_reaches_a_block_that_was_not_chosen_and_streamed_is_summed(rule, schedule, connectivity, feedback):
    partition = (4,) if schedule == "end to end" else (1, 1, 1, 1) if rule == "explicit" else (2, 1, 1)
    results = []
    for order in ("streamed", "summed"):
        net, objectives = build(connectivity, feedback, partition), OBJECTIVES[rule](len(partition))
        when = SCHEDULES[schedule]()
        if isinstance(when, LayerByLayer):
            when = LayerByLayer(when.steps_per_block[: len(partition)])
        watched = Watched(when, net.blocks, objectives)
        decay = 0 if feedback == "updated" else 1e-3
        sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=decay)
        options = {"optimizers": sgd, "epochs": EPOCHS, "batch_size": BATCH, "progress": False}
        history = fit(net, objectives, *examples(connectivity), schedule=watched, order=order, **options)
        results.append((watched.chosen, history, [p.detach() for group in watched.groups for p in group]))
    (chosen, history, weights), (chosen_summed, history_summed, weights_summed) = results
    assert len(chosen) == STEPS
    assert chosen == chosen_summed
    for a, b in zip(weights, weights_summed, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    for a, b in zip(history, history_summed, strict=True):
        assert a["losses"] == pytest.approx(b["losses"], abs=1e-12)


def test_layer_by_layer_gives_each_block_its_steps_and_then_stops():
    schedule = LayerByLayer([2, 0, 3])
    assert [list(schedule.active(step, 3)) for step in range(7)] == [[0], [0], [2], [2], [2], [], []]
    assert [list(LayerByLayer(2).active(step, 2)) for step in range(5)] == [[0], [0], [1], [1], []]


def test_random_layer_draws_all_blocks_alike_and_goes_on_from_its_state():
    schedule = RandomLayer(seed=3)
    draws = [block for step in range(3000) for block in schedule.active(step, 3)]
    counts = torch.tensor(draws).bincount()
    assert (counts - 1000).abs().max() < 4 * (3000 * (1 / 3) * (2 / 3)) ** 0.5
    kept = schedule.state_dict()
    expected = [schedule.active(step, 3) for step in range(20)]
    resumed = RandomLayer(seed=9)
    resumed.load_state_dict(kept)
    assert [resumed.active(step, 3) for step in range(20)] == expected
    assert [RandomLayer(seed=9).active(step, 3) for step in range(20)] != expected


def test_a_block_starts_afresh_when_its_turn_comes():
    """Greedy training is training one block after another: no moment or rate of a later block has changed meanwhile."""
    options = {"optimizers": partial(torch.optim.Adam, lr=0.1), "batch_size": EXAMPLES, "progress": False}
    options["scheduler"] = partial(ExponentialLR, gamma=0.5)
    x, y = examples("dense")
    greedy, apart = (build("dense", "backprop", (1, 1, 1, 1)).eval() for _ in range(2))
    for net in (greedy, apart):
        for layer in net.layers:
            layer.after = nn.Identity()
    fit(greedy, [pairwise] * 4, x, y, epochs=12, schedule=LayerByLayer(3), **options)
    for b in range(4):
        fit(apart, [pairwise if c == b else None for c in range(4)], x, y, epochs=3, **options)
    for a, b in zip(greedy.parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [0, -1, [], [0, 0], [3, -1]])
def test_impossible_numbers_of_steps_are_named(steps):
    with pytest.raises(ValueError, match="steps_per_block="):
        LayerByLayer(steps)


def test_schedules_that_do_not_fit_the_network_are_named():
    with pytest.raises(ValueError, match="got 2, but the network has 3 blocks"):
        LayerByLayer([1, 2]).active(0, 3)
    with pytest.raises(ValueError, match="one block"):
        EndToEnd().active(0, 3)
