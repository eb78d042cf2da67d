"""What can be asked of `rollout_variance`: its options and presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gradlab.foundation.errors import BadValue, UnknownName
from studies.rollout_variance.gradients import SAMPLED
from studies.rollout_variance.policies import HORIZON


@dataclass(frozen=True)
class Config:
    settings: tuple[str, ...] = (
        "dflex/compliant", "dflex/smoothed", "dflex/convex", "brax/compliant", "brax/brax", "brax/convex",
    )  # fmt: skip
    """Ants, written preset/contact: presets brax, dflex, gymnasium; contacts compliant, smoothed,
    convex, brax (four unrolled iterations of a constraint solver, as Brax has it)."""
    states: int = 64
    """Start states, each with one episode of 128 steps."""
    every: int = 8
    """Steps between measurements."""
    samples: int = 16
    """Action noises behind each variance."""
    estimators: tuple[str, ...] = SAMPLED
    """Which variances are drawn: sg, qg, pg (one-step return), pg_q (Q of the action), all with the
    baseline Q(s, μ(s)). sg and qg are needed."""
    resamples: int = 500
    """Bootstrap resamples of the start states behind intervals of verdicts."""
    picks: int = 5
    """States of low and of high SG variance from which SG ascends."""
    low: float = 0.05
    """Quantile of SG's variance, over the median of its step, that is called low."""
    high: float = 0.98
    """Quantile that is called high."""
    ascent_seeds: int = 6
    """Random policies per state, the same at every state."""
    updates: int = 40
    """Adam updates of each path; 0 leaves the ascent out."""
    ascent_samples: int = 4
    """Action noises behind each gradient of the ascent."""
    judged: int = 6
    """Action noises behind each value of a path, always the same ones."""
    learning_rate: float = 2e-3
    """Of Adam in the ascent (AGPO and SHAC on Ant)."""
    compile: bool = False
    """Compile the sub-step: seconds to minutes per setting at first, then several times faster."""
    seed: int = 0
    """Seed of start states, noise and ascent; not of training."""


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "settings": ("dflex/compliant",),
        "states": 6,
        "every": 64,
        "samples": 4,
        "resamples": 50,
        "picks": 1,
        "ascent_seeds": 2,
        "updates": 2,
        "ascent_samples": 1,
        "judged": 1,
        "jobs": 1,
    },
    "default": {},
    "paper": {
        "settings": tuple(
            f"{preset}/{contact}"
            for preset in ("dflex", "brax", "gymnasium")
            for contact in ("compliant", "smoothed", "brax", "convex")
        ),
        "every": 1,
        "samples": 64,
        "resamples": 2000,
        "picks": 16,
        "ascent_seeds": 16,
        "updates": 200,
        "ascent_samples": 16,
        "judged": 32,
        "compile": True,
    },
}


MINUTES = {"smoke": 1, "default": 2.5}  # of the presets that were timed, on two free cores


def check(config: Config) -> None:
    """Raises `BadValue` or `UnknownName` for what the study cannot do."""
    if not config.settings or len(set(config.settings)) < len(config.settings):
        raise BadValue(f"expected different settings, got {config.settings}; try brax/compliant")
    for name in config.estimators:
        if name not in SAMPLED:
            raise UnknownName("estimator", name, SAMPLED)
    for name in ("sg", "qg"):
        if name not in config.estimators:
            raise BadValue(f"estimators must include {name}, got {config.estimators}")
    least = {
        "states": 6, "every": 1, "samples": 3, "resamples": 20, "picks": 1, "ascent_seeds": 2, "updates": 0,
        "ascent_samples": 1, "judged": 1,
    }  # fmt: skip
    for name, bound in least.items():
        if getattr(config, name) < bound:
            raise BadValue(f"{name} must be at least {bound}, got {getattr(config, name)}")
    if config.every > HORIZON:
        raise BadValue(f"every must be at most {HORIZON} steps, got {config.every}")
    if not 0 < config.low < config.high < 1:
        raise BadValue(f"expected 0 < low < high < 1, got {config.low} and {config.high}")
    if not config.learning_rate > 0:
        raise BadValue(f"learning_rate must be positive, got {config.learning_rate}; try 2e-3")
