"""The estimators that are compared, as the papers have them, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import estimators
from estimators import FOG, PG, AlphaOrder, BestLinear, InverseVariance, Mixture, Same, Switch
from estimators.base import Estimator
from estimators.mixtures.rules import Rule
from studies.empirical_bias.toys import Toy

LABELS = {
    "fog": "FOG",
    "pg": "PG",
    "aobg": "AoBG",
    "aobg_strict": "AoBG (γ = 3)",
    "ddcg": "DDCG",
    "jump": "Switch(jump)",
    "ivw": "IVW",
    "ivwh": "IVW-H",
    "best": "BestLinear",
    "best_unbiased": "BestLinear(unbiased)",
}
LEAST_JUMP = 16  # episodes that the jump test needs


@dataclass(frozen=True)
class Setting:
    """What a method needs to know of where it is used."""

    batch: int  # N
    gamma: float  # of AoBG
    bound: float  # L of AoBG
    baseline: str = "loo"  # of PG: "q" is the value without noise

    @classmethod
    def of(cls, toy: Toy, batch: int) -> Setting:
        """As published; the value without noise is known of one decision alone."""
        return cls(batch, toy.gamma, toy.bound, "q" if toy.exact else "loo")

    @property
    def pg(self) -> PG:
        """Zeroth order: with the value without noise, or the mean of the others of the batch."""
        if self.baseline == "loo":
            return PG(baseline="loo", group_size=self.batch)
        return PG(baseline="q")

    def mixture(self, rule: Rule) -> Mixture:
        """FOG and PG on the same N episodes, with weights from these."""
        return Mixture((FOG(), self.pg), rule, source=Same(self.batch))


def _aobg(setting: Setting) -> Estimator:
    """N episodes of its own for each order, and the published probability of failure."""
    rule = AlphaOrder(setting.gamma, bound=setting.bound)
    return Mixture((FOG(), setting.pg), rule, source=Same(2 * setting.batch), batches="separate")


METHODS: dict[str, Callable[[Setting], Estimator]] = {
    "fog": lambda setting: FOG(),
    "pg": lambda setting: setting.pg,
    "aobg": _aobg,
    "ddcg": lambda setting: Switch("ddcg", source=Same(setting.batch), zeroth=setting.pg),
    "jump": lambda setting: Switch("jump", source=Same(setting.batch), zeroth=setting.pg),
    "ivw": lambda setting: setting.mixture(InverseVariance()),
    "ivwh": lambda setting: replace(setting.mixture(InverseVariance("IVW-H")), level="output"),
    "best": lambda setting: setting.mixture(BestLinear()),
    "best_unbiased": lambda setting: setting.mixture(BestLinear(unbiased=1)),
}


def method(name: str, setting: Setting) -> Estimator:
    """The method of a name, or any of `estimators.make`.

    Raises `UnknownName` for a name that neither knows.
    """
    return METHODS[name](setting) if name in METHODS else estimators.make(name)


def usable(name: str, batch: int) -> bool:
    """Whether a method can be had with batches of this size."""
    return name != "jump" or batch >= LEAST_JUMP


def label(name: str) -> str:
    return LABELS.get(name, name)
