"""What can be asked of `original_engines`: its options and presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.statistics.jumps import LEAST
from gradlab.study.definition import check_choices

GROUP = 16  # episodes of PG's leave-one-out baseline, and the B of MSE(B)
BRAX = ("generalized", "spring", "positional")  # its own engines; they need the extra `peers`
OURS = {"gradlab_brax": "brax", "gradlab_convex": "convex", "gradlab_compliant": "compliant"}


@dataclass(frozen=True)
class Config:
    simulators: tuple[str, ...] = (*BRAX, *OURS)
    """Brax's own engines: generalized, spring, positional (extra `peers`; XLA compiles each for
    minutes). gradlab's ant by contact law: gradlab_brax, gradlab_convex, gradlab_compliant."""
    horizons: tuple[int, ...] = (4, 8)
    """Horizons T [steps of 0.05 s]."""
    samples: int = 1024
    """Episodes of FOG; a multiple of 128."""
    pg_samples: int = 16_384
    """Episodes of PG, which is FOG's truth; a multiple of 1024."""
    pairs: int = 256
    """Pairs of episodes of the jump test."""
    level: float = 0.05
    """Chance to call any simulator and horizon if nothing jumps [1]."""
    seed: int = 0
    """Seed of the episodes. The policy has one of its own."""


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "simulators": ("gradlab_brax", "gradlab_compliant"),
        "horizons": (2,),
        "samples": 128,
        "pg_samples": 1024,
        "pairs": 16,
        "jobs": 1,
    },
    "default": {},
    "paper": {"horizons": (4, 8, 16, 32), "samples": 16_384, "pg_samples": 262_144, "pairs": 4096},
}

MINUTES = {"smoke": 1}  # of the presets that were timed


def check(config: Config) -> None:
    """Raises `BadValue` or `UnknownName` for what the study cannot do."""
    check_choices(config)
    for name in config.simulators:
        if name not in (*BRAX, *OURS):
            raise UnknownName("simulator", name, (*BRAX, *OURS))
    if min(config.horizons) < 1:
        raise BadValue(f"horizons must be at least 1 step, got {min(config.horizons)}; try 4")
    for name, unit in {"samples": 8 * GROUP, "pg_samples": 64 * GROUP}.items():
        count = getattr(config, name)
        if count < unit or count % unit:
            raise BadValue(
                f"{name} must be a multiple of {unit}, got {count}; "
                f"try {max(1, round(count / unit)) * unit}"
            )
    if config.pairs < LEAST:
        raise BadValue(f"pairs must be at least {LEAST}, got {config.pairs}; try 256")
    if not 0 < config.level < 1:
        raise BadValue(f"level must be in (0, 1), got {config.level}; try 0.05")
