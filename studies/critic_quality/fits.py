"""The critics: a default fit, and one setting at a time moved away from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from gradlab.critics.fitted import Fit
from studies.critic_quality.config import Config

# what a fit says of itself is not used here, so that few held-out episodes do
BASE = Fit(batch=256, hidden=(64, 64), held_out=64)
EXACT = "exact"  # no fit: the critic of a known-answer problem


@dataclass(frozen=True)
class Setting:
    """A critic, by what makes it differ from the default."""

    factor: str  # what was moved; "default" or "exact" if nothing
    level: str  # to where, as text
    fit: Fit
    staleness: float = 0.0  # of the policy behind its data, from 0 (the one judged) to 1 [1]

    @property
    def name(self) -> str:
        return self.factor if self.factor in ("default", EXACT) else f"{self.factor}-{self.level}"

    def payload(self) -> dict[str, Any]:
        """As JSON values: what decides the critic."""
        return {"settings": self.fit.settings(), "staleness": self.staleness}


def settings(config: Config) -> Iterator[Setting]:
    """The default and every level of every factor, each with each seed of a fit.

    Raises `BadValue` for a level that no fit can have.
    """
    for seed in range(config.fits):
        for one in _once(config):
            level = one.level if seed == 0 else f"{one.level}.{seed}"
            factor = one.factor
            if seed and factor == "default":
                factor, level = "seed", str(seed)
            yield replace(one, factor=factor, level=level, fit=replace(one.fit, seed=seed))


def _once(config: Config) -> Iterator[Setting]:
    default = replace(BASE, episodes=config.fit_episodes, steps=config.fit_steps)
    yield Setting("default", "", default)
    for count in config.episodes:
        yield Setting("episodes", str(count), replace(default, episodes=count))
    for count in config.steps:
        yield Setting("steps", str(count), replace(default, steps=count))
    for lam in config.lambdas:
        yield Setting("lambda", f"{lam:g}", replace(default, method="td_lambda", lam=lam))
    for units in config.units:
        yield Setting("units", str(units), replace(default, hidden=(units, units)))
    for share in config.staleness:
        yield Setting("staleness", f"{share:g}", default, staleness=share)
    for extra in config.exploration:
        yield Setting("exploration", f"{extra:g}", replace(default, exploration=extra))


def fit_in(payload: dict[str, Any]) -> Fit:
    """The fit that a payload's settings say."""
    known = asdict(BASE)
    given = {name: payload["settings"][name] for name in known}
    return Fit(**{**given, "hidden": tuple(given["hidden"])})
