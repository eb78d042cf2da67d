"""What can be asked of `learning_rate_robustness`: its options and presets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from gradlab.foundation.arguments import number
from gradlab.foundation.errors import BadValue
from studies.shared.curves.arms import Arm, Prepared, Trainings, check, plain
from studies.shared.curves.baselines import Baseline

BOTH = " for both"


@dataclass(frozen=True)
class Config(Trainings):
    task: str = "hovering"
    """One of studies.train."""
    algorithms: tuple[str, ...] = ("bptt", "shac", "abpt")
    """Those of studies.train; ppo, sac, td3 of stable-baselines3; my_module:my_algorithm."""
    rates: tuple[float, ...] = (1e-2, 3e-3, 1e-3, 3e-4, 1e-5)
    """Learning rates of the policy, constant over a training (ABPT appendix D.3)."""
    both: bool = False
    """Give the critic the same rate. The paper does not say which networks its rates are of."""
    points: int = 6
    """Evaluations of a training, after equal shares of its steps; one more before it."""
    share: float = 0.3
    """Of the steps that the sizes of studies.train ask for [1]."""


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "algorithms": ("shac",),
        "rates": (1e-2, 1e-3),
        "seeds": (0, 1),
        "share": 0.02,
        "points": 2,
        "evaluations": 8,
        "jobs": 1,
    },
    "default": {},
    "verdict": {
        "algorithms": ("bptt", "shac", "abpt", "ppo"),
        "seeds": (0, 1, 2, 3, 4),
        "share": 1.0,
        "points": 10,
        "parts": 5,
    },
    "paper": {
        "algorithms": ("bptt", "shac", "abpt", "ppo"),
        "seeds": (0, 1, 2, 3, 4),
        "share": 10.0,
        "points": 20,
        "parts": 20,
    },
}
MINUTES = {"smoke": 1}


def setup(arm: Arm) -> Prepared:
    """The algorithm with the rate that the variant names. Raises what `plain` does."""
    problem, algorithm = plain(arm._replace(variant=""))
    rate = float(arm.variant.removeprefix("rate ").removesuffix(BOTH))
    if isinstance(algorithm, Baseline):
        return Prepared(problem, replace(algorithm, learning_rate=rate))
    changes: dict[str, Any] = {"optimiser": replace(algorithm.optimiser, learning_rate=rate)}
    critic = algorithm.critic
    if arm.variant.endswith(BOTH) and critic is not None:
        optimiser = replace(critic.optimiser, learning_rate=rate)
        changes["critic"] = replace(critic, optimiser=optimiser)
    return Prepared(problem, replace(algorithm, **changes))


def arms(config: Config) -> list[Arm]:
    """Every algorithm with every rate. Raises what `check` does."""
    for rate in config.rates:
        if not 0 < number("rates", rate) < 1:
            raise BadValue(f"rates should be between 0 and 1, got {rate:g}; try 1e-3")
    ending = BOTH if config.both else ""
    asked = [
        Arm(config.task, name, f"rate {rate:g}{ending}")
        for name in config.algorithms
        for rate in config.rates
    ]
    check(config, asked, setup)
    return asked
