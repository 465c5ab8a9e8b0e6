"""Networks that learn from targets (`rules.target_prop`): one forward pass, many small graphs, one backward pass.

Difference targets need all activities at once, and then teach every layer by a loss of its own. So the whole network is
one block (`target_network`), whose forward cuts the graph between its layers: each activity it shows has a graph of one
layer. The objective, `DifferenceTargets`, owns what the rule needs besides, the head and the inverses. From these
activities it takes the overall loss, the targets, the layers' losses and the inverses' losses, and returns one scalar:
its value is the overall loss, its gradient the sum of all their gradients, each of which ends where its graph does.

    network = target_network(encoder(MNIST, channels=1).layers)
    objective = DifferenceTargets(network, (1, 28, 28), head, compare)
    fit(network, [objective], images, labels, optimizers=two_rates(objective, 1e-4, inverse_rate=1e-3), ...)

What it costs: backprop passes through a layer three times, up, down, and for its own weights. Targets pass up, up again
with noise, and for its own weights, and the inverse runs three times and learns once: seven passes. But an inverse of a
pooling layer works on the pooled image, a quarter of its layer's work, which makes it four. In memory are the forward
pass's graph, one inverse's graph, then the targets.

Pooling or strides: `strided` puts a stride in the place of every pool, and leaves all else, weights included.
Chapter 09.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any, cast, final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Adam

from biolearn_lite.nets.layers import Conv2d, ConvTranspose2d, Layer, Linear
from biolearn_lite.nets.networks import Block, Network
from biolearn_lite.rules.target_prop import difference_targets, inverse_loss, target_loss


@final
class Activities(tuple[Tensor, ...]):
    """The activities of all layers, bottom first: what a `TargetBlock` shows."""

    @property
    def dtype(self) -> torch.dtype:
        return self[-1].dtype

    def float(self) -> "Activities":
        return Activities(z.float() for z in self)


@final
class TargetBlock(Block):
    """A block that cuts the graph between its layers and shows the activities of all of them, (m, ...) each.

    Its weights have the same names as a plain block's. Raises: ValueError in several processes: pairs of examples
    would have to be gathered from every layer.
    """

    def forward(self, x: Tensor) -> tuple[Any, Tensor]:
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            raise ValueError("a network that learns from targets trains in one process: start it without torchrun")
        seen = []
        for layer in cast(Sequence[Layer], self.layers):
            seen.append(_activity(layer, x))
            x = layer.after(seen[-1].detach())
        return Activities(seen), x


def target_network(layers: Sequence[Layer]) -> Network:
    """These layers as a network of one `TargetBlock`."""
    network = Network(layers)
    network.blocks = nn.ModuleList([TargetBlock(layers)])
    return network


def strided(network: Network) -> Network:
    """The same network, changed in place: convolutions that end in max-pooling take its stride instead."""
    for layer in network.layers:
        if side := _side(layer.pool):
            cast(Conv2d, layer.op).stride, layer.pool = (side, side), nn.Identity()
    return network


def make_inverse(layer: nn.Module, below: Tensor, above: Tensor, *, activation: nn.Module | None = None) -> Layer:
    """An untrained inverse of a layer, without bias: from its activity `above` to a guess of the activity `below`.

    Args:
        layer: whose `op`, or which itself, is linear or a convolution. below, above: activities (m, ...), for shapes.
        activation: of the layer below, so that guesses have the range of what they guess.

    For a linear layer linear, for a convolution a transposed one of its kernel and the stride of its pooling.
    """
    op, pool = (layer.op, layer.pool) if isinstance(layer, Layer) else (layer, None)
    if isinstance(op, nn.Linear):
        width = below[0].numel()
        unflatten = nn.Unflatten(1, tuple(below.shape[1:])) if below.dim() > 2 else None
        return Layer(Linear(above.shape[1], width, bias=False), activation=activation, after=unflatten)
    if not isinstance(op, nn.Conv2d):
        raise TypeError(f"layer {op} has no inverse here: give one of nn.Linear or nn.Conv2d")
    stride = tuple(s * getattr(pool, "kernel_size", 1) for s in op.stride)
    sizes = zip(above.shape[2:], below.shape[2:], op.kernel_size, stride, strict=True)
    excess = [(high - 1) * s + k - low for high, low, k, s in sizes]
    padding = tuple((over + 1) // 2 for over in excess)
    made = ConvTranspose2d(
        above.shape[1],
        below.shape[1],
        cast(Any, op.kernel_size),
        stride=cast(Any, stride),
        padding=cast(Any, padding),
        output_padding=cast(Any, tuple(2 * p - over for p, over in zip(padding, excess, strict=True))),
        bias=False,
    )
    return Layer(made, activation=activation)


Compare = Callable[[Tensor, Any], Tensor]


@final
class DifferenceTargets(nn.Module):
    """The objective of a `target_network`: the head, the inverses, and all losses (002, Algorithm 1).

    Args:
        network: made by `target_network`; its weights stay its own. shape: (C, H, W) or (features,) of an input.
        head: from the top activity to scores or embeddings, `nn.Flatten` included; always learns by the overall loss.
        compare: (what the head makes of a batch, the batch) ↦ the overall loss.
        reading: "published", the first target is the top activity's, by backprop through the head; "printed", it is
            the embedding's, and the head, which must end in a linear layer, has an inverse.
        step, corrected: of `difference_targets`. noise: of `inverse_loss`. reduction: of the layers' losses; the
            inverses' are means.
        inverse_steps: inverses learn at every step, everything else at every `inverse_steps`-th.
        seed: of the inverses' weights.

    Shape: `objective(seen, batch)` is a scalar whose value is the overall loss. Raises: ValueError, for bad options.
    """

    def __init__(
        self,
        network: Network,
        shape: Sequence[int],
        head: nn.Module,
        compare: Compare,
        *,
        reading: str = "published",
        step: float = 0.5,
        noise: float = 1.0,
        reduction: str = "sum",
        corrected: bool = True,
        inverse_steps: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if reading not in ("published", "printed"):
            raise ValueError(f"reading={reading!r}: choose 'published' or 'printed'")
        if inverse_steps < 1:
            raise ValueError(f"inverse_steps={inverse_steps}: give at least 1")
        self.head, self.compare, self.reading = head, compare, reading
        self.step, self.noise, self.reduction, self.corrected = step, noise, reduction, corrected
        self.inverse_steps, self.steps = inverse_steps, 0
        self._layers = tuple(network.layers)  # in a tuple, so that their weights stay the network's
        self.inverses = _inverses(network, shape, head, reading, seed)

    def forward(self, seen: Sequence[Tensor], batch: Any) -> Tensor:
        activities = [z.detach() for z in seen]
        of_inverses = self._inverse_gradients(activities)
        self.steps += 1
        if self.steps % self.inverse_steps:
            return self.compare(self.head(activities[-1]), batch).detach() + of_inverses
        overall, targets = self.targets(activities, batch)
        return overall + of_inverses + _silent(torch.stack(self.local_losses(seen, targets)).sum())

    def targets(self, activities: Sequence[Tensor], batch: Any) -> tuple[Tensor, list[Tensor]]:
        """The overall loss, with the gradient of the head's weights alone, and the targets of all layers."""
        with torch.enable_grad():
            top = activities[-1].detach().requires_grad_()
            embedding = self.head(top)
            overall = self.compare(embedding, batch)
        first = top if self.reading == "published" else embedding
        weights = [weight for weight in self.head.parameters() if weight.requires_grad]
        gradient, *of_head = torch.autograd.grad(overall, [first, *weights])
        chain = [*activities[:-1], top.detach()] + [embedding.detach()] * (first is embedding)
        inverses = cast(Any, self.inverses)
        targets = difference_targets(chain, inverses, gradient, step=self.step, corrected=self.corrected)
        return overall.detach() + _spent(weights, of_head), targets[: len(activities)]

    def local_losses(self, activities: Sequence[Tensor], targets: Sequence[Tensor]) -> list[Tensor]:
        """Of every layer, bottom first; each with the graph of its own activity."""
        pairs = zip(activities, targets, strict=True)
        return [target_loss(z, target, reduction=self.reduction) for z, target in pairs]

    def inverse_losses(self, activities: Sequence[Tensor]) -> Iterator[Tensor]:
        """Of every inverse, bottom first; each with the graph of its own inverse, made when it is asked for."""
        forwards: list[Any] = [_after(below, layer) for below, layer in pairwise(self._layers)]
        for forward, inverse, z in zip([*forwards, self.head], cast(Any, self.inverses), activities, strict=False):
            yield inverse_loss(forward, inverse, z, noise=self.noise)

    def _inverse_gradients(self, activities: Sequence[Tensor]) -> Tensor:
        """A scalar of value 0 with the gradients of all inverses. At any time there is one inverse's graph."""
        told = []
        with torch.enable_grad():
            for inverse, loss in zip(self.inverses, self.inverse_losses(activities), strict=True):
                weights = list(inverse.parameters())
                told.append(_spent(weights, torch.autograd.grad(loss, weights)))
        return sum(told, start=activities[0].new_zeros(()))

    def get_extra_state(self) -> int:
        return self.steps

    def set_extra_state(self, state: int) -> None:
        self.steps = state


