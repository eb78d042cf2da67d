"""What can be asked of `learning_curves`: its options and presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from studies.shared.curves.arms import Arm, Trainings, check, plain
from studies.train.algorithms import ALGORITHMS, FLIGHTS

RUNNERS = ("ant", "hopper", "half_cheetah", "humanoid")
AGPO = tuple(name for name in ALGORITHMS if name.startswith("agpo"))  # and its variants


@dataclass(frozen=True)
class Config(Trainings):
    tasks: tuple[str, ...] = FLIGHTS
    """Flights (hovering, tracking, landing, racing) and runners (ant, hopper, half_cheetah,
    humanoid, ant_brax), as studies.train has them."""
    algorithms: tuple[str, ...] = ("bptt", "shac", "abpt", "split")
    """Those of studies.train; ppo, sac, td3 of stable-baselines3 (pip install
    'gradlab[baselines]'); my_module:my_algorithm, a function of the problem that returns a
    gradlab.training.algorithm.Algorithm."""
    share: float = 0.2
    """Of the steps that the sizes of studies.train ask for [1]."""
    points: int = 4
    """Evaluations of a training, after equal shares of its steps; one more before it."""


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "tasks": ("racing",),
        "algorithms": ("bptt", "shac", "split"),
        "seeds": (0, 1),
        "share": 0.02,
        "points": 2,
        "parts": 2,
        "evaluations": 8,
        "jobs": 1,
    },
    "default": {"evaluations": 32},
    "verdict": {
        "algorithms": ("bptt", "shac", "abpt", "abpt_full", "split", "ppo"),
        "seeds": (0, 1, 2, 3, 4),
        "share": 1.0,
        "points": 10,
        "parts": 5,
    },
    "paper": {
        "algorithms": ("bptt", "shac", "abpt", "abpt_full", "split", "ppo"),
        "seeds": (0, 1, 2, 3, 4),
        "share": 10.0,
        "points": 20,
        "parts": 20,
        "evaluations": 128,
    },
    "brax": {
        "tasks": ("ant_brax",),
        "algorithms": ("shac", "agpo", "ppo"),
        "share": 0.05,
        "compile": True,
        "evaluations": 32,
    },
    "runners": {
        "tasks": RUNNERS,
        "algorithms": ("bptt", "shac", *AGPO, "ppo", "sac", "td3"),
        "seeds": (0, 1, 2, 3, 4),
        "share": 1.0,
        "compile": True,
        "points": 20,
        "parts": 20,
    },
}
MINUTES = {"smoke": 1}  # of the presets that were timed, on two cores


def arms(config: Config) -> list[Arm]:
    """Every algorithm on every task. Raises what `check` does."""
    asked = [Arm(task, name) for task in config.tasks for name in config.algorithms]
    check(config, asked, plain)
    return asked
