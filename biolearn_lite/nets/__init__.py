"""Layers, and the papers' networks by name."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["clapp", "encoders", "eye", "layers", "networks", "recurrent", "resnet", "stack", "targets"]
)
