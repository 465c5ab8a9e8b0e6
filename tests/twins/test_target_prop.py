"""Difference targets: the explicit rule against autograd, what targets are in cases one can solve, and that a training
step is what Algorithm 1 says, however it is computed."""

import copy
import functools
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from biolearn_lite.nets.encoders import CIFAR, Stage, encoder, halves
from biolearn_lite.nets.layers import ConvTranspose2d, DivisiveNorm, Layer, Linear
from biolearn_lite.nets.networks import Network, mlp
from biolearn_lite.nets.targets import (
    Activities,
    DifferenceTargets,
    make_inverse,
    strided,
    target_network,
    two_rates,
)
from biolearn_lite.rules import plasticity
from biolearn_lite.rules.contrastive import contrastive_hinge
from biolearn_lite.rules.target_prop import (
    difference_targets,
    inverse_loss,
    target_loss,
    target_signal,
    target_update,
)
from biolearn_lite.training.checkpoint import Checkpoints
from biolearn_lite.training.fit import Batch, fit

SHAPE, CLASSES = (2, 12, 12), 3
STAGES = (Stage(4, nn.Tanh, True), Stage(5, nn.Hardtanh), Stage(6, nn.Tanh, True))


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def cross_entropy(scores, batch):
    return F.cross_entropy(scores, batch.labels)


def setting(*, stages=STAGES, compare=cross_entropy, stride=False, m=6, **options):
    """A network in float64, its objective, and a batch."""
    network = encoder(stages, channels=SHAPE[0], seed=1).double()
    network = target_network((strided(network) if stride else network).layers)
    x = normal(m, *SHAPE, seed=2)
    torch.manual_seed(3)
    head = nn.Sequential(nn.Flatten(), Linear(network(x)[0].numel(), CLASSES, bias=False)).double()
    objective = DifferenceTargets(network, SHAPE, head, compare, **options)
    return network, objective, Batch(x, torch.arange(m) % CLASSES)


def weights(network):
    return [layer.op.weight for layer in network.layers]


def operations():
    """(op, the same forward pass in plain torch, pre, weight) of every kind of layer and inverse."""
    images, kernel, up = normal(5, 2, 6, 6), normal(3, 2, 3, 3, seed=1) / 2, normal(2, 3, 3, 3, seed=1) / 2
    padded, by_two = functools.partial(F.conv2d, padding=1), functools.partial(F.conv2d, stride=2, padding=1)
    back = functools.partial(F.conv_transpose2d, stride=2, padding=1, output_padding=1)
    return {
        "dense": ("dense", F.linear, normal(5, 7), normal(4, 7, seed=1) / 2),
        "conv": (padded, padded, images, kernel),
        "strided conv": (by_two, by_two, images, kernel),
        "conv + pool": (
            plasticity.Conv2d((3, 3), padding=1, pool=2),
            lambda x, w: F.max_pool2d(padded(x, w), 2),
            images,
            kernel,
        ),
        "inverse": (plasticity.ConvTranspose2d((3, 3), 2, 1, 1), back, images, up),
    }


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("name", list(operations()))
def test_update_equals_autograd(name, reduction, monkeypatch):
    op, forward, pre, weight = operations()[name]
    W = weight.clone().requires_grad_()
    z = torch.tanh(forward(pre, W))
    target = (z + normal(*z.shape, seed=9)).detach().requires_grad_()  # a target that wrongly keeps its graph
    loss = target_loss(z, target, reduction=reduction)
    gradient, none = torch.autograd.grad(loss, [W, target], allow_unused=True)
    assert none is None
    assert loss.item() == pytest.approx(((z - target) ** 2).sum().item() / (z.numel() if reduction == "mean" else 1))

    def refuse(*args, **kwargs):
        raise AssertionError("a rule called autograd")

    with monkeypatch.context() as patch, torch.inference_mode():
        for owner, attribute in (
            (torch.autograd, "grad"),
            (torch.Tensor, "backward"),
            (torch.autograd, "backward"),
        ):
            patch.setattr(owner, attribute, refuse)
        told = {"activation": "tanh", "reduction": reduction}
        dW = target_update(op, pre.clone(), weight.clone(), target.detach().clone(), **told)
    assert dW.is_inference()
    torch.testing.assert_close(dW, -gradient, rtol=1e-10, atol=1e-10)
    assert gradient.norm() > 1e-3


