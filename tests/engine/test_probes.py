"""The solved probe against scikit-learn, and where it must fail or succeed."""

import pytest
import torch
from sklearn.linear_model import Ridge

from biolearn_lite.nets.networks import mlp
from biolearn_lite.training.probes import RIDGES, accuracy, layer_probes, linear_probe


def blobs(n, dim=5, classes=3, noise=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(classes, dim, generator=torch.Generator().manual_seed(42))
    y = torch.randint(classes, (n,), generator=generator)
    return centres[y] + noise * torch.randn(n, dim, generator=generator), y


def test_probe_equals_scikit_learn():
    """scikit-learn solves the same ridge for every candidate; the same choice must give the same accuracy."""
    train, test = blobs(200, noise=2.0), blobs(300, noise=2.0, seed=1)
    x, y = train[0].double().numpy(), torch.nn.functional.one_hot(train[1], 3).numpy()

    def score(x, y, x_test, y_test, ridge):
        penalty = ridge * x.var(0).mean() * len(x)
        scores = Ridge(alpha=penalty).fit(x, y).predict(x_test)
        return accuracy(torch.tensor(scores), y_test)

    best = max(RIDGES, key=lambda r: score(x[:160], y[:160], x[160:], train[1][160:], r))
    expected = score(x, y, test[0].double().numpy(), test[1], best)
    assert 0.4 < expected < 1.0
    assert linear_probe(train, test, num_classes=3) == pytest.approx(expected)


def test_probe_reads_what_is_there_and_nothing_else():
    train, test = blobs(300, noise=0.01), blobs(200, noise=0.01, seed=1)
    assert linear_probe(train, test, num_classes=3) == 1.0
    shuffled = train[1][torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    noise = torch.randn(300, 5, generator=torch.Generator().manual_seed(1))
    assert linear_probe((noise, shuffled), blobs(200, noise=1.0, seed=1), num_classes=3) < 0.6


x, y = blobs(20)
BAD = {
    "NaN": (
        lambda: linear_probe((x.new_full(x.shape, torch.nan), y), (x, y), num_classes=3),
        FloatingPointError,
        "NaN",
    ),
    "one NaN": (lambda: accuracy(torch.tensor([[0.0, torch.nan]]), y[:1]), FloatingPointError, "NaN"),
    "labels as a column": (lambda: accuracy(x, y[:, None]), ValueError, r"labels \(20, 1\)"),
    "labels missing": (lambda: linear_probe((x, y[:9]), (x, y), num_classes=3), ValueError, "20 features and 9 labels"),
    "too few": (lambda: linear_probe((x[:4], y[:4]), (x, y), num_classes=3), ValueError, "5 pairs"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_gives_no_accuracy(case):
    call, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call()


def test_layer_probes_give_one_number_per_layer_and_leave_the_network_alone():
    net = mlp((5, 16, 8, 3), activation=torch.nn.Tanh(), partition=(1, 1, 1))
    before = [p.clone() for p in net.parameters()]
    scores = layer_probes(net, blobs(200), blobs(100, seed=1), num_classes=3)
    assert len(scores) == 3
    assert all(1 / 3 < s <= 1 for s in scores)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
