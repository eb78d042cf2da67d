"""What can be asked of `leaderboard`: its options and presets."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from gradlab.foundation.errors import BadValue
from studies.leaderboard.cases import KNOWN, problem_of
from studies.leaderboard.roster import ALL, roster
from studies.shared import stages
from studies.shared.stages import LEARNING_RATE, WIDTH
from studies.shared.tasks import Sampling, check_stage

LEAST_REPEATS = 8  # half of them choose a length for the other half


@dataclass(frozen=True)
class Config:
    tasks: tuple[str, ...] = ("landing", "racing", "hovering", "gate", "lq")
    """Flights (landing, racing with one gate, hovering with a success event), known-answer
    problems (gate, lq, heaviside, ...), which have exact truths and exact critics, or any problem
    of gradlab.make, such as my_file.py:problem."""
    stages: tuple[int, ...] = (60,)
    """Policies by their hard success rate [%]: 10, 60, 95 of the flights, 1 to 99 of a task of your
    own with an event to succeed in; 0 is a policy without training, for any task.

    Known-answer problems have one policy.
    """
    steps: tuple[int, ...] = (4_800,)
    """Budgets of one gradient in environment steps: 4,800 are 100 episodes of 48 steps."""
    seconds: tuple[float, ...] = ()
    """Budgets of one gradient in seconds of one core of this machine. Equal times of what --steps
    bought are in the summary anyway."""
    estimators: tuple[str, ...] = (ALL,)
    """All, or names of estimators.make. One of your own, my_file.py:Mine, is put among the others
    that are named, and among all if none is."""
    repeats: int = 20
    """Independent gradients of every estimator, each followed by steps; an even number."""
    episodes: int = 256
    """Fresh episodes by which the objective after the steps of one repeat is judged."""
    lengths: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Lengths of a step, in units of the best step along the true gradient [1]. Each estimator gets
    the one that suits it, chosen on the other half of the repeats."""
    truth: Literal["split", "pg"] = "split"
    """What samples a truth that is neither known nor comes with the repository; pg holds where the
    simulator itself jumps."""
    truth_stderr: float = 0.05
    """Relative standard error to which it is sampled [1]."""
    truth_samples: int = 65_536
    """Episodes after which that sampling stops in any case; a multiple of 1024."""
    level: float = 0.05
    """Chance of any wrong difference in all rankings together [1]."""
    train_width: float = WIDTH
    """Relaxation width that policies for a task of your own are trained on, as a fraction of each
    margin's scale [1]. The flights' policies come with the repository."""
    learning_rate: float = LEARNING_RATE
    """Of that training's first update [1]."""
    seed: int = 0
    """Seed of gradients and of the episodes that judge them; truths have seeds of their own."""

    @property
    def budgets(self) -> tuple[tuple[str, float], ...]:
        """Kind ("steps" or "seconds") and amount of each."""
        steps = (("steps", float(amount)) for amount in self.steps)
        return *steps, *(("seconds", amount) for amount in self.seconds)

    @property
    def sampling(self) -> Sampling:
        """How truths are sampled."""
        return Sampling(self.truth, self.truth_stderr, self.truth_samples)


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "tasks": ("racing", "lq"),
        "estimators": ("pg", "fog", "relaxed_fog", "qg", "split"),
        "repeats": 8,
        "episodes": 32,
        "lengths": (1.0, 2.0),
        "steps": (960,),
        "jobs": 1,
    },
    "default": {},
    "paper": {
        "tasks": (
            "landing", "racing", "hovering", "gate", "terminal_gate", "heaviside",
            "soft_heaviside", "ball_with_wall", "momentum_transfer", "quadratic", "lq",
        ),
        "stages": (10, 60, 95),
        "steps": (1_200, 4_800, 19_200, 76_800),
        "repeats": 100,
        "episodes": 2048,
        "lengths": (0.25, 0.5, 1.0, 2.0, 4.0),
        "truth_stderr": 0.02,
        "truth_samples": 2_048_000,
    },
}  # fmt: skip


MINUTES = {"smoke": 1, "default": 4}  # of the presets that were timed, on two cores


def check(config: Config) -> None:
    """Raises `BadValue` or `UnknownName` for what the study cannot do."""
    for name, values in dataclasses.asdict(config).items():
        if name == "seconds" and not values:
            continue
        if isinstance(values, tuple) and len(set(values)) < len(values):
            twice = next(v for v in values if values.count(v) > 1)
            raise BadValue(f"expected different {name}, got {twice} twice; leave one out")
        if isinstance(values, tuple) and not values and name not in ("steps", "seconds"):
            raise BadValue(f"expected one or more {name}, got none; try the default")
    if not config.budgets:
        raise BadValue("expected a budget, got neither --steps nor --seconds; try --steps 4800")
    for kind, amount in config.budgets:
        if not amount > 0:
            raise BadValue(f"{kind} must be positive, got {amount:g}; try --steps 4800")
    roster(config.estimators)
    _check_stages(config)
    for task in config.tasks:
        problem_of(task)
        if task not in KNOWN:
            check_stage(task, max(config.stages), "--stages")
    if config.repeats < LEAST_REPEATS or config.repeats % 2:
        raise BadValue(
            f"repeats must be an even number, {LEAST_REPEATS} or more, got {config.repeats}; try "
            f"{max(LEAST_REPEATS, config.repeats + config.repeats % 2)}"
        )
    if config.episodes < 2:
        raise BadValue(f"episodes must be 2 or more, got {config.episodes}; try 256")
    if min(config.lengths) <= 0:
        raise BadValue(f"lengths must be positive, got {min(config.lengths):g}; try 0.5 1 2")
    config.sampling.check()
    if not 0 < config.level < 1:
        raise BadValue(f"level must be in (0, 1), got {config.level}; try 0.05")


def _check_stages(config: Config) -> None:
    flights = any(task in stages.FLIGHTS for task in config.tasks)
    for stage in config.stages:
        if flights and stage not in (0, *stages.STAGES):
            raise BadValue(
                f"stages must be among {(0, *stages.STAGES)} per cent, got {stage}; try 60"
            )
        if not 0 <= stage < 100:
            raise BadValue(f"stages must be between 0 and 99 per cent, got {stage}; try 60")
    stages.check_training(config.train_width, config.learning_rate)
