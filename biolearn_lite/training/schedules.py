"""When does each block learn?

A schedule answers two questions and knows nothing else: which blocks learn at this step (`active`), and what happens
between steps (`after_step`; sleep will live there). A block that is not active keeps `grad = None`, so that neither
momentum nor weight decay moves it.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Any, final

from torch import nn


class Schedule(ABC):
    """Which blocks learn, and when."""

    @abstractmethod
    def active(self, step: int, num_blocks: int) -> Collection[int]:
        """Indices of the blocks that learn at this step (counted from 0)."""

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