def test_the_worked_example():
    """Chapter 09, by hand: z = diag(2, ½) x at x = (1, 2); the top wants (3, 2) and steps half the way."""
    x, W = torch.tensor([[1.0, 2.0]]), torch.diag(torch.tensor([2.0, 0.5]))
    z, wanted = x @ W.T, torch.tensor([[3.0, 2.0]])

    def after(quality, corrected):
        inverse = [lambda up: quality * up @ torch.linalg.inv(W).T]
        targets = difference_targets([x, z], inverse, 2 * (z - wanted), step=0.25, corrected=corrected)
        return *targets, ((targets[0] @ W.T - wanted) ** 2).sum().item() / 2

    for quality, corrected, below, loss in (
        (1.0, True, (1.25, 3.0), 0.25),
        (0.8, True, (1.2, 2.8), 0.36),
        (0.8, False, (1.0, 2.4), 0.82),
        (-0.5, True, (0.875, 1.5), 1.5625),
    ):
        first, top, reached = after(quality, corrected)
        assert top.tolist() == [[2.5, 1.5]]
        assert first[0].tolist() == pytest.approx(below)
        assert reached == pytest.approx(loss)


@pytest.mark.parametrize("stride", [False, True])
@pytest.mark.parametrize("reading", ["published", "printed"])
def test_a_content_top_leaves_every_layer_where_it_is(reading, stride):
    """η = 0: targets are the activities, bit for bit, however bad the inverses; without the difference they are not."""
    network, objective, batch = setting(reading=reading, stride=stride, step=0.0)
    activities = [z.detach() for z in network.blocks[0](batch.inputs)[0]]
    _, targets = objective.targets(activities, batch)
    assert len(targets) == 3
    assert all(torch.equal(z, target) for z, target in zip(activities, targets, strict=True))
    objective.corrected = False
    _, plain = objective.targets(activities, batch)
    assert not torch.allclose(plain[0], activities[0], atol=0.1)


def test_with_an_exact_inverse_the_updates_lower_the_loss():
    """Orthogonal linear layers and their transposes as inverses: local updates are backprop's, and the loss falls."""
    maps = [torch.linalg.qr(normal(5, 5, seed=s))[0] for s in range(3)]
    x, wanted = normal(8, 5, seed=7), normal(8, 5, seed=8)

    def loss(layers):
        return (functools.reduce(lambda z, W: z @ W.T, layers, x) - wanted).square().sum()

    z = [x]
    for W in maps:
        z.append(z[-1] @ W.T)
    inverses = [lambda up, W=W: up @ W for W in maps[1:]]
    targets = difference_targets(z[1:], inverses, 2 * (z[-1] - wanted), step=0.5)
    free = [W.clone().requires_grad_() for W in maps]
    exact = torch.autograd.grad(loss(free), free)
    updates = [target_update("dense", *parts) for parts in zip(z[:-1], maps, targets, strict=True)]
    for dW, gradient in zip(updates, exact, strict=True):
        torch.testing.assert_close(dW, -gradient, rtol=1e-10, atol=1e-10)
    assert loss([W + 1e-3 * dW for W, dW in zip(maps, updates, strict=True)]) < 0.999 * loss(maps)


