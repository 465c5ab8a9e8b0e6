"""Options of the trainer: each changes the speed or the step it says, and nothing else."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import StepLR

from biolearn_lite.nets.layers import Conv2d, Layer, Linear
from biolearn_lite.nets.networks import Network, mlp
from biolearn_lite.rules.hsic import bottleneck_objective, bottleneck_signal
from biolearn_lite.rules.kernels import label_kernel
from biolearn_lite.training.fit import Explicit, fit
from biolearn_lite.training.schedules import RandomLayer

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)


def cross_entropy(seen, batch):
    return F.cross_entropy(seen, batch.labels)


def pairwise(z, batch):
    return bottleneck_objective(z, label_kernel(batch.labels, 3).to(z), sigma=1.0)


explicit = Explicit(lambda z, batch: bottleneck_signal(z, label_kernel(batch.labels, 3).to(z), sigma=1.0))


def dense(dtype=torch.float32, partition=(1, 1, 1)):
    return mlp((6, 16, 16, 3), activation=nn.Tanh(), partition=partition, seed=1).to(dtype)


def convolutional(feedback="backprop"):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        ops = [Conv2d(3, 8, 3, feedback=feedback), Conv2d(8, 8, 3, bias=False, feedback=feedback)]
        readout = nn.Sequential(nn.Flatten(), Linear(8, 3))
        pool = nn.AdaptiveAvgPool2d(1)
        layers = [Layer(ops[0], activation=nn.ReLU()), Layer(ops[1], activation=nn.ReLU(), after=pool), Layer(readout)]
    return Network(layers, (2, 1))


def examples(*shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, *shape, dtype=dtype, generator=generator)
    return x, torch.randint(3, (40,), generator=generator)


def train(net, objectives, data, **options):
    settings = {"optimizers": SGD, "epochs": 3, "batch_size": 16, "progress": False} | options
    history = fit(net, objectives, *data, **settings)
    return history, torch.cat([p.detach().flatten() for p in net.parameters()])


class SeesFloat32:
    def __init__(self, objective):
        self.objective = objective

    def __call__(self, seen, batch):
        assert seen.dtype == torch.float32
        return self.objective(seen, batch)


@pytest.mark.parametrize("order", ["streamed", "summed"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_runs_blocks_in_few_bits_and_keeps_the_rest(dtype, order):
    net, ran = dense(), set()
    for layer in net.layers:
        layer.op.register_forward_hook(lambda _, __, out: ran.add(out.dtype))
    objectives = [SeesFloat32(pairwise), SeesFloat32(pairwise), SeesFloat32(cross_entropy)]
    history, weights = train(net, objectives, examples(6), autocast=dtype, order=order)
    exact, expected = train(dense(), objectives, examples(6))
    assert ran == {dtype}
    assert weights.dtype == torch.float32
    start = torch.cat([p.detach().flatten() for p in dense().parameters()])
    assert not torch.equal(weights, expected)
    assert (weights - expected).norm() < 0.05 * (expected - start).norm()
    assert history[-1]["losses"] == pytest.approx(exact[-1]["losses"], rel=0.02)


def test_float16_survives_gradients_that_it_cannot_hold():
    """A loss of 1e-7 has gradients below the smallest half; at a scale, they are as good as in full precision."""

    def tiny(seen, batch):
        return 1e-7 * cross_entropy(seen, batch)

    step = {"optimizers": partial(torch.optim.SGD, lr=1e6), "epochs": 1, "batch_size": 40}
    _, start = train(dense(partition=(3,)), [tiny], examples(6), **step | {"epochs": 0})
    _, exact = train(dense(partition=(3,)), [tiny], examples(6), **step)
    _, half = train(dense(partition=(3,)), [tiny], examples(6), **step, autocast=torch.float16)
    assert (half - exact).norm() < 0.01 * (exact - start).norm()


def test_explicit_updates_and_autocast():
    objectives = [explicit, explicit, cross_entropy]
    _, start = train(dense(), objectives, examples(6), epochs=0)
    _, exact = train(dense(), objectives, examples(6))
    _, found = train(dense(), objectives, examples(6), autocast=torch.bfloat16)
    assert 0 < (found - exact).norm() < 0.1 * (exact - start).norm()
    with pytest.raises(ValueError, match=r"objectives\[0\].*no scalar to scale: use torch.bfloat16"):
        train(dense(), objectives, examples(6), autocast=torch.float16)


@pytest.mark.parametrize("feedback", ["backprop", "random"])
def test_channels_last_is_another_layout_of_the_same_numbers(feedback):
    nets = convolutional(feedback), convolutional(feedback)
    seen_layouts = set()
    nets[1].layers[0].op.register_forward_pre_hook(
        lambda _, x: seen_layouts.add(x[0].is_contiguous(memory_format=torch.channels_last))
    )
    objectives = [pairwise, cross_entropy]
    _, expected = train(nets[0], objectives, examples(3, 5, 5))
    _, found = train(nets[1], objectives, examples(3, 5, 5), channels_last=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert seen_layouts == {True}
    for layer in nets[1].layers[:2]:
        assert layer.op.weight.is_contiguous(memory_format=torch.channels_last)
    assert not nets[0].layers[1].op.weight.is_contiguous(memory_format=torch.channels_last)


def test_compiled_blocks_train_the_same_weights_under_the_same_names(monkeypatch):
    """Without a C++ compiler: torch traces the blocks and their gradients, and runs what it traced."""
    compiled = []
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda block: compiled.append(block) or compile(block, backend="aot_eager"))
    net = dense(torch.float64)
    names = list(net.state_dict())
    objectives = [explicit, pairwise, cross_entropy]
    data = examples(6, dtype=torch.float64)
    _, expected = train(dense(torch.float64), objectives, data)
    assert not compiled
    _, found = train(net, objectives, data, compile=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert compiled == list(net.blocks)
    assert list(net.state_dict()) == names


@pytest.mark.parametrize("order", ["streamed", "summed"])
def test_clipping_is_by_the_norm_over_all_blocks_that_learn(order):
    """One step of SGD at rate 1 moves the weights by the clipped gradient."""
    objectives = [pairwise, pairwise, cross_entropy]
    data = examples(6, dtype=torch.float64)
    one = {"optimizers": partial(torch.optim.SGD, lr=1.0), "epochs": 1, "batch_size": 40, "order": order}
    _, start = train(dense(torch.float64), objectives, data, epochs=0)
    _, free = train(dense(torch.float64), objectives, data, **one)
    norm = (free - start).norm().item()
    for limit in (2 * norm, norm / 3):
        _, clipped = train(dense(torch.float64), objectives, data, **one, clip_norm=limit)
        torch.testing.assert_close(clipped - start, (free - start) * min(1, limit / norm), rtol=1e-4, atol=1e-12)
    for schedule in (RandomLayer(seed=0), RandomLayer(seed=1), RandomLayer(seed=3)):
        _, clipped = train(dense(torch.float64), objectives, data, **one, clip_norm=0.01, schedule=schedule)
        assert (clipped - start).norm().item() == pytest.approx(0.01, rel=1e-3), "the norm of the one that learns"


def test_clipping_in_float16_is_of_the_gradients_at_their_own_scale():
    one = {"optimizers": partial(torch.optim.SGD, lr=1.0), "epochs": 1, "batch_size": 40, "autocast": torch.float16}
    _, start = train(dense(), [None, None, cross_entropy], examples(6), epochs=0)
    _, clipped = train(dense(), [None, None, cross_entropy], examples(6), **one, clip_norm=0.01)
    assert (clipped - start).norm().item() == pytest.approx(0.01, rel=1e-3)


def by_groups(parameters):
    """Weights decay, biases do not; each at its own rate."""
    weights, biases = [p for p in parameters if p.dim() > 1], [p for p in parameters if p.dim() == 1]
    groups = [{"params": weights, "weight_decay": 0.1}, *([{"params": biases, "lr": 0.01}] if biases else [])]
    return torch.optim.SGD(groups, lr=0.1)


def test_an_optimizer_of_several_groups_is_scheduled_and_clipped_whole():
    """Against a plain loop over the readout's own gradients."""
    data = examples(6, dtype=torch.float64)
    net, plain = dense(torch.float64), dense(torch.float64)
    options = {"optimizers": by_groups, "scheduler": partial(StepLR, step_size=1, gamma=0.5), "clip_norm": 0.05}
    train(net, [None, None, cross_entropy], data, epochs=3, batch_size=40, **options)
    readout = plain.layers[2]
    for rate in (1, 0.5, 0.25):
        seen = readout.activity(plain.activities(data[0])[1].detach())
        W, b = readout.op.weight, readout.op.bias
        dW, db = torch.autograd.grad(F.cross_entropy(seen, data[1]), (W, b))
        clip = min(1, 0.05 / (dW.square().sum() + db.square().sum()).sqrt().item())
        with torch.no_grad():
            W -= 0.1 * rate * (clip * dW + 0.1 * W)
            b -= 0.01 * rate * clip * db
    for found, expected in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


