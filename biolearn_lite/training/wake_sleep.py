"""Waking and sleeping: what happens between the steps of learning.

Neurons that should agree, and are not copies, drift apart with every step that they learn. A network that sleeps now
and then gathers them again (004, Fig. 3A):

    fit(network, ..., schedule=WakeSleep(Simultaneous(), share, every=10))

wakes for ten steps of the optimizer, then does `share(network)`, and so on. What sharing means is not known here: it is
given (`nets.resnet.share`). Schedules nest, so something else can happen between the steps, too: with

    WakeSleep(WakeSleep(Simultaneous(), look, every=1), share, every=10)

`look` sees the network after every step, and in the tenth just before it sleeps. Chapters 14 and 15.
"""

from collections.abc import Callable, Collection
from typing import Any, final

import torch
from torch import nn

from biolearn_lite.training.schedules import Schedule


@final
class WakeSleep(Schedule):
    """A schedule with nights: `share(network)` after every n-th step, without a graph.

    Args:
        schedule: which blocks learn while awake. share: what a night does, in place. every: n, steps between nights.
        steps_per_epoch: None: the nights come after steps n, 2n, 3n, and so on. A number: as in the published runs of
            004, which count anew in each epoch and sleep after its first step. With 98 steps per epoch, n = 100 is a
            night after the first of them, and none before the epoch's end, where the network is tested.

    A night depends on the number of the step alone, so checkpoints keep the inner schedule's state and no more. The
    optimizers' moments are not shared, as published. Raises: ValueError.
    """

    def __init__(
        self,
        schedule: Schedule,
        share: Callable[[nn.Module], object],
        *,
        every: int,
        steps_per_epoch: int | None = None,
    ) -> None:
        if every < 1:
            raise ValueError(f"every={every}: give the number of steps between two nights, at least 1")
        if steps_per_epoch is not None and steps_per_epoch < 1:
            raise ValueError(f"steps_per_epoch={steps_per_epoch}: give at least 1, or None to count without a break")
        self.schedule, self.share = schedule, share
        self.every, self.steps_per_epoch = every, steps_per_epoch

    def sleeps_after(self, step: int) -> bool:
        """Whether a night follows this step (counted from 0)."""
        if self.steps_per_epoch is None:
            return (step + 1) % self.every == 0
        return step % self.steps_per_epoch % self.every == 0

    def active(self, step: int, num_blocks: int) -> Collection[int]:
        return self.schedule.active(step, num_blocks)

    @torch.no_grad()
    def after_step(self, step: int, network: nn.Module) -> None:
        self.schedule.after_step(step, network)
        if self.sleeps_after(step):
            self.share(network)

    def state_dict(self) -> dict[str, Any]:
        return self.schedule.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.schedule.load_state_dict(state)
