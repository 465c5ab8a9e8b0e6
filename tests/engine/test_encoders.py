"""Encoders of paper 002 and their heads; layer-wise learning from two views, through the one training loop."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from biolearn_lite.data import sets
from biolearn_lite.data.views import Deform, two_views
from biolearn_lite.nets.encoders import CIFAR, MNIST, STL, MemoryBlock, Stage, encoder, halves, heads
from biolearn_lite.nets.networks import layer_gradients
from biolearn_lite.rules.contrastive import contrastive_hinge, contrastive_hinge_update, nt_xent
from biolearn_lite.training.fit import Batch, fit
from biolearn_lite.training.schedules import LayerByLayer, RandomLayer

SMALL = (Stage(4, nn.Tanh, True), Stage(5, nn.Hardtanh), Stage(6, pool=True))
ADAM = partial(torch.optim.Adam, lr=1e-3)
stopped = partial(contrastive_hinge, negatives=5, margin_negative=9.0, stop_first_view=True)


def count(module):
    return sum(p.numel() for p in module.parameters())


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@pytest.mark.parametrize(
    ("stages", "shape", "in_encoder", "in_head", "features"),
    [
        (CIFAR, (3, 32, 32), 360_288, 524_288, [(32, 32, 32), (32, 16, 16), (64, 16, 16), (64, 8, 8), (512, 4, 4)]),
        (MNIST, (1, 28, 28), 92_448, 64 * 1152, [(32, 14, 14), (64, 7, 7), (128, 3, 3)]),
    ],
)
def test_networks_have_the_papers_sizes(stages, shape, in_encoder, in_head, features):
    network = encoder(stages, channels=shape[0])
    assert count(network) == in_encoder
    assert [tuple(z.shape[1:]) for z in network.activities(torch.rand(1, *shape))] == features
    (objective,) = heads(network, shape, nt_xent)
    assert count(objective) == in_head
    assert objective.head(network(torch.rand(2, *shape))).shape == (2, 64)


def test_vgg6_has_the_paper_s_size():
    with torch.device("meta"):
        shapes = [tuple(p.shape) for p in encoder(STL).parameters()]
    assert [s[:2] for s in shapes] == [(128, 3), (256, 128), (256, 256), (512, 256), (1024, 512), (1024, 1024)]
    assert sum(torch.Size(s).numel() for s in shapes) == 16_223_616
    narrow = encoder([stage._replace(channels=stage.channels // 128) for stage in STL], partition=(1,) * 6)
    objectives = heads(narrow, (3, 64, 64), nt_xent, average=2)
    sides = [32, 16, 16, 8, 4, 2]
    assert [count(o) for o in objectives] == [64 * s.channels // 128 * n * n for s, n in zip(STL, sides, strict=True)]


def test_layer_heads_of_the_cifar_network():
    network = encoder(CIFAR, partition=(1,) * 5)
    sizes = [count(objective) // 64 for objective in heads(network, (3, 32, 32), nt_xent)]
    assert sizes == [32768, 8192, 16384, 4096, 8192]


def test_only_the_layers_that_should_have_a_nonlinearity():
    z = encoder(CIFAR, seed=1).activities(3 * torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    layers = encoder(CIFAR).layers
    assert [type(layer.activation).__name__ for layer in layers] == ["Hardtanh", "Identity"] * 2 + ["Identity"]
    assert all(a.abs().max() <= 1 for a in (z[0], z[2]))
    assert all(a.min() < 0 for a in z)
    images = torch.rand(2, 1, 28, 28)
    layer = encoder(MNIST, channels=1).layers[0]
    assert torch.equal(layer.activity(images), torch.tanh(F.max_pool2d(layer.op(images), 2)))  # as printed


def test_seeds_and_feedback():
    one, two, other = encoder(SMALL, seed=0), encoder(SMALL, seed=0, feedback="random"), encoder(SMALL, seed=1)
    assert torch.equal(weights(one), weights(two))
    assert not torch.equal(weights(one), weights(other))
    first, again, next_ = (heads(one, (3, 8, 8), stopped, seed=s)[0].head for s in (0, 0, 1))
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(next_))
    wired = heads(one, (3, 8, 8), stopped, feedback="random")[0].head
    assert torch.equal(weights(first), weights(wired))
    assert not torch.equal(wired[2].feedback(wired[2].weight), wired[2].weight)
    assert [layer.op.feedback.kind for layer in two.layers] == ["random"] * 3


def stacked(m=16, seed=0, side=8):
    return torch.rand(2 * m, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("partition", [(3,), (1, 1, 1), (2, 1)])
def test_a_remembered_first_view_has_no_graph_and_the_same_gradients(partition):
    whole, memory = (encoder(SMALL, partition=partition, remember_first=r).train().double() for r in (False, True))
    assert whole.state_dict().keys() == memory.state_dict().keys()
    memory.load_state_dict(whole.state_dict())
    objectives = heads(whole, (3, 8, 8), stopped)
    x = y = stacked().double()
    for block, other, objective in zip(whole.blocks, memory.blocks, objectives, strict=True):
        assert isinstance(other, MemoryBlock)
        before = y
        (seen, x), (seen_too, y) = block(x), other(y)
        torch.testing.assert_close(seen_too, seen)
        torch.testing.assert_close(y, x)
        expected = torch.autograd.grad(objective(seen), [*block.parameters(), *objective.parameters()])
        ours = torch.autograd.grad(objective(seen_too), [*other.parameters(), *objective.parameters()])
        for one, two in zip(ours, expected, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)
        of_first = torch.autograd.grad(other(before)[0][:16].sum(), list(other.parameters()), allow_unused=True)
        assert not any(gradient.any() for gradient in of_first)
    images = torch.rand(3, 3, 8, 8).double()
    assert torch.equal(memory.eval()(images), whole.eval()(images))


def test_an_odd_batch_is_no_pair_of_views():
    for block in (encoder(SMALL, remember_first=True).blocks[0], lambda x: halves(x)):
        with pytest.raises(ValueError, match="a batch of 5 is not two views"):
            block(torch.rand(5, 3, 8, 8))


def test_the_head_learns_by_the_explicit_rule():
    """A head's gradient, with the features below held still, is minus the update of chapter 07."""
    network = encoder(SMALL, seed=2).double()
    (objective,) = heads(network, (3, 8, 8), stopped)
    z = network(stacked().double()).detach()
    (gradient,) = torch.autograd.grad(objective(z), list(objective.parameters()))
    pre_a, pre_b = halves(z.flatten(1))
    options = {"negatives": 5, "margin_negative": 9.0, "stop_first_view": True}
    dW = contrastive_hinge_update(pre_a, pre_b, objective.head[2].weight, **options)
    torch.testing.assert_close(gradient, -dW, rtol=1e-10, atol=1e-10)


