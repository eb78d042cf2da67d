"""`gradlab doctor`: what is installed here, and whether anything is in the way."""

from __future__ import annotations

import importlib
import platform
import shutil
from collections.abc import Sequence
from importlib import metadata

import torch

from gradlab.foundation import naming, siblings
from gradlab.foundation.errors import BadValue, GradlabError
from gradlab.problems import registry
from gradlab.version import __version__

_PACKAGES = ("torch", "numpy", "scipy", "mujoco", "gymnasium", "pandas", "pyarrow")


def run(args: Sequence[str]) -> None:
    """Says which versions, devices and compiler there are, and whether anything is in the way."""
    if args and args[0] in ("-h", "--help"):
        print(f"usage: gradlab doctor\n\n{run.__doc__}")
        return
    if args:
        raise BadValue(f"doctor takes no arguments, got {args[0]!r}")
    wrong = []
    for name, (said, fine) in _findings().items():
        print(f"{name:22} {said}")
        wrong += [] if fine else [name]
    print("\nNothing is in the way." if not wrong else f"\nLook at: {', '.join(wrong)}.")
    if wrong:
        raise SystemExit(1)


def _findings() -> dict[str, tuple[str, bool]]:
    """What there is, and whether it is in order, by name."""
    found: dict[str, tuple[str, bool]] = {
        "gradlab": (f"{__version__} in {siblings.HOME / 'gradlab'}", True),
        "python": (f"{platform.python_version()} on {platform.platform()}", True),
    }
    for package in _PACKAGES:
        try:
            found[package] = (metadata.version(package), True)
        except metadata.PackageNotFoundError:
            found[package] = ("not installed", False)
    found["device"] = (_device(), True)
    compiler = shutil.which("g++") or shutil.which("clang++")
    found["compiler"] = (compiler or "none (g++ or clang++): compile=True is not available", True)
    for package in siblings.PACKAGES:
        said = siblings.complaint(package)
        found[package] = (said or str(siblings.found(package)), said is None)
    tables = [registry.PROBLEMS]
    if found["estimators"][1]:
        tables.append(importlib.import_module("estimators.registry").ESTIMATORS)
    for table in tables:
        for name in table.offered():
            try:
                said, fine = naming.place(table.find(name)), True
            except GradlabError as error:
                said, fine = str(error), False
            found[f"{table.kind} {name}"] = (said, fine)
    return found


def _device() -> str:
    cores = f"CPU, {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}; {cores}"
    return f"{cores}; no GPU that torch can use"