class Minds(nn.Linear):
    """An operation, or a readout, that asks how it is trained."""

    def check_training(self, *, weight_decay, clip_norm):
        if weight_decay or clip_norm is not None:
            raise ValueError(f"not with weight_decay={weight_decay}, clip_norm={clip_norm}")

    def objective(self, seen, batch):
        return F.cross_entropy(self(seen), batch.labels)


class OwnReadout(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Minds(16, 3)

    def forward(self, seen, batch):
        return F.cross_entropy(self.inner(seen), batch.labels)


def minding():
    return Network([Layer(Minds(6, 16, bias=False), activation=nn.Tanh()), Layer(Linear(16, 3))], (1, 1))


def decaying(parameters):
    return torch.optim.SGD(
        [{"params": [p]} | ({"weight_decay": 0.1} if p.dim() == 1 else {}) for p in parameters], lr=0.1
    )


def test_modules_may_refuse_how_they_are_trained():
    both, data = [lambda seen, batch: seen.square().mean(), cross_entropy], examples(6)
    train(minding(), both, data)
    with pytest.raises(ValueError, match=r"not with weight_decay=0.*, clip_norm=1"):
        train(minding(), both, data, clip_norm=1.0)
    with pytest.raises(ValueError, match=r"not with weight_decay=0.01, clip_norm=None"):
        train(minding(), both, data, optimizers=torch.optim.AdamW)
    with pytest.raises(ValueError, match=r"not with weight_decay=0.1"):
        train(Network([Layer(Minds(6, 3))]), [cross_entropy], data, optimizers=decaying)
    with pytest.raises(ValueError, match=r"not with weight_decay=0.01"):
        train(dense(), [OwnReadout(), None, None], data, optimizers=torch.optim.AdamW)


def test_modules_are_asked_only_about_what_trains_them():
    """Another block's decay, or a block that does not learn, is none of their business."""
    minds_not = partial(torch.optim.SGD, lr=0.1, weight_decay=0.1)
    both, data = [lambda seen, batch: seen.square().mean(), cross_entropy], examples(6)
    train(minding(), both, data, optimizers=[SGD, minds_not])
    train(minding(), [None, cross_entropy], data, optimizers=minds_not, clip_norm=1.0)


def test_updated_feedback_refuses_what_would_change_its_distance():
    net = mlp((6, 16, 3), activation=nn.Tanh(), feedback="updated")
    with pytest.raises(ValueError, match="weight_decay"):
        train(net, [cross_entropy], examples(6), optimizers=torch.optim.AdamW)
    with pytest.raises(ValueError, match="clip_norm"):
        train(net, [cross_entropy], examples(6), clip_norm=1.0)


@pytest.mark.parametrize("order", ["streamed", "summed"])
def test_an_objective_may_ask_for_all_activity_first(order):
    """As difference targets do: a target for each block from the activity above it. Blocks that share it ask once."""

    class FromAbove:
        def __init__(self):
            self.calls = []

        def prepare(self, all_seen, batch):
            assert not any(seen.requires_grad for seen in all_seen)
            self.calls.append(len(batch.labels))
            self.target = [seen.clone() for seen in all_seen]

        def __call__(self, seen, batch):
            assert any(torch.equal(seen, target) for target in self.target[:2])
            return (seen.mean(1) - self.target[2].mean(1)).square().sum()

    shared = FromAbove()
    _, start = train(dense(), [shared, shared, None], examples(6), epochs=0)
    _, moved = train(dense(), [shared, shared, None], examples(6), order=order)
    assert shared.calls == [16, 16, 8] * 3
    assert not torch.equal(start, moved)


def test_bad_options_are_named():
    data, objectives = examples(6), [None, None, cross_entropy]
    for limit in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"clip_norm={limit}"):
            train(dense(), objectives, data, clip_norm=limit)
    with pytest.raises(ValueError, match=r"autocast=torch.float64.*bfloat16"):
        train(dense(), objectives, data, autocast=torch.float64)
