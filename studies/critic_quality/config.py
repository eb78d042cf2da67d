"""What can be asked of `critic_quality`: its options and presets."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import estimators
from gradlab.foundation.errors import BadValue
from studies.critic_quality.tasks import is_own, problem_of
from studies.shared import stages
from studies.shared.stages import LEARNING_RATE, WIDTH
from studies.shared.tasks import Sampling, check_stage

GROUP = 64  # episodes over which AGPO finds its weights, as published
PAIRED = ("nstep", "abpt")  # always measured, on the same episodes
LEAST = 5  # groups that an interval needs


@dataclass(frozen=True)
class Config:
    tasks: tuple[str, ...] = ("lq", "gate", "racing")
    """lq (smooth), gate (a bonus behind process noise; both have exact truths and an exact critic),
    racing, landing, hovering (flights with a hard event), or any problem of gradlab.make, such as
    my_file.py:problem."""
    fit_episodes: int = 2000
    """Episodes that the default critic is fitted to."""
    fit_steps: int = 1000
    """Adam steps of the default fit."""
    episodes: tuple[int, ...] = (30, 100, 500, 8000)
    """Other numbers of episodes."""
    steps: tuple[int, ...] = (0, 10, 30, 100, 300, 3000)
    """Other numbers of steps; 0 leaves the initialisation."""
    lambdas: tuple[float, ...] = (0.0, 0.5, 0.95)
    """λ of critics fitted by TD(λ); the default is λ = 1 by regression on returns."""
    units: tuple[int, ...] = (2, 8, 128)
    """Units of each of the two hidden layers; the default has 64."""
    staleness: tuple[float, ...] = (0.25, 0.5, 1.0)
    """How far the policy behind a critic's data is back towards an older one; 0 by default [1]."""
    exploration: tuple[float, ...] = (0.3,)
    """Noise added to one action per episode of a critic's data, in units of the latent action; 0 by
    default."""
    fits: int = 1
    """Critics of every setting, each with a seed of its own."""
    windows: tuple[float, ...] = (0.25, 1.0)
    """Windows of N-step and ABPT, as fractions of the horizon [1]; others have the shortest."""
    estimators: tuple[str, ...] = ("qg", "agpo")
    """Names of estimators.make to be measured beside N-step and ABPT, such as my_file.py:Mine."""
    samples: int = 4096
    """Episodes per estimator on lq and gate; a multiple of 64, 320 or more."""
    flight_samples: int = 768
    """The same on flights and tasks of your own; a multiple of 64, 320 or more."""
    pairs: int = 2048
    """Pairs of actions by which ∇_a Q̂ is judged on lq and gate."""
    flight_pairs: int = 32_768
    """Pairs of episodes by which it is judged on flights and tasks of your own, where the truth is
    sampled."""
    stage: int = 60
    """Policy of a task of your own by its hard success rate [%]: trained until its first event with
    a bonus happens that often; 0 is a policy without training, for any task."""
    truth: Literal["split", "pg"] = "split"
    """What samples the truths of a task of your own; pg holds where the simulator itself jumps."""
    truth_stderr: float = 0.05
    """Relative standard error to which its ∇J is sampled [1]."""
    truth_samples: int = 65_536
    """Episodes after which that sampling stops in any case; a multiple of 1024."""
    train_width: float = WIDTH
    """Relaxation width that its policy is trained on, as a fraction of each margin's scale [1]."""
    learning_rate: float = LEARNING_RATE
    """Of that training's first update [1]."""
    seed: int = 0
    """Seed of the samples. Critics, their judgement and truths have seeds of their own."""

    @property
    def sampling(self) -> Sampling:
        """How truths of a user's tasks are sampled."""
        return Sampling(self.truth, self.truth_stderr, self.truth_samples)


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "fit_episodes": 200,
        "fit_steps": 50,
        "episodes": (30,),
        "steps": (0,),
        "lambdas": (),
        "units": (),
        "staleness": (1.0,),
        "exploration": (),
        "tasks": ("lq", "racing"),
        "windows": (0.5,),
        "samples": 320,
        "flight_samples": 320,
        "pairs": 64,
        "flight_pairs": 64,
        "jobs": 1,
    },
    "default": {},
    "paper": {
        "tasks": ("lq", "gate", "racing", "landing"),
        "episodes": (30, 100, 500, 8000, 32_000),
        "steps": (0, 10, 30, 100, 300, 3000, 10_000),
        "lambdas": (0.0, 0.25, 0.5, 0.75, 0.9, 0.95),
        "units": (2, 4, 8, 16, 32, 128, 256),
        "staleness": (0.1, 0.25, 0.5, 0.75, 1.0),
        "exploration": (0.1, 0.3, 1.0),
        "fits": 5,
        "windows": (0.125, 0.25, 0.5, 1.0),
        "samples": 65_536,
        "flight_samples": 16_384,
        "pairs": 16_384,
        "flight_pairs": 1_048_576,
    },
}

MINUTES = {"smoke": 1, "default": 4}  # of the presets that were timed, on two cores
EMPTY = ("episodes", "steps", "lambdas", "units", "staleness", "exploration", "estimators")


def check(config: Config) -> None:
    """Raises `BadValue` or `UnknownName` for what the study cannot do."""
    for name, values in dataclasses.asdict(config).items():
        if isinstance(values, tuple) and (
            (not values and name not in EMPTY) or len(set(values)) < len(values)
        ):
            raise BadValue(f"expected one or more different {name}, got {values}; try the default")
    for task in config.tasks:
        problem_of(task)
        if is_own(task):
            check_stage(task, config.stage)
    config.sampling.check()
    stages.check_training(config.train_width, config.learning_rate)
    for name in config.estimators:
        if name in PAIRED:
            raise BadValue(f"{name} is always measured; leave it out of estimators")
        group = estimators.make(name).group
        if name != "agpo" and GROUP % group:
            raise BadValue(
                f"{name} looks at groups of {group} episodes, which must divide {GROUP}; "
                "try one that looks at every episode by itself"
            )
    if config.fit_episodes in config.episodes or config.fit_steps in config.steps:
        raise BadValue(
            f"the default critic has {config.fit_episodes} episodes and {config.fit_steps} steps; "
            "leave them out of episodes and steps"
        )
    for share in config.staleness:
        if not 0 < share <= 1:
            raise BadValue(f"staleness must be in (0, 1], got {share:g}; try 0.5")
    for share in config.windows:
        if not 0 < share <= 1:
            raise BadValue(
                f"windows must be fractions of the horizon in (0, 1], got {share:g}; try 0.25"
            )
    for name in ("samples", "flight_samples"):
        count = getattr(config, name)
        if count < LEAST * GROUP or count % GROUP:
            near = max(LEAST, round(count / GROUP)) * GROUP
            raise BadValue(
                f"{name} must be a multiple of {GROUP}, {LEAST * GROUP} or more, got {count}; "
                f"try {near}"
            )
    for name, least in {"pairs": 64, "flight_pairs": 64, "fits": 1}.items():
        if getattr(config, name) < least:
            raise BadValue(f"{name} must be at least {least}, got {getattr(config, name)}")
