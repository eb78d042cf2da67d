"""What is trained: a task, an algorithm and a variant of the study's own, and for how long."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from gradlab.foundation.arguments import number, whole
from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.problems.bounds import action_bound
from gradlab.problems.problem import Problem
from gradlab.study.cells import file_name
from gradlab.study.definition import check_choices
from gradlab.training.algorithm import Algorithm
from studies.shared.curves.baselines import Baseline, baseline, check_installed
from studies.shared.guests import is_guest
from studies.train.algorithms import ALGORITHMS, BASELINES, family_of, named


class Arm(NamedTuple):
    """One way to train on one task."""

    task: str
    algorithm: str  # of studies.train, of stable-baselines3, or my_module:my_algorithm
    variant: str = ""  # of the study: "without entropy"

    @property
    def label(self) -> str:
        """Of what is done, whatever the task."""
        return f"{self.algorithm}, {self.variant}" if self.variant else self.algorithm

    @property
    def path(self) -> str:
        """Where its files are."""
        parts = (self.task, self.algorithm, *([self.variant] if self.variant else []))
        return "/".join(file_name(part) for part in parts)


class Prepared(NamedTuple):
    """An arm that is set up."""

    problem: Problem
    algorithm: Algorithm | Baseline


Setup = Callable[[Arm], Prepared]


def plain(arm: Arm) -> Prepared:
    """The problem and the algorithm that an arm names; it has no variant.

    Raises what `named` of studies.train raises, and `BadValue` for one of stable-baselines3 where
    actions have no bounds.
    """
    if arm.algorithm in BASELINES:
        problem, like = named("shac", arm.task)
        if not math.isfinite(action_bound(problem)):
            raise BadValue(
                f"{arm.algorithm} of stable-baselines3 needs actions within bounds, and {arm.task} has "
                "none; give its policy squash=True, or leave the algorithm out"
            )
        return Prepared(problem, baseline(arm.algorithm, family_of(arm.task, problem), like))
    if not is_guest(arm.algorithm) and arm.algorithm not in ALGORITHMS:
        raise UnknownName("algorithm", arm.algorithm, [*ALGORITHMS, *BASELINES])
    return Prepared(*named(arm.algorithm, arm.task))


@dataclass(frozen=True)
class Trainings:
    """How many trainings, how long, and how they are looked at: options that such studies share."""

    seeds: tuple[int, ...] = (0, 1, 2, 3)
    """Seeds of the trainings, as in studies.train. 3 can tell nothing at 5 %, 4 one comparison."""
    share: float = 1.0
    """Of the steps that the sizes of studies.train ask for [1]."""
    points: int = 10
    """Evaluations of a training, after equal shares of its steps; one more before it."""
    parts: int = 2
    """Pieces of a training: what a stop can lose. Those of stable-baselines3 are of one piece."""
    evaluations: int = 64
    """Episodes of an evaluation, the same for all."""
    compile: bool = False
    """Compile the step of the simulation: worth it for long trainings, above all of runners."""
    seed: int = 0
    """Of the episodes of evaluations."""


def check(config: Trainings, arms: Iterable[Arm], setup: Setup) -> None:
    """Raises `BadValue`, `UnknownName` or `Missing` for what cannot be trained."""
    check_choices(config)
    for name in ("points", "parts", "evaluations"):
        whole(name, getattr(config, name))
    for seed in config.seeds:
        whole("seeds", seed, 0)
    if not number("share", config.share) > 0:
        raise BadValue(f"share should be positive, got {config.share}; try 1")
    for arm in arms:
        problem, algorithm = setup(arm)
        if isinstance(algorithm, Baseline):
            check_installed(algorithm.name)
        else:
            algorithm.check(problem.replace(compile=config.compile))


def shortened(algorithm: Algorithm | Baseline, share: float) -> Algorithm | Baseline:
    """The same for this share of its steps, with its schedules as long."""
    if isinstance(algorithm, Baseline):
        return replace(algorithm, steps=max(1, round(algorithm.steps * share)))
    # a number that is not finite must not stop a study: it is counted in the table
    return replace(algorithm, updates=max(1, round(algorithm.updates * share)), on_nonfinite="skip")
