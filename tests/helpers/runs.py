"""Runs of studies that several tests look at: each is made once, whichever processes ask for it."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from gradlab.study import Study


def shared(factory: pytest.TempPathFactory, name: str, run: Callable[[Path], object]) -> Path:
    """A folder of this process's own, with all that `run(folder)` wrote.

    Where several workers share the tests (pytest-xdist) the first that asks makes the run, in a
    folder that they have in common, and the others take copies. A run that fails is tried again by
    each that asks.
    """
    base = factory.getbasetemp()
    common = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    whole, done = common / f"shared-{name}", common / f"shared-{name}.done"
    with FileLock(common / f"shared-{name}.lock"):
        if not done.exists():
            run(whole)
            done.touch()
    return shutil.copytree(whole, factory.mktemp("run") / name)


def undrawn(study: Study) -> Study:
    """The same study without figures, for runs whose rows alone are looked at."""
    return dataclasses.replace(study, plot=lambda rows, path: None)
