"""Which `estimators` and `studies` an import finds: gradlab's own, or other folders that hide them.

The names are plain words, so that a folder of a user's may have one of them. An import then finds
that folder, and what follows is an AttributeError that says nothing of it.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path

from gradlab.foundation.errors import Missing

PACKAGES = ("estimators", "studies")
HOME = Path(__file__).resolve().parents[2]  # the folder of all three packages


class HiddenPackage(UserWarning):
    """`import estimators` or `import studies` finds another package than gradlab's."""


def found(package: str) -> Path | None:
    """The folder or file that an import of the package finds, or has found;
    None if there is none.
    """
    module = sys.modules.get(package)
    spec = module.__spec__ if module is not None else importlib.util.find_spec(package)
    if spec is None:
        return None
    if spec.origin is not None and spec.has_location:
        file = Path(spec.origin)
        return file.parent if file.name == "__init__.py" else file
    # a folder without __init__.py
    return next((Path(folder) for folder in spec.submodule_search_locations or ()), None)


def complaint(package: str) -> str | None:
    """What is wrong with a package and what to do, in one line; None if nothing is."""
    there, own = found(package), HOME / package
    if there is None:
        return (
            f"the package {package} of gradlab is not there: expected {own}; install gradlab again"
        )
    if there.resolve() == own:
        return None
    return (
        f"import {package} finds {there}, which is not gradlab's ({own}); rename it, or run from a "
        "folder that has none of that name"
    )


def check(*packages: str) -> None:
    """Raise `Missing` with the complaint about the first package that is hidden."""
    for package in packages:
        if said := complaint(package):
            raise Missing(said)


def warn() -> None:
    """A `HiddenPackage` warning for each package that is hidden."""
    for package in PACKAGES:
        if said := complaint(package):
            warnings.warn(said, HiddenPackage, stacklevel=3)
