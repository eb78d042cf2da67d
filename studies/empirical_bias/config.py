"""What can be asked of `empirical_bias`: its options and presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradlab
from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.oracle.closed_forms import SOLUTIONS
from gradlab.study.definition import check_choices
from studies.empirical_bias.benchmark import LEAST_SIZE
from studies.empirical_bias.methods import METHODS, Setting, method
from studies.empirical_bias.toys import TOYS, toy_of


@dataclass(frozen=True)
class Config:
    toys: tuple[str, ...] = tuple(TOYS)
    """Toys whose expectations are looked at along their coordinate."""
    methods: tuple[str, ...] = ("fog", "pg", "aobg", "ddcg", "ivwh", "best")
    """fog, pg, aobg, ddcg, jump, ivw, ivwh, best, best_unbiased as the papers have them, or any
    estimator of estimators.make, such as my_file.py:Mine."""
    batches: int = 100
    """Batches of 50 episodes behind an expectation of ball, pivot and Heaviside."""
    long_batches: int = 32
    """Batches of 10 episodes behind one of pushing and friction."""
    tennis_batch: int = 50
    """Episodes of a batch of tennis; 1000 in the paper."""
    tennis_batches: int = 12
    """Such batches behind one expectation."""
    truth_episodes: int = 2048
    """Episodes behind the derivative of pushing, friction and tennis, by differences."""
    ascents: tuple[str, ...] = ("ball_with_wall", "momentum_transfer", "pushing")
    """Toys that are optimised from their published starts; friction and tennis take longer."""
    ascent_methods: tuple[str, ...] = ("fog", "pg", "aobg", "ddcg", "ivwh", "best")
    """Methods that they are optimised with."""
    trials: int = 3
    """Runs of each; 20 in the paper."""
    updates: int = 0
    """Updates of ball and pivot; 0 for the published 1000 and 500."""
    long_updates: int = 20
    """Updates of pushing, friction and tennis; 0 for the published 500, 100 and 200."""
    problems: tuple[str, ...] = (
        "soft_heaviside", "lq", "heaviside", "ball_with_wall", "momentum_transfer", "gate",
    )  # fmt: skip
    """Known-answer problems of the benchmark."""
    sizes: tuple[int, ...] = (64,)
    """Episodes of a batch of the benchmark; even."""
    replicates: int = 128
    """Batches of the benchmark."""
    seed: int = 0
    """Seed of the episodes. Truths have seeds of their own."""


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "toys": ("momentum_transfer", "pushing"),
        "methods": ("fog", "pg", "best"),
        "batches": 8,
        "long_batches": 4,
        "truth_episodes": 32,
        "ascents": ("momentum_transfer", "pushing"),
        "ascent_methods": ("fog", "pg"),
        "trials": 2,
        "updates": 20,
        "long_updates": 2,
        "problems": ("soft_heaviside", "ball_with_wall"),
        "sizes": (32,),
        "replicates": 8,
        "jobs": 1,
    },
    "default": {},
    "paper": {
        "methods": ("fog", "pg", "aobg", "ddcg", "jump", "ivw", "ivwh", "best", "best_unbiased"),
        "batches": 2000,
        "long_batches": 512,
        "tennis_batch": 1000,
        "tennis_batches": 64,
        "truth_episodes": 65_536,
        "ascents": ("ball_with_wall", "momentum_transfer", "pushing", "friction", "tennis"),
        "trials": 20,
        "long_updates": 0,
        "sizes": (32, 64, 256),
        "replicates": 2000,
    },
}


MINUTES = {"smoke": 1, "default": 5}  # of the presets that were timed, on two cores


def check(config: Config) -> None:
    """Raises `BadValue` or `UnknownName` for what the study cannot do."""
    check_choices(config)
    for name in (*config.toys, *config.ascents):
        toy_of(name)
    for name in config.ascents:
        if not toy_of(name).iterations:
            raise BadValue(f"nothing of {name} is optimised; try ball_with_wall")
    for name in (*config.methods, *config.ascent_methods):
        group = method(name, Setting(batch=64, gamma=1.0, bound=1.0)).group
        if name not in METHODS and any(size % group for size in config.sizes):
            raise BadValue(
                f"sizes must hold whole groups of {group} episodes, at which {name} looks, got "
                f"{config.sizes}; try {group * -(-LEAST_SIZE // group)}"
            )
    for name in config.problems:
        if type(gradlab.make(name).task) not in SOLUTIONS:
            raise UnknownName("problem with a known answer", name, Config.problems)
    least = {
        "batches": 8, "long_batches": 4, "tennis_batch": 16, "tennis_batches": 4, "trials": 2,
        "truth_episodes": 16, "updates": 0, "long_updates": 0, "replicates": 8,
    }  # fmt: skip
    for name, bound in least.items():
        value = getattr(config, name)
        if value < bound:
            raise BadValue(f"{name} must be at least {bound}, got {value}; try {max(bound, 8)}")
    for size in config.sizes:
        if size < LEAST_SIZE or size % 2:
            raise BadValue(
                f"sizes must be even and at least {LEAST_SIZE}, got {size}; try {LEAST_SIZE}"
            )