@pytest.mark.parametrize("stride", [False, True])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_top_layer_learns_a_multiple_of_backprop(reduction, stride):
    """Published reading: 2η times backprop's gradient, over the number of activities for means; and the head learns
    what backprop teaches it. As printed, the top layer depends on the head's inverse instead."""
    network, objective, batch = setting(step=0.3, reduction=reduction, stride=stride)
    z = network.activities(batch.inputs)
    W, head = weights(network)[-1], objective.head[1].weight
    exact = torch.autograd.grad(cross_entropy(objective.head(z[-1]), batch), [W, head])
    told = torch.autograd.grad(objective(network.blocks[0](batch.inputs)[0], batch), [W, head])
    factor = 0.6 / (z[-1].numel() if reduction == "mean" else 1)
    torch.testing.assert_close(told[0], factor * exact[0], rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(told[1], exact[1], rtol=1e-10, atol=1e-14)
    network, objective, batch = setting(step=0.3, reading="printed")
    printed = torch.autograd.grad(objective(network.blocks[0](batch.inputs)[0], batch), weights(network)[-1])[0]
    assert F.cosine_similarity(printed.flatten(), told[0].flatten(), dim=0) < 0.9


def test_as_printed_targets_start_at_the_embedding():
    network, objective, batch = setting(reading="printed", step=0.4)
    z = [z.detach() for z in network.activities(batch.inputs)]
    scores = objective.head(z[-1]).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(scores, batch), scores)
    at_head = objective.inverses[-1]
    expected = z[-1] - at_head(scores) + at_head(scores - 0.4 * gradient)
    overall, targets = objective.targets(z, batch)
    torch.testing.assert_close(targets[-1], expected.detach())
    assert overall.item() == pytest.approx(cross_entropy(scores, batch).item())


def test_no_loss_reaches_another_layer():
    network, objective, batch = setting()
    seen = network.blocks[0](batch.inputs)[0]
    _, targets = objective.targets(seen, batch)
    own = [weights(network), [g.op.weight for g in objective.inverses]]
    everything = [*own[0], *own[1], objective.head[1].weight]
    losses = [objective.local_losses(seen, targets), list(objective.inverse_losses(seen))]
    assert [len(of_kind) for of_kind in losses] == [3, 2]
    for of_kind, mine in zip(losses, own, strict=True):
        for loss, W in zip(of_kind, mine, strict=True):
            gradients = torch.autograd.grad(loss, everything, allow_unused=True)
            reached = [other for other, gradient in zip(everything, gradients, strict=True) if gradient is not None]
            assert len(reached) == 1
            assert reached[0] is W


@pytest.mark.parametrize("reading", ["published", "printed"])
def test_one_scalar_with_the_gradients_of_all(reading):
    """Its value is the overall loss; its gradient is that of every loss, each taken by itself."""
    network, objective, batch = setting(reading=reading, noise=0.5)
    seen = network.blocks[0](batch.inputs)[0]
    everything = [*network.parameters(), *objective.parameters()]
    torch.manual_seed(11)
    scalar = objective(seen, batch)
    together = torch.autograd.grad(scalar, everything, retain_graph=True)
    torch.manual_seed(11)
    losses = list(objective.inverse_losses(seen))
    overall, targets = objective.targets(seen, batch)
    apart = torch.autograd.grad(overall + sum(losses) + sum(objective.local_losses(seen, targets)), everything)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
        assert one.norm() > 0
    assert scalar.item() == pytest.approx(cross_entropy(objective.head(seen[-1]), batch).item(), rel=1e-12)


def test_one_forward_pass_and_one_with_noise():
    """Beside the forward pass, layers run once more, but for the bottom one; no error goes down through them."""
    network, objective, batch = setting()
    calls = []
    for i, layer in enumerate(network.layers):
        layer.op.register_forward_hook(lambda *_, i=i: calls.append((i, torch.is_grad_enabled())))
    objective(network.blocks[0](batch.inputs)[0], batch).backward()
    assert sorted(calls) == [(0, True), (1, False), (1, True), (2, False), (2, True)]


