"""The papers' experiments: settings, runs, results, and the papers' printed numbers beside ours."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "bottleneck",
        "by_targets",
        "clapp",
        "clapp_views",
        "demands",
        "dense",
        "dtp",
        "engine",
        "feedback_depth",
        "glances",
        "hinge",
        "papers",
        "plots",
        "report",
        "results",
        "sleep",
        "sleep_dynamics",
        "through_time",
        "two_views",
        "vgg",
    ],
)
