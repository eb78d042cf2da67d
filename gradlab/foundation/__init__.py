"""What everything else stands on, and what knows no problem: errors, checked arguments, names,
files, constant tensors, noise and the moment between two steps.
"""

import lazy_loader

# those that are names of gradlab itself
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["checkpoints", "errors"])
