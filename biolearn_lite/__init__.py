"""Biologically plausible learning rules, one page per rule.

Six wings, each imported when it is first touched: `rules` (the science), `nets` (layers and networks), `training`
(the one training loop), `data`, `recipes` (the papers' experiments) and `show` (figures, explorables, exercises).
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["data", "nets", "recipes", "rules", "show", "training"]
)