def test_the_inverse_s_noise():
    """The same noise is seen and guessed; without noise it is the plain autoencoder."""
    x = normal(50, 40)
    generator = torch.Generator().manual_seed(1)
    loss = partial(inverse_loss, lambda z: 2 * z, activity=x)
    assert loss(lambda z: z / 2, noise=3.0) < 1e-25
    noisy = loss(torch.zeros_like, noise=3.0, generator=generator)
    assert noisy.item() == pytest.approx(1 + 3**2, rel=0.1)
    assert loss(torch.zeros_like, noise=0.0).item() == pytest.approx(x.square().mean().item())
    assert loss(torch.zeros_like, reduction="sum").item() == pytest.approx(x.square().sum().item())
    again = loss(torch.zeros_like, noise=3.0, generator=generator.manual_seed(1))
    assert again == noisy


def test_a_view_that_is_stopped_wants_nothing():
    """The gradient block: targets of first views are their activities, in every layer; second views' are not."""
    hinge = partial(contrastive_hinge, negatives=2, margin_negative=50.0, stop_first_view=True)
    for reading in ("published", "printed"):
        network, objective, batch = setting(compare=lambda e, _: hinge(*halves(e)), reading=reading)
        seen = network.blocks[0](batch.inputs)[0]
        _, targets = objective.targets(seen, batch)
        for z, target in zip(seen, targets, strict=True):
            (first, second), (first_target, second_target) = halves(z), halves(target)
            assert torch.equal(first, first_target)
            assert not torch.allclose(second, second_target, atol=1e-6)


@pytest.mark.parametrize("size", [12, 13, 7])
@pytest.mark.parametrize("activation", [nn.Tanh, nn.Hardtanh, nn.Identity, nn.GELU])
def test_noisy_passes_compute_what_layers_compute(size, activation):
    """The quicker pool gives the same activity, on ties and odd sizes, too."""
    stages = (Stage(3, activation, True), Stage(4, activation, True), Stage(5, activation))
    network = target_network(encoder(stages, channels=1).double().layers)
    x = (3 * normal(4, 1, size, size)).round()
    z = network.activities(x)
    with torch.no_grad():
        side = network(x)[0].numel()
    objective = DifferenceTargets(network, (1, size, size), nn.Sequential(nn.Flatten(), Linear(side, 2)), cross_entropy)
    losses = list(objective.double().inverse_losses(z))  # draws noise
    objective.noise = 0.0
    for g, below, above, loss, noisy in zip(
        objective.inverses, z, z[1:], objective.inverse_losses(z), losses, strict=False
    ):
        torch.testing.assert_close(loss, (g(above) - below).square().mean())
        assert noisy != loss


@pytest.mark.parametrize("size", [12, 13])
@pytest.mark.parametrize("activation", [nn.Tanh, nn.Hardtanh, nn.ReLU, nn.Identity, nn.GELU])
def test_a_target_block_computes_and_learns_what_its_layers_do(size, activation):
    """Where an activation rises, it comes after the pool: the same activity, and the same gradient of its weights."""
    stages = (Stage(3, activation, True), Stage(4, activation, True), Stage(5, activation))
    network = target_network(encoder(stages, channels=1).double().layers)
    x = normal(4, 1, size, size)
    seen, _ = network.blocks[0](x)
    for z, layer in zip(seen, network.layers, strict=True):
        expected = layer.activity(x)
        torch.testing.assert_close(z, expected)
        signal = normal(*z.shape)
        (found,), (right,) = (torch.autograd.grad(each, layer.op.weight, signal) for each in (z, expected))
        torch.testing.assert_close(found, right)
        x = layer.after(expected.detach())


