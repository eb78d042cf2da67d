"""What can be asked of `ablation`: its options and presets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

from estimators import ABPT, NStep
from gradlab.foundation.errors import UnknownName
from gradlab.training.algorithm import Algorithm
from studies.shared.curves.arms import Arm, Prepared, Trainings, check, plain

ALGORITHM, FULL = "abpt_full", "in full"


def _without_zero_step(algorithm: Algorithm) -> Algorithm:
    """The n-step return alone, with the same critic; its entropy is that of the last value."""
    abpt = cast(ABPT, algorithm.estimator)
    return replace(algorithm, estimator=NStep(abpt.window, entropy=abpt.entropy))


VARIANTS: dict[str, Callable[[Algorithm], Algorithm]] = {
    FULL: lambda algorithm: algorithm,
    "without 0-step return": _without_zero_step,
    "without entropy": lambda algorithm: replace(algorithm, entropy=None),
    "without replay": lambda algorithm: replace(algorithm, replay=None),
}


@dataclass(frozen=True)
class Config(Trainings):
    tasks: tuple[str, ...] = ("landing", "racing")
    """Flights: hovering, tracking, landing, racing. The first two have no entropy, as published."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """Of ABPT: in full, without 0-step return, without entropy, without replay. One that changes
    nothing on a task is left out there."""
    share: float = 0.25
    """Of the steps that the sizes of studies.train ask for [1]."""
    points: int = 6
    """Evaluations of a training, after equal shares of its steps; one more before it."""


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "tasks": ("landing",),
        "seeds": (0, 1),
        "share": 0.01,
        "points": 2,
        "evaluations": 8,
        "jobs": 1,
    },
    "default": {},
    "verdict": {"seeds": (0, 1, 2, 3, 4), "share": 1.0, "points": 10, "parts": 5},
    "paper": {
        "tasks": ("hovering", "tracking", "landing", "racing"),
        "seeds": (0, 1, 2, 3, 4),
        "share": 10.0,
        "points": 20,
        "parts": 20,
    },
}
MINUTES = {"smoke": 1}


def setup(arm: Arm) -> Prepared:
    """ABPT without what the variant names. Raises `UnknownName` for a variant, and what `plain`
    does."""
    if arm.variant not in VARIANTS:
        raise UnknownName("variant", arm.variant, VARIANTS)
    problem, algorithm = plain(arm._replace(variant=""))
    return Prepared(problem, VARIANTS[arm.variant](cast(Algorithm, algorithm)))


def arms(config: Config) -> list[Arm]:
    """Every variant on every task that it changes. Raises what `check` does."""
    asked = [Arm(task, ALGORITHM, name) for task in config.tasks for name in config.variants]
    check(config, asked, setup)
    return [arm for arm in asked if arm.variant == FULL or _changes(arm)]


def _changes(arm: Arm) -> bool:
    return setup(arm).algorithm != setup(arm._replace(variant=FULL)).algorithm
