"""What can be asked of `segments`: its options, its presets, and what a variant is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from estimators import FOG, TruncatedBPTT
from estimators.base import check_window
from gradlab.foundation.errors import UnknownName
from gradlab.training.algorithm import Algorithm
from gradlab.training.schedule import Schedule
from studies.shared.curves.arms import Arm, Prepared, Trainings, check
from studies.train.algorithms import ALGORITHMS, named
from studies.train.families import FAMILIES

WHOLE = "whole episodes"
TAILS = {"constant": "none", "critic": "v"}
WEIGHTED = "weighted"
# horizons [steps] of the paper, where they are longer than those its numbers are of
LONG = {"point_mass_1d": 200, "point_mass_navigate": 100, "push_t": 100}
RATE = 2.5e-3  # ten times the paper's: so few updates learn nothing at its own
UPDATES = 60  # of a training with --share 1; each is of whole episodes


class Variant(NamedTuple):
    """A window, what comes after it, and whether its start discounts it."""

    window: int | None  # None: whole episodes
    tail: str = "constant"
    weighted: bool = False

    @property
    def name(self) -> str:
        if self.window is None:
            return WHOLE
        return f"{self.window} {self.tail}{f' {WEIGHTED}' if self.weighted else ''}"

    @classmethod
    def of(cls, name: str) -> Variant:
        """Raises `UnknownName` for what is no variant."""
        if name == WHOLE:
            return cls(None)
        parts = name.split()
        known = parts[0].isdigit() and 2 <= len(parts) <= 3 and parts[1] in TAILS
        if not known or parts[2:] not in ([], [WEIGHTED]):
            raise UnknownName("variant", name, [WHOLE, "10 constant", "10 critic weighted"])
        return cls(int(parts[0]), parts[1], len(parts) == 3)

    @property
    def estimator(self) -> FOG | TruncatedBPTT:
        if self.window is None:
            return FOG()
        return TruncatedBPTT(self.window, TAILS[self.tail], self.weighted)  # pyright: ignore


@dataclass(frozen=True)
class Config(Trainings):
    tasks: tuple[str, ...] = ("point_mass_navigate", "point_mass_1d")
    """Of the APG suite, with the paper's longer horizons: 100 and 200 steps, push_t 100."""
    variants: tuple[str, ...] = (
        "10 constant", "25 constant", "50 constant", "10 critic", "25 critic", "50 critic",
        "10 constant weighted", "10 critic weighted", WHOLE,
    )  # fmt: skip
    """A window [steps], "constant" or "critic" for what comes after it, "weighted" for γ^start; or
    "whole episodes"."""
    points: int = 6
    """Evaluations of a training, after equal shares of its steps; one more before it."""
    parts: int = 2
    """Pieces of a training; the gradient is measured at the end of each."""
    evaluations: int = 32
    """Episodes of an evaluation, the same for all."""
    episodes: int = 1024
    """Behind each measurement of a gradient, and as many behind that of whole episodes."""


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "tasks": ("point_mass_navigate",),
        "variants": ("10 constant", "10 critic", WHOLE),
        "seeds": (0, 1),
        "share": 0.05,
        "points": 2,
        "evaluations": 8,
        "episodes": 64,
        "jobs": 1,
    },
    "default": {},
    "paper": {
        "tasks": tuple(LONG),
        "seeds": tuple(range(10)),
        "share": 5.0,
        "points": 20,
        "parts": 4,
        "evaluations": 128,
        "episodes": 8192,
    },
}
MINUTES = {"smoke": 1}


def setup(arm: Arm) -> Prepared:
    """`apg` or `apg_critic` with the variant's estimator.

    Raises `UnknownName` for either name, `BadValue` for a window that is no part of an episode.
    """
    if arm.task not in LONG:
        raise UnknownName("task", arm.task, list(LONG))
    variant = Variant.of(arm.variant)
    name = "apg_critic" if variant.tail == "critic" else "apg"
    problem, _ = named("apg", arm.task, {"horizon": LONG[arm.task]})
    if variant.window is not None:
        check_window(variant.window, problem, f"{arm.task} {arm.variant!r}")
    rates = (Schedule(RATE, 0.0), Schedule(RATE, 0.0))
    family = replace(FAMILIES[arm.task], horizon=problem.horizon, rates=rates)
    algorithm: Algorithm = ALGORITHMS[name].build(family)
    return Prepared(problem, replace(algorithm, estimator=variant.estimator, updates=UPDATES))


def arms(config: Config) -> list[Arm]:
    """Every variant on every task. Raises what `check` does."""
    asked = [Arm(task, "apg", name) for task in config.tasks for name in config.variants]
    check(config, asked, setup)
    return asked
