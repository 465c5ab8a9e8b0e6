"""`nets.stack`: equal at birth, and blind to where a picture stands, exactly as far as the chapter says."""

import pytest
import torch
import torch.nn.functional as F

from biolearn_lite.nets.resnet import share
from biolearn_lite.nets.stack import stack

SHAPE = (1, 6, 24)


def sheets(shift):
    picture = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return F.pad(picture, (2 + shift, 24 - 8 - shift))


def net(**options):
    return stack(SHAPE, (3, 5), seed=1, **options).double().eval()


@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("readout", ["largest", "every place"])
def test_without_copies_it_is_born_the_same(pool, readout):
    copied, own = (net(local=local, pool=pool, readout=readout) for local in (False, True))
    assert torch.allclose(copied(sheets(3)), own(sheets(3)), rtol=0, atol=1e-12)
    assert own.layers[1].op.weight.shape == (6 // pool, 24 // pool, 5, 3, 3, 3)


@pytest.mark.parametrize(("pool", "works"), [(1, range(13)), (2, range(0, 13, 2))])
def test_shifts_that_a_convolution_does_not_notice(pool, works):
    network = net(pool=pool)
    home = network(sheets(0))
    assert [s for s in range(13) if torch.allclose(network(sheets(s)), home, rtol=0, atol=1e-12)] == list(works)


@pytest.mark.parametrize(("pool", "works"), [(1, [0, 3, 6, 9, 12]), (2, [0, 6, 12])])
def test_shifts_that_copying_every_third_does_not_notice(pool, works):
    network = net(local=True, pool=pool)
    for layer in network.layers[:2]:
        torch.nn.init.normal_(layer.op.weight, generator=torch.Generator().manual_seed(2))
    share(network)
    home = network(sheets(0))
    assert [s for s in range(13) if torch.allclose(network(sheets(s)), home, rtol=0, atol=1e-12)] == works


def test_a_readout_of_every_place_notices():
    network = net(readout="every place")
    assert not torch.allclose(network(sheets(1)), network(sheets(0)), atol=1e-3)


def test_seeds_differ_and_can_be_repeated():
    first, again, other = (stack(SHAPE, (3, 5), seed=seed).layers[0].op.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_black_is_silence():
    network = net()
    assert not network.activities(torch.zeros(1, *SHAPE, dtype=torch.float64))[0].any()


@pytest.mark.parametrize("options", [{"pool": 5}, {"pool": 0}, {"readout": "mean"}])
def test_what_does_not_fit_is_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        stack(SHAPE, (3, 5), **options)
