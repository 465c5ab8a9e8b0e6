"""Feedback wires: B = W is backprop to the bit, any other B changes what is sent down and nothing else."""

import functools
import math

import pytest
import torch
import torch.nn.functional as F
from oracles import feedback_loops as slow
from torch import nn

from biolearn_lite.nets import layers
from biolearn_lite.nets.networks import alignment, layer_gradients, mlp
from biolearn_lite.rules import feedback, plasticity
from biolearn_lite.rules.feedback import alignment_angle, batch_manhattan, bias_and_variance, with_feedback
from biolearn_lite.training.fit import Batch, fit

OPERATIONS = {
    "dense": (F.linear, (6, 5), (4, 5)),
    "conv": (functools.partial(F.conv2d, stride=2, padding=1), (3, 2, 7, 7), (4, 2, 3, 3)),
    "grouped conv": (functools.partial(F.conv2d, padding=(1, 0), groups=2), (3, 4, 5, 6), (6, 2, 3, 2)),
    "transposed conv": (
        functools.partial(F.conv_transpose2d, stride=2, padding=1, output_padding=1),
        (3, 4, 5, 5),
        (4, 2, 3, 3),
    ),
    "any bilinear function": (
        lambda x, W: torch.einsum("mi,oi,i->mo", x, W, torch.arange(1.0, 6.0).to(x)),
        (6, 5),
        (4, 5),
    ),
}
KINDS = ["backprop", "random", "updated", "sign", "redrawn"]


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def case(name, dtype=torch.float64):
    op, x_shape, w_shape = OPERATIONS[name]
    x, W, B = (normal(*shape, seed=s, dtype=dtype) for s, shape in enumerate((x_shape, w_shape, w_shape)))
    return op, x.requires_grad_(), W.requires_grad_(), B


def ghost(op, x, W, B):
    """The trick of adding terms of value zero: the oracle."""

    def zero(t):
        return t - t.detach()

    return op(x.detach(), W.detach()) + zero(op(x, B.detach())) + zero(op(x.detach(), W))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "name", [name for name in OPERATIONS if name not in ("transposed conv", "any bilinear function")]
)
def test_the_forward_weights_as_feedback_are_backprop_to_the_bit(name, dtype):
    op, x, W, _ = case(name, dtype)
    native, sent = op(x, W), with_feedback(op, x, W, W.detach().clone())
    assert torch.equal(native, sent)
    post = normal(*native.shape, seed=9, dtype=dtype)
    for expected, got in zip(
        torch.autograd.grad(native, (x, W), post), torch.autograd.grad(sent, (x, W), post), strict=True
    ):
        assert torch.equal(expected, got)


@pytest.mark.parametrize("name", OPERATIONS)
def test_only_what_is_sent_down_goes_through_the_feedback(name):
    op, x, W, B = case(name)
    sent, oracle = with_feedback(op, x, W, B), ghost(op, x, W, B)
    torch.testing.assert_close(sent, op(x, W), rtol=1e-12, atol=1e-12)
    post = normal(*sent.shape, seed=9)
    down, dW = torch.autograd.grad(sent, (x, W), post)
    for expected, got in zip(torch.autograd.grad(oracle, (x, W), post), (down, dW), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)
    assert not torch.allclose(down, torch.autograd.grad(op(x, W), x, post)[0])


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_feedback_that_learns_receives_the_gradient_of_the_weight(name):
    op, x, W, B = case(name)
    sent = with_feedback(op, x, W, B.requires_grad_())
    dW, dB = torch.autograd.grad(sent.square().sum(), (W, B))
    torch.testing.assert_close(dB, dW, rtol=1e-12, atol=1e-12)
    assert dW.norm() > 1


@pytest.mark.parametrize("name", OPERATIONS)
def test_with_its_own_weights_it_is_the_true_gradient(name):
    op, x, W, _ = case(name)
    torch.autograd.gradcheck(lambda x, W: with_feedback(op, x, W, W.detach()), (x, W))


