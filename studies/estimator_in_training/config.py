"""What can be asked of `estimator_in_training`: its options and presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gradlab.foundation.arguments import whole
from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.study.definition import check_choices
from gradlab.training.quality import LEAST
from studies.train.algorithms import ALGORITHMS, FAMILIES

FEWEST = 4  # algorithms whose ranks are compared
FEWEST_TRAININGS = 2  # without which there is no interval over seeds


@dataclass(frozen=True)
class Config:
    algorithms: tuple[str, ...] = ("shac", "pg", "split", "abpt", "agpo", "best_linear")
    """Algorithms of studies.train; at least four."""
    tasks: tuple[str, ...] = ("hovering", "tracking")
    """Tasks of studies.train."""
    trainings: int = 6
    """Trainings of every algorithm on every task; of one number they begin with the same policy."""
    updates: int = 25
    """Updates of a training."""
    states: tuple[int, ...] = (5, 15)
    """Updates after which the gradient of the next one is measured."""
    ahead: int = 5
    """Updates over which the gain in return is taken."""
    episodes: int = 32
    """Episodes of an update; a multiple of 4."""
    length: int = 16
    """Steps of a segment."""
    width: int = 32
    """Units of each of the two hidden layers of policies and critics."""
    passes: int = 8
    """Passes of a critic through a segment."""
    gradients: int = 8
    """Draws of the next update's gradient, which say how noisy it is."""
    truth: int = 16
    """Updates' worth of episodes behind the true gradient of the segment; of the return a half."""
    steps: int = 96
    """Steps of the returns behind the other truth."""
    evaluations: int = 64
    """Episodes by which a policy is judged, the same for all."""
    seed: int = 0
    """The number of the first training."""

    @property
    def sizes(self) -> dict[str, Any]:
        """Fields of a task's `Family`."""
        hidden = (self.width, self.width)
        return {
            "episodes": self.episodes, "length": self.length, "hidden": hidden, "critic": hidden,
            "passes": self.passes, "minibatches": 2,
        }  # fmt: skip


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "algorithms": ("shac", "pg", "split", "abpt"),
        "tasks": ("hovering",),
        "trainings": 2,
        "updates": 4,
        "states": (1,),
        "ahead": 2,
        "episodes": 16,
        "length": 8,
        "gradients": 5,
        "truth": 10,
        "steps": 16,
        "evaluations": 8,
        "jobs": 1,
    },
    "default": {},
    "verdict": {
        "algorithms": ("shac", "pg", "split", "abpt", "agpo", "aobg", "ivwh", "best_linear"),
        "tasks": ("hovering", "tracking", "landing"),
        "trainings": 8,
        "updates": 80,
        "states": (5, 20, 60),
        "ahead": 10,
        "episodes": 64,
        "length": 32,
        "width": 64,
        "passes": 16,
        "gradients": 12,
        "truth": 32,
        "steps": 160,
        "evaluations": 256,
    },
    "paper": {
        "algorithms": (
            "shac", "pg", "split", "abpt", "agpo", "aobg", "ddcg", "ivwh", "best_linear",
        ),
        "tasks": ("hovering", "tracking", "landing", "racing"),
        "trainings": 20,
        "updates": 200,
        "states": (5, 20, 60, 120),
        "ahead": 20,
        "episodes": 64,
        "length": 32,
        "width": 64,
        "passes": 16,
        "gradients": 16,
        "truth": 256,
        "steps": 256,
        "evaluations": 512,
    },
}  # fmt: skip


MINUTES = {"smoke": 1, "default": 4}  # of the presets that were timed, on two cores


def check(config: Config) -> None:
    """Raises `BadValue` or `UnknownName` for what the study cannot do."""
    check_choices(config)
    for kind, asked, known in (
        ("algorithm", config.algorithms, ALGORITHMS),
        ("task", config.tasks, FAMILIES),
    ):
        for name in asked:
            if name not in known:
                raise UnknownName(kind, name, list(known))
    if len(config.algorithms) < FEWEST:
        raise BadValue(
            f"ranks need at least {FEWEST} algorithms, got {len(config.algorithms)}; name more"
        )
    whole("trainings", config.trainings, FEWEST_TRAININGS)
    whole("gradients", config.gradients, LEAST)
    whole("truth", config.truth, 2 * LEAST)
    for name in ("updates", "ahead", "length", "width", "passes", "steps", "evaluations"):
        whole(name, getattr(config, name))
    if config.episodes < 4 or config.episodes % 4:
        raise BadValue(f"episodes must be a multiple of 4, got {config.episodes}; try 32")
    if min(config.states) < 0 or max(config.states) + config.ahead > config.updates:
        raise BadValue(
            f"states must lie between 0 and updates - ahead = {config.updates - config.ahead}, got "
            f"{config.states}"
        )
