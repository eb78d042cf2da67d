"""What can be asked of `bias_vs_relaxation`: its options and presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import estimators
from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.oracle.closed_forms.relaxation import WIDEST
from gradlab.study.definition import check_choices
from studies.bias_vs_relaxation.truths import FITS
from studies.shared import stages
from studies.shared.stages import LEARNING_RATE, WIDTH

BATCH = 100  # actor batch of ABPT, the B of MSE(B)


FORMS = ("published", "tiled")


SWEPT = ("relaxed_fog", "split")  # one cell per width


EXACT = "exact"  # the critic of a known-answer problem


@dataclass(frozen=True)
class Config:
    tasks: tuple[str, ...] = ("landing", "racing", "gate")
    """Flights (landing, racing with one gate, hovering with a success event) and known-answer
    problems (gate, heaviside, terminal_gate), which have exact truths and exact critics; or any
    problem of gradlab.make with an event to succeed in, such as my_file.py:problem."""
    stages: tuple[int, ...] = (60,)
    """Policies by their hard success rate [%]: 10, 60, 95; any with tasks of your own alone.

    Known-answer problems have one policy.
    """
    critic_fits: tuple[str, ...] = ("none", "full")
    """How well critics are fitted: none (untrained), short, full (on-policy), explored (returns
    after one action with more noise)."""
    estimators: tuple[str, ...] = ("pg", "fog", "relaxed_fog", "qg", "nstep", "abpt", "split")
    """Names of estimators.make, such as my_file.py:Mine; nstep and abpt are always compared on the
    same rollouts."""
    widths: tuple[float, ...] = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02)
    """Relaxation widths, as fractions of each margin's scale [1]."""
    windows: tuple[float, ...] = (0.25, 0.5, 1.0)
    """Windows of N-step and ABPT, as fractions of the horizon [1]."""
    forms: tuple[str, ...] = ("published", "tiled")
    """Published: the window and the 0-step return start at s_0. Tiled: windows cover the episode
    and the 0-step return is taken at every step, so that the estimate aims at the whole
    gradient."""
    samples: int = 4_000
    """Episodes per estimator; a multiple of 100."""
    train_width: float = WIDTH
    """Relaxation width that policies for a task of your own are trained on, as a fraction of each
    margin's scale [1]. The flights' policies come with the repository."""
    learning_rate: float = LEARNING_RATE
    """Of that training's first update [1]."""
    oracle_stderr: float = 0.05
    """Relative standard error to which the truth of a flight's relaxation, and what estimators aim
    at by their call weights, are sampled [1]. The hard gradient itself comes with the repository
    for landing, racing and hovering at 60 %, to 1.4, 0.9 and 3.4 %; others are sampled from a
    million episodes."""
    oracle_samples: int = 400_000
    """Episodes after which that sampling stops in any case."""
    seed: int = 0
    """Seed of the samples. Policies, critics and truths have seeds of their own."""


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "tasks": ("racing", "gate"),
        "critic_fits": ("full",),
        "widths": (0.2,),
        "windows": (0.5,),
        "samples": 1000,
        "forms": ("published",),
        "oracle_samples": 1024,
        "jobs": 1,
    },
    "default": {},
    "paper": {
        "tasks": ("landing", "racing", "hovering", "gate", "heaviside", "terminal_gate"),
        "stages": (10, 60, 95),
        "critic_fits": ("none", "short", "full", "explored"),
        "widths": (2.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01),
        "samples": 100_000,
        "oracle_stderr": 0.01,
        "oracle_samples": 4_000_000,
    },
}


MINUTES = {"smoke": 1, "default": 10}  # of the presets that were timed, on two cores


def check(config: Config) -> None:
    """Raises `BadValue` or `UnknownName` for what the study cannot do."""
    check_choices(config)
    for task in config.tasks:
        stages.problem_of(task)
    for name in config.estimators:
        estimators.make(name)
    for fit in config.critic_fits:
        if fit not in FITS:
            raise UnknownName("critic fit", fit, FITS)
    _check_training(config)
    for form in config.forms:
        if form not in FORMS:
            raise UnknownName("form", form, FORMS)
    for share in config.windows:
        if not 0 < share <= 1:
            raise BadValue(
                f"windows must be fractions of the horizon in (0, 1], got {share}; try 0.5"
            )
    for width in config.widths:
        if not 0 < width <= WIDEST:
            raise BadValue(
                f"widths must be positive and at most {WIDEST:g} margin scales, got {width:g}; "
                "try 0.1 (the hard limit is always there)"
            )
    if not config.oracle_stderr > 0 or config.oracle_samples < 1:
        raise BadValue(
            "oracle_stderr must be positive and oracle_samples at least 1, got "
            f"{config.oracle_stderr} and {config.oracle_samples}; try 0.1 and 400000"
        )
    if config.samples < 10 * BATCH or config.samples % BATCH:
        raise BadValue(
            f"samples must be a multiple of {BATCH}, {10 * BATCH} or more, got {config.samples}; "
            f"try {max(10, round(config.samples / BATCH)) * BATCH}"
        )


def _check_training(config: Config) -> None:
    shipped = any(task in (*stages.FLIGHTS, *stages.KNOWN) for task in config.tasks)
    for stage in config.stages:
        if shipped and stage not in stages.STAGES:
            raise BadValue(f"stages must be among {stages.STAGES} per cent, got {stage}; try 60")
        if not 0 < stage < 100:
            raise BadValue(f"stages must be between 1 and 99 per cent, got {stage}; try 60")
    stages.check_training(config.train_width, config.learning_rate)
