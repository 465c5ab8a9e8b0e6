"""The papers' experiments: settings, runs, results, and the papers' printed numbers beside ours."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "bottleneck",
        "demands",
        "dense",
        "engine",
        "feedback_depth",
        "papers",
        "plots",
        "report",
        "results",
        "vgg",
    ],
)