def two_rates(objective: DifferenceTargets, rate: float, *, inverse_rate: float) -> Callable[..., Adam]:
    """Makes Adam with one rate for the inverses and another for layers and head: `optimizers` of `training.fit`."""
    of_inverses = {id(weight) for weight in objective.inverses.parameters()}

    def make(parameters: Sequence[nn.Parameter]) -> Adam:
        others, own = ([p for p in parameters if (id(p) in of_inverses) == wanted] for wanted in (False, True))
        groups: list[dict[str, Any]] = [{"params": others}, {"params": own, "lr": inverse_rate}]
        return Adam(groups, lr=rate, fused=True)

    return make


def _after(below: Layer, layer: Layer) -> Callable[[Tensor], Tensor]:
    """From the activity below to a layer's own."""
    return lambda z: _activity(layer, below.after(z))


def _activity(layer: Layer, x: Tensor) -> Tensor:
    """As `layer.activity`, in less time: a rising activation comes after max-pooling, with a quarter left to do."""
    if not (side := _side(layer.pool)) or not isinstance(layer.activation, RISING):
        return layer.activity(x)
    a = layer.op(x)
    return cast(Tensor, layer.activation(layer.pool(a) if torch.is_grad_enabled() else _largest(a, side)))


RISING = (nn.Identity, nn.Tanh, nn.Hardtanh, nn.ReLU)


