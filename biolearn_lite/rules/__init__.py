"""The science: one page per rule, each readable alone."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "circuits",
        "contrastive",
        "eprop",
        "feedback",
        "hsic",
        "kernels",
        "local",
        "online",
        "plasticity",
        "predictive",
        "target_prop",
        "weight_sharing",
    ],
)
