"""When does each block learn?

A schedule answers two questions and knows nothing else: which blocks learn at this step (`active`), and what happens
between steps (`after_step`; sleep will live there). A block that is not active keeps `grad = None`, so that neither
momentum nor weight decay moves it. Below the highest active block the others run without a graph; those above it do
not run.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from itertools import accumulate
from typing import Any, final

import torch
from torch import nn


class Schedule(ABC):
    """Which blocks learn, and when."""

    @abstractmethod
    def active(self, step: int, num_blocks: int) -> Collection[int]:
        """Indices of the blocks that learn at this step (counted from 0); asked once per step."""

    def after_step(self, step: int, network: nn.Module) -> None:  # noqa: B027  (nothing happens unless a rule needs it)
        """Called once the optimizers have stepped."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must keep; nothing, unless the schedule draws or counts."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027  (see state_dict)
        """Go on from `state_dict()`."""


@final
class Simultaneous(Schedule):
    """All blocks learn at every step, each from its own scalar."""

    def active(self, step: int, num_blocks: int) -> Collection[int]:
        return range(num_blocks)


@final
class EndToEnd(Schedule):
    """One scalar at the top trains everything: the network must be one block."""

    def active(self, step: int, num_blocks: int) -> Collection[int]:
        if num_blocks != 1:
            raise ValueError(f"end to end means one block, but the network has {num_blocks}: pass partition=(layers,)")
        return range(1)


@final
class LayerByLayer(Schedule):
    """Greedy: the bottom block learns alone, then it is frozen and the one above it learns, and so on.

    Args:
        steps_per_block: how long each block learns, bottom first; one number is for every block, 0 passes a block over.

    Once all blocks have had their steps, none learns. Each starts afresh: it has an optimizer of its own, and its
    learning rate is scheduled over its own epochs. Source: 002, section 3.2.
    """

    def __init__(self, steps_per_block: int | Sequence[int]) -> None:
        given = [steps_per_block] if isinstance(steps_per_block, int) else list(steps_per_block)
        if min(given, default=-1) < 0 or not any(given):
            raise ValueError(
                f"steps_per_block={steps_per_block}: give a number above 0, or one of at least 0 per block"
            )
        self.steps_per_block = steps_per_block

    def active(self, step: int, num_blocks: int) -> Collection[int]:
        steps = self.steps_per_block
        ends = list(accumulate([steps] * num_blocks if isinstance(steps, int) else steps))
        if len(ends) != num_blocks:
            raise ValueError(f"steps_per_block={steps}: got {len(ends)}, but the network has {num_blocks} blocks")
        return [b for b, end in enumerate(ends) if step < end][:1]


@final
class RandomLayer(Schedule):
    """One block learns at each step, drawn uniformly, so that nobody has to keep time. Source: 002, section 3.2.

    A block without an objective is drawn as often as the others, and then nothing learns.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def active(self, step: int, num_blocks: int) -> Collection[int]:
        return [int(torch.randint(num_blocks, (), generator=self.generator))]

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])
