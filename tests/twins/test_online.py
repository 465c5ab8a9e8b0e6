"""One example at a time: pairs in time against batches, the running mean, both forms of the sum, real digits."""

import functools
import itertools
import statistics

import pytest
import torch
import torch.nn.functional as F
from oracles import bottleneck_loops as slow
from sklearn.datasets import load_digits

from biolearn_lite.rules import kernels, plasticity
from biolearn_lite.rules.hsic import bottleneck_update
from biolearn_lite.rules.online import last_update, online_update, running_third_factor
from biolearn_lite.training.probes import linear_probe


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def run(stream, labels, op, weight, *, num_classes=3, memory=None, **options):
    """All updates of a stream with the weights held still, and the last memory."""
    label_k = kernels.label_kernel(labels, num_classes, dtype=torch.float64)
    updates = []
    for t in range(len(stream)):
        similarity = label_k[t, t - 1].item()
        dW, memory = online_update(memory, op, stream[t : t + 1], weight, similarity, **options)
        updates.append(dW)
    return updates, memory


SETTINGS = {
    "plain": ("dense", normal(6, 9), normal(8, 9, seed=1) / 3, {"activation": "tanh", "sigma": 1.3}),
    "grouped": ("dense", normal(6, 9), normal(8, 9, seed=1) / 3, {"activation": "selu", "groups": 4, "power": 0.2}),
    "convolution": (
        plasticity.Conv2d((3, 3), padding=1, pool=2),
        normal(6, 2, 5, 5),
        normal(4, 2, 3, 3, seed=1) / 4,
        {"activation": "leaky_relu", "groups": 2, "sigma": 2.0},
    ),
}


@pytest.mark.parametrize("setting", list(SETTINGS))
def test_the_mean_over_all_pairs_is_the_batch_update(setting, monkeypatch):
    """A pair (j, then i) with b₃ fixed at the mean of b₂ over all pairs: the average is bottleneck_update."""
    op, x, weight, options = SETTINGS[setting]
    labels = torch.tensor([0, 1, 2, 0, 0, 1])
    label_k = kernels.label_kernel(labels, 3, dtype=torch.float64)
    z, _ = plasticity.respond(plasticity.operation(op, weight), x, weight, plasticity.pointwise(options["activation"]))
    grouping = {k: options[k] for k in ("groups", "power") if k in options}
    seen = kernels.grouped_activity(z, **grouping) if grouping else z
    K = kernels.gaussian_kernel(seen, sigma=options.get("sigma", 5.0))
    mean = (2 * label_k - 2 * K).mean()
    frozen = functools.partial(_with_mean, mean)
    monkeypatch.setattr("biolearn_lite.rules.online.running_third_factor", frozen)
    total = torch.zeros_like(weight)
    for i, j in itertools.product(range(6), repeat=2):
        (_, dW), _ = run(x[[j, i]], labels[[j, i]], op, weight, **options)
        total += dW / 36
    batch = bottleneck_update(op, x, weight, label_k, **options)
    assert (total - batch).norm() < 1e-10 * batch.norm()


def _with_mean(mean, distance, label_similarity, old, *, sigma, balance, decay):
    k = torch.exp(-distance / (2 * sigma**2))
    return -(balance * label_similarity - 2 * k - mean) * k / sigma**2, old