def _side(pool: nn.Module) -> int | None:
    """Of the squares of a max-pool, if they cover the image and do not overlap."""
    if not isinstance(pool, nn.MaxPool2d) or pool.stride != pool.kernel_size or pool.padding or pool.ceil_mode:
        return None
    return pool.kernel_size if isinstance(pool.kernel_size, int) and pool.dilation == 1 else None


def _largest(a: Tensor, side: int) -> Tensor:
    """Max-pooling that does not remember the winners: some ten times faster than torch's on a CPU."""
    height, width = (size // side * side for size in a.shape[2:])
    a = reduce(torch.maximum, [a[:, :, i:height:side] for i in range(side)])
    return reduce(torch.maximum, [a[..., j:width:side] for j in range(side)])


@torch.no_grad()
def _inverses(network: Network, shape: Sequence[int], head: nn.Module, reading: str, seed: int) -> nn.ModuleList:
    """One for every layer but the bottom one; in the printed reading one more, for the head."""
    images = next(network.parameters()).new_zeros(1, *shape)
    training = network.training
    activities = network.eval().activities(images)
    network.train(training)
    layers: list[nn.Module] = list(network.layers)
    if reading == "printed":
        activities.append(head(activities[-1]))
        layers.append([module for module in head.modules() if isinstance(module, nn.Linear)][-1])
    with torch.random.fork_rng():
        torch.manual_seed(_INVERSES + seed)
        made = [
            make_inverse(layer, below, above, activation=cast(Layer, lower).activation)
            for (lower, layer), (below, above) in zip(pairwise(layers), pairwise(activities), strict=True)
        ]
    return nn.ModuleList(made).to(images)


_INVERSES = 11_000_003
"""Keeps the inverses' random numbers apart from those of an encoder or a head with the same seed."""


def _silent(loss: Tensor) -> Tensor:
    """The gradient of a loss, and 0 for its value; NaN and infinity stay."""
    return loss - loss.detach()


def _spent(weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """A scalar of value 0 with these gradients: what is left of a loss whose graph is gone."""
    products = (_silent(w.flatten() @ g.flatten()) for w, g in zip(weights, gradients, strict=True))
    return sum(products, start=torch.zeros(()))
