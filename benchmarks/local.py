"""A locally connected ResNet20, batch 64, forward and backward: the package's layers and the straightforward ones.

Goal: at least 2.3 × as fast as `Tensor.unfold` with einsum. The floor counts the locally connected layers alone: their
products at the rate `torch.bmm` has on operands in the cache, and, at the speed of a copy, what has to pass through
memory once: weights down and up, their gradients, activity in and out, and the errors.
Then sharing all its weights (goals: 5 × as fast as slicing, at most 5 % of a step), and single layers: "images" is fed
as torch lays images out, "locations" as the layer below leaves them.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from timing import ROUNDS, least, table
from torch import Tensor, nn

from biolearn_lite.nets.layers import BatchNorm2d, LocallyConnected2d
from biolearn_lite.nets.resnet import locally_connected, resnet
from biolearn_lite.rules import local
from biolearn_lite.rules.weight_sharing import share_instantly

BATCH, GOAL = 64, 2.3
STAGES = ((16, 32), (32, 16), (64, 8))


class Unfolded(nn.Module):
    """The straightforward layer: all patches in one view, one einsum."""

    def __init__(self, layer: LocallyConnected2d) -> None:
        super().__init__()
        self.options, self.weight = layer.operation, layer.weight

    def forward(self, x: Tensor) -> Tensor:
        (kh, kw), stride, padding = self.options.kernel_size, self.options.stride, self.options.padding
        patches = F.pad(x, (padding,) * 4).unfold(2, kh, stride).unfold(3, kw, stride)
        return torch.einsum("mchwij,hwocij->mohw", patches, self.weight)


def exchanged(net: nn.Module, kind: type[nn.Module], make: Callable[[Any], nn.Module]) -> nn.Module:
    """The same network with every module of that kind exchanged."""
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, kind):
                setattr(module, name, make(child))
    return net


def torchs_batch_norm(net: nn.Module) -> nn.Module:
    return exchanged(net, BatchNorm2d, lambda norm: nn.BatchNorm2d(norm.num_features))


def passes(net: nn.Module, x: Tensor) -> Callable[[], None]:
    """One forward and backward pass, from a gradient drawn once."""
    error = torch.randn_like(net(x))

    def run() -> None:
        net.zero_grad()
        x.grad = None
        net(x).backward(error)

    return run


def floor(layer: LocallyConnected2d, speed: float, *, first: bool) -> float:
    """Seconds of the layer's products and of its memory traffic, forward and backward."""
    rows, columns, out = layer.weight.shape[:3]
    synapses, activity = layer.weight[0, 0, 0].numel(), layer.in_channels * layer.input_size[0] ** 2 * BATCH
    some = max(1, local.CACHE_BYTES // (4 * synapses * BATCH))
    W, patch, post = (torch.randn(some, *shape) for shape in ((out, synapses), (synapses, BATCH), (out, BATCH)))
    products = {"forward": lambda: W @ patch, "weights": lambda: post @ patch.mT}
    if not first:
        products["down"] = lambda: W.mT @ post
    seconds = sum(least(products, rounds=ROUNDS).values()) * rows * columns / some
    numbers = layer.weight.numel() * 3 + activity * 3 + rows * columns * out * BATCH * 3
    return seconds + 4 * numbers / speed


def sliced(weight: Tensor, kernel_size: int) -> None:
    """Sharing, module by module."""
    for i in range(kernel_size):
        for j in range(kernel_size):
            module = weight[i::kernel_size, j::kernel_size]
            module.copy_(module.mean((0, 1), keepdim=True))


def copy_speed() -> float:
    """Bytes per second, read and written, of a large copy."""
    source = torch.randn(2**24)
    target = torch.empty_like(source)
    return 2 * 4 * len(source) / least({"copy": lambda: target.copy_(source)})["copy"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    speed = copy_speed()
    images = torch.randn(BATCH, 3, 32, 32)
    ours = resnet(local=True)
    layers = locally_connected(ours)
    nets = {
        "unfold, einsum": torchs_batch_norm(exchanged(resnet(local=True), LocallyConnected2d, Unfolded)),
        "ours": ours,
        "ours, torch's batch norm": torchs_batch_norm(resnet(local=True)),
    }
    seconds = least({name: passes(net, images) for name, net in nets.items()})
    seconds["floor of the layers"] = sum(floor(layer, speed, first=layer is layers[0]) for layer in layers)
    table("Locally connected ResNet20, batch 64, forward and backward", seconds, floor="floor of the layers")
    print(f"  {seconds['unfold, einsum'] / seconds['ours']:.2f} × as fast as unfold with einsum (goal: {GOAL})")
    step, weights = seconds["ours"], [(layer.weight.detach(), layer.operation.kernel_size[0]) for layer in layers]
    targets = [torch.empty_like(weight) for weight, _ in weights]
    contestants = {
        "slicing": lambda: [sliced(weight, k) for weight, k in weights],
        "share_instantly": lambda: [share_instantly(weight, k) for weight, k in weights],
        "a copy of the weights": lambda: [
            target.copy_(weight) for target, (weight, _) in zip(targets, weights, strict=True)
        ],
    }
    seconds = least(contestants)
    table("Sharing the weights of its 21 layers", seconds, floor="a copy of the weights")
    ratio, part = seconds["slicing"] / seconds["share_instantly"], seconds["share_instantly"] / step
    print(f"  {ratio:.1f} × as fast as slicing (goal: 5), {100 * part:.1f} % of a step (goal: at most 5)")
    for channels, size in STAGES:
        layer = LocallyConnected2d(channels, channels, 3, input_size=size, padding=1)
        fed = torch.randn(BATCH, channels, size, size, requires_grad=True)
        placed = torch.randn(size, size, channels, BATCH).permute(3, 2, 0, 1).requires_grad_()
        contestants = {"unfold, einsum": passes(Unfolded(layer), fed)}
        contestants |= {"ours, images": passes(layer, fed), "ours, locations": passes(layer, placed)}
        seconds = least(contestants)
        seconds["floor"] = floor(layer, speed, first=False)
        table(f"{channels} channels, {size}×{size}", seconds, floor="floor")
