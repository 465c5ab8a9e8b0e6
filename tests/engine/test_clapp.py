"""Networks that predict their next glance: blocks and what they show, one eye for all, modules against plain loops."""

import io

import pytest
import torch
from torch import nn
from torch.optim import SGD

from biolearn_lite.nets import clapp
from biolearn_lite.nets.clapp import FromAbove, Prediction, glance_encoder, predictions, predictions_from_above
from biolearn_lite.nets.encoders import Stage
from biolearn_lite.nets.eye import Eye
from biolearn_lite.rules import plasticity
from biolearn_lite.rules.predictive import clapp_update
from biolearn_lite.training.fit import Batch, fit

STAGES = (Stage(4, nn.ReLU), Stage(6, nn.ReLU, True), Stage(5, nn.ReLU, True))
GRID = (2, 5)


def network(partition=(1, 1, 1)):
    return glance_encoder(STAGES, partition=partition, seed=1).double()


def glances(images, seed=0, size=(1, 8, 8)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images * 10, *size, dtype=torch.float64, generator=generator)


def batch(images=6, seed=0):
    return Batch(glances(images, seed), torch.arange(images) % 3)


def eye(**options):
    return Eye(grid=GRID, steps=2, skip=1, **options)


def test_vgg6_is_the_one_of_tables_2_and_3():
    net = glance_encoder(partition=clapp.PARTITIONS["4 modules upper"])
    assert [layer.op.out_channels for layer in net.layers] == [128, 256, 256, 512, 1024, 1024]
    assert [isinstance(layer.pool, nn.MaxPool2d) for layer in net.layers] == [False, True, False, True, True, True]
    assert all(layer.op.bias is not None and isinstance(layer.activation, nn.ReLU) for layer in net.layers)
    assert [len(block.layers) for block in net.blocks] == [3, 1, 1, 1]
    assert all(sum(partition) == 6 for partition in clapp.PARTITIONS.values())
    assert [len(clapp.PARTITIONS[name]) for name in clapp.PARTITIONS] == [1, 2, 3, 4, 4, 6]
    sizes = [z.shape[-1] for z in net.activities(torch.zeros(1, 1, 16, 16))]
    assert sizes == [16, 8, 8, 4, 2, 1]


def test_a_block_shows_the_mean_and_passes_on_the_map():
    net, x = network(), glances(2)
    maps = net.activities(x)
    for block, z in zip(net.blocks, maps, strict=True):
        seen, x = block(x)
        torch.testing.assert_close(seen, z.mean((2, 3)))
        torch.testing.assert_close(x, z.detach())
        assert seen.requires_grad
        assert not x.requires_grad


@pytest.mark.parametrize("pieces", [2, 3, 50])
def test_in_pieces_a_block_computes_and_learns_the_same(pieces):
    """Each piece has a graph of its own, and there may be fewer glances than pieces asked for."""
    whole, cut = (glance_encoder(STAGES, partition=(2, 1), seed=1, pieces=n).double() for n in (1, pieces))
    assert [block.pieces for block in cut.blocks] == [pieces] * 2
    x = x_cut = glances(2)
    for block, block_cut in zip(whole.blocks, cut.blocks, strict=True):
        (seen, x), (seen_cut, x_cut) = block(x), block_cut(x_cut)
        torch.testing.assert_close(seen_cut, seen)
        torch.testing.assert_close(x_cut, x)
        assert len(seen_cut.grad_fn.next_functions) == min(pieces, 20)
        signal = torch.randn(seen.shape, dtype=torch.float64)
        gradients = zip(
            *(torch.autograd.grad(z, list(b.parameters()), signal) for z, b in ((seen, block), (seen_cut, block_cut))),
            strict=True,
        )
        for right, found in gradients:
            torch.testing.assert_close(found, right)


def test_no_gradient_crosses_between_modules():
    net = network((2, 1))
    first, second = predictions(net, eye())
    today = batch()
    _, passed = net.blocks[0](today.inputs)
    second.double()(net.blocks[1](passed)[0], today).backward()
    assert all(parameter.grad is None for parameter in (*net.blocks[0].parameters(), *first.parameters()))
    assert all(parameter.grad is not None for parameter in (*net.blocks[1].parameters(), *second.parameters()))


def decoded(index, images):
    """Image, column and row of a glance."""
    image, place = divmod(index, GRID[0] * GRID[1])
    assert image < images
    return (image, *divmod(place, GRID[1]))


@pytest.mark.parametrize("images", [1, 2, 7])
def test_a_saccade_is_one_event(images):
    """For all glances and all numbers of steps an image stays, or jumps to the same place in the same other image."""
    torch.manual_seed(3)
    jumped = 0
    for today in (batch(images, seed) for seed in range(20)):
        events, where = eye().look(images, today), {}
        assert len(events) == 2
        for k, event in enumerate(events, start=1):
            assert event.context.shape == event.target.shape == (images, 2, 5 - k - 1)
            for place in range(event.context.numel()):
                image, column, row = decoded(event.context.flatten()[place].item(), images)
                other, column_then, row_then = decoded(event.target.flatten()[place].item(), images)
                assert (column_then, row_then) == (column, row + k + 1)
                assert (event.y[image] == -1) == (other != image or (images == 1 and event.y[image] == -1))
                assert where.setdefault(image, other) == other
        jumped += (events[0].y == -1).double().mean().item() / 20
        assert torch.equal(events[0].y, events[1].y)
    assert 0.2 < jumped < 0.8


