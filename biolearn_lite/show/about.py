"""Where a chapter runs: device, versions, scale and seed, shown by the first cell of every chapter.

The description is HTML only: stored outputs are compared as text, and this one differs between machines.
"""

import os
import platform
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from typing import Any

import torch

import biolearn_lite

SCALES = ("lite", "colab", "full")


@dataclass(frozen=True)
class About:
    """The machine and the settings of a chapter's run: `here.device`, `here.scale` and `here.seed`."""

    device: torch.device
    scale: str
    seed: int

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        rows = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in self._rows().items())
        return {"text/html": f'<dl class="biolearn-about">{rows}</dl>', "text/plain": "device, versions, scale, seed"}

    def _rows(self) -> dict[str, str]:
        on_gpu = self.device.type == "cuda"
        name = torch.cuda.get_device_name(self.device) if on_gpu else f"CPU, {torch.get_num_threads()} threads"
        packages = f"biolearn_lite {biolearn_lite.__version__}, torch {torch.__version__}, plotly {version('plotly')}"
        return {
            "Device": name,
            "Versions": f"{packages}, Python {platform.python_version()}",
            "Scale": self.scale,
            "Seed": str(self.seed),
        }


def about(*, seed: int = 0) -> About:
    """Seed torch and describe this run; as a cell's last line the description is shown.

    The device is CUDA where there is one. The scale is `BIOLEARN_SCALE`, or else "colab" on CUDA and "lite" on a CPU.
    Raises ValueError for a scale that does not exist.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scale = os.environ.get("BIOLEARN_SCALE") or ("colab" if device.type == "cuda" else "lite")
    if scale not in SCALES:
        raise ValueError(f"BIOLEARN_SCALE is {scale!r}; it must be one of {', '.join(SCALES)}")
    torch.manual_seed(seed)
    return About(device, scale, seed)
