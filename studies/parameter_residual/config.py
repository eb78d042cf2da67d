"""What can be asked of `parameter_residual`: its options and presets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from gradlab.foundation.arguments import whole
from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.study.definition import check_choices
from gradlab.tasks.flight import PARTS

ALL = "all"  # every part of the reward that has a gradient


@dataclass(frozen=True)
class Config:
    parts: tuple[str, ...] = (*PARTS, ALL)
    """Parts of the reward that are detached in turn: position, attitude, velocity, rates, or all of
    them."""
    seeds: int = 5
    """Trainings of each kind; intervals are over them."""
    checkpoints: int = 3
    """How often trainings are compared, at even distances, the last time at their end."""
    updates: int = 54
    """Of a training."""
    episodes: int = 16
    """At once, of a training."""
    length: int = 32
    """Steps of a segment, which is the n of the n-step return."""
    horizon: int = 128
    """Steps of an episode."""
    hidden: tuple[int, ...] = (32, 32)
    """Layers of the policy and of each of the two critics."""
    learning_rate: float = 5e-3
    """Of the policy, at first."""
    last_learning_rate: float = 5e-4
    """Of the policy at the end, linearly."""
    critic_learning_rate: float = 2e-3
    """Of the critics."""
    passes: int = 8
    """Of the critics through each segment."""
    minibatches: int = 2
    """Of each pass."""
    target_keep: float = 0.2
    """Share of the target critic that stays after an update [1]."""
    evaluations: int = 32
    """Episodes that returns and actions are compared on."""
    samples: int = 256
    """Segments of each gradient, from states of the full training."""
    pairs: int = 128
    """Pairs of episodes by which a critic's action gradient is judged."""
    seed: int = 0
    """Seed of everything."""


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "parts": ("rates", ALL),
        "seeds": 2,
        "checkpoints": 2,
        "updates": 6,
        "episodes": 8,
        "length": 8,
        "horizon": 16,
        "hidden": (16,),
        "passes": 2,
        "evaluations": 8,
        "samples": 64,
        "pairs": 32,
        "jobs": 1,
    },
    "default": {},
    "verdict": {
        "seeds": 10,
        "checkpoints": 5,
        "updates": 200,
        "episodes": 64,
        "horizon": 256,
        "hidden": (64, 64),
        "passes": 16,
        "minibatches": 4,
        "evaluations": 64,
        "samples": 1024,
        "pairs": 512,
    },
    # episodes, windows, steps of the simulator, rates and the critic's steps of ABPT's tables
    "paper": {
        "checkpoints": 8,
        "updates": 416,
        "episodes": 100,
        "length": 96,
        "horizon": 256,
        "hidden": (192, 96),
        "learning_rate": 0.01,
        "last_learning_rate": 0.01,
        "critic_learning_rate": 0.01,
        "passes": 10,
        "minibatches": 1,
        "target_keep": 0.95,
        "evaluations": 128,
        "samples": 1024,
        "pairs": 1024,
    },
}


MINUTES = {"smoke": 1, "default": 4}  # of the presets that were timed, on two cores

COUNTS = (
    "checkpoints", "updates", "episodes", "length", "horizon", "passes", "minibatches",
)  # fmt: skip
LEAST = {"seeds": 2, "evaluations": 2, "samples": 16, "pairs": 8}


def check(config: Config) -> None:
    """Raises `BadValue` or `UnknownName` for what the study cannot do."""
    _check_choices(config)
    for part in config.parts:
        if part not in (*PARTS, ALL):
            raise UnknownName("part of the reward", part, (*PARTS, ALL))
    for name in COUNTS:
        whole(name, getattr(config, name))
    for name, least in LEAST.items():
        if whole(name, getattr(config, name)) < least:
            raise BadValue(f"{name} must be at least {least}, got {getattr(config, name)}")
    if config.updates % config.checkpoints:
        near = max(1, round(config.updates / config.checkpoints)) * config.checkpoints
        raise BadValue(
            f"updates must be a multiple of checkpoints, got {config.updates} and "
            f"{config.checkpoints}; try --updates {near}"
        )
    if config.length > config.horizon:
        raise BadValue(
            f"length must be at most the horizon of {config.horizon} steps, got {config.length}; "
            f"try --horizon {config.length}"
        )
    for name in ("learning_rate", "last_learning_rate", "critic_learning_rate"):
        if not 0 < getattr(config, name) < 1:
            raise BadValue(f"{name} must be in (0, 1), got {getattr(config, name)}; try 0.005")
    if not 0 <= config.target_keep < 1:
        raise BadValue(f"target_keep must be in [0, 1), got {config.target_keep}; try 0.2")


def _check_choices(config: Config) -> None:
    """Raises `BadValue` for no part or one twice; layers may well be equal."""
    if not config.hidden or min(config.hidden) < 1:
        raise BadValue(f"hidden must be one or more numbers of units, got {config.hidden}")
    check_choices(replace(config, hidden=(1,)))
