"""What can be asked of `jumps`: its options and presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gradlab.foundation.errors import BadValue
from gradlab.statistics.jumps import LEAST
from gradlab.study.definition import check_choices
from studies.jumps.cases import CASES, case_of

GROUP = 16  # episodes of PG's leave-one-out baseline
BATCH = 128  # episodes; counts of episodes are multiples of it


@dataclass(frozen=True)
class Config:
    cases: tuple[str, ...] = tuple(CASES)
    """Known-answer problems by name, flights (landing, racing, hovering; hard, or such as
    landing-relaxed), runners such as hopper-dflex-convex."""
    pairs: tuple[int, ...] = (64, 256, 1024)
    """Numbers of pairs of episodes at which the return is tested; the smaller ones are the first
    pairs of the largest."""
    runner_pairs: tuple[int, ...] = (256,)
    """The same of runners, which take longer."""
    term_pairs: int = 256
    """Pairs of episodes by which reward terms are tested."""
    runner_term_pairs: int = 64
    """The same of runners."""
    samples: int = 2048
    """Episodes of FOG whose bias is measured; a multiple of 128."""
    pg_samples: int = 65_536
    """Episodes of PG behind the truth of relaxed flights; a multiple of 1024."""
    horizon: int = 8
    """Steps of a runner's episode."""
    level: float = 0.05
    """Chance to call any case if none jumps; the same for all terms together [1]."""
    seed: int = 0
    """Seed of the episodes. Policies and committed truths have seeds of their own."""


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "cases": (
            "quadratic", "soft_heaviside", "heaviside", "gate", "racing", "hopper-dflex-compliant",
        ),
        "pairs": (64, 256),
        "runner_pairs": (16,),
        "term_pairs": 64,
        "runner_term_pairs": 16,
        "samples": 512,
        "pg_samples": 2048,
        "horizon": 4,
        "jobs": 1,
    },
    "default": {},
    "paper": {
        "pairs": (64, 256, 1024, 4096, 16_384),
        "runner_pairs": (64, 256, 1024, 4096),
        "term_pairs": 4096,
        "runner_term_pairs": 4096,
        "samples": 65_536,
        "pg_samples": 1_048_576,
        "horizon": 32,
    },
}  # fmt: skip


MINUTES = {"smoke": 1, "default": 4}  # of the presets that were timed, on two cores


def check(config: Config) -> None:
    """Raises `BadValue` or `UnknownName` for what the study cannot do."""
    check_choices(config)
    for name in config.cases:
        case_of(name)
    for name in ("pairs", "runner_pairs", "term_pairs", "runner_term_pairs"):
        value = getattr(config, name)
        least = min(value) if isinstance(value, tuple) else value
        if least < LEAST:
            raise BadValue(f"{name} must be at least {LEAST}, got {least}; try 256")
    for name, unit in {
        "samples": BATCH,
        "pg_samples": 64 * GROUP,
    }.items():
        count = getattr(config, name)
        if count < unit or count % unit:
            raise BadValue(
                f"{name} must be a multiple of {unit}, got {count}; "
                f"try {max(1, round(count / unit)) * unit}"
            )
    if config.horizon < 1:
        raise BadValue(f"horizon must be at least 1 step, got {config.horizon}; try 8")
    if not 0 < config.level < 1:
        raise BadValue(f"level must be in (0, 1), got {config.level}; try 0.05")
