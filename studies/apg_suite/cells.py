"""The trainings of `apg_suite`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gradlab.study import Artefact, Cell, Saved
from studies.apg_suite.config import Config, arms
from studies.shared.curves import parts
from studies.shared.curves.arms import plain


def artefacts(config: Config) -> Iterator[Artefact]:
    """The parts of every training."""
    return parts.artefacts(config, arms(config), build)


def cells(config: Config) -> Iterator[Cell]:
    """One per training."""
    return parts.cells(config, arms(config))


def build(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """One part of a training of an algorithm as it is."""
    return parts.train_part(artefact, needs, plain)
