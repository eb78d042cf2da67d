"""What can be taken from an algorithm, or given to it, and what is claimed of that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

from estimators import ABPT, NStep
from gradlab.foundation.errors import BadValue
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.training.algorithm import Algorithm
from gradlab.training.critic import CriticRecipe
from gradlab.training.exploration import Entropy, KLPenalty, Temperature
from gradlab.training.schedule import Schedule
from gradlab.training.segments import Replay
from studies.shared.curves.arms import Prepared
from studies.shared.curves.claims import Read
from studies.shared.curves.rows import average, last

ENDS, SPEED = "improves what training reaches", "speeds learning"


@dataclass(frozen=True)
class Variant:
    """An algorithm with one thing changed.

    `part` is the thing, as the subject of a sentence. `given` says that the algorithm has it in
    this variant alone; otherwise it has it in full alone.
    """

    change: Callable[[Prepared], Prepared]
    part: str
    given: bool = False
    read: Read = last

    @property
    def claim(self) -> str:
        """That the thing is of use."""
        many = self.part.endswith("s")  # limits improve, a schedule improves
        verb, rest = (ENDS if self.read is last else SPEED).split(" ", 1)
        return f"{self.part} {verb.removesuffix('s') if many else verb} {rest}"


def _algorithm(change: Callable[[Algorithm], Algorithm]) -> Callable[[Prepared], Prepared]:
    """Of the algorithm alone."""
    return lambda arm: arm._replace(algorithm=change(cast(Algorithm, arm.algorithm)))


def _with(**options: Any) -> Callable[[Prepared], Prepared]:
    """These fields of the algorithm."""
    return _algorithm(lambda algorithm: replace(algorithm, **options))


def _critic(**options: Any) -> Callable[[Prepared], Prepared]:
    """These fields of the critic's recipe. Raises `BadValue` where there is no critic."""

    def changed(algorithm: Algorithm) -> Algorithm:
        return replace(algorithm, critic=replace(_recipe(algorithm), **options))

    return _algorithm(changed)


def _recipe(algorithm: Algorithm) -> CriticRecipe:
    if algorithm.critic is None:
        raise BadValue(
            "the variant is of a critic, and this algorithm has none; leave it out of --variants"
        )
    return algorithm.critic


def _without_zero_step(algorithm: Algorithm) -> Algorithm:
    """The n-step return alone, with the same critic; its entropy is that of the last value."""
    abpt = algorithm.estimator
    if not isinstance(abpt, ABPT):
        raise BadValue(
            f"a 0-step return can be taken from ABPT alone, got {abpt.label}; leave it out of --variants"
        )
    return replace(algorithm, estimator=NStep(abpt.window, entropy=abpt.entropy))


def _without_limits(algorithm: Algorithm) -> Algorithm:
    """Neither the policy's gradient nor the critic's is limited."""
    optimiser, critic = algorithm.optimiser, algorithm.critic
    if critic is not None:
        critic = replace(critic, optimiser=replace(critic.optimiser, max_norm=None))
    return replace(algorithm, optimiser=replace(optimiser, max_norm=None), critic=critic)


def _rate(change: Callable[[Schedule], float | Schedule]) -> Callable[[Prepared], Prepared]:
    """Of the policy; a number is a schedule that does not move."""

    def changed(algorithm: Algorithm) -> Algorithm:
        rate = algorithm.optimiser.learning_rate
        schedule = rate if isinstance(rate, Schedule) else Schedule(rate, rate)
        optimiser = replace(algorithm.optimiser, learning_rate=change(schedule))
        return replace(algorithm, optimiser=optimiser)

    return _algorithm(changed)


def _standardised(arm: Prepared) -> Prepared:
    policy = replace(cast(GaussianPolicy, arm.problem.policy), normalise=True)
    return arm._replace(problem=arm.problem.replace(policy=policy))


FULL = "in full"
PARTS = {  # of ABPT, as in its paper
    "without 0-step return": Variant(_algorithm(_without_zero_step), "the 0-step return"),
    "without entropy": Variant(_with(entropy=None), "entropy"),
    "without replay": Variant(_with(replay=None), "restarts at visited states", read=average),
}
OPTIONS = {  # of any training with a critic
    "without gradient limits": Variant(_algorithm(_without_limits), "gradient limits"),
    "constant rate": Variant(_rate(lambda rate: rate.first), "a falling learning rate"),
    "exponential rate": Variant(
        _rate(lambda rate: replace(rate, shape="exponential")),
        "an exponential schedule instead of a linear one", given=True,
    ),
    "without target critic": Variant(_critic(keep=0.0), "a target critic"),
    "one critic": Variant(_critic(members=1), "a second critic"),
    "two critics": Variant(_critic(members=2), "a second critic", given=True),
    "one-step targets": Variant(_critic(lam=0.0), "TD(λ) instead of TD(0)"),
    "returns as targets": Variant(_critic(lam=1.0), "TD(λ) instead of TD(1)"),
    "with entropy": Variant(
        _with(entropy=Entropy(Temperature(0.01), where="estimator", targets=True)),
        "automatic entropy", given=True,
    ),
    "with KL penalty": Variant(_with(kl=KLPenalty(0.3)), "a KL penalty", given=True),
    "with replay": Variant(
        _with(replay=Replay(0.5)), "restarts at visited states", given=True, read=average
    ),
    "restarts inside": Variant(_with(restart="inside"), "restarts within segments", given=True),
    "standardised observations": Variant(_standardised, "standardised observations", given=True),
}  # fmt: skip
VARIANTS = {FULL: Variant(lambda arm: arm, "everything"), **PARTS, **OPTIONS}
