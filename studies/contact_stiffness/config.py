"""What can be asked of `contact_stiffness`: its options and presets."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from gradlab.foundation.errors import BadValue, UnknownName
from studies.contact_stiffness.problems import check_width, tasks

BATCH = 16  # episodes of PG's leave-one-out baseline, and the B of MSE(B)


SWEPT = ("fog", "pg")  # at every horizon; they are each other's truth
NAMES = ("fog", "pg", "qg", "nstep", "inverse_variance")


@dataclass(frozen=True)
class Config:
    tasks: tuple[str, ...] = ("hopper", "pegs")
    """hopper, ant: runners without termination, under a seeded random policy. pegs: the toy."""
    widths: tuple[float, ...] = (0.03, 0.006, 0.001)
    """Widths of the contact law, smooth to hard [m]."""
    horizons: tuple[int, ...] = (8, 16, 32, 64, 128)
    """Horizons T of FOG, PG and the Jacobians [steps]."""
    horizons_of_others: tuple[int, ...] = (32,)
    """Horizons of QG, NStep and InverseVariance, among `horizons` [steps]."""
    estimators: tuple[str, ...] = NAMES
    """fog and pg, which are always there, and any of qg, nstep, inverse_variance."""
    samples: int = 512
    """Episodes per estimator, PG's apart; a multiple of 128."""
    pg_samples: int = 2048
    """Episodes of PG, which is also FOG's truth; a multiple of 1024."""
    window: float = 0.25
    """Window of NStep (tiled), as a fraction of the horizon [1]."""
    critic_episodes: int = 4096
    """Episodes that each critic is fitted to."""
    critic_steps: int = 1000
    """Adam steps of each critic's fit."""
    jacobian_episodes: int = 32
    """Episodes whose step Jacobians are taken, along the longest horizon."""
    seed: int = 0
    """Seed of the episodes. The policies have one of their own."""


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "widths": (0.01,),
        "horizons": (4, 5, 6),
        "horizons_of_others": (4,),
        "samples": 128,
        "pg_samples": 1024,
        "critic_episodes": 64,
        "critic_steps": 10,
        "jacobian_episodes": 4,
        "tasks": ("pegs",),
        "jobs": 1,
    },
    "default": {},
    "paper": {
        "tasks": ("hopper", "ant", "pegs"),
        "widths": (0.1, 0.03, 0.01, 0.003, 0.001, 0.0003),
        "horizons_of_others": (8, 32, 128),
        "samples": 16_384,
        "pg_samples": 262_144,
        "critic_episodes": 20_000,
        "critic_steps": 4000,
        "jacobian_episodes": 256,
    },
}


MINUTES = {"smoke": 1, "default": 5}  # of the presets that were timed, on two free cores


def check(config: Config) -> None:
    """Raises `BadValue` or `UnknownName` for what the study cannot do."""
    for name, values in dataclasses.asdict(config).items():
        if isinstance(values, tuple) and len(set(values)) < len(values):
            raise BadValue(f"expected different values for {name}, got something twice: {values}")
    for name in ("tasks", "widths", "horizons"):
        if not getattr(config, name):
            raise BadValue(f"expected at least one of {name}, got nothing; try leaving it out")
    for name in config.estimators:
        if name not in NAMES:
            raise UnknownName("estimator", name, NAMES)
    for task in config.tasks:
        if task not in tasks():
            raise UnknownName("task", task, tasks())
        for width in config.widths:
            check_width(task, width)
    if min(config.horizons) < 4:
        raise BadValue(f"horizons must be at least 4 steps, got {min(config.horizons)}")
    if extra := set(config.horizons_of_others) - set(config.horizons):
        raise BadValue(
            f"horizons_of_others must be among horizons {config.horizons}, got {sorted(extra)}"
        )
    # intervals need blocks: 5 groups of PG's leave-one-out at the very least, 64 to be good
    for name, unit in {"samples": 8 * BATCH, "pg_samples": 64 * BATCH}.items():
        count = getattr(config, name)
        if count < unit or count % unit:
            raise BadValue(
                f"{name} must be a multiple of {unit}, got {count}; "
                f"try {max(1, round(count / unit)) * unit}"
            )
    if not 0 < config.window < 1:
        raise BadValue(f"window must be a fraction of the horizon in (0, 1), got {config.window}")
    if config.jacobian_episodes < 2:
        raise BadValue(f"jacobian_episodes must be at least 2, got {config.jacobian_episodes}")