def test_what_stands_between_layers_is_passed_by_the_noise():
    """An inverse guesses its layer's activity; the layer above sees it normalized."""
    layers = [Layer(Linear(3, 4), activation=nn.Tanh(), after=DivisiveNorm(2)), Layer(Linear(4, 5))]
    network = target_network(layers)
    objective = DifferenceTargets(network, (3,), Linear(5, 2), cross_entropy, noise=0.0)
    below, above = network.activities(torch.rand(6, 3))
    (loss,) = objective.inverse_losses([below, above])
    torch.testing.assert_close(loss, (objective.inverses[0](above) - below).square().mean())


@pytest.mark.parametrize("size", [28, 32, 15])
@pytest.mark.parametrize("stride", [False, True])
def test_inverses_fit_their_layers(size, stride):
    """Transposed convolutions of the stride of the pool: 7 pixels from 3 (pooled) or from 4 (strided), too."""
    stages = (Stage(4), Stage(5, nn.Hardtanh), Stage(6, nn.Tanh, True), Stage(5, pool=True), Stage(6, nn.Tanh, True))
    network = encoder(stages, channels=1)
    network = target_network((strided(network) if stride else network).layers)
    z = network.activities(torch.rand(2, 1, size, size))
    head = nn.Sequential(nn.Flatten(), Linear(z[-1][0].numel(), 3))
    objective = DifferenceTargets(network, (1, size, size), head, cross_entropy, reading="printed")
    for g, below, above in zip(objective.inverses, z, [*z[1:], head(z[-1])], strict=True):
        assert g(above).shape == below.shape
    kinds = [type(g.op) for g in objective.inverses]
    assert kinds == [ConvTranspose2d] * 4 + [Linear]
    assert [g.op.stride for g in objective.inverses[:-1]] == [(1, 1), (2, 2), (2, 2), (2, 2)]
    activations = [type(g.activation) for g in objective.inverses]
    assert activations == [nn.Identity, nn.Hardtanh, nn.Tanh, nn.Identity, nn.Tanh]
    assert all(g.op.bias is None for g in objective.inverses)


def test_strides_in_the_place_of_pools_share_everything_else():
    pooled, other = encoder(CIFAR, seed=4), strided(encoder(CIFAR, seed=4))
    assert all(torch.equal(a, b) for a, b in zip(weights(pooled), weights(other), strict=True))
    x = torch.rand(2, 3, 32, 32)
    assert [z.shape for z in pooled.activities(x)] == [z.shape for z in other.activities(x)]
    below, layer = pooled.activities(x)[0], pooled.layers[1]
    every_second = layer.op(below)[:, :, ::2, ::2]
    torch.testing.assert_close(other.activities(x)[1], every_second)


def test_a_dense_network_learns_by_targets():
    """Layers of `mlp` under their readout: the loss falls; with targets that reach nobody it falls less."""
    x, y = torch.randn(90, 20, generator=torch.Generator().manual_seed(0)), torch.arange(90) % 3
    x[:, :3] += 2 * F.one_hot(y) * x[:, 3:4]  # no class has a mean of its own

    def trained(**options):
        *hidden, readout = mlp((20, 30, 30, 3), activation=nn.Tanh()).layers
        network = target_network(hidden)
        objective = DifferenceTargets(network, (20,), readout, cross_entropy, **options)
        make = two_rates(objective, 1e-2, inverse_rate=1e-3)
        history = fit(network, [objective], x, y, optimizers=make, epochs=40, batch_size=15, progress=False)
        return [epoch["losses"][0] for epoch in history]

    losses, fixed = trained(), trained(step=0.0)
    assert losses[-1] < 0.5 * losses[0]
    assert fixed[-1] > 1.5 * losses[-1]


