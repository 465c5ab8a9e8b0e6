"""Several processes, one step: each runs its share of a batch, and together they do what one would have done.

The usual recipe gives every process a shard of the batch and averages their gradients. For a mean over examples
(cross-entropy) that is the gradient of the whole batch. For an objective that compares *pairs* it is not: two examples
in different shards are never compared, and the mean of the shards' pHSIC gradients belongs to another objective. So
what a block shows its objective is gathered first:

    share of the batch → block → `seen`, gathered → the scalar L of the joint batch, the same in every process

Each process then differentiates L through its own rows alone. By the chain rule these are the terms of one sum,

    ∂L/∂W = Σ over processes p of (∂L/∂seen_p) (∂seen_p/∂W),

and one all-reduce per weight adds them up. That is exact for every objective, explicit update and uneven share, and
needs no communication in the gather's backward pass. The layers' work is divided; an objective's own work, m × m for
a pairwise one, is done by all. `DistributedDataParallel` averages where this sums, and expects one backward pass that
reaches every weight, where a layer-wise step has one per learning block.

Not the same as in one process: what layers draw (dropout, crops, redrawn feedback), each process draws for its share.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

T = TypeVar("T")


@contextmanager
def processes() -> Iterator[None]:
    """Join the processes that torchrun started, one GPU each if there are GPUs; without torchrun, nothing happens.

    Raises: ValueError: more processes on this machine than GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if gpus := torch.cuda.device_count():
        if (local := int(os.environ["LOCAL_RANK"])) >= gpus:
            raise ValueError(f"process {local} of this machine has no GPU: start at most --nproc-per-node {gpus}")
        torch.cuda.set_device(local)
    dist.init_process_group()
    try:
        yield
    finally:
        dist.destroy_process_group()


def count() -> int:
    """Number of processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that writes files and talks."""
    return count() == 1 or dist.get_rank() == 0


def from_first(value: T) -> T:
    """The first process's value, in all of them; waits for all."""
    if count() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


@contextmanager
def joined(blocks: Sequence[nn.Module], objectives: Sequence[object] = ()) -> Iterator[Sequence[nn.Module]]:
    """Blocks to take steps with: they accept the joint batch, run their share, and show what all processes saw.

    All processes take the same steps, on the same batches, with the first one's weights. While it lasts, gradients
    come out of a backward pass already added up. Alone, the blocks come back as they are.

    Args:
        blocks: bottom first, each returning `(seen, passed)` with the examples in order along the first axis.
        objectives: those that are modules have their gradients averaged, which are the same up to rounding.

    Raises: ValueError: batch norm that would see shares only; batches that differ, or are too small to share.
    """
    if count() == 1:
        yield blocks
        return
    owners = [objective for objective in objectives if isinstance(objective, nn.Module)]
    for module in (*blocks, *owners):
        _check_norms(module)
        _take_weights_of_first(module)
    handles = [p.register_hook(_total) for block in blocks for p in block.parameters() if p.requires_grad]
    handles += [p.register_hook(_mean) for owner in owners for p in owner.parameters() if p.requires_grad]
    share, prepared = _Share(), any(hasattr(objective, "prepare") for objective in objectives)
    try:
        yield [_SharedBlock(block, share, first=b == 0, always=prepared) for b, block in enumerate(blocks)]
    finally:
        for handle in handles:
            handle.remove()


class _Share:
    """Which rows of the joint batch are this process's; as many per example as a block makes of it."""

    def __init__(self) -> None:
        self.total = self.own = self.start = 0

    def take(self, x: Tensor) -> Tensor:
        """This process's share of the joint batch."""
        parts = x.tensor_split(count())
        if len(x) < len(parts):
            raise ValueError(f"a batch of {len(x)} cannot be shared by {len(parts)} processes: choose a batch_size "
                             f"whose last batch of an epoch has at least {len(parts)} examples")  # fmt: skip
        if not self.total:
            _check_same(x)
        own = parts[dist.get_rank()]
        self.total, self.own, self.start = len(x), len(own), sum(map(len, parts[: dist.get_rank()]))
        return own

    def gather(self, own: Tensor) -> Tensor:
        """The joint rows, from one's own; differentiable with respect to one's own. Adding zeros is exact."""
        per_example = len(own) // self.own
        start, total = per_example * self.start, per_example * self.total
        joint = own.new_zeros(total, *own.shape[1:])
        joint[start : start + len(own)] = own.detach()
        dist.all_reduce(joint)
        return torch.cat([joint[:start], own, joint[start + len(own) :]])

    def of(self, joint: Tensor) -> Tensor:
        """One's own rows of what was gathered."""
        per_example = len(joint) // self.total
        return joint.narrow(0, per_example * self.start, per_example * self.own)


class _SharedBlock(nn.Module):
    """A block that runs a share, and shows what all saw: wherever something learns from it, or `always`."""

    def __init__(self, block: nn.Module, share: _Share, *, first: bool, always: bool) -> None:
        super().__init__()
        self.block, self.share, self.first, self.always = block, share, first, always

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with _own_randomness(x):
            seen, passed = self.block(self.share_of(x))
        return self.share.gather(seen) if self.always or torch.is_grad_enabled() else seen, passed

    def share_of(self, x: Tensor) -> Tensor:
        """The first block meets the joint batch, the others what the one below passes on."""
        return self.share.take(x) if self.first else x

    @property
    def layers(self) -> list["_SharedLayer"]:
        return [_SharedLayer(layer, self) for layer in cast(Sequence[nn.Module], self.block.layers)]


class _SharedLayer:
    """A layer that learns by an explicit signal: computed on the joint activity, used on one's own."""

    def __init__(self, layer: Any, block: _SharedBlock) -> None:
        self.op, self.layer, self.block = layer.op, layer, block

    def learn(self, x: Tensor, signal: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        share = self.block.share
        with _own_randomness(x):
            dW, passed = self.layer.learn(self.block.share_of(x), lambda z: share.of(signal(share.gather(z))))
        return _total(dW), passed


@contextmanager
def _own_randomness(x: Tensor) -> Iterator[None]:
    """From a number that all processes draw alike, each goes its own way for a while."""
    seed = int(torch.randint(2**62, ()))
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        torch.manual_seed(seed + dist.get_rank())
        yield


def _total(gradient: Tensor) -> Tensor:
    """The sum over processes."""
    total = gradient.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def _mean(gradient: Tensor) -> Tensor:
    return _total(gradient) / count()


@torch.no_grad()
def _take_weights_of_first(module: nn.Module) -> None:
    for tensor in (*module.parameters(), *module.buffers()):
        received = tensor.contiguous()
        dist.broadcast(received, 0)
        tensor.copy_(received)


def _check_norms(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if isinstance(part, _BatchNorm) and not isinstance(part, nn.SyncBatchNorm):
            raise ValueError(
                f"{name} = {part} would normalize each process's share by itself: convert the network with "
                "torch.nn.SyncBatchNorm.convert_sync_batchnorm, or train in one process"
            )


def _check_same(x: Tensor) -> None:
    """Processes that were started with other data, seeds or checkpoints give themselves away in the first example."""
    low, high = x[0].clone(), x[0].clone()
    dist.all_reduce(low, dist.ReduceOp.MIN)
    dist.all_reduce(high, dist.ReduceOp.MAX)
    if not torch.equal(low, high):
        raise ValueError(
            "the processes hold different batches: call fit with the same data, seed and checkpoints in all"
        )