def test_random_feedback_of_a_head_reaches_the_layer_but_not_the_head():
    """In a one-layer problem only the wire from head to layer can be random; the head learns as with backprop."""
    gradients = {}
    for feedback in ("backprop", "random"):
        network = encoder(SMALL, partition=(1, 1, 1), seed=1, feedback=feedback).double()
        objectives = heads(network, (3, 8, 8), stopped, feedback=feedback)
        batch = Batch(stacked().double(), torch.zeros(16))
        seen, _ = network.blocks[0](batch.inputs)
        (of_head,) = torch.autograd.grad(objectives[0](seen), list(objectives[0].parameters()))
        gradients[feedback] = layer_gradients(network, objectives, batch), of_head
    (exact, exact_head), (sent, sent_head) = gradients["backprop"], gradients["random"]
    assert torch.equal(exact_head, sent_head)
    assert all((one - two).norm() > 0.1 * one.norm() for one, two in zip(exact, sent, strict=True))


WORLD = Deform(shift=0.25, share=1.0, mirror=0.0)


def look_twice(block, arguments):
    """Both views of a batch, stacked, while the network learns; the images as they are afterwards."""
    if block.training:
        return (torch.cat([view.pixels for view in two_views(arguments[0], WORLD)]),)
    return None


@pytest.fixture(scope="module")
def digits():
    data = sets.load("digits")
    images = F.interpolate(data.train_images[:200] / data.white, size=16, mode="bilinear", align_corners=False)
    return images, data.train_labels[:200]


def learn(digits, *, epochs, partition=(1, 1, 1), schedule=None, compare=stopped, feedback="backprop", remember=True):
    stages = [stage._replace(channels=8) for stage in SMALL]
    network = encoder(stages, channels=1, partition=partition, feedback=feedback, remember_first=remember)
    objectives = heads(network, (1, 16, 16), compare, feedback=feedback)
    network.blocks[0].register_forward_pre_hook(look_twice)
    before = [weights(block) for block in network.blocks]
    made = []

    def adam(parameters):
        made.append(torch.optim.Adam(parameters, lr=3e-3))
        return made[-1]

    options = {"epochs": epochs, "batch_size": 64, "schedule": schedule, "progress": False}
    history = fit(network, objectives, *digits, optimizers=adam, **options)
    moved = [not torch.equal(a, weights(block)) for a, block in zip(before, network.blocks, strict=True)]
    steps = [int(o.state[o.param_groups[0]["params"][0]]["step"]) if o.state else 0 for o in made]
    return network, history, moved, steps


@pytest.mark.parametrize("feedback", ["backprop", "random", "updated"])
@pytest.mark.parametrize("compare", [stopped, nt_xent])
def test_end_to_end_lowers_the_loss(digits, compare, feedback):
    """200 images in batches of 64 leave a last batch of 8: short batches work."""
    _, history, moved, steps = learn(
        digits, epochs=8, partition=(3,), compare=compare, feedback=feedback, remember=compare is stopped
    )
    first, last = history[0]["losses"][0], history[-1]["losses"][0]
    assert last < (0.9 if feedback == "backprop" else 1.0) * first
    assert moved == [True]
    assert steps == [8 * 4]


def test_greedy_layers_learn_one_after_the_other_and_leave_those_below_alone(digits):
    frozen = []
    for epochs, expected in ((2, [True, False, False]), (4, [True, True, False]), (6, [True, True, True])):
        network, history, moved, steps = learn(digits, epochs=epochs, schedule=LayerByLayer(2 * 4))
        assert moved == expected
        assert steps == [8 if m else 0 for m in expected]
        assert [loss is not None for loss in history[-1]["losses"]] == [i == epochs // 2 - 1 for i in range(3)]
        frozen.append([weights(block) for block in network.blocks])
    assert torch.equal(frozen[0][0], frozen[1][0])
    assert torch.equal(frozen[0][0], frozen[2][0])
    assert torch.equal(frozen[1][1], frozen[2][1])


def test_random_layers_share_the_steps(digits):
    _, history, moved, steps = learn(digits, epochs=8, schedule=RandomLayer(seed=1), feedback="random")
    assert sum(steps) == 8 * 4
    assert min(steps) > 3
    assert all(moved)
    assert all(len(entry["losses"]) == 3 for entry in history)
