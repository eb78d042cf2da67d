"""What can be asked of `segments`: its options, its presets, and what a variant is."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from estimators import FOG, JacobianGrowth, JumpWindow, Same, TruncatedBPTT
from estimators.base import check_window
from estimators.window_rules import WindowRule
from gradlab.foundation.arguments import whole
from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.training.algorithm import Algorithm
from gradlab.training.schedule import Schedule
from studies.shared.curves.arms import Arm, Prepared, Trainings, check
from studies.train.algorithms import ALGORITHMS, named
from studies.train.families import FAMILIES

WHOLE = "whole episodes"
TAILS = {"constant": "none", "critic": "v"}
WEIGHTED = "weighted"
SHORTEST = 10  # of windows that grow, and the first of the lengths that are tried for jumps [steps]
TRIED = (10, 25, 50, None)  # lengths of "jump"
TESTED = 16  # episodes behind a choice of "jump", the fewest that its test takes; the same ones
# horizons [steps] of the paper, where they are longer than those its numbers are of
LONG = {"point_mass_1d": 200, "point_mass_navigate": 100, "push_t": 100}
RATE = 2.5e-3  # ten times the paper's: so few updates learn nothing at its own
GROUPS = 5  # of episodes that look at each other, without which a bias has no interval
UPDATES = 60  # of a training with --share 1; each is of whole episodes


class Variant(NamedTuple):
    """A window, or a rule that chooses it, what comes after it, and whether its start discounts it.

    A rule is "growth" with its limit, "growth 1.2", or "jump".
    """

    window: int | str | None  # None: whole episodes; a string: a rule
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
        found = NAME.fullmatch(name)
        if found is None:
            examples = [WHOLE, "10 constant", "10 critic weighted", "growth 1.2 critic"]
            raise UnknownName("variant", name, examples)
        window, tail, weighted = found.groups()
        return cls(int(window) if window.isdigit() else window, tail, weighted is not None)

    @property
    def length(self) -> int | None:
        """The steps of a window that is as long in every episode; None: whole, or by a rule."""
        return self.window if isinstance(self.window, int) else None

    @property
    def adaptive(self) -> bool:
        """Whether a rule chooses windows."""
        return isinstance(self.window, str)

    @property
    def estimator(self) -> FOG | TruncatedBPTT:
        if self.window is None:
            return FOG()
        window = _rule(self.window) if isinstance(self.window, str) else self.window
        return TruncatedBPTT(window, TAILS[self.tail], self.weighted)  # pyright: ignore


NAME = re.compile(rf"(\d+|growth \d+(?:\.\d+)?|jump) ({'|'.join(TAILS)})(?: ({WEIGHTED}))?")


def _rule(name: str) -> WindowRule:
    """What chooses windows."""
    if name == "jump":
        return JumpWindow(TRIED, source=Same(TESTED))
    return JacobianGrowth(float(name.split()[1]), shortest=SHORTEST)


@dataclass(frozen=True)
class Config(Trainings):
    tasks: tuple[str, ...] = ("point_mass_navigate", "point_mass_1d")
    """Of the APG suite, with the paper's longer horizons: 100 and 200 steps, push_t 100."""
    variants: tuple[str, ...] = (
        "10 constant", "25 constant", "50 constant", "10 critic", "25 critic", "50 critic",
        "10 constant weighted", "10 critic weighted", WHOLE,
        "growth 1.2 constant", "growth 1.2 critic",
    )  # fmt: skip
    """A window [steps], "constant" or "critic" for what comes after it, "weighted" for γ^start; or
    "whole episodes". Instead of a number a rule: "growth 1.2" ends windows of at least 10 steps
    where Jacobians have grown by that, "jump" takes the longest of 10, 25, 50 and all steps in
    which no jump is found, and needs 16 episodes at once: not on the line, which has 4."""
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
        "variants": ("10 constant", "10 critic", WHOLE, "growth 1.2 constant"),
        "seeds": (0, 1),
        "share": 0.05,
        "points": 2,
        "parts": 1,
        "evaluations": 8,
        "episodes": 32,
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
    if variant.length is not None:
        check_window(variant.length, problem, f"{arm.task} {arm.variant!r}")
    rates = (Schedule(RATE, 0.0), Schedule(RATE, 0.0))
    family = replace(FAMILIES[arm.task], horizon=problem.horizon, rates=rates)
    algorithm: Algorithm = ALGORITHMS[name].build(family)
    return Prepared(problem, replace(algorithm, estimator=variant.estimator, updates=UPDATES))


def arms(config: Config) -> list[Arm]:
    """Every variant on every task.

    Raises what `check` does, and `BadValue` for episodes that are no measurement of a gradient.
    """
    asked = [Arm(task, "apg", name) for task in config.tasks for name in config.variants]
    groups = {Variant.of(name).estimator.group for name in config.variants}
    whole_groups, least = math.lcm(*groups), GROUPS * max(groups, default=1)
    if whole("episodes", config.episodes) < least or config.episodes % whole_groups:
        many = "" if whole_groups == 1 else f", a multiple of {whole_groups},"
        raise BadValue(
            f"episodes should be at least {least}{many} to measure a gradient, got "
            f"{config.episodes}; try --episodes 1024"
        )
    check(config, asked, setup)
    return asked
