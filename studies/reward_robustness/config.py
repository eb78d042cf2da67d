"""What can be asked of `reward_robustness`: its options and presets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from studies.shared.curves.arms import Arm, Prepared, Trainings, check, plain

TASK = "racing"


@dataclass(frozen=True)
class Config(Trainings):
    rewards: tuple[str, ...] = ("position", "velocity")
    """Of racing: closeness to the gate, or speed towards it (ABPT appendix D.2)."""
    algorithms: tuple[str, ...] = ("bptt", "shac", "abpt", "split")
    """Those of studies.train; ppo of stable-baselines3; my_module:my_algorithm."""
    share: float = 0.25
    """Of the steps that the sizes of studies.train ask for [1]."""
    points: int = 6
    """Evaluations of a training, after equal shares of its steps; one more before it."""


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "algorithms": ("bptt", "shac"),
        "seeds": (0, 1),
        "share": 0.02,
        "points": 2,
        "evaluations": 8,
        "jobs": 1,
    },
    "default": {},
    "verdict": {
        "algorithms": ("bptt", "shac", "abpt", "split", "ppo"),
        "seeds": (0, 1, 2, 3, 4),
        "share": 1.0,
        "points": 10,
        "parts": 5,
    },
    "paper": {
        "algorithms": ("bptt", "shac", "abpt", "split", "ppo"),
        "seeds": (0, 1, 2, 3, 4),
        "share": 15.0,
        "points": 20,
        "parts": 20,
    },
}
MINUTES = {"smoke": 1}


def setup(arm: Arm) -> Prepared:
    """Racing with the reward that the variant names. Raises what `plain` does."""
    problem, algorithm = plain(arm._replace(variant=""))
    task = replace(cast(Any, problem.task), gates=4, reward=arm.variant)
    return Prepared(problem.replace(task=task), algorithm)


def arms(config: Config) -> list[Arm]:
    """Every algorithm with every reward. Raises what `check` does."""
    asked = [Arm(TASK, name, reward) for reward in config.rewards for name in config.algorithms]
    check(config, asked, setup)
    return asked
