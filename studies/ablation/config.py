"""What can be asked of `ablation`: its options and presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gradlab.foundation.errors import BadValue, UnknownName
from studies.ablation.variants import FULL, OPTIONS, PARTS, VARIANTS
from studies.shared.curves.arms import Arm, Prepared, Trainings, check, plain
from studies.shared.curves.baselines import Baseline


@dataclass(frozen=True)
class Config(Trainings):
    tasks: tuple[str, ...] = ("landing", "racing")
    """Those of studies.train. Hovering and tracking have no entropy in ABPT, as published."""
    algorithms: tuple[str, ...] = ("abpt_full",)
    """Those of studies.train, or my_module:my_algorithm."""
    variants: tuple[str, ...] = (FULL, *PARTS)
    """Of ABPT: in full, without 0-step return, without entropy, without replay. Of any: those of
    the preset `options`. One that changes nothing is left out there."""
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
    "options": {
        "tasks": ("hovering", "landing"),
        "algorithms": ("shac",),
        "variants": (FULL, *OPTIONS),
        "seeds": (0, 1, 2, 3, 4),
        "share": 0.3,
        "points": 4,
    },
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
    """An algorithm with what the variant names changed.

    Raises `UnknownName` for a variant, `BadValue` for one that the algorithm cannot have, and what
    `plain` does.
    """
    if arm.variant not in VARIANTS:
        raise UnknownName("variant", arm.variant, VARIANTS)
    prepared = plain(arm._replace(variant=""))
    if isinstance(prepared.algorithm, Baseline):
        raise BadValue(f"{arm.algorithm} has no such parts; try abpt_full or shac")
    return VARIANTS[arm.variant].change(prepared)


def arms(config: Config) -> list[Arm]:
    """Every variant of every algorithm on every task that it changes. Raises what `check` does."""
    asked = [
        Arm(task, algorithm, name)
        for task in config.tasks
        for algorithm in config.algorithms
        for name in config.variants
    ]
    check(config, asked, setup)
    return [arm for arm in asked if arm.variant == FULL or _changes(arm)]


def _changes(arm: Arm) -> bool:
    ours, theirs = setup(arm), setup(arm._replace(variant=FULL))
    return (ours.algorithm, ours.problem.policy) != (theirs.algorithm, theirs.problem.policy)
