"""What is claimed of arms, and what trainings say of it; the rules are fixed before any run.

One arm beats another if a permutation test over seeds, exact for few, tells them apart at 5 %
(`gradlab.statistics.trainings.same_by_chance`). A claim that asks for several such comparisons
*holds* if each of them is told ("all": each at 5 %, since all must err together), or if one is
("any": at 5 % for all of them, after Holm). It *does not hold* if one of "all", or all of "any", is
told the other way round. Else it *cannot be told at this budget*.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradlab.statistics import Interval, holm
from gradlab.statistics.trainings import improvement, same_by_chance
from studies.shared.curves.arms import Arm
from studies.shared.curves.rows import Curve, last

LEVEL = 0.05
MANY = 3  # comparisons that a sentence names
HOLDS, FAILS, UNKNOWN = "holds", "does not hold", "cannot be told at this budget"

Read = Callable[[Curve], NDArray]
Pair = tuple[tuple[Arm, ...], tuple[Arm, ...]]  # arms of either side, one of each side per stratum


def against(ours: Arm, theirs: Arm) -> Pair:
    """A comparison of two arms."""
    return (ours,), (theirs,)


class Versus(NamedTuple):
    """One arm against another, or several against as many, stratum by stratum."""

    ours: str
    theirs: str
    chance: Interval  # P(ours is better), mean over tasks
    p: float  # that both have one law
    seeds: int  # the fewest of any arm

    @property
    def better(self) -> bool:
        return self.chance.estimate > 0.5

    def verdict(self, p: float | None = None) -> str:
        """By its own p-value, or by one that was adjusted."""
        if (self.p if p is None else p) > LEVEL:
            return UNKNOWN
        return HOLDS if self.better else FAILS


def versus(
    ours: Sequence[Curve], theirs: Sequence[Curve], read: Read = last, worst: bool = False
) -> Versus:
    """The first arms against the second; more of `read` is better.

    Strata (tasks, learning rates) are kept apart: P is the mean over them, and whole seeds are told
    apart, since a seed has the same first policy and noise in all of them. With `worst` the worst
    of the arms is taken for each seed instead, which all of them have.
    """
    x, y = [read(curve) for curve in ours], [read(curve) for curve in theirs]
    if worst:
        x, y = [np.min(x, axis=0)], [np.min(y, axis=0)]
    return Versus(
        _label(ours),
        _label(theirs),
        improvement(x, y, together=True),
        same_by_chance(x, y, together=True),
        min(len(scores) for scores in (*x, *y)),
    )


def _label(side: Sequence[Curve]) -> str:
    """What the arms of a side have in common."""
    labels = {curve.arm.label for curve in side}
    return labels.pop() if len(labels) == 1 else side[0].arm.algorithm


@dataclass(frozen=True)
class Claim:
    """Arms that should be better than others, by one number per training."""

    text: str
    source: str
    pairs: tuple[Pair, ...]
    read: Read = last
    need: Literal["all", "any"] = "all"
    of: str = "return after training"
    worst: bool = False  # of the arms of a side, by seed


class Judged(NamedTuple):
    """A claim, and what came out."""

    claim: Claim
    verdict: str
    found: list[Versus]

    @property
    def sentence(self) -> str:
        """The claim, the verdict, and the chances behind it."""
        said = "; ".join(f"{one.ours} over {one.theirs} {chance(one)}" for one in self.found)
        if len(self.found) > MANY:
            said = self._counted
        return f"{self.claim.text}: {self.verdict} ({said})."

    @property
    def brief(self) -> str:
        """The claim, the verdict, and its p-value or how many comparisons say so by themselves."""
        said = f"p = {self.found[0].p:.2g}"
        if len(self.found) > 1:
            said = self._counted
        return f"{self.claim.text}: {self.verdict} ({said})."

    @property
    def _counted(self) -> str:
        """How many comparisons say by themselves what the verdict says."""
        wanted, way = (FAILS, " the other way") if self.verdict == FAILS else (HOLDS, "")
        told = sum(one.verdict() == wanted for one in self.found)
        return f"told{way} in {told} of {len(self.found)} comparisons"


def chance(one: Versus) -> str:
    """The probability of improvement with its interval, and the exact p-value."""
    low, high = one.chance.low, one.chance.high
    return f"P = {one.chance.estimate:.2f} [{low:.2f}, {high:.2f}], p = {one.p:.2g}"


def judged(claims: Sequence[Claim], known: Mapping[Arm, Curve]) -> list[Judged]:
    """The claims all of whose arms were trained."""
    return [
        judge(claim, known)
        for claim in claims
        if claim.pairs
        and all(arm in known for ours, theirs in claim.pairs for arm in (*ours, *theirs))
    ]


def judge(claim: Claim, known: Mapping[Arm, Curve]) -> Judged:
    """One claim, by the rules at the head of this module."""
    found = [
        versus(
            [known[arm] for arm in ours], [known[arm] for arm in theirs], claim.read, claim.worst
        )
        for ours, theirs in claim.pairs
    ]
    adjusted = holm([one.p for one in found])
    if claim.need == "all":
        own = [one.verdict() for one in found]
        # one comparison among several that goes the other way must be told beside the others
        failed = FAILS in [one.verdict(p) for one, p in zip(found, adjusted, strict=True)]
        verdict = FAILS if failed else HOLDS if set(own) == {HOLDS} else UNKNOWN
    else:
        held = HOLDS in [one.verdict(p) for one, p in zip(found, adjusted, strict=True)]
        failed = {one.verdict() for one in found} == {FAILS}
        verdict = HOLDS if held else FAILS if failed else UNKNOWN
    return Judged(claim, verdict, found)
