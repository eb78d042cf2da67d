"""What can be asked of `horizon`: its options and presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import estimators
from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.study.definition import check_choices
from studies.horizon.tasks import EXACT, FITTED, critics_of, is_own, problem_of
from studies.shared import stages
from studies.shared.stages import LEARNING_RATE, WIDTH
from studies.shared.tasks import Sampling, check_stage

GROUP = 64  # episodes over which AGPO finds its weights, as published; and the batch of the MSE
CHUNK = 512  # episodes at once
OWN = ("nstep", "abpt", "agpo")
LEAST = 5  # groups that an interval needs


@dataclass(frozen=True)
class Config:
    tasks: tuple[str, ...] = ("lq", "lq-stiff", "racing")
    """lq and lq-stiff (linear-quadratic, 32 steps, exact truths), racing, landing, hovering
    (flights of 48 steps), or any problem of gradlab.make, such as my_file.py:problem."""
    critics: tuple[str, ...] = (EXACT, FITTED)
    """exact (of lq and lq-stiff alone), fitted."""
    windows: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 48)
    """Lengths of windows [steps]; a task takes those up to its horizon."""
    estimators: tuple[str, ...] = OWN
    """nstep, abpt, agpo; names of estimators.make that take a window, such as my_file.py:Mine."""
    samples: int = 4096
    """Episodes per estimator of the linear-quadratic problems; a multiple of 64, 320 or more."""
    flight_samples: int = 1536
    """The same of flights and tasks of your own."""
    pilot: int = 1024
    """Episodes from which the theorem's α are found, one for each step."""
    judged: int = 256
    """Episodes over which the largest errors of a critic's gradients are looked for."""
    stage: int = 60
    """Policy of a task of your own by its hard success rate [%]: trained until its first event with
    a bonus happens that often; 0 is a policy without training, for any task."""
    truth: Literal["split", "pg"] = "split"
    """What samples the truth of a task of your own; pg holds where the simulator itself jumps."""
    truth_stderr: float = 0.05
    """Relative standard error to which it is sampled [1]."""
    truth_samples: int = 65_536
    """Episodes after which that sampling stops in any case; a multiple of 1024."""
    train_width: float = WIDTH
    """Relaxation width that its policy is trained on, as a fraction of each margin's scale [1]."""
    learning_rate: float = LEARNING_RATE
    """Of that training's first update [1]."""
    seed: int = 0
    """Seed of the samples. Policies, critics and truths have seeds of their own."""

    @property
    def sampling(self) -> Sampling:
        """How truths of a user's tasks are sampled."""
        return Sampling(self.truth, self.truth_stderr, self.truth_samples)


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "tasks": ("lq-stiff", "racing"),
        "critics": (FITTED,),
        "windows": (1, 8),
        "estimators": ("nstep", "agpo"),
        "samples": 320,
        "flight_samples": 320,
        "pilot": 64,
        "judged": 16,
        "jobs": 1,
    },
    "default": {},
    "paper": {
        "windows": (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48),
        "samples": 131_072,
        "flight_samples": 32_768,
        "pilot": 16_384,
        "judged": 8192,
    },
}

MINUTES = {"smoke": 1, "default": 4}  # of the presets that were timed, on two cores


def check(config: Config) -> None:
    """Raises `BadValue` or `UnknownName` for what the study cannot do."""
    check_choices(config)
    horizons = [problem_of(task).horizon for task in config.tasks]
    for critic in config.critics:
        if critic not in (EXACT, FITTED):
            raise UnknownName("critic", critic, (EXACT, FITTED))
    for task in config.tasks:
        if is_own(task):
            check_stage(task, config.stage)
        if not set(critics_of(task)) & set(config.critics):
            raise BadValue(f"{task} has no exact critic, got critics {config.critics}; add fitted")
    config.sampling.check()
    stages.check_training(config.train_width, config.learning_rate)
    least, most = min(config.windows), max(config.windows)
    if not 1 <= least <= min(horizons) or most > max(horizons):
        raise BadValue(
            f"windows must begin between 1 and {min(horizons)} steps and end by {max(horizons)}, the "
            f"shortest and longest horizon, got {least} to {most}; try --windows 1 {min(horizons)}"
        )
    for name in config.estimators:
        if name not in OWN:
            estimators.make(name, window=config.windows[0])
    if config.pilot < GROUP:
        raise BadValue(f"pilot must be at least {GROUP} episodes, got {config.pilot}; try 1024")
    for name in ("samples", "flight_samples"):
        count = getattr(config, name)
        if count < LEAST * GROUP or count % GROUP:
            near = max(LEAST, round(count / GROUP)) * GROUP
            raise BadValue(
                f"{name} must be a multiple of {GROUP}, {LEAST * GROUP} or more, got {count}; "
                f"try {near}"
            )
    most = min(config.samples, config.flight_samples)
    if not 1 <= config.judged <= most:
        raise BadValue(f"judged must be 1 to {most}, the fewest samples, got {config.judged}")
