"""Data sets as whole tensors."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["colours", "crops", "imagenette", "patches", "sets", "tiny_imagenet", "views"]
)
