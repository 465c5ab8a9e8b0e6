"""Readouts against scikit-learn, features against the whole network, and a collapse that does not pass unseen."""

import warnings
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from biolearn_lite.nets.encoders import Stage, encoder
from biolearn_lite.training.evaluation import (
    adam_readout,
    check_collapse,
    distance_histogram,
    embed_2d,
    features,
    in_batches,
    logistic_readout,
    pair_distances,
    score,
)
from biolearn_lite.training.probes import accuracy

STAGES = (Stage(4, nn.Tanh, True), Stage(5, nn.Hardtanh), Stage(6, pool=True))


def blobs(n, dim=5, classes=3, noise=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(classes, dim, generator=torch.Generator().manual_seed(42))
    y = torch.randint(classes, (n,), generator=generator)
    scales = torch.tensor([1.0, 30.0, 0.01, 1.0, 5.0])[:dim]
    return (centres[y] + noise * torch.randn(n, dim, generator=generator)) * scales + 7.0, y


def test_features_are_the_network_s_activities_and_leave_it_alone():
    """In batches that do not divide the images; through `after`, in evaluation mode, without a graph."""
    network = encoder(STAGES, channels=1, partition=(1, 2))
    network.layers[0].after = nn.Sequential(nn.Dropout(0.5), nn.Sigmoid())
    network.train()
    images, before = torch.rand(11, 1, 8, 8), [p.clone() for p in network.parameters()]
    found = list(features(network, images, batch_size=4))
    assert network.training
    assert network.layers[0].after[0].training
    assert all(torch.equal(p, q) for p, q in zip(before, network.parameters(), strict=True))
    assert not any(z.requires_grad for z in found)
    with torch.no_grad():
        expected = network.eval().activities(images)
    for z, whole in zip(found, expected, strict=True):
        torch.testing.assert_close(z, whole)


def test_every_layer_is_computed_once(monkeypatch):
    network, calls = encoder(STAGES, channels=1), []
    for i, layer in enumerate(network.layers):
        layer.op.register_forward_hook(lambda *_, i=i: calls.append(i))
    list(features(network, torch.rand(10, 1, 8, 8), batch_size=4))
    assert calls == [0] * 3 + [1] * 3 + [2] * 3


@pytest.mark.parametrize("ridge", [1e-3, 0.3])
def test_the_logistic_readout_is_scikit_learn_s(ridge):
    """Its penalty is on standardized features, whatever their scale; a feature that never changes is no trouble."""
    (x, y), (x_test, _) = blobs(200), blobs(50, seed=1)
    readout = logistic_readout(torch.cat([x, torch.full((200, 1), 3.0)], 1), y, num_classes=3, ridge=ridge)
    scaler = StandardScaler().fit(x.numpy())
    theirs = LogisticRegression(C=1 / (ridge * len(y)), tol=1e-8, max_iter=1000).fit(scaler.transform(x.numpy()), y)
    expected = theirs.predict_proba(scaler.transform(x_test.numpy()))
    ours = readout(torch.cat([x_test, torch.full((50, 1), 3.0)], 1)).softmax(1)
    np.testing.assert_allclose(ours.numpy(), expected, atol=2e-3)


def test_readouts_learn_what_is_there_and_nothing_else():
    train, test = blobs(300, noise=0.1), blobs(200, noise=0.1, seed=1)
    standard = [(x - 7) / torch.tensor([1.0, 30.0, 0.01, 1.0, 5.0]) for x in (train[0], test[0])]
    readout = adam_readout(standard[0], train[1], num_classes=3, rate=0.05, epochs=30, batch_size=64)
    assert score(readout, standard[1], test[1]) == 1.0
    assert score(logistic_readout(*train, num_classes=3), *test) == 1.0
    shuffled = train[1][torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    noise = torch.randn(300, 5, generator=torch.Generator().manual_seed(1))
    assert score(logistic_readout(noise, shuffled, num_classes=3), *blobs(200, noise=1.0, seed=1)) < 0.6


def test_the_readout_of_a_seed_is_the_same_and_global_randomness_is_left_alone():
    train = blobs(60, noise=0.5)
    read = partial(adam_readout, *train, num_classes=3, epochs=2, batch_size=16)
    torch.manual_seed(3)
    one, state = read(seed=0).weight, torch.get_rng_state()
    other = read(seed=1).weight
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    assert torch.equal(one, read(seed=0).weight)
    assert not torch.equal(one, other)


def test_a_score_counts_in_batches():
    x, y = blobs(12_001)
    readout = nn.Linear(5, 3)
    assert score(readout, x, y) == pytest.approx(accuracy(readout(x), y))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.rand(3, 2), torch.tensor([0, 1]), r"x \(3\) and y \(2\)"),
        (torch.rand(2, 2), torch.tensor([0, 3]), "labels run from 0 to 3; num_classes=3"),
        (torch.rand(2, 2), torch.tensor([-1, 0]), "labels run from -1"),
        (torch.full((2, 2), torch.nan), torch.tensor([0, 1]), "NaN"),
    ],
)
@pytest.mark.parametrize("read", [logistic_readout, adam_readout])
def test_bad_features_and_labels_are_named(read, x, y, message):
    with pytest.raises(ValueError, match=message):
        read(x, y, num_classes=3)


def test_nothing_is_no_input():
    with pytest.raises(ValueError, match=r"\(0, 3\): give at least one example"):
        in_batches(nn.Identity(), torch.zeros(0, 3))


def test_distances_of_pairs_by_hand():
    a, b = torch.tensor([[0.0, 0], [1, 1], [2, 0]]), torch.tensor([[0.0, 1], [1, 1], [5, 0]])
    same, other = pair_distances(a, b)
    assert same.tolist() == [1, 0, 3]
    assert sorted(other.tolist()) == [1, 2, 2, 3, 5, 5]
    edges, share_same, share_other = distance_histogram(a, b, bins=5)
    assert edges.tolist() == [0, 1, 2, 3, 4, 5]
    torch.testing.assert_close(share_same, torch.tensor([1.0, 1, 0, 1, 0]).double() / 3)
    torch.testing.assert_close(share_other, torch.tensor([0.0, 1, 2, 1, 2]).double() / 6)
    with pytest.raises(ValueError, match="n > 1"):
        pair_distances(a[:1], b[:1])


def test_a_collapse_is_told_with_its_cure():
    z = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spread = check_collapse(z, smallest=1.0)
    assert spread == pytest.approx(torch.cdist(z, z, p=1).sum().item() / (50 * 49), rel=1e-5)
    with pytest.warns(UserWarning, match=r"collapsed.* no more than 1; .*negatives.*margin_negative"):
        assert check_collapse(5 + 0.01 * z, smallest=1.0) < 1
    with pytest.raises(ValueError, match="without NaN"):
        check_collapse(z * torch.inf, smallest=1.0)


def test_a_map_keeps_what_is_apart_apart():
    generator = torch.Generator().manual_seed(0)
    clouds = torch.randn(2, 20, 3, 4, 4, generator=generator) + torch.tensor([-5.0, 5.0]).view(2, 1, 1, 1, 1)
    points = embed_2d(clouds.flatten(0, 1), perplexity=8)
    assert points.shape == (40, 2)
    within = torch.cdist(points[:20], points[:20]).max()
    assert torch.cdist(points[:20], points[20:]).min() > within / 4
    assert torch.equal(points, embed_2d(clouds.flatten(0, 1).mean((2, 3)), perplexity=8))
    with pytest.raises(ValueError, match="perplexity=30"):
        embed_2d(clouds[0])
