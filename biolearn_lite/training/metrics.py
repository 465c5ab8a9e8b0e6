"""What a run tells while it learns: the losses of an epoch, and a log of JSON lines.

Reading one number from a GPU waits until the GPU has caught up. So losses stay on the device, many steps are read at
once, and a loss that is not finite is found a little late; but it is found with the block and the step it came from,
before any later state is saved.
"""

import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from biolearn_lite.training.checkpoint import replace_file

Metrics = dict[str, Any]

READ_EVERY = 64


@final
class Losses:
    """The losses of every block, step by step.

    Args:
        names: what each block tells, "loss" or, for the message if it is not finite, anything else.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self._unread: list[tuple[int, int, int, Tensor]] = []
        self._last: dict[int, tuple[float, int]] = {}
        self._start()

    def add(self, step: int, told: Mapping[int, Tensor], examples: int) -> None:
        """Take what the blocks tell at a step (one number each) from that many examples."""
        self._unread += [(step, b, examples, value.reshape(1)) for b, value in told.items()]
        if len(self._unread) >= READ_EVERY:
            self._read()

    def means(self) -> list[float | None]:
        """Mean loss per example of each block since the last call; None for a block that had none.

        Raises: FloatingPointError (here and in `add`): names the block, the step and the last finite loss.
        """
        self._read()
        means = [total / n if n else None for total, n in zip(self._totals, self._counts, strict=True)]
        self._start()
        return means

    def _start(self) -> None:
        self._totals, self._counts = [0.0] * len(self.names), [0] * len(self.names)

    def _read(self) -> None:
        unread, self._unread = self._unread, []
        values = torch.cat([value for *_, value in unread]).tolist() if unread else []
        for (step, b, examples, _), value in zip(unread, values, strict=True):
            if not math.isfinite(value):
                raise FloatingPointError(self._diverged(b, step, value))
            self._last[b] = value, step
            if self.names[b] == "loss":
                self._totals[b] += value * examples
                self._counts[b] += examples

    def _diverged(self, b: int, step: int, value: float) -> str:
        before = "with no finite one before it since the run was started or resumed"
        if b in self._last:
            before = "the last finite one was {:.6g} at step {}".format(*self._last[b])
        return f"block {b} diverged: its {self.names[b]} is {value} at step {step}, {before}; lower its learning rate"


def write_log(path: str | os.PathLike[str], history: Sequence[Metrics]) -> None:
    """The history as JSON lines, one per epoch, put in place whole: a killed run leaves no line torn, and resumed none
    twice. If the disk is full: a warning, and the next call makes up for it.

    Raises: TypeError: metrics that JSON cannot hold.
    """
    try:
        lines = "".join(json.dumps(metrics) + "\n" for metrics in history)
    except TypeError as error:
        raise TypeError(f"log: {error}; let after_epoch return plain numbers, strings and lists of them") from error
    try:
        replace_file(Path(path), lines.encode())
    except OSError as error:
        warnings.warn(f"log not written to {path}: {error}; training goes on", stacklevel=2)