def test_inverses_learn_more_often_if_asked(tmp_path):
    """Everything else moves at every third step; interrupted within, training goes on as if it had not been."""

    def trained(folder, epochs, again=None):
        network, objective, batch = setting(inverse_steps=3, m=12)
        before = [copy.deepcopy(list(part.parameters())) for part in (network, objective.head, objective.inverses)]
        moved = []

        def look(epoch):
            parts = network, objective.head, objective.inverses
            now = [list(part.parameters()) for part in parts]
            moved.append([not all(map(torch.equal, a, b)) for a, b in zip(now, before, strict=True)])
            before[:] = copy.deepcopy(now)
            return {}

        for until in [epochs] if again is None else [again, epochs]:
            if again is not None and until == epochs:
                network, objective, batch = setting(inverse_steps=3, m=12)
            fit(
                network,
                [objective],
                batch.inputs,
                batch.labels,
                optimizers=two_rates(objective, 1e-3, inverse_rate=1e-3),
                epochs=until,
                batch_size=12,
                after_epoch=look,
                checkpoints=Checkpoints(folder),
                progress=False,
            )
        return moved, weights(network)

    moved, straight = trained(tmp_path / "a", 6)
    assert moved == [[False, False, True], [False, False, True], [True, True, True]] * 2
    _, resumed = trained(tmp_path / "b", 6, again=4)
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))


def test_two_rates():
    network, objective, _ = setting()
    optimizer = two_rates(objective, 0.1, inverse_rate=0.2)([*network.parameters(), *objective.parameters()])
    layers, inverses = optimizer.param_groups
    assert (layers["lr"], inverses["lr"]) == (0.1, 0.2)
    assert [p is q for p, q in zip(inverses["params"], objective.inverses.parameters(), strict=True)] == [True] * 2
    assert len(layers["params"]) == 4  # three layers and the head, each once


def test_blocks_stay_what_they_were():
    """The same weights under the same names, the same function; what is seen can be made float32."""
    plain = encoder(STAGES, channels=2, seed=1)
    network = target_network(plain.layers)
    assert network.state_dict().keys() == Network(plain.layers).state_dict().keys()
    x = torch.rand(3, *SHAPE)
    seen, passed = network.blocks[0](x)
    for one, other in zip(seen, plain.activities(x), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(passed, seen[-1])
    assert not passed.requires_grad
    half = Activities(z.bfloat16() for z in seen)
    assert half.dtype == torch.bfloat16
    assert {z.dtype for z in half.float()} == {torch.float32}
    fit(
        network,
        [DifferenceTargets(network, SHAPE, nn.Sequential(nn.Flatten(), Linear(54, 3)), cross_entropy)],
        x,
        torch.arange(3),
        optimizers=partial(torch.optim.SGD, lr=0.1),
        epochs=1,
        batch_size=3,
        autocast=torch.bfloat16,
        progress=False,
    )


def test_mistakes_are_named(monkeypatch):
    z, inverse = [normal(4, 3), normal(4, 2)], [lambda up: up @ normal(2, 3)]
    with pytest.raises(ValueError, match="2 activities and 0 inverses"):
        difference_targets(z, [], z[-1])
    with pytest.raises(ValueError, match=r"gradient is \(4, 3\)"):
        difference_targets(z, inverse, z[0])
    for step in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="step"):
            difference_targets(z, inverse, z[-1], step=step)
    with pytest.raises(ValueError, match=r"makes \(4, 2\) of \(4, 2\)"):
        difference_targets(z, [lambda up: up], z[-1])
    with pytest.raises(ValueError, match="noise=-1"):
        inverse_loss(torch.tanh, torch.tanh, z[0], noise=-1)
    with pytest.raises(ValueError, match="reduction='none'"):
        target_loss(z[0], z[0], reduction="none")
    with pytest.raises(ValueError, match=r"activity is \(4, 3\)"):
        target_signal(z[0], z[0][:1])
    for wrong in ({"reading": "aloud"}, {"inverse_steps": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            setting(**wrong)
    with pytest.raises(TypeError, match="no inverse"):
        make_inverse(Layer(nn.Bilinear(2, 3, 4)), z[0], z[1])
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(ValueError, match="one process"):
        setting()[0].blocks[0](normal(2, *SHAPE))
