"""Which episodes a mixture's weights come from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from gradlab.foundation.arguments import got, whole
from gradlab.foundation.errors import BadValue
from gradlab.foundation.noise import Noise
from gradlab.foundation.reading import drawing
from gradlab.gradients.sampling import block_generator
from gradlab.problems.problem import Problem

LEAST = 4  # episodes that weights may come from
Ranges: TypeAlias = Sequence[tuple[int, int]]  # (begin, end) of runs of episodes within a group


@dataclass(frozen=True)
class Same:
    """From the very group of `size` episodes that they weight: biased, most at small groups."""

    size: int = 50  # half of ABPT's actor batch of 100 [episodes]

    def check(self) -> None:
        """Raise `BadValue` for a group too small for a variance."""
        whole("the size of Same", self.size, LEAST)

    def group(self, parts: int) -> int:
        """Episodes that look at each other; parts do so in groups of `parts`."""
        return math.lcm(self.size, parts)

    def episodes(self, parts: int) -> int:
        """Episodes behind each block of weights."""
        return self.group(parts)

    def origins(self, group: int) -> list[Ranges]:
        """For each block of a group, the episodes that its weights come from."""
        return [[(0, group)]]


@dataclass(frozen=True)
class Cross:
    """Of each fold of a group of `size` episodes, from the other folds (cross-fitting).

    Independent of what they weight, so that nothing is biased; fewer episodes cost some variance.
    """

    size: int = 50  # half of ABPT's actor batch of 100 [episodes]
    folds: int = 2

    def check(self) -> None:
        """Raise `BadValue` for a group too small for a variance, or fewer than two folds."""
        whole("the size of Cross", self.size, LEAST)
        whole("folds", self.folds, 2)

    def group(self, parts: int) -> int:
        """Episodes that look at each other; parts do so in groups of `parts`."""
        return math.lcm(self.size, parts * self.folds)

    def episodes(self, parts: int) -> int:
        """Episodes behind each block of weights."""
        group = self.group(parts)
        return group - group // self.folds

    def origins(self, group: int) -> list[Ranges]:
        """For each block of a group, the episodes that its weights come from."""
        size = group // self.folds
        around = [((0, i * size), ((i + 1) * size, group)) for i in range(self.folds)]
        return [[(begin, end) for begin, end in pair if begin < end] for pair in around]


@dataclass(frozen=True)
class Independent:
    """From a pilot: `size` other episodes, drawn with `seed` and run again in every call.

    Rows stay independent of each other, and the weights depend on the parameters alone. A pilot for
    many calls is `Mixture.fitted`.
    """

    seed: int = 0
    size: int = 50  # half of ABPT's actor batch of 100 [episodes]

    def check(self) -> None:
        """Raise `BadValue` for a pilot too small for a variance, or a seed that is none."""
        whole("the seed of Independent", self.seed, 0)
        whole("the size of Independent", self.size, LEAST)

    def group(self, parts: int) -> int:
        """Episodes that look at each other: those of the parts alone."""
        return parts

    def episodes(self, parts: int) -> int:
        """Episodes of the pilot, whole groups of the parts."""
        return math.lcm(self.size, parts)

    def draw(self, problem: Problem, parts: int) -> Noise:
        """The pilot's episodes, of streams that no study or statistic draws from."""
        drawing("a pilot (Independent)")
        return problem.draw(self.episodes(parts), block_generator(self.seed, -1))


Source: TypeAlias = Same | Cross | Independent


def check_source(source: object, hint: str = "try source=Cross(size=50)") -> None:
    """Raise `BadValue` unless it says which episodes to take."""
    if not isinstance(source, Same | Cross | Independent):
        raise BadValue(
            f"source should be Same(), Cross() or Independent(), got {got(source)}; {hint}"
        )
