"""Networks by name: shapes, order of steps, partitions, feedback."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from biolearn_lite.nets.layers import DivisiveNorm, LocalReadout
from biolearn_lite.nets.networks import alignment, layer_gradients, mlp, vgg
from biolearn_lite.training.fit import Batch, fit

SMALL = {"shape": (2, 8, 8), "channels": (4, 6), "pooled": (1,), "hidden": (8,), "classes": 3}


def images(m=6, shape=(2, 8, 8), seed=0):
    return torch.randn(m, *shape, generator=torch.Generator().manual_seed(seed))


def small(**options):
    return vgg(**SMALL | {"activation": nn.ReLU()} | options)


@pytest.mark.parametrize("width", [1, 2])
def test_the_papers_net_has_the_papers_shapes(width):
    """conv128-256-pool-256-512-pool-512-pool-512-pool-fc1024, twice the channels in 2x; 001, section 5.3."""
    channels = [width * c for c in (128, 256, 256, 512, 512, 512)]
    with torch.device("meta"):
        seen = vgg(activation=nn.ReLU(), channels=channels).activities(torch.empty(2, 3, 32, 32))
    sides = (32, 16, 16, 8, 4, 2)
    assert [tuple(z.shape[1:]) for z in seen] == [
        *((c, side, side) for c, side in zip(channels, sides, strict=True)),
        (1024,),
        (10,),
    ]


def test_the_default_net_is_1x():
    with torch.device("meta"):
        seen = vgg(activation=nn.ReLU()).activities(torch.empty(2, 3, 32, 32))
    assert [z.shape[1] for z in seen] == [128, 256, 256, 512, 512, 512, 1024, 10]


def test_a_layer_is_operation_batch_norm_nonlinearity_pool_then_normalization():
    """Written out with torch's functions; the objective sees what stands before the division."""
    network = small(batch_norm=True, after=lambda: DivisiveNorm(2, power=0.2)).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(generator=torch.Generator().manual_seed(1))
            module.running_var.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(2))
    norm, x = DivisiveNorm(2, power=0.2), images()
    first, second, dense, readout = network.layers
    z0 = F.relu(first.op[1](F.conv2d(x, first.op[0].weight, padding=1)))
    z1 = F.max_pool2d(F.relu(second.op[1](F.conv2d(norm(z0), second.op[0].weight, padding=1))), 2)
    z2 = F.relu(dense.op[1](norm(z1).flatten(1) @ dense.op[0].weight.T))
    z3 = readout.op(norm(z2))
    for found, expected in zip(network.activities(x), (z0, z1, z2, z3), strict=True):
        torch.testing.assert_close(found, expected)


def test_hidden_layers_have_no_bias_and_the_readout_has_one():
    assert [name for name, _ in small().named_parameters() if "bias" in name] == ["blocks.0.layers.3.op.bias"]


@pytest.mark.parametrize("partition", [(4,), (1, 1, 1, 1), (2, 2)])
def test_partitions_hold_the_same_weights_and_compute_the_same(partition):
    whole, cut = small(seed=3), small(seed=3, partition=partition)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), cut.parameters(), strict=True))
    assert torch.equal(whole(images()), cut(images()))
    assert not torch.equal(whole(images()), small(seed=4)(images()))


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("feedback", ["random", "updated", "sign", "redrawn"])
def test_wrong_feedback_bends_all_gradients_but_the_readouts(feedback, batch_norm):
    network = small(feedback=feedback, batch_norm=batch_norm)
    plain = small(batch_norm=batch_norm)
    named = dict(network.named_parameters())
    assert all(torch.equal(weight, named[name]) for name, weight in plain.named_parameters())
    *below, top = alignment(network, [cross_entropy], batch())
    assert min(below) > 1
    assert top == pytest.approx(0, abs=1e-3)
    assert max(alignment(plain, [cross_entropy], batch())) == pytest.approx(0, abs=1e-3)


