"""Importing torchvision where its compiled part does not fit the installed torch.

The wheel of torchvision on the package index is compiled against a CUDA build of torch. Beside a CPU-only torch its
shared library cannot load, and `import torchvision` then fails over something nobody asked for: describing the shapes
of two operators (`nms`, `qnms`: suppressing overlapping boxes) that were never registered. Declaring their signatures,
without any code behind them, is enough for data sets, transforms and models; only the operators themselves stay
unusable, and say so when called.

The declaration is made only after the plain import has failed: where the compiled part loads it declares the same
operators itself, and a second declaration would be an error.
"""

import importlib
from types import ModuleType

import torch

UNREGISTERED = ("torchvision::nms", "torchvision::qnms")
SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def import_torchvision() -> ModuleType:
    """Return the torchvision module, whichever build of torch it meets.

    Raises whatever `import torchvision` raises for any other reason.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        for name in UNREGISTERED:
            torch.library.define(name, SIGNATURE)
        return importlib.import_module("torchvision")
