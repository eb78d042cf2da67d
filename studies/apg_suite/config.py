"""What can be asked of `apg_suite`: its options and presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from studies.shared.curves.arms import Arm, Trainings, check, plain
from studies.train.families import SUITE


@dataclass(frozen=True)
class Config(Trainings):
    tasks: tuple[str, ...] = SUITE
    """point_mass_1d, point_mass_navigate, push_t, franka_reach; any task of studies.train."""
    algorithms: tuple[str, ...] = ("apg", "ppo")
    """apg, apg_mc, apg_critic and others of studies.train; ppo, sac, td3 of stable-baselines3 (pip
    install 'gradlab[baselines]'); my_module:my_algorithm."""
    seeds: tuple[int, ...] = tuple(range(10))
    """Seeds of the trainings, as in studies.train."""
    share: float = 0.3
    """Of the steps that the sizes of studies.train ask for: 80,000 on the line, else 500,000."""
    points: int = 20
    """Evaluations of a training, after equal shares of its steps; one more before it."""
    parts: int = 1
    """Pieces of a training: what a stop can lose. Those of stable-baselines3 are of one piece."""
    evaluations: int = 32
    """Episodes of an evaluation, the same for all."""


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "tasks": ("push_t",),
        "seeds": (0, 1),
        "share": 0.04,
        "points": 3,
        "evaluations": 8,
        "jobs": 1,
    },
    "default": {},
    "verdict": {"share": 1.0, "points": 40, "parts": 2},
    "paper": {
        "algorithms": ("apg", "apg_mc", "apg_critic", "ppo"),
        "seeds": tuple(range(20)),
        "share": 2.0,
        "points": 40,
        "parts": 4,
        "evaluations": 128,
    },
}
MINUTES = {"smoke": 1}  # of the presets that were timed, on two cores


def arms(config: Config) -> list[Arm]:
    """Every algorithm on every task. Raises what `check` does."""
    asked = [Arm(task, name) for task in config.tasks for name in config.algorithms]
    check(config, asked, plain)
    return asked