def test_four_points_by_hand():
    """The stream 1, 2, 3, 4, 1 of the book's four points: every third factor, from the paper's equations."""
    points = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0], [2.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    labels = [0, 0, 1, 1, 0]
    mean, factors, means = torch.tensor(0.0), [], []
    for t in range(1, 5):
        distance = (points[t] - points[t - 1]).square().sum()
        similarity = 1.0 if labels[t] == labels[t - 1] else -1.0
        M, mean = running_third_factor(distance, similarity, mean, sigma=1.0, balance=2.0, decay=0.9)
        factors.append(round(M.item(), 3))
        means.append(round(mean.item(), 3))
    assert factors == [-0.211, 0.173, -0.218, 0.169]
    assert means == [0.173, -0.061, 0.118, -0.110]


def test_plain_stream_against_loops():
    """Eq. 19, 64-66 for a linear layer, scalar by scalar, the running mean carried along."""
    x, W = normal(7, 5), normal(3, 5, seed=1)
    labels = torch.tensor([0, 0, 1, 2, 2, 1, 0])
    options = {"activation": None, "sigma": 0.9, "balance": 1.4, "decay": 0.8}
    updates, memory = run(x, labels, "dense", W, **options)
    z, b3 = (x @ W.T).tolist(), 0.0
    assert updates[0].abs().max() == 0
    for t in range(1, 7):
        k = slow.gaussian(z[t], z[t - 1], 0.9)
        b2 = 1.4 * (1.0 if labels[t] == labels[t - 1] else -0.5) - 2 * k
        b3 = 0.8 * b3 + (1 - 0.8) * b2
        M = -(b2 - b3) * k / 0.9**2
        for n, p in itertools.product(range(3), range(5)):
            expected = M * (z[t][n] - z[t - 1][n]) * (x[t, p] - x[t - 1, p]).item()
            assert updates[t][n, p].item() == pytest.approx(expected, rel=1e-11)
    assert memory.mean.item() == pytest.approx(b3)


def test_grouped_stream_against_loops():
    """Eq. 21, 68-70, with 2(1 - φ)/n_g: the change of the product r x, one third factor per group."""
    x, W = normal(6, 5), normal(8, 5, seed=1)
    labels = torch.tensor([0, 1, 1, 2, 0, 0])
    options = {"activation": None, "sigma": 0.5, "decay": 0.7, "groups": 2, "power": 0.2, "offset": 0.6}
    updates, _ = run(x, labels, "dense", W, **options)
    z, b3 = (x @ W.T).tolist(), 0.0
    v, r = [slow.grouped(p, 2, 0.2, 0.6) for p in z], [slow.divided(p, 2, 0.2, 0.6) for p in z]
    for t in range(1, 6):
        b4 = [a - b for a, b in zip(v[t], v[t - 1], strict=True)]
        k = slow.gaussian(v[t], v[t - 1], 0.5)
        b2 = 2 * (1.0 if labels[t] == labels[t - 1] else -0.5) - 2 * k
        b3 = 0.7 * b3 + 0.3 * b2
        for n, p in itertools.product(range(8), range(5)):
            M = -(b2 - b3) * k / 0.5**2 * b4[n // 4]
            change = r[t][n] * x[t, p].item() - r[t - 1][n] * x[t - 1, p].item()
            assert updates[t][n, p].item() == pytest.approx(2 * 0.8 / 4 * M * change, rel=1e-10, abs=1e-14)


@pytest.mark.parametrize("setting", list(SETTINGS))
def test_both_forms_of_the_sum_agree_with_their_boundary_terms(setting):
    """Eq. 22: collecting what each example adds in both roles telescopes to the sum over pairs."""
    op, x, weight, options = SETTINGS[setting]
    labels = torch.tensor([0, 1, 2, 2, 0, 1])
    by_pairs, _ = run(x, labels, op, weight, **options)
    by_examples, memory = run(x, labels, op, weight, wait=True, **options)
    end = last_update(memory, op, weight)
    torch.testing.assert_close(sum(by_examples) + end, sum(by_pairs), rtol=1e-12, atol=1e-15)
    assert end.norm() > 0
    assert by_examples[0].norm() == 0
    assert by_examples[1].norm() > 0  # the first example, in its only role


def test_telescoping_by_hand():
    """M = 1, -2, 3 between the products 1, 4, 2, 5: both sums are 16."""
    M, h = [1, -2, 3], [1, 4, 2, 5]
    pairs = sum(m * (b - a) for m, a, b in zip(M, h[:-1], h[1:], strict=True))
    collected = -M[0] * h[0] + sum((M[t - 1] - M[t]) * h[t] for t in (1, 2)) + M[2] * h[3]
    assert pairs == collected == 16


def test_a_constant_stream_teaches_nothing():
    for options in ({"keep": 0.0}, {"keep": 0.6}, {"groups": 4, "keep": 0.6}):
        updates, _ = run(
            normal(1, 9).expand(5, 9), torch.zeros(5, dtype=torch.long), "dense", normal(8, 9, seed=1),
            activation="tanh", **options,
        )  # fmt: skip
        assert max(dW.abs().max() for dW in updates) < 1e-15


def test_a_running_mean_replaces_the_point_before_once_it_has_settled():
    """Eq. 20: each example shown 30 times; the update at a change is that of the two examples themselves."""
    x, labels = normal(2, 9), torch.tensor([0, 1])
    shown, shown_labels = x.repeat_interleave(30, 0), labels.repeat_interleave(30)
    options = {"activation": None, "sigma": 2.0, "decay": 0.0}
    updates, _ = run(shown, shown_labels, "dense", normal(8, 9, seed=1) / 3, keep=0.5, **(options | {"decay": 0.9}))
    weight = normal(8, 9, seed=1) / 3
    z = x @ weight.T
    expected = torch.outer(z[1] - z[0], x[1] - x[0])
    change = updates[30]
    assert F.cosine_similarity(change.flatten(), expected.flatten(), dim=0) > 1 - 1e-12
    assert updates[29].norm() < 1e-6 * change.norm()
    assert updates[31].norm() > 0  # the mean has moved half-way only


def test_without_a_running_mean_there_is_no_third_factor():
    """β = 0: b₃ follows b₂ at once, and nothing is left of the label."""
    op, x, weight, options = SETTINGS["plain"]
    updates, _ = run(x, torch.tensor([0, 1, 2, 2, 0, 1]), op, weight, **options, decay=0.0)
    assert max(dW.abs().max() for dW in updates) == 0


def test_no_autograd(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a rule called autograd")

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    monkeypatch.setattr(torch.Tensor, "backward", refuse)
    for op, x, weight, options in SETTINGS.values():
        with torch.inference_mode():
            updates, memory = run(x.clone(), torch.arange(6) % 3, op, weight.clone(), **options)
        assert all(dW.is_inference() for dW in updates[1:])
        learning = torch.nn.Parameter(weight)
        updates, memory = run(x, torch.arange(6) % 3, op, learning, **options)
        assert not updates[-1].requires_grad
        assert not memory.signal.requires_grad


def digits(seed):
    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    x, y = torch.tensor(x / 8 - 1, dtype=torch.float32)[order], torch.tensor(y)[order]
    return (x[:1347], y[:1347]), (x[1347:], y[1347:])


def features(weights, x):
    for W in weights:
        x = torch.tanh(x @ W.T)
    return x


def one_pass(weights, x, y, *, rate, **options):
    """All layers learn from each example as it passes."""
    memories = [None] * len(weights)
    for t in range(len(y)):
        pre = x[t : t + 1]
        similarity = 1.0 if y[t] == y[t - 1] else -1 / 9
        for layer, W in enumerate(weights):
            passed = torch.tanh(pre @ W.T)
            dW, memories[layer] = online_update(
                memories[layer], "dense", pre, W, similarity, activation="tanh", **options
            )
            W += rate * dW
            pre = passed


@pytest.mark.parametrize(
    ("sizes", "rate", "sigma"), [((64, 12), 0.05, 2.0), ((64, 12, 12, 12), 0.03, 1.5)], ids=["1 layer", "3 layers"]
)
def test_one_pass_over_digits(sizes, rate, sigma):
    """1,347 examples, each met once: the solved readout of the top layer, five seeds, against the untrained layers."""
    scores = []
    for seed in range(5):
        train, test = digits(seed)
        generator = torch.Generator().manual_seed(seed)
        weights = [
            (torch.rand(out, into, generator=generator) * 2 - 1) / into**0.5 for into, out in itertools.pairwise(sizes)
        ]
        before = _readout(weights, train, test)
        one_pass(weights, *train, rate=rate, sigma=sigma)
        scores.append((before, _readout(weights, train, test)))
    untrained, trained = zip(*scores, strict=True)
    assert min(trained) >= 0.80
    assert min(b - a for a, b in scores) >= 0.05
    assert statistics.mean(trained) - statistics.mean(untrained) >= 0.08


def _readout(weights, train, test):
    return linear_probe((features(weights, train[0]), train[1]), (features(weights, test[0]), test[1]), num_classes=10)


BAD = {
    "two examples": ({"pre": torch.rand(2, 5)}, "2 examples"),
    "decay 1": ({"decay": 1.0}, "decay=1.0"),
    "keep 1": ({"keep": 1.0}, "keep=1.0"),
    "keep while waiting": ({"keep": 0.5, "wait": True}, "wait=True"),
    "sigma 0": ({"sigma": 0.0}, "sigma=0.0"),
    "NaN": ({"pre": torch.full((1, 5), float("nan"))}, "NaN"),
    "NaN similarity": ({"label_similarity": float("nan")}, "NaN"),
    "groups": ({"groups": 3}, "groups=3"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_named(case):
    changes, message = BAD[case]
    good = {"op": "dense", "pre": torch.rand(1, 5), "weight": torch.rand(4, 5), "label_similarity": 1.0}
    good |= {"activation": "tanh"}
    _, memory = online_update(None, **good)
    with pytest.raises(ValueError, match=message):
        online_update(memory, **(good | changes))