def test_a_hand_written_feedback_alignment():
    x, target, W1, W2, B2 = (
        normal(3),
        normal(2, seed=1),
        normal(4, 3, seed=2),
        normal(2, 4, seed=3),
        normal(2, 4, seed=4),
    )
    W1.requires_grad_(), W2.requires_grad_()
    y = with_feedback("dense", torch.tanh(x[None] @ W1.T), W2, B2)
    got = torch.autograd.grad((y - target).square().sum() / 2, (W1, W2))
    for expected, given in zip(slow.gradients(*(t.tolist() for t in (x, target, W1, W2, B2))), got, strict=True):
        torch.testing.assert_close(given, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_a_hand_written_convolution():
    x, W, B = normal(1, 1, 5, 5).requires_grad_(), normal(1, 1, 3, 3, seed=1), normal(1, 1, 3, 3, seed=2)
    z = with_feedback(functools.partial(F.conv2d, stride=2, padding=1), x, W, B)
    post = normal(*z.shape, seed=3)
    expected = slow.convolution_sent_down(post[0, 0].tolist(), B[0, 0].tolist(), 5, stride=2, padding=1)
    torch.testing.assert_close(torch.autograd.grad(z, x, post)[0][0, 0], torch.tensor(expected, dtype=torch.float64))


def test_several_nets_at_once():
    x, W, B = normal(3, 6, 5), normal(3, 4, 5, seed=1), normal(3, 4, 5, seed=2)

    def down(x, W, B):
        return torch.func.grad(lambda x: with_feedback("dense", x, W, B).square().sum())(x)

    expected = torch.stack([down(*one) for one in zip(x, W, B, strict=True)])
    torch.testing.assert_close(torch.func.vmap(down)(x, W, B), expected)


def test_autocast_has_one_type_in_both_passes():
    x, W, B = (
        normal(6, 5, dtype=torch.float32).requires_grad_(),
        normal(4, 5, seed=1).float(),
        normal(4, 5, seed=2).float(),
    )
    with torch.autocast("cpu", torch.bfloat16):
        z = with_feedback("dense", x, W, B)
    assert z.dtype == torch.bfloat16
    (down,) = torch.autograd.grad(z.float().sum(), x)
    torch.testing.assert_close(down, B.sum(0).expand(6, 5), rtol=0.02, atol=0.02)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"feedback has shape \(5, 4\).*\(4, 5\)"):
        with_feedback("dense", normal(6, 5), normal(4, 5), normal(5, 4))
    with pytest.raises(TypeError, match="not known"):
        with_feedback("softmax", normal(6, 5), normal(4, 5), normal(4, 5))
    with pytest.raises(ValueError, match="feedback='sgin'"):
        layers.Linear(3, 2, feedback="sgin")


LAYERS = {
    "Linear": (functools.partial(layers.Linear, 5, 4), nn.Linear(5, 4), (6, 5)),
    "Conv2d": (functools.partial(layers.Conv2d, 2, 4, 3, stride=2, padding=1), nn.Conv2d(2, 4, 3, 2, 1), (3, 2, 7, 7)),
    "ConvTranspose2d": (
        functools.partial(layers.ConvTranspose2d, 2, 4, 3, stride=2, padding=1, output_padding=1),
        nn.ConvTranspose2d(2, 4, 3, 2, 1, 1),
        (3, 2, 5, 5),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_and_learns_as_torch_does_and_sends_down_its_own_feedback(name, kind):
    make, native, shape = LAYERS[name]
    native, layer = native.double(), make(feedback=kind).double()
    layer.load_state_dict(native.state_dict(), strict=False)
    x = normal(*shape).requires_grad_()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        a = layer(x)
        torch.manual_seed(3)
        B = layer.feedback(layer.weight).detach()
    torch.testing.assert_close(a, native(x), rtol=1e-12, atol=1e-12)
    post = normal(*a.shape, seed=9)
    down, dW, db = torch.autograd.grad(a, (x, layer.weight, layer.bias), post)
    torch.testing.assert_close([dW, db], list(torch.autograd.grad(native(x), (native.weight, native.bias), post)))
    with torch.no_grad():
        native.weight.copy_(B)
    torch.testing.assert_close(down, torch.autograd.grad(native(x), x, post)[0])
    if kind == "sign":
        assert torch.equal(B, layer.weight.sign())
    assert torch.equal(B, layer.weight) == (kind == "backprop")


def net(kind="random", seed=0, sizes=(5, 7, 6, 3)):
    return mlp(sizes, activation=nn.Tanh(), feedback=kind, seed=seed).double()


def batch(m=12):
    return Batch(normal(m, 5), torch.arange(m) % 3)


def cross_entropy(seen, batch):
    return F.cross_entropy(seen, batch.labels)


def test_feedback_is_drawn_apart_from_the_weights():
    plain = net("backprop").state_dict()
    for kind in KINDS[1:]:
        state = net(kind).state_dict()
        assert all(torch.equal(state[name], weight) for name, weight in plain.items())
    wide = layers.Linear(400, 300, feedback="random")
    assert abs(alignment_angle(wide.feedback.weight, wide.weight) - 90) < 1
    again = net("random").state_dict()
    assert all(torch.equal(again[name], value) for name, value in net("random").state_dict().items())
    assert not torch.equal(again["blocks.0.layers.1.op.feedback.weight"], plain["blocks.0.layers.1.op.weight"])


def test_redrawn_feedback_is_new_at_every_pass_and_never_the_weights():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = layers.Linear(5, 4, bias=False, feedback="redrawn")
        torch.manual_seed(0)
        first, second = layer.feedback(layer.weight), layer.feedback(layer.weight)
    assert not torch.equal(first, second)
    assert not torch.equal(first, layer.weight)


def test_the_weights_themselves_as_feedback_are_backprop():
    op, x, W, _ = case("dense")
    post = normal(6, 4, seed=9)
    for expected, got in zip(
        torch.autograd.grad(op(x, W), (x, W), post),
        torch.autograd.grad(with_feedback(op, x, W, W), (x, W), post),
        strict=True,
    ):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_top_layer_learns_as_in_backprop(kind):
    top = layer_gradients(net(kind), [cross_entropy], batch())[-1]
    torch.testing.assert_close(top, layer_gradients(net("backprop"), [cross_entropy], batch())[-1])


def test_exact_feedback_lasts_as_long_as_it_should():
    network = net("random")
    exact = layer_gradients(net("backprop"), [cross_entropy], batch())
    with network.exact_feedback():
        for got, expected in zip(layer_gradients(network, [cross_entropy], batch()), exact, strict=True):
            assert torch.equal(got, expected)
    angles = alignment(network, [cross_entropy], batch())
    assert angles[-1] == 0
    assert min(angles[:-1]) > 20
    assert alignment(net("backprop"), [cross_entropy], batch()) == [0, 0, 0]
    assert network.training
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, functools.partial(torch.optim.SGD, momentum=0.9)])
def test_updated_feedback_keeps_its_distance_from_the_weights(optimizer):
    network = net("updated")
    ops = [layer.op for layer in network.layers]
    before = [(op.weight - op.feedback.weight).detach() for op in ops]
    weights = [op.weight.detach().clone() for op in ops]
    fit(
        network, [cross_entropy], batch(60).inputs, batch(60).labels,
        optimizers=lambda p: optimizer(p, lr=0.05), epochs=1, batch_size=12, progress=False,
    )  # fmt: skip
    for op, difference, weight in zip(ops, before, weights, strict=True):
        assert (op.weight - weight).norm() > 0.01
        torch.testing.assert_close(op.weight - op.feedback.weight, difference, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "options", [{"weight_decay": 1e-4, "clip_norm": None}, {"weight_decay": 0.0, "clip_norm": 1.0}]
)
def test_what_would_pull_updated_feedback_apart_is_refused(options):
    wires = net("updated").layers[0].op.feedback
    with pytest.raises(ValueError, match="same increments"):
        wires.check_training(**options)
    wires.check_training(weight_decay=0.0, clip_norm=None)
    net("random").layers[0].op.feedback.check_training(**options)


