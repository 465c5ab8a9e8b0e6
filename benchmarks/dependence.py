"""HSIC and pHSIC of m = 4096 points beside one (m, 1024) · (1024, m) product, and the memory they allocate.

Goals: at most 3 × the product, and O(m²) memory: twice the points take four times the bytes, not eight.
"""

import torch
from timing import least, table
from torch.profiler import ProfilerActivity, profile

from biolearn_lite.rules.hsic import hsic, phsic
from biolearn_lite.rules.kernels import gaussian_kernel

M, D = 4096, 1024


def points(m: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(m, D, generator=generator), torch.randn(m, D, generator=generator)


def allocated(m: int) -> float:
    """Megabytes allocated in all by both kernels and both estimates."""
    a, b = points(m)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        K, L = gaussian_kernel(a), gaussian_kernel(b)
        hsic(K, L), phsic(K, L)
    return sum(max(event.self_cpu_memory_usage, 0) for event in profiler.key_averages()) / 1e6


if __name__ == "__main__":
    a, b = points(M)
    K, L = gaussian_kernel(a), gaussian_kernel(b)
    contestants = {
        f"product ({M}, {D}) · ({D}, {M})": lambda: a @ b.T,
        "hsic(K, L)": lambda: hsic(K, L),
        "phsic(K, L)": lambda: phsic(K, L),
        "gaussian_kernel(a)": lambda: gaussian_kernel(a),
    }
    table(f"Dependence of {M} points, float32", least(contestants), floor=next(iter(contestants)), goal=3)
    small, large = allocated(M // 2), allocated(M)
    print(f"  allocated for {M // 2} points {small:.0f} MB, for {M} {large:.0f} MB: {large / small:.1f} × (4 is O(m²))")
