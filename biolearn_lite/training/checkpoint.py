"""Checkpoints: a run that is killed at any moment goes on as if nothing had happened.

Two files take turns. A new state is written beside them under another name, flushed to the disk, and only then renamed
over the older of the two: a rename either happens or does not. Each file carries a checksum of its own content, so a
torn one is noticed, and the one before it is used. A disk that fills up costs the newest state, never an older one.
However slow the disk, saving takes a small share of the run's time: a save that took long is followed by a long pause.
"""

import hashlib
import io
import os
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

State = dict[str, Any]

SHARE = 0.02
"""Of a run's time, at most, for saving."""

_NAMES = ("even.checkpoint", "odd.checkpoint")


class Checkpoints:
    """The newest states of one run, in a folder of its own.

    Args:
        folder: made if absent; one run per folder.
        every: seconds between two saves, at the least; 0 saves whenever the trainer offers a state, at any cost.
    """

    def __init__(self, folder: str | os.PathLike[str], *, every: float = 60.0) -> None:
        if every < 0:
            raise ValueError(f"every={every}: give the seconds between two saves, 0 or more")
        self.folder, self.every = Path(folder), every
        self._last, self._pause = time.monotonic(), every
        self._turn: int | None = None
        self._call = ""

    def is_of(self, **call: object) -> bool:
        """Whether what is kept here, if anything, was made by such a call; what is kept from now on was.

        A state that does not say how it was made is taken as it is.
        """
        self._call = repr(call)
        return bool((self.load() or {}).get("call", self._call) == self._call)

    def offer(self, state: State, *, final: bool = False) -> None:
        """Save the state (it needs a "step") if the last save is long enough ago, or if it is the final one."""
        start = time.monotonic()
        if final or start - self._last >= self._pause:
            self.save(state)
            self._last = time.monotonic()
            self._pause = max(self.every, (self._last - start) / SHARE) if self.every else 0.0

    def save(self, state: State) -> None:
        """Write the state over the older of the two files. If the disk is full: a warning, and nothing is lost."""
        if self._turn is None:
            steps = [(_read(self.folder / name) or {"step": -1})["step"] for name in _NAMES]
            self._turn = steps.index(min(steps))
        buffer = io.BytesIO()
        torch.save(state | {"call": self._call} if self._call else state, buffer)
        payload = buffer.getbuffer()
        try:
            replace_file(self.folder / _NAMES[self._turn], hashlib.sha256(payload).digest(), payload)
            self._turn = 1 - self._turn
        except OSError as error:
            warnings.warn(f"checkpoint not written to {self.folder}: {error}; training goes on", stacklevel=2)

    def load(self) -> State | None:
        """The newest state that is whole, or None."""
        states = [state for name in _NAMES if (state := _read(self.folder / name))]
        return max(states, key=lambda state: int(state["step"]), default=None)


def replace_file(path: Path, *parts: bytes | memoryview) -> None:
    """Put a file in place whole or not at all, even if the machine stops meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def random_state() -> State:
    """PyTorch's global generators, on every device."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def _read(path: Path) -> State | None:
    """The state in a file; None if it is absent or torn."""
    content = path.read_bytes() if path.exists() else b""
    digest, payload = content[:32], content[32:]
    if not payload or hashlib.sha256(payload).digest() != digest:
        return None
    state: State = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return state