def test_angles():
    v = torch.tensor([1.0, 0.0])
    assert alignment_angle(v, v) == 0
    assert alignment_angle(v, -3 * v) == 180
    assert alignment_angle(v, torch.tensor([0.0, 2.0])) == pytest.approx(90)
    tiny = torch.tensor([1.0, 1e-9], dtype=torch.float64)
    assert alignment_angle(tiny, v) == pytest.approx(math.degrees(1e-9), rel=1e-6)
    assert alignment_angle([v, v], [v, -v]) == pytest.approx(90)
    many = normal(1000, 1000)
    assert alignment_angle(many, many.sign()) == pytest.approx(math.degrees(math.acos(math.sqrt(2 / math.pi))), abs=0.1)
    with pytest.raises(ValueError, match=r"update has length 0\.0"):
        alignment_angle(0 * v, v)
    with pytest.raises(ValueError, match="reference has length nan"):
        alignment_angle(v, v * math.nan)
    with pytest.raises(ValueError, match="2 entries, reference 3"):
        alignment_angle(v, torch.ones(3))


def test_bias_and_variance_of_a_noisy_estimate():
    g, noise = normal(50), normal(4000, 50, seed=1)
    unbiased = bias_and_variance(g + 3 * noise, g)
    assert unbiased.angle < 6
    assert bias_and_variance(g + 3 * noise[:40], g).angle > 2 * unbiased.angle
    assert unbiased.snr == pytest.approx(g.square().sum().item() / (9 * 50), rel=0.05)
    turned = bias_and_variance((5 * u for u in -g + 3 * noise), g)
    assert turned.angle > 174
    assert turned.snr == pytest.approx(unbiased.snr, rel=0.2)
    assert bias_and_variance([[g, g], [g, g]], [g, g]) == (0, math.inf)
    with pytest.raises(ValueError, match="at least two"):
        bias_and_variance([g], g)


def test_batch_manhattan_takes_the_sign_before_decay_and_momentum():
    w = nn.Parameter(torch.tensor([1.0, 1.0, 1.0]))
    optimizer = batch_manhattan(torch.optim.SGD([w], lr=0.1, momentum=0.5, weight_decay=0.5))
    for gradient in ([3.0, -0.2, 0.0], [3.0, -0.2, 0.0]):
        w.grad = torch.tensor(gradient)
        optimizer.step()
    expected = torch.ones(3)
    momentum = torch.zeros(3)
    for _ in range(2):
        momentum = 0.5 * momentum + torch.tensor([1.0, -1.0, 0.0]) + 0.5 * expected
        expected = expected - 0.1 * momentum
    torch.testing.assert_close(w.detach(), expected)


def test_the_layers_offer_their_operation_to_the_local_rules():
    layer = layers.Layer(
        layers.Conv2d(2, 4, 3, padding=1, bias=False, feedback="random"), activation=nn.Tanh()
    ).double()
    x = normal(3, 2, 5, 5)
    dW, _z = layer.learn(x, lambda z: torch.ones_like(z))
    (expected,) = torch.autograd.grad(layer(x).sum(), layer.op.weight)
    torch.testing.assert_close(dW, expected)
    assert isinstance(feedback.plasticity.operation(layer.op, layer.op.weight), plasticity.Conv2d)