def test_both_cases_at_every_step():
    torch.manual_seed(0)
    for k, event in enumerate(eye(others=50).look(4, batch(4)), start=1):
        assert event.y.tolist() == [1] + [-1] * 50
        assert event.target.shape == (51, *event.context.shape)
        assert torch.equal(event.target[0], event.context + k + 1)
        assert set(event.target[1:].flatten().tolist()) == set(event.target[0].flatten().tolist())


@pytest.mark.parametrize("others", [None, 2])
def test_everybody_hears_of_the_same_saccade(others):
    """One draw per batch, for all modules; a new batch of equal content is a new one."""
    torch.manual_seed(0)
    one, today, tomorrow = eye(others=others), batch(), batch()
    first = one.look(6, today)
    assert one.look(6, today) is first
    assert not same(one.look(6, tomorrow), first)
    own = eye(others=others, independent=True)
    assert not same(own.look(6, today), own.look(6, today))


def same(events, others):
    return all(torch.equal(a, b) for e, f in zip(events, others, strict=True) for a, b in zip(e, f, strict=True))


def test_independent_draws_differ_from_step_to_step_and_may_stay():
    torch.manual_seed(1)
    elsewhere, stayed = 0, 0
    for _ in range(30):
        one, two = eye(independent=True).look(3, object.__new__(Batch))
        assert torch.equal(one.y, two.y)
        hit, again = (event.target[:, 0, 0] // 10 for event in (one, two))
        elsewhere += (hit != again).sum().item()
        stayed += ((one.y == -1) & (hit == torch.arange(3))).sum().item()
    assert elsewhere > 0
    assert stayed > 0


def hinge_by_loops(seen, events, W_pred, W_retro=None):
    """The loss of a module, glance by glance: the mean over numbers of steps of (fixations' mean + saccades' mean)."""
    total = 0.0
    for k, event in enumerate(events):
        for W in (W_pred[k],) if W_retro is None else (W_pred[k], W_retro[k].T):
            losses = {1: [], -1: []}
            for image, images_targets in enumerate(event.target):
                for c, z in zip(event.context[image].flatten(), images_targets.flatten(), strict=True):
                    u = sum(
                        seen[z, j].item() * W[j, i].item() * seen[c, i].item()
                        for j in range(W.shape[0])
                        for i in range(W.shape[1])
                    )
                    y = event.y[image].item()
                    losses[y].append(max(0.0, 1 - y * u))
            total += sum(sum(found) / len(found) for found in losses.values() if found)
    return total / len(events)


@pytest.mark.parametrize("retro", [False, True])
def test_a_module_against_loops(retro):
    torch.manual_seed(2)
    today, one = batch(3), eye()
    module = Prediction(4, one, retro=retro).double()
    seen = torch.randn(30, 4, dtype=torch.float64)
    loss = module(seen, today)
    W_retro = module.W_retro.detach() if retro else None
    assert loss.item() == pytest.approx(hinge_by_loops(seen, one.look(3, today), module.W_pred.detach(), W_retro))


@pytest.mark.parametrize("retro", [False, True])
def test_a_layer_learns_by_the_twin(retro):
    """Minus the gradient of a module is the local rule's update, added up over numbers of steps."""
    torch.manual_seed(0)
    net, one, today = glance_encoder(STAGES[1:2], seed=2).double(), eye(), batch()
    (module,) = predictions(net, one, retro=retro)
    module.double()
    weight = net.layers[0].op.weight
    nn.init.zeros_(net.layers[0].op.bias)
    module(net.blocks[0](today.inputs)[0], today).backward()
    total = 0
    for k, event in enumerate(one.look(6, today)):
        pre_c, pre_z = (today.inputs[index.flatten()] for index in (event.context, event.target))
        y = event.y.repeat_interleave(event.context[0].numel())
        W_retro = module.W_retro[k] if retro else None
        op = plasticity.Conv2d((3, 3), padding=1, pool=2)
        told = clapp_update(pre_c, pre_z, weight, y, module.W_pred[k], op=op, W_retro=W_retro)
        total = total + told.W / 2
        torch.testing.assert_close(-module.W_pred.grad[k], told.W_pred / 2)
        if retro:
            torch.testing.assert_close(-module.W_retro.grad[k], told.W_retro / 2)
    torch.testing.assert_close(-weight.grad, total)


def test_a_modules_state_holds_its_predictors():
    module = Prediction(4, eye(), retro=True)
    assert {name: tuple(value.shape) for name, value in module.state_dict().items()} == {
        "W_pred": (2, 4, 4),
        "W_retro": (2, 4, 4),
    }
    assert not torch.equal(module.W_pred, module.W_retro.mT)
    stored = io.BytesIO()
    torch.save(module.state_dict(), stored)
    other = Prediction(4, eye(), retro=True)
    other.load_state_dict(torch.load(io.BytesIO(stored.getvalue()), weights_only=True))
    assert torch.equal(other.W_retro, module.W_retro)


@pytest.mark.parametrize("independent", [False, True])
def test_streamed_and_summed_see_the_same_saccades(independent):
    found = {}
    for order in ("streamed", "summed"):
        net = network()
        objectives = [m.double() for m in predictions(net, eye(independent=independent), retro=True)]
        source = Images(12)
        options = {"optimizers": lambda p: SGD(p, 0.1), "epochs": 2, "batch_size": 4, "progress": False}
        history = fit(net, objectives, source, torch.arange(12) % 3, order=order, seed=3, **options)
        found[order] = history[-1]["losses"], [p.detach() for p in (*net.parameters(), *objectives[1].parameters())]
    assert found["streamed"][0] == pytest.approx(found["summed"][0])
    for one, two in zip(found["streamed"][1], found["summed"][1], strict=True):
        torch.testing.assert_close(one, two)


def test_halves_with_saccades_of_their_own_are_the_same_halves():
    """Given the same events twice, the loss and its gradients are those of one event."""
    torch.manual_seed(0)
    today, one, own = batch(), eye(), eye(independent=True)
    own.look = lambda *args: one.look(6, today)
    together, apart = (Prediction(4, this, retro=True).double() for this in (one, own))
    apart.load_state_dict(together.state_dict())
    seen = torch.randn(60, 4, dtype=torch.float64).requires_grad_()
    found = [
        (loss := module(seen, today), *torch.autograd.grad(loss, [seen, module.W_pred, module.W_retro]))
        for module in (together, apart)
    ]
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


class Images:
    """A data set in glances, for `fit`."""

    def __init__(self, images):
        self.seen, self.device = glances(images).unflatten(0, (images, 10)), torch.device("cpu")

    def dim(self):
        return 4

    def __len__(self):
        return len(self.seen)

    def __getitem__(self, index):
        return self.seen[index].flatten(0, 1)


def test_predicting_from_above_equals_one_gradient_of_all_losses():
    """Every block's own loss, each layer's input held fixed: each block gets the sum of what concerns it."""
    torch.manual_seed(0)
    net, one, today = network(), eye(others=2), batch()
    modules = [module.double() for module in predictions_from_above(net, one)]
    seen, x = [], today.inputs
    for block in net.blocks:
        z, x = block(x)
        seen.append(z)
    contexts, losses = [*seen[1:], seen[-1]], []
    for z, c, module in zip(seen, contexts, modules, strict=True):
        plain = [
            clapp.predictive.clapp_hinge(c[e.context], z[e.target], e.y, W)
            for e, W in zip(one.look(6, today), module.W_pred, strict=True)
        ]
        losses.append(torch.stack(plain).mean())
    parameters = [p for part in (net, *modules) for p in part.parameters()]
    expected = torch.autograd.grad(sum(losses), parameters, retain_graph=True)
    detached = [z.detach() for z in seen]
    told = []
    for z, module in zip(seen, modules, strict=True):
        module.prepare(detached, today)
        told.append(module(z, today))
    torch.testing.assert_close(torch.stack(told), torch.stack(losses))
    found = torch.autograd.grad(sum(told), parameters)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert [tuple(module.W_pred.shape) for module in modules] == [(2, 4, 6), (2, 6, 5), (2, 5, 5)]
    assert [name for name, _ in modules[2].named_parameters()] == ["W_pred"]


@pytest.mark.parametrize("make", ["from above", "info_nce", "block", "readout"])
def test_all_objectives_train(make):
    net, source = network(), Images(12)
    objectives = {
        "from above": lambda: predictions_from_above(net, eye(others=1)),
        "info_nce": lambda: predictions(net, eye(others=3), rule="info_nce"),
        "block": lambda: predictions(net, eye(), block="context"),
        "readout": lambda: clapp.glance_readouts(net, 3),
    }[make]()
    before = [p.clone() for p in net.parameters()]
    history = fit(
        net,
        [objective.double() for objective in objectives],
        source,
        torch.arange(12) % 3,
        optimizers=lambda p: SGD(p, 0.1),
        epochs=1,
        batch_size=4,
        progress=False,
    )
    assert all(loss is not None for loss in history[0]["losses"])
    assert all(not torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))


BAD = {
    "grid": (lambda: Eye(grid=(7, 6)), "more than steps"),
    "others": (lambda: eye(others=0), "others=0"),
    "rule": (lambda: Prediction(4, eye(), rule="cpc"), "rule='cpc'"),
    "contrast without others": (lambda: Prediction(4, eye(), rule="info_nce"), "with others"),
    "no pieces": (lambda: glance_encoder(STAGES, pieces=0), "pieces=0"),
    "half an image": (lambda: Prediction(4, eye())(torch.rand(15, 4), batch()), "15 glances"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_named(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_from_above_is_a_module_of_its_own():
    low = FromAbove(4, 6, eye(others=1), below=None, place=0)
    high = FromAbove(6, 6, eye(others=1), below=low, place=1)
    assert list(high.state_dict()) == ["W_pred"]
