"""What a reader sees: figures, explorables, exercises, the locality ledger."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["equations", "exercises", "explore", "figures", "ledger"]
)
