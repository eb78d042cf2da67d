"""What can be asked of `mixture_ratio`: its options and presets."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.study.definition import INFINITE
from studies.mixture_ratio.training import HORIZON, METHODS, STAGES
from studies.rollout_variance.policies import Setting, problem_of
from studies.shared.borrowed import STUDIES


@dataclass(frozen=True)
class Config:
    methods: tuple[str, ...] = METHODS[:1]
    """Trainings: agpo (SG + QG), ivw (SG + PG with γ = ∞); that of agpo comes with the repository,
    the other takes some ten minutes."""
    stages: tuple[int, ...] = STAGES
    """Updates after which α is measured; of those that are kept."""
    settings: tuple[str, ...] = ("dflex/compliant",)
    """Rollouts of 128 steps by the trained policies and critics of `rollout_variance`, written
    preset/contact."""
    windows: tuple[int, ...] = (1, 32)
    """Steps h of SG beside PG; the last one is that of AoBG's sweep."""
    gammas: tuple[float, ...] = field(default=(0.0, 0.01, 1.0, 100.0), metadata=INFINITE)
    """AoBG's bounds on the bias, in units of the gradient; γ = ∞ is always there."""
    failure_probability: float = 0.05
    """δ of AoBG's confidence bound; 0.95 was published [1]."""
    bound: float = 10.0
    """L of AoBG's confidence bound, as published [gradient]."""
    groups: int = 12
    """Independent groups of episodes, each with an α of its own."""
    size: int = 24
    """Episodes of a group (64 in the paper)."""
    rollout_groups: int = 6
    """Groups of rollouts of 128 steps."""
    rollout_size: int = 16
    """Episodes of such a group."""
    seed: int = 0
    """Seed of the episodes; not of trainings and critics."""


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "methods": ("agpo",),
        "stages": (0,),
        "settings": (),
        "windows": (32,),
        "gammas": (0.0,),
        "groups": 3,
        "size": 4,
        "jobs": 1,
    },
    "default": {},
    "paper": {
        "methods": METHODS,
        "settings": (
            "dflex/compliant",
            "dflex/smoothed",
            "dflex/convex",
            "brax/brax",
            "brax/convex",
        ),
        "windows": (1, 8, 32),
        "groups": 32,
        "size": 64,
        "rollout_groups": 32,
        "rollout_size": 64,
    },
}

MINUTES = {"smoke": 1}  # of the presets that were timed, on two cores


def rollouts() -> list[str]:
    """Settings of `rollout_variance` whose policies and critics come with the repository."""
    folder = STUDIES / "rollout_variance" / "artefacts" / "critics"
    return sorted(path.stem.replace("-", "/", 1) for path in folder.glob("*.safetensors"))


def check(config: Config) -> None:
    """Raises `BadValue` or `UnknownName` for what the study cannot do."""
    for name, values in dataclasses.asdict(config).items():
        empty = not values if name != "settings" else False
        if isinstance(values, tuple) and (empty or len(set(values)) < len(values)):
            raise BadValue(f"expected one or more different {name}, got {values}; try the default")
    for name in config.methods:
        if name not in METHODS:
            raise UnknownName("method", name, METHODS)
    for stage in config.stages:
        if stage not in STAGES:
            raise BadValue(f"stages must be among {STAGES}, got {stage}; try {STAGES[-1]}")
    for text in config.settings:
        problem_of(Setting.of(text))
        if text not in (known := rollouts()):
            raise UnknownName("setting with a trained critic", text, known)
    for window in config.windows:
        if not 1 <= window <= HORIZON:
            raise BadValue(
                f"windows must be from 1 to {HORIZON} steps, got {window}; try {HORIZON}"
            )
    for gamma in config.gammas:
        if not gamma >= 0:
            raise BadValue(f"gammas must be at least 0, got {gamma}; try 1.0")
    for name in ("groups", "rollout_groups"):
        if (count := getattr(config, name)) < 3:
            raise BadValue(f"{name} must be at least 3 for an interval, got {count}; try 6")
    for name in ("size", "rollout_size"):
        if getattr(config, name) < 4:
            raise BadValue(
                f"{name} must be at least 4 episodes, got {getattr(config, name)}; try 32"
            )
    if not 0 < config.failure_probability < 1:
        raise BadValue(
            f"failure_probability must be in (0, 1), got {config.failure_probability}; try 0.05"
        )
    if not config.bound >= 0:
        raise BadValue(f"bound must be at least 0, got {config.bound}; try 10")
