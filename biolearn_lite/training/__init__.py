"""The one training loop. It knows no rule and no network by name."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "checkpoint",
        "distributed",
        "evaluation",
        "fit",
        "metrics",
        "probes",
        "schedules",
        "seeds",
        "step",
        "stream",
        "wake_sleep",
    ],
)