def test_gradients_are_those_of_the_weights_behind_batch_norm():
    network = small(batch_norm=True)
    shapes = [tuple(g.shape) for g in layer_gradients(network, [cross_entropy], batch())]
    assert shapes == [(4, 2, 3, 3), (6, 4, 3, 3), (8, 96), (3, 8)]


def cross_entropy(seen, batch):
    return F.cross_entropy(seen, batch.labels)


def batch(m=6):
    return Batch(images(m), torch.arange(m) % 3)


# Local readouts


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((128, 32, 32), (4, 4)),
        ((256, 16, 16), (4, 2)),
        ((512, 8, 8), (2, 2)),
        ((1024, 8, 8), (2, 1)),
        ((512, 2, 2), (2, 2)),
    ],
)
def test_images_are_averaged_to_2048_numbers(shape, size):
    """The rectangles of the published runs: 4×4, 4×2, 2×2, 2×1."""
    readout, seen = LocalReadout(shape, 10), images(3, shape)
    assert readout.readout.in_features == 2048
    rows, columns = (shape[1] // size[0], shape[2] // size[1])
    means = seen.reshape(3, shape[0], size[0], rows, size[1], columns).mean((3, 5)).flatten(1)
    expected = F.cross_entropy(F.linear(means, readout.readout.weight, readout.readout.bias), torch.tensor([1, 0, 9]))
    torch.testing.assert_close(readout(seen, Batch(seen, torch.tensor([1, 0, 9]))), expected)


def test_dense_activity_is_read_as_it_is():
    readout, z = LocalReadout((7,), 3), images(6, (7,))
    expected = F.cross_entropy(readout.readout(z), batch().labels)
    torch.testing.assert_close(readout(z, batch()), expected)


def test_random_feedback_of_a_local_readout_bends_the_layers_gradient_alone():
    torch.manual_seed(0)
    exact, random = LocalReadout((6, 4, 4), 3, outputs=24), LocalReadout((6, 4, 4), 3, outputs=24, feedback="random")
    random.readout.load_state_dict(exact.readout.state_dict(), strict=False)
    gradients = []
    for readout in (exact, random):
        seen = images(6, (6, 4, 4)).requires_grad_()
        readout(seen, batch()).backward()
        gradients.append((seen.grad, readout.readout.weight.grad))
    assert torch.equal(gradients[0][1], gradients[1][1])
    cosine = F.cosine_similarity(gradients[0][0].flatten(), gradients[1][0].flatten(), dim=0)
    assert math.degrees(math.acos(cosine)) > 20


def test_the_layers_optimizer_trains_its_readout():
    network, readout = small(partition=(1, 3)), LocalReadout((4, 8, 8), 3, outputs=16)
    before = readout.readout.weight.detach().clone()
    fit(
        network,
        [readout, None],
        images(12),
        torch.arange(12) % 3,
        optimizers=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        epochs=1,
        batch_size=6,
        progress=False,
    )
    assert not torch.equal(readout.readout.weight, before)


@pytest.mark.parametrize("shape", [(), (3, 4), (4096, 2, 2)])
def test_a_shape_no_readout_fits_is_named(shape):
    with pytest.raises(ValueError, match="give \\(features,\\) or \\(channels, height, width\\)"):
        LocalReadout(shape, 10)


@pytest.mark.parametrize("sizes", [(6,), (6, 3)])
def test_a_network_without_hidden_layers_is_refused(sizes):
    with pytest.raises(ValueError, match=r"sizes=\(6"):
        mlp(sizes, activation=nn.Tanh())


def test_mlp_is_as_it_was():
    """The same draws from the same seed, layer by layer, readout last: committed runs depend on it."""
    torch.manual_seed(5)
    expected = [nn.Linear(6, 4, bias=False), nn.Linear(4, 3, bias=False), nn.Linear(3, 2)]
    network = mlp((6, 4, 3, 2), activation=nn.Tanh(), seed=5)
    weights = [p for layer in expected for p in layer.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(weights, network.parameters(), strict=True))
