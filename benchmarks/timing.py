"""Fair timing on a busy machine: one thread's CPU seconds, contestants taking turns, the least of many rounds."""

import gc
import time
from collections.abc import Callable, Mapping

import torch

ROUNDS = 30


def least(contestants: Mapping[str, Callable[[], object]], *, rounds: int = ROUNDS) -> dict[str, float]:
    """Seconds of CPU time of each contestant: the minimum over `rounds`, run in turn on one thread."""
    torch.set_num_threads(1)
    best = dict.fromkeys(contestants, float("inf"))
    gc.disable()
    for _ in range(rounds + 1):  # the first round warms up, and cannot be the least
        for name, run in contestants.items():
            start = time.thread_time()
            run()
            best[name] = min(best[name], time.thread_time() - start)
    gc.enable()
    return best


def table(title: str, seconds: Mapping[str, float], *, floor: str, goal: float | None = None) -> None:
    """Print each contestant's milliseconds and its ratio to the floor."""
    print(f"{title}{f' (goal: at most {goal:g} × the floor)' if goal else ''}")
    for name, value in seconds.items():
        print(f"  {name:<42} {value * 1e3:9.1f} ms   {value / seconds[floor]:5.2f} ×")
