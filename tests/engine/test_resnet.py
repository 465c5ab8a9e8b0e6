"""ResNet20, local or not: exact counts, one function when weights are shared, and shifts that it does not notice."""

import pytest
import torch
from torch import nn

from biolearn_lite.nets import resnet as page
from biolearn_lite.nets.layers import Conv2d, LocallyConnected2d
from biolearn_lite.nets.resnet import drift, locally_connected, resnet, share

SMALL = {"shape": (2, 13, 13), "channels": (4, 6), "blocks": 2, "classes": 5}


def weights(network):
    return [module.weight for module in network.modules() if isinstance(module, Conv2d | LocallyConnected2d)]


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_papers_numbers_of_weights():
    """272,474, and 40,814,762 in 21 locally connected layers, two of them 1×1."""
    assert count(resnet()) == 272_474
    with torch.device("meta"):
        local = resnet(local=True)
    assert count(local) == 40_814_762
    kernels = [layer.operation.kernel_size for layer in locally_connected(local)]
    assert kernels.count((3, 3)) == 19
    assert kernels.count((1, 1)) == 2
    assert local.partition == (11,)


@pytest.mark.parametrize("local", [False, True])
def test_births(local):
    """N(0, 2 / (channels · kernel area)), fan-out, at every position anew; the same seed, the same weights."""
    network, again, other = (resnet(**SMALL, local=local, seed=seed) for seed in (3, 3, 4))
    for weight, same, new in zip(*(weights(net) for net in (network, again, other)), strict=True):
        assert torch.equal(weight, same)
        assert not torch.equal(weight, new)
        *_, here, _, kernel, _ = weight.shape
        expected = (2 / (here * kernel**2)) ** 0.5
        assert weight.std().item() == pytest.approx(expected, rel=4 / (2 * weight.numel()) ** 0.5)
        if local:
            spread = weight.flatten(0, 1).std(0).mean().item()
            assert spread == pytest.approx(expected, rel=0.1)
    state = torch.random.get_rng_state()
    resnet(**SMALL, local=local)
    assert torch.equal(state, torch.random.get_rng_state())


def test_local_with_shared_weights_is_the_convolutional_network():
    """Forward and backward, in training and in evaluation, odd maps and strides included."""
    convolutional, local = (resnet(**SMALL, local=choice).double() for choice in (False, True))
    with torch.no_grad():
        for kernel, own in zip(weights(convolutional), weights(local), strict=True):
            own.copy_(kernel.expand_as(own))
        local.layers[-1].op.load_state_dict(convolutional.layers[-1].op.state_dict())
    x = torch.randn(4, 2, 13, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        answers = [network(x) for network in (convolutional, local)]
        torch.testing.assert_close(*answers, rtol=1e-10, atol=1e-12)
        for network, answer in zip((convolutional, local), answers, strict=True):
            network.zero_grad()
            answer[:, 0].sum().backward()
        for kernel, own in zip(weights(convolutional), weights(local), strict=True):
            torch.testing.assert_close(own.grad.sum((0, 1)), kernel.grad, rtol=1e-8, atol=1e-10)
        for network in (convolutional, local):
            network.eval()


def test_a_block_is_two_layers_around_a_shortcut():
    """Layer by layer by hand, from the weights alone, in evaluation."""
    network = resnet(**SMALL, seed=1).double().eval()
    x = torch.randn(3, 2, 13, 13, dtype=torch.float64)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            for each in (part.weight, part.bias, part.running_mean):
                nn.init.normal_(each)
            nn.init.uniform_(part.running_var, 0.5, 2)

    def normed(pair, z):
        layer, norm = pair
        z = nn.functional.conv2d(z, layer.weight, stride=layer.stride, padding=layer.weight.shape[-1] // 2)
        scale = (norm.weight / (norm.running_var + norm.eps) ** 0.5).view(-1, 1, 1)
        return (z - norm.running_mean.view(-1, 1, 1)) * scale + norm.bias.view(-1, 1, 1)

    stem, *blocks, readout = network.layers
    z = normed(stem.op, x).relu()
    strides = []
    for block in blocks:
        below, _, above = block.op.body
        inner = normed(below, z).relu()
        around = z if isinstance(block.op.shortcut, nn.Identity) else normed(block.op.shortcut, z)
        strides.append(below[0].stride[0])
        z = (normed(above, inner) + around).relu()
    torch.testing.assert_close(
        network(x), z.mean((2, 3)) @ readout.op.weight.T + readout.op.bias, rtol=1e-9, atol=1e-11
    )
    assert strides == [1, 1, 2, 1]
    assert z.shape == (3, 6, 7, 7)


def test_shared_layers_do_not_notice_shifts_by_the_grid():
    """Away from the border the response of three shared layers moves by k with the input, and by k alone."""
    network = resnet(shape=(1, 24, 24), channels=(4,), blocks=1, local=True, seed=0).double().eval()
    x = torch.zeros(1, 1, 24, 24, dtype=torch.float64)
    x[..., 9:12, 9:12] = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    share(network)
    for down, right in ((3, 0), (0, -3), (6, 3), (1, 0), (0, 2), (4, -3)):
        moved = x.roll((down, right), (2, 3))
        here, there = (network.activities(image)[1] for image in (x, moved))
        same = torch.allclose(here.roll((down, right), (2, 3)), there, rtol=1e-9, atol=1e-12)
        assert same == (down % 3 == 0 and right % 3 == 0)
        answers = (network(image) for image in (x, moved))
        assert torch.allclose(*answers, rtol=1e-9, atol=1e-12) == same


def snr(module):
    """Eq. 6, weight by weight."""
    ratios = []
    for column in zip(*module, strict=True):
        mean = sum(column) / len(column)
        ratios.append(mean**2 / (sum((value - mean) ** 2 for value in column) / len(column)))
    return sum(ratios) / len(ratios)


def test_drift_is_equation_6_by_loops():
    network = resnet(shape=(1, 7, 7), channels=(2, 3), blocks=1, local=True, seed=0).double()
    for layer, found in zip(locally_connected(network), drift(network), strict=True):
        k, values = layer.operation.kernel_size[0], []
        for i in range(k):
            for j in range(k):
                module = layer.weight[i::k, j::k].flatten(0, 1).flatten(1)
                if len(module) > 1:
                    values.append(snr(module.tolist()))
        assert found.item() == pytest.approx(-torch.tensor(sum(values) / len(values)).log().item(), rel=1e-5)


def test_maps_too_small_to_share_are_named():
    with pytest.raises(ValueError, match="too small"):
        drift(resnet(shape=(1, 3, 3), channels=(2,), blocks=1, local=True))


@pytest.mark.parametrize("options", [{"shape": (3, 32, 30)}, {"channels": ()}, {"blocks": 0}])
def test_impossible_networks_are_named(options):
    with pytest.raises(ValueError, match="give squares"):
        page.resnet(**options)
