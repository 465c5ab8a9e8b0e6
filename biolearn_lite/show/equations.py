"""Proof by numbers: an equation's two sides, computed in two ways, must agree."""

import torch
from torch import Tensor


def verify(name: str, left: Tensor, right: Tensor, *, tolerance: float = 1e-10) -> None:
    """Print `name: relative error < tolerance`, or stop with the error that was found.

    Args:
        left, right: the two sides, same shape, float64; the error is relative to the larger side's norm.

    Raises:
        ValueError: sides of different shapes. AssertionError: they disagree, or are not finite.
    """
    if left.shape != right.shape:
        raise ValueError(f"{name}: the left side has shape {tuple(left.shape)}, the right side {tuple(right.shape)}")
    scale = max(torch.linalg.vector_norm(left).item(), torch.linalg.vector_norm(right).item(), 1e-300)
    error = torch.linalg.vector_norm(left - right).item() / scale
    if not error < tolerance:
        raise AssertionError(f"{name}: relative error {error:.1e}, expected less than {tolerance:.0e}")
    print(f"{name}: relative error < {tolerance:.0e}")
