"""What can be asked of `mixture_weights`: its options and presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from estimators.mixtures.weights import LEVELS
from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.study.definition import check_choices
from studies.mixture_weights.benches import LOO, REFERENCE_GROUP, parts_of, problem_of, runs
from studies.mixture_weights.weighing import FOLDS, RULES

LEAST_PAIRS = 8  # of groups, behind every interval
TASKS = ("soft_heaviside", "lq", "landing", "racing", "ant")


@dataclass(frozen=True)
class Config:
    tasks: tuple[str, ...] = TASKS
    """Known answers by name, landing and racing (committed policies and truths), ant, and tasks of
    your own, which have a new policy and the cross-fitted mixture for a truth."""
    parts: tuple[str, ...] = ("fog+pg", "split+pg")
    """What is mixed: names of estimators with + between them. Pairs with split run where there are
    events."""
    rules: tuple[str, ...] = tuple(RULES)
    """ivw: inverse variance; median: of gradients divided by the median of their lengths;
    best_linear: least variance by covariances. The first one runs at all levels, the others at
    the first level."""
    levels: tuple[str, ...] = LEVELS
    """What has a weight of its own. The first one is what the others are compared with."""
    sizes: tuple[int, ...] = (8, 32, 128)
    """N, episodes behind a gradient, whose weights come from themselves, from the other half, or
    from N others."""
    known_groups: int = 512
    """Groups of N episodes on known answers; an even number of at least 16."""
    flight_groups: int = 128
    """The most groups elsewhere; the same."""
    flight_episodes: int = 2048
    """Episodes on flights and on tasks of your own, for every N of which they hold 16 groups."""
    ant_episodes: int = 512
    """The same on the ant."""
    reference_episodes: int = 1024
    """Episodes of the cross-fitted mixture where there is no truth; a multiple of 64."""
    horizon: int = 16
    """Steps of the ant's episodes."""
    seed: int = 0
    """Seed of the episodes. Policies and truths have seeds of their own."""


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "tasks": ("lq", "racing"),
        "parts": ("fog+pg",),
        "levels": ("global", "step"),
        "rules": ("ivw", "median"),
        "sizes": (8,),
        "known_groups": 128,
        "flight_episodes": 256,
        "jobs": 1,
    },
    "default": {},
    "paper": {
        "sizes": (8, 16, 32, 64, 128, 512),
        "known_groups": 16_384,
        "flight_groups": 4096,
        "flight_episodes": 65_536,
        "ant_episodes": 8192,
        "reference_episodes": 65_536,
        "horizon": 32,
    },
}

MINUTES = {"smoke": 1, "default": 4}  # of the presets that were timed, on two cores


def check(config: Config) -> None:
    """Raises `BadValue` or `UnknownName` for what the study cannot do."""
    check_choices(config)
    for kind, names, known in (("rule", config.rules, RULES), ("level", config.levels, LEVELS)):
        for name in names:
            if name not in known:
                raise UnknownName(kind, name, known)
    for size in config.sizes:
        if size < 2 * LOO or size % (FOLDS * LOO):
            raise BadValue(f"sizes must be multiples of {FOLDS * LOO}, got {size}; try 32")
    for name in ("known_groups", "flight_groups"):
        count = getattr(config, name)
        if count < 2 * LEAST_PAIRS or count % 2:
            raise BadValue(f"{name} must be even and at least {2 * LEAST_PAIRS}, got {count}")
    for name in ("flight_episodes", "ant_episodes"):
        count, least = getattr(config, name), 2 * LEAST_PAIRS * min(config.sizes)
        if count < least:
            raise BadValue(f"{name} must be at least {least} for sizes {config.sizes}, got {count}")
    if config.reference_episodes < LEAST_PAIRS * REFERENCE_GROUP or (
        config.reference_episodes % REFERENCE_GROUP
    ):
        raise BadValue(
            f"reference_episodes must be a multiple of {REFERENCE_GROUP} and at least "
            f"{LEAST_PAIRS * REFERENCE_GROUP}, got {config.reference_episodes}; try 1024"
        )
    if config.horizon < 1:
        raise BadValue(f"horizon must be at least 1 step, got {config.horizon}; try 16")
    for task in config.tasks:
        problem = problem_of(task, config.horizon)
        for pair in config.parts:
            if runs(pair, task, problem):
                for part in parts_of(pair, task):
                    part.check(problem)
